"""Vectors -> index -> neighbours.

Three engines find candidates behind one small interface: `FlatIndex` (flat_index.py, exact), `HnswIndex` (hnswlib,
approximate) and `MilvusIndex` (milvus_engine.py: an embedded file, a server or a cluster). `TextIndex` puts each of
them under the rules that hold for all: cosines are computed exactly from the float32 vectors, and ties go by corpus
order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cli import notice
from files import UserError, check_file, describe_file, write_failure
from flat_index import QUERY_BLOCK, FlatIndex
from hnsw_file import check_graph
from parts import Vectors
from runtime import threads_of_rank


class Engine(Protocol):
    """Finds candidates among the vectors of a corpus."""

    def build(self, vectors: Vectors) -> Engine:
        """Index all vectors, from nothing."""

    def add(self, vectors: Vectors, start: int) -> Engine:
        """Index the vectors from id `start` on as well."""

    def save(self, folder: Path) -> dict:
        """Keep the index; returns the facts that `load` needs."""

    def close(self) -> None:
        """Let go of what other processes may want."""

    def load(self, folder: Path, facts: dict, vectors: Vectors, remedy: str) -> Engine:
        """Open what `save` kept of the first `facts["texts"]` vectors; UserError, ending with `remedy`, if it can't."""

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids [Q, k'] of the best vectors for each query [Q, D], in any order; k' is k, or their number if smaller."""


class HnswIndex:
    """Approximate search in a navigable small-world graph (hnswlib; Malkov and Yashunin 2016, arXiv:1603.09320).

    A graph of many equal vectors falls apart, so of equal ones it holds the first alone.

    Args:
        m: links a node keeps (2 to 100; memory grows with it).
        ef: size of the candidate list while building and searching; searches raise it to k.
        repeated: ids of vectors that an earlier id has too, ascending.
        deterministic: build in one thread, so that the same vectors give the same graph, byte for byte.
    """

    def __init__(self, dimension: int, m: int, ef: int, repeated: Sequence[int] | np.ndarray = (),
                 deterministic: bool = False) -> None:
        import hnswlib

        self.m, self.ef, self.repeated = m, ef, np.asarray(repeated, dtype=np.int64)
        self.threads = 1 if deterministic else threads_of_rank()
        self.graph = hnswlib.Index(space="ip", dim=dimension)

    def build(self, vectors: Vectors) -> HnswIndex:
        """Index all vectors."""
        self.graph.init_index(max_elements=len(vectors) - len(self.repeated), M=self.m, ef_construction=self.ef)
        return self.add(vectors, 0)

    def add(self, vectors: Vectors, start: int) -> HnswIndex:
        """Index the vectors from id `start` on."""
        wanted = len(vectors) - len(self.repeated)
        if self.graph.get_max_elements() < wanted:
            self.graph.resize_index(wanted)
        for first, block in vectors.blocks(start):
            ids = np.arange(first, first + len(block))
            keep = ~np.isin(ids, self.repeated, assume_unique=True)
            self.graph.add_items(block[keep], ids[keep], num_threads=self.threads)
        return self

    def save(self, folder: Path) -> dict:
        """Write the graph, whole or not at all. hnswlib reports success on a full disk, so its size is checked.

        Returns:
            What `load` has to be told: the name of the file, its size and SHA-256.
        """
        path = folder / f"hnsw-{self.graph.get_current_count() + len(self.repeated)}.bin"
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
        return {"file": path.name, **describe_file(path)}

    def load(self, folder: Path, facts: dict, vectors: Vectors, remedy: str) -> HnswIndex:
        """Read the graph of the first `facts["texts"]` vectors that `save` described by `facts`.

        hnswlib crashes on a damaged file or answers wrongly, so checksum and structure are checked before.

        Raises:
            UserError: the file is no graph of these vectors; ends with `remedy`.
        """
        path, count = folder / facts["file"], facts["texts"]
        check_file(path, facts, remedy)
        labels = np.delete(np.arange(count), self.repeated[: np.searchsorted(self.repeated, count)])
        check_graph(path, vectors.dimension, labels, self.m, remedy, vectors)
        self.graph.load_index(str(path), max_elements=len(labels))
        if self.threads == 1:
            self._restore_generator(len(labels))
        return self

    def close(self) -> None:
        """Nothing is held."""

    def _restore_generator(self, count: int) -> None:
        """Put the generator of levels where it was after `count` elements: a loaded graph starts it anew.

        So a graph that grows in steps has the bytes of one built at once. The generator is C++'s minstd_rand0, seeded
        with hnswlib's 100 and drawn from twice an element.
        """
        import hnswlib

        state = self.graph.__getstate__()[0]
        state["seed"] = 100 * pow(16807, 2 * count, 2**31 - 1) % (2**31 - 1)
        self.graph = hnswlib.Index(state)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        count = self.graph.get_current_count()
        k = min(k, count)
        for ef in (max(self.ef, k), count):  # hnswlib raises where the walk ends with less than k: widen it once
            self.graph.set_ef(ef)
            try:
                return self.graph.knn_query(queries, k=k, num_threads=threads_of_rank())[0].astype(np.int64)
            except RuntimeError:
                notice(f"hnsw: ef {ef} reaches less than {k} neighbours of some query")
        notice(f"hnsw: the graph falls apart with --hnsw_m {self.m}; these queries are searched exactly")
        ids = np.sort(self.graph.get_ids_list())
        return ids[FlatIndex().build(Vectors([self.graph.get_items(ids, "numpy")])).search(queries, k)]


def find_repeated(vectors: Vectors) -> np.ndarray:
    """Equal vectors: int64 [E, 2], id of each vector that an earlier id has too, and the first such id; ascending."""
    weights = np.random.default_rng(0).integers(1, 2**63, vectors.dimension, dtype=np.uint64) * 2 + 1
    hashes = np.concatenate([(block.view(np.uint32) * weights).sum(axis=1, dtype=np.uint64)
                             for _, block in vectors.blocks(rows=4096)])
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    first: dict[bytes, int] = {}
    pairs = [(int(i), first.setdefault(vector.tobytes(), int(i))) for i, vector in zip(suspects, vectors[suspects])]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)


def read_repeated(path: Path, count: int, remedy: str) -> np.ndarray:
    """What `find_repeated` gave for `count` vectors; UserError, ending with `remedy`, where a file is no such thing."""
    try:
        pairs = np.load(path)
        later, first = pairs.T
        right = (pairs.dtype == np.int64 and (np.diff(later) > 0).all() and (first < later).all() and (first >= 0).all()
                 and (later < count).all() and not np.isin(first, later).any())
    except Exception:  # a damaged header can raise anything
        right = False
    if not right:
        raise UserError(f"{path} holds no pairs of equal vectors among {count}; {remedy}")
    return pairs


class TextIndex:
    """Neighbours of queries among the texts of a corpus, by any engine.

    Args:
        vectors: the unit vectors of the corpus texts in their order.
        repeated: of `find_repeated`. An engine may hold all vectors, or of equal ones the first alone.
    """

    def __init__(self, vectors: Vectors, repeated: np.ndarray) -> None:
        self.vectors, self.repeated = vectors, repeated
        both = np.concatenate([repeated, np.repeat(np.unique(repeated[:, 1])[:, None], 2, axis=1)])
        both = both[np.lexsort((both[:, 0], both[:, 1]))]
        self._members = both[:, 0]  # ids of the first group of equal vectors, of the second, ...
        self._heads, self._starts, self._sizes = np.unique(both[:, 1], return_index=True, return_counts=True)

    def search(self, engine: Engine, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best texts of each query.

        Args:
            queries: float32 [Q, D], unit vectors.
            k: texts wanted; fewer come back where the corpus has fewer.

        Returns:
            ids: int64 [Q, k], positions in the corpus, best first; equal cosines stand in corpus order.
            cosines: float32 [Q, k], within [-1, 1].
        """
        k = min(k, len(self.vectors))
        found = engine.search(queries, k)
        blocks = [self._rank(found[i : i + QUERY_BLOCK], queries[i : i + QUERY_BLOCK], k)
                  for i in range(0, len(queries), QUERY_BLOCK)]
        ids, cosines = zip(*blocks)
        return np.concatenate(ids), np.concatenate(cosines)

    def _rank(self, candidates: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Put the texts of all candidates in order, by exact cosine and then by corpus order, and cut to k."""
        rows = np.repeat(np.arange(len(queries)), candidates.shape[1])
        rows, heads = np.unique(np.stack([rows, self._head(candidates.ravel())]), axis=1)
        # einsum, not BLAS: the same pair of vectors gives the same bits wherever it stands, so engines agree on ties.
        cosines = np.einsum("nd,nd->n", self.vectors[heads], queries[rows]).clip(-1, 1)
        rows, ids, cosines = self._members_of(rows, heads, cosines)
        order = np.lexsort((ids, -cosines, rows))
        places = np.searchsorted(rows[order], np.arange(len(queries)))[:, None] + np.arange(k)
        return ids[order][places], cosines[order][places]

    def _head(self, ids: np.ndarray) -> np.ndarray:
        """The first id that has the same vector."""
        if not len(self.repeated):
            return ids
        place = np.searchsorted(self.repeated[:, 0], ids).clip(max=len(self.repeated) - 1)
        return np.where(self.repeated[place, 0] == ids, self.repeated[place, 1], ids)

    def _members_of(self, rows: np.ndarray, heads: np.ndarray,
                    cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each head becomes all texts with its vector."""
        if not len(self.repeated):
            return rows, heads, cosines
        place = np.searchsorted(self._heads, heads).clip(max=len(self._heads) - 1)
        grouped = self._heads[place] == heads
        sizes = np.where(grouped, self._sizes[place], 1)
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members = self._members[(np.repeat(self._starts[place], sizes) + offsets).clip(max=len(self._members) - 1)]
        ids = np.where(np.repeat(grouped, sizes), members, np.repeat(heads, sizes))
        return np.repeat(rows, sizes), ids, np.repeat(cosines, sizes)


def share_of_exact(index: TextIndex, queries: np.ndarray, found: np.ndarray) -> float:
    """Share of the exact top k that is among the ids `found` [Q, k], over all queries: what an approximation costs."""
    exact, _ = index.search(FlatIndex().build(index.vectors), queries, found.shape[1])
    return float(np.mean([np.isin(right, got).mean() for got, right in zip(found, exact)]))
