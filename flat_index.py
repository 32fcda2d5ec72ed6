"""Exact search: every query against every vector, in blocks, keeping the best of each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from parts import Vectors
from runtime import threads_of_rank

QUERY_BLOCK = 1024


class FlatIndex:
    """Exact search by blocked matrix products with a running top k, in threads that share the queries.

    Args:
        dtype: what the scan reads: float32, the vectors where they are; float16 or int8, a smaller copy in memory, of
            which it takes several times k candidates, so that the caller's exact cosines choose.
        on_gpu: compute with Paddle on its device, otherwise with NumPy.
    """

    def __init__(self, dtype: str = "float32", on_gpu: bool = False) -> None:
        self.dtype, self.on_gpu = dtype, on_gpu
        # Vectors at once. The scores of 1,024 by 1,024 are 4 MB: still in the cache when they are compared.
        self.block = 16_384 if on_gpu else 1024
        self.oversampling = {"float32": 1, "float16": 2, "int8": 4}[dtype]
        self.compressed: list[tuple[int, np.ndarray, np.ndarray]] = []

    def build(self, vectors: Vectors) -> FlatIndex:
        self.compressed = []
        return self.add(vectors, 0)

    def add(self, vectors: Vectors, start: int) -> FlatIndex:
        self.vectors = vectors
        if self.dtype != "float32":
            self.compressed += [(first, *_compress(block, self.dtype))
                                for first, block in vectors.blocks(start, self.block)]
        return self

    def save(self, folder: Path) -> dict:
        """Nothing: it is the vectors themselves."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def load(self, folder: Path, facts: dict, vectors: Vectors, remedy: str) -> FlatIndex:
        return self.build(vectors)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        k = min(k * self.oversampling, len(self.vectors))
        if self.on_gpu:
            return self._search_gpu(queries, k)
        from threadpoolctl import threadpool_limits

        threads = threads_of_rank()
        shares = np.array_split(queries, max(1, min(threads, len(queries) // 16)))  # products of few rows are slow
        if len(shares) == 1:
            return self._search_share(queries, k)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(lambda share: self._search_share(share, k), shares)))

    def _search_share(self, queries: np.ndarray, k: int) -> np.ndarray:
        tops = [_RunningTop(queries[i : i + QUERY_BLOCK], k) for i in range(0, len(queries), QUERY_BLOCK)]
        for first, block in self._float_blocks():
            for top in tops:
                top.push(first, top.queries @ block.T)
        return np.concatenate([top.ids() for top in tops]) if tops else np.zeros((0, k), dtype=np.int64)

    def _float_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        if self.dtype == "float32":
            yield from self.vectors.blocks(rows=self.block)
        for first, codes, scales in self.compressed:
            yield first, codes.astype(np.float32) * scales

    def _search_gpu(self, queries: np.ndarray, k: int) -> np.ndarray:
        import paddle

        found = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = paddle.to_tensor(queries[start : start + QUERY_BLOCK])
            scores, ids = paddle.zeros([len(block), 0]), paddle.zeros([len(block), 0], dtype="int64")
            for first, vectors in self._float_blocks():
                products = block @ paddle.to_tensor(np.ascontiguousarray(vectors)).T
                numbers = paddle.arange(first, first + len(vectors), dtype="int64").expand([len(block), len(vectors)])
                scores, order = paddle.concat([scores, products], axis=1).topk(min(k, scores.shape[1] + len(vectors)))
                ids = paddle.take_along_axis(paddle.concat([ids, numbers], axis=1), order, axis=1)
            found.append(ids.numpy())
        return np.concatenate(found) if found else np.zeros((0, k), dtype=np.int64)


def _compress(block: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, D] and the scale of each row [n, 1] by which they are multiplied to get the vectors back."""
    if dtype == "float16":
        return block.astype(np.float16), np.ones((len(block), 1), dtype=np.float32)
    scales = np.abs(block).max(axis=1, keepdims=True) / 127
    return np.rint(block / scales).astype(np.int8), scales


class _RunningTop:
    """The k best of each query among the scores pushed so far.

    Candidates are gathered; now and then those are dropped that have k better ones. `ids` needs k pushed or more.
    """

    def __init__(self, queries: np.ndarray, k: int) -> None:
        self.queries, self.k = queries, k
        self.bound = np.full((len(queries), 1), -np.inf, dtype=np.float32)  # at or below the k-th best
        self.kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # rows, ids, scores
        self.waiting = 0  # candidates since the bound was found

    def push(self, first: int, scores: np.ndarray) -> None:
        """Take the scores [Q, n] of the vectors from id `first` on."""
        bound = self.bound
        if not self.kept and self.k < scores.shape[1]:
            # Without a k-th best so far every score would be a candidate: let a partition find that bound.
            best = np.partition(scores, scores.shape[1] - self.k, axis=1)[:, scores.shape[1] - self.k]
            bound = np.nextafter(best[:, None], np.float32(-np.inf))
        found = np.flatnonzero(scores > bound)  # of the flat array: many times faster than two-dimensional nonzero
        rows, columns = np.divmod(found, scores.shape[1])
        self.kept.append((rows.astype(np.uint16), columns + first, scores.ravel()[found]))
        self.waiting += len(found)
        if self.waiting > 2 * self.k * len(self.queries):
            self._raise_bound()

    def _raise_bound(self) -> None:
        """Find the k-th best of each query and drop what is below; equal ones stay, for ids to decide in the end."""
        rows, ids, scores = (np.concatenate(arrays) for arrays in zip(*self.kept))
        order = np.argsort(rows, kind="stable")  # of 16 bits: a radix sort
        grouped = rows[order]
        place = np.arange(len(rows)) - np.searchsorted(grouped, np.arange(len(self.queries)))[grouped]
        table = np.full((len(self.queries), max(self.k, place.max() + 1)), -np.inf, dtype=np.float32)
        table[grouped, place] = scores[order]
        self.bound = np.partition(table, -self.k, axis=1)[:, -self.k, None]
        keep = scores >= self.bound[rows, 0]
        self.kept = [(rows[keep], ids[keep], scores[keep])]
        self.waiting = 0

    def ids(self) -> np.ndarray:
        """Ids [Q, k], best first, ties by id."""
        rows, ids, scores = (np.concatenate(arrays) for arrays in zip(*self.kept))
        order = np.lexsort((ids, -scores, rows))
        starts = np.searchsorted(rows[order], np.arange(len(self.queries)))
        return ids[order][starts[:, None] + np.arange(self.k)]
