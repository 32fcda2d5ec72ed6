"""Rankings -> numbers, in NumPy alone.

A case is a pair line (source, target). Its rank is the place of the target *text* among the different texts recalled
for the source, counted from 1, or 0 where it is not among them. Every metric is a mean over cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data import read_records
from files import UserError

RECALL_AT = (1, 5, 10, 50)
METRICS = tuple(f"R@{k}" for k in RECALL_AT) + ("MRR@10", "nDCG@10")
DRAWS = 1000  # bootstrap samples; sign flips of the paired test are ten times as many


def read_result(path: str) -> dict[str, list[tuple[str, float]]]:
    """Read a result file: for each source its different recalled texts, best first, with their scores.

    Rows are grouped by source, never counted off. So the two forms there are (a block for each pair line, a block for
    each source) read the same, and a text that the corpus holds twice takes one place. Equal scores keep file order.

    Raises:
        UserError: a row has not three columns, or its score is no finite number.
    """

    def check(columns: list[str]) -> str | None:
        if len(columns) != 3:
            return f"{len(columns)} column{'s' * (len(columns) > 1)} where 3 belong"
        try:
            finite = np.isfinite(float(columns[2]))
        except ValueError:
            finite = False
        return None if finite else f"score {columns[2]!r} is no finite number"

    form = "each row is `source TAB recalled text TAB score`; write the file again with the script that made it"
    best: dict[str, dict[str, float]] = {}
    for source, text, score in read_records(path, form, check):
        texts = best.setdefault(source, {})
        texts[text] = max(float(score), texts.get(text, -np.inf))
    return {source: sorted(texts.items(), key=lambda row: -row[1]) for source, texts in best.items()}


def read_parts(path: str, count: int) -> list[str]:
    """The part of each case, one label a line; `count` labels are wanted."""
    labels = [columns[0] for columns in read_records(
        path, "each line is one label", lambda columns: None if len(columns) == 1 else "there is a TAB in the label")]
    if len(labels) != count:
        raise UserError(f"{path}: {len(labels)} labels for {count} pairs; it needs one for each line of the pair file")
    return labels


def rank_cases(pairs: Sequence[tuple[str, str]], result: dict[str, list[tuple[str, float]]], recall_num: int,
               keep_self: bool = False) -> np.ndarray:
    """Rank of each pair's target among the best `recall_num` texts of its source, int64 [cases], 0 for none.

    A recalled text that equals the source neither counts nor uses up a place, unless `keep_self`.
    """
    place: dict[str, dict[str, int]] = {}
    for source in {source for source, _ in pairs}:
        texts = [text for text, _ in result.get(source, ()) if keep_self or text != source]
        place[source] = {text: rank for rank, text in enumerate(texts[:recall_num], 1)}
    return np.array([place[source].get(target, 0) for source, target in pairs], dtype=np.int64)


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of cases whose target is among the k best."""
    return float(np.mean((ranks > 0) & (ranks <= k)))


def case_values(ranks: np.ndarray) -> np.ndarray:
    """What each case adds to each metric of METRICS, float64 [cases, metrics]; the metrics are the column means.

    Recall@K is 1 for a rank up to K. MRR@10 is 1 / rank and nDCG@10 is 1 / log2(rank + 1) for a rank up to 10 (a case
    has one relevant text, so the ideal DCG is 1).
    """
    hit = ranks > 0
    safe = np.where(hit, ranks, 1)
    top10 = hit & (ranks <= 10)
    columns = [hit & (ranks <= k) for k in RECALL_AT] + [top10 / safe, top10 / np.log2(safe + 1)]
    return np.stack(columns, axis=1).astype(np.float64)


def by_source(values: np.ndarray, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the cases of each source [sources, metrics], and their number [sources]."""
    _, group = np.unique(np.asarray(sources, dtype=object), return_inverse=True)
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums, np.bincount(group).astype(np.float64)


def bootstrap_interval(values: np.ndarray, sources: Sequence[str], seed: int = 0) -> np.ndarray:
    """95 % percentile bootstrap interval of each column's mean, [2, metrics].

    Sources are drawn, not cases: the cases of one source share its ranking, so they are no independent evidence.
    """
    sums, counts = by_source(values, sources)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
    means = (draws @ sums) / (draws @ counts)[:, None]
    return np.percentile(means, [2.5, 97.5], axis=0)


def paired_test(first: np.ndarray, second: np.ndarray, sources: Sequence[str], seed: int = 0) -> dict[str, np.ndarray]:
    """Compare two systems on the same cases.

    Args:
        first, second: `case_values` of either, [cases, metrics].

    Returns:
        "difference" [metrics], first minus second; "interval" [2, metrics], its 95 % bootstrap interval; "p" [metrics],
        two-sided, of a randomisation test that swaps the two systems source by source.
    """
    difference = first - second
    sums, _ = by_source(difference, sources)
    rng = np.random.default_rng(seed)
    observed, extreme = np.abs(sums.sum(axis=0)), np.zeros(sums.shape[1])
    for _ in range(10):  # in portions: all signs at once would be draws x sources numbers
        signs = rng.integers(0, 2, size=(DRAWS, len(sums)), dtype=np.int8) * 2.0 - 1.0
        extreme += (np.abs(signs @ sums) >= observed - 1e-9).sum(axis=0)
    return {"difference": difference.mean(axis=0), "interval": bootstrap_interval(difference, sources, seed),
            "p": (extreme + 1) / (10 * DRAWS + 1)}


def label_agreement(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Spearman's correlation, AUC and best accuracy over all thresholds of scores against labels, both 0 and 1."""
    from scipy.stats import rankdata

    positives, count = int(labels.sum()), len(labels)
    ranks = rankdata(scores)  # equal scores share their mean rank, in AUC as in Spearman
    auc = (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (count - positives))
    spearman = 0.0 if np.ptp(ranks) == 0 else np.corrcoef(ranks, rankdata(labels))[0, 1]
    order = np.argsort(-scores, kind="stable")
    # "1 for the best n" for each n that does not cut through equal scores.
    right = np.concatenate([[0], np.cumsum(np.where(labels[order] == 1, 1, -1))]) + (count - positives)
    cut = np.concatenate([[True], np.diff(scores[order]) != 0, [True]])
    return {"Spearman": float(spearman), "AUC": float(auc), "best-threshold accuracy": float(right[cut].max() / count)}
