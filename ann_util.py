"""Vectors -> index -> neighbours.

Two engines find candidates: `FlatIndex` (exact) and `HnswIndex` (hnswlib, approximate). `TextIndex` puts either under
the rules that hold for all of them: equal vectors are folded before an engine sees them (graphs of many equal vectors
break), cosines are computed exactly, and ties go by corpus order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from cli import notice
from files import UserError, write_failure

QUERY_BLOCK, CORPUS_BLOCK = 1024, 16384  # a block of scores is 64 MB


class Engine(Protocol):
    """Finds candidates among vectors that are all different."""

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Positions [Q, k] of the k best vectors for each query [Q, D], in any order; k is at most their number."""


class FlatIndex:
    """Exact search by blocked matrix products with a running top k.

    Args:
        vectors: float32 [N, D], unit length.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        blocks = [self._search_block(queries[i : i + QUERY_BLOCK], k) for i in range(0, len(queries), QUERY_BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros((0, k), dtype=np.int64)

    def _search_block(self, queries: np.ndarray, k: int) -> np.ndarray:
        best_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        best_ids = np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(self.vectors), CORPUS_BLOCK):
            scores = queries @ self.vectors[start : start + CORPUS_BLOCK].T
            bound = best_scores[:, -1:]
            if start == 0 and k < scores.shape[1]:
                # Without a k-th best so far every score would be a candidate: let a partition find that bound.
                bound = np.nextafter(np.partition(scores, -k, axis=1)[:, -k][:, None], np.float32(-np.inf))
            rows, columns = np.nonzero(scores > bound)  # after the first block few scores pass
            best_ids, best_scores = _merge(best_ids, best_scores, rows, columns + start, scores[rows, columns])
        return best_ids


def _merge(best_ids: np.ndarray, best_scores: np.ndarray, rows: np.ndarray, ids: np.ndarray,
           scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row's list [Q, k] and its new candidates, best first, ties by id."""
    count, k = best_ids.shape
    rows = np.concatenate([np.repeat(np.arange(count), k), rows])
    return _best_of_each_row(np.concatenate([best_ids.ravel(), ids]), np.concatenate([best_scores.ravel(), scores]),
                             rows, count, k)


def _best_of_each_row(ids: np.ndarray, scores: np.ndarray, rows: np.ndarray, count: int,
                      k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best (ids, scores) of each row [count, k] from a flat list of candidates; each row has at least k."""
    order = np.lexsort((ids, -scores, rows))
    places = np.searchsorted(rows[order], np.arange(count))[:, None] + np.arange(k)
    return ids[order][places], scores[order][places]


class HnswIndex:
    """Approximate search in a navigable small-world graph (hnswlib; Malkov and Yashunin 2016, arXiv:1603.09320).

    Args:
        m: links a node keeps (2 to 100; memory grows with it).
        ef: size of the candidate list while building and searching; searches raise it to k.
    """

    def __init__(self, dimension: int, m: int, ef: int) -> None:
        import hnswlib

        self.ef = ef
        self.m = m
        self.graph = hnswlib.Index(space="ip", dim=dimension)

    def build(self, vectors: np.ndarray) -> HnswIndex:
        """Index unit vectors, float32 [N, D]."""
        self.graph.init_index(max_elements=len(vectors), M=self.m, ef_construction=self.ef)
        self.graph.add_items(vectors, np.arange(len(vectors)))
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Write the graph, whole or not at all. hnswlib reports success on a full disk, so its size is checked."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            self.graph.save_index(str(temporary))
            written, wanted = temporary.stat().st_size, self.graph.index_file_size()
            if written != wanted:
                raise OSError(f"{written} of {wanted} bytes arrived; the disk may be full")
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            raise UserError(write_failure(path, OSError(str(error)))) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: str | os.PathLike, count: int) -> HnswIndex:
        """Read a graph of `count` vectors that `save` wrote; the caller has checked the file's SHA-256."""
        self.graph.load_index(str(path), max_elements=count)
        if self.graph.get_current_count() != count:
            raise UserError(f"{path}: holds {self.graph.get_current_count()} vectors where {count} belong; build it "
                            f"again")
        return self

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        count = self.graph.get_current_count()
        for ef in (max(self.ef, k), count):  # hnswlib raises where the walk ends with less than k: widen it once
            self.graph.set_ef(ef)
            try:
                return self.graph.knn_query(queries, k=k)[0].astype(np.int64)
            except RuntimeError:
                notice(f"hnsw: ef {ef} reaches less than {k} neighbours of some query")
        notice(f"hnsw: the graph falls apart with --hnsw_m {self.m}; these queries are searched exactly")
        return FlatIndex(self.graph.get_items(np.arange(count), "numpy")).search(queries, k)


class TextIndex:
    """Neighbours of queries among the texts of a corpus, by any engine.

    Args:
        vectors: float32 [N, D], the unit vectors of the corpus texts in their order.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        first: dict[bytes, int] = {}
        groups = (first.setdefault(vector.tobytes(), len(first)) for vector in vectors)
        group_of_text = np.fromiter(groups, np.int64, len(vectors))
        self._texts = np.argsort(group_of_text, kind="stable")  # texts of group 0, of group 1, ...
        self._sizes = np.bincount(group_of_text)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self.different = vectors[self._texts[self._starts]] if len(first) < len(vectors) else vectors

    def search(self, engine: Engine, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best texts of each query.

        Args:
            engine: an index of `self.different`.
            queries: float32 [Q, D], unit vectors.
            k: texts wanted; fewer come back where the corpus has fewer.

        Returns:
            ids: int64 [Q, k], positions in the corpus, best first; equal cosines stand in corpus order.
            cosines: float32 [Q, k], within [-1, 1].
        """
        k = min(k, len(self.vectors))
        found = [self._search_block(engine, queries[i : i + QUERY_BLOCK], k)
                 for i in range(0, len(queries), QUERY_BLOCK)]
        ids, cosines = zip(*found)
        return np.concatenate(ids), np.concatenate(cosines)

    def _search_block(self, engine: Engine, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        groups = engine.search(queries, min(k, len(self.different)))
        # einsum, not BLAS: the same pair of vectors gives the same bits wherever it stands, so engines agree on ties.
        cosines = np.stack([np.einsum("kd,d->k", self.different[row], query) for row, query in zip(groups, queries)])
        cosines = cosines.clip(-1, 1)
        # Every group becomes its texts; then all are sorted by row, cosine and corpus order, and cut to k.
        sizes = self._sizes[groups].ravel()
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ids = self._texts[np.repeat(self._starts[groups].ravel(), sizes) + offsets]
        values = np.repeat(cosines.ravel(), sizes)
        rows = np.repeat(np.repeat(np.arange(len(queries)), groups.shape[1]), sizes)
        return _best_of_each_row(ids, values, rows, len(queries), k)


def share_of_exact(index: TextIndex, engine: Engine, queries: np.ndarray, k: int) -> float:
    """Share of the exact top k that an engine finds, over all queries: what its approximation costs."""
    found, _ = index.search(engine, queries, k)
    exact, _ = index.search(FlatIndex(index.different), queries, k)
    return float(np.mean([np.isin(right, got).mean() for got, right in zip(found, exact)]))
