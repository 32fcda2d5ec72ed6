"""Texts -> the best texts of a corpus by BM25 over their characters and pairs of characters, exactly.

BM25 (Robertson and Zaragoza 2009): a text's score is the sum over the n-grams of a query, each as often as it stands
there, of idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean length)). There tf counts the n-gram in the text,
a length is a number of n-grams, and idf is log(1 + (texts - df + 0.5) / (df + 0.5)), as in Lucene: never negative.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import numpy as np

from cli import progress_bar

GRID = 2.0**32  # steps of a score between 0 and 1


def character_ngrams(text: str) -> list[str]:
    """Characters and pairs of neighbours; full-width and half-width forms, capitals and small letters are one."""
    text = unicodedata.normalize("NFKC", text).lower()
    return [*text, *map("".join, zip(text, text[1:]))]


class Bm25:
    """A corpus, with the scores of its n-grams computed in advance (bm25s; Lù 2024, arXiv:2407.03618).

    Args:
        k1: how much a further occurrence in a text counts; with 0 the first alone.
        b: how much long texts are held back, from 0, not at all, to 1.
    """

    def __init__(self, texts: Sequence[str], k1: float, b: float) -> None:
        import bm25s

        self.number: dict[str, int] = {}  # of each n-gram
        numbers = []
        with progress_bar(len(texts), "corpus") as bar:
            for text in texts:
                numbers.append([self.number.setdefault(ngram, len(self.number)) for ngram in character_ngrams(text)])
                bar.update()
        # "atire" is the formula with its (k1 + 1), which "lucene" leaves out.
        self.index = bm25s.BM25(k1=k1, b=b, method="atire", idf_method="lucene", dtype="float64")
        self.index.index((numbers, self.number), create_empty_token=False, show_progress=sys.stderr.isatty())
        # On a grid of powers of two sums are exact, in whatever order: scores that are equal are so to the last bit.
        weights = self.index.scores["data"]
        np.divide(np.rint(weights * GRID), GRID, out=weights)

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best texts of each query.

        Returns:
            ids: int64 [queries, k], positions in the corpus, best first; equal scores stand in corpus order, and so do
                the texts without any n-gram of the query, which fill up the rows with scores of 0.
            scores: float64 [queries, k].
        """
        k = min(k, self.index.scores["num_docs"])
        ids, scores = np.zeros((len(queries), k), dtype=np.int64), np.zeros((len(queries), k))
        with progress_bar(len(queries), "sources") as bar:
            for row, query in enumerate(queries):
                known = [self.number[ngram] for ngram in character_ngrams(query) if ngram in self.number]
                ids[row], scores[row] = best(self.index.get_scores_from_ids(known), k)
                bar.update()
        return ids, scores


def best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of the k highest scores, highest first, equal ones by position; k is at most their number.

    bm25s has a top k of its own, which takes any of equal scores.
    """
    # Of several stretches of scores take the highest: k texts at least reach the k-th of these. It is a bound that is
    # found many times faster than the k-th best score itself.
    stretch = max(1, len(scores) // (4 * k))
    tops = np.maximum.reduceat(scores, np.arange(0, len(scores), stretch))
    bound = np.partition(tops, len(tops) - k)[len(tops) - k]
    found = np.concatenate([np.flatnonzero(scores > bound), np.flatnonzero(scores == bound)[:k]])
    order = np.argsort(-scores[found], kind="stable")[:k]
    return found[order], scores[found[order]]
