"""Rows of training pairs -> what each rank encodes, and which vectors are whose negatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data import known_positives
from train_data import TrainSet


@dataclass
class Batch:
    """Rows of one step, of all ranks together.

    Attributes:
        texts: the text ids to encode on each rank; rank r has the sources of its rows, then their targets, then
            their negatives.
        queries, columns: places of the query vectors [B] and of the column vectors [C] in the gathered vectors.
            Queries are the sources, columns their targets, then all negatives; with all pairs queries are sources and
            targets, columns targets and sources, then all negatives.
        not_negative: bool [B, C], columns that are no negatives of the query.
    """

    texts: list[list[int]]
    queries: np.ndarray
    columns: np.ndarray
    not_negative: np.ndarray


def make_batch(data: TrainSet, rows: np.ndarray, negatives: list[list[int]], ranks: int,
               across_ranks: bool = True, all_pairs: bool = False) -> Batch:
    """Lay out a batch over the ranks: its rows are dealt out in turn, so that long texts don't gather on one of them.

    Args:
        rows: row numbers of the batch.
        negatives: text ids of the negatives of each of these rows.
        across_ranks: a row meets the targets and negatives of all ranks; False keeps it to those of its own.
        all_pairs: targets are queries too, and every other text of the batch is a negative, of either side.
    """
    texts: list[list[int]] = []
    sources: list[int] = []
    targets: list[int] = []
    mined: list[int] = []
    rank_of_row: list[int] = []
    rank_of_mined: list[int] = []
    start = 0
    shares = [np.arange(number, len(rows), ranks) for number in range(ranks)]
    for number, share in enumerate(shares):
        own = [int(data.sources[rows[i]]) for i in share] + [int(data.targets[rows[i]]) for i in share]
        own += [text for i in share for text in negatives[i]]
        sources += range(start, start + len(share))
        targets += range(start + len(share), start + 2 * len(share))
        mined += range(start + 2 * len(share), start + len(own))
        rank_of_row += [number] * len(share)
        rank_of_mined += [number] * (len(own) - 2 * len(share))
        texts.append(own)
        start += len(own)
    dealt = np.concatenate(shares)
    rows, negatives = rows[dealt], [negatives[i] for i in dealt]
    query_ids, column_ids, queries, columns = data.sources[rows], data.targets[rows], sources, targets
    if all_pairs:
        query_ids, column_ids = (np.concatenate(both) for both in ((query_ids, column_ids), (column_ids, query_ids)))
        queries, columns, rank_of_row = sources + targets, targets + sources, 2 * rank_of_row
    column_ids = np.concatenate([column_ids, [text for row in negatives for text in row]]).astype(np.int64)
    not_negative = known_positives(query_ids, column_ids, data.positives)
    if not across_ranks:
        not_negative |= np.array(rank_of_row)[:, None] != np.array(rank_of_row + rank_of_mined)
    return Batch(texts, np.array(queries), np.array(columns + mined), not_negative)


def draw_negatives(data: TrainSet, rows: np.ndarray, seed: int, step: int) -> list[list[int]]:
    """One negative for each row, for pair-wise training: a random target of the file that is none of the source's.

    A row with a mined negative has that one instead. Hangs on (seed, step) alone.
    """
    rng = np.random.default_rng([seed, step, 1])
    drawn = []
    for row in rows:
        known = data.positives[int(data.sources[row])]
        candidates = data.negatives[row] or data.targets
        # Known targets are rare, so the first draw nearly always stands; where all are known the loss masks the row.
        picks = (int(candidates[i]) for i in rng.integers(len(candidates), size=100))
        drawn.append([next((text for text in picks if text not in known), int(candidates[0]))])
    return drawn


def cut_chunks(lengths: np.ndarray, most_texts: int | None, most_tokens: int | None) -> list[np.ndarray]:
    """Cut the texts of a step into chunks that are encoded one after the other, each padded to its own longest text.

    Args:
        lengths: tokens of each text.
        most_texts, most_tokens: of a chunk, padding included; None sets no limit. A chunk has one text at least.

    Returns:
        Places of the texts, the longest first; each is in one chunk. Without limits they are one chunk, as they stand.
    """
    if most_texts is None and most_tokens is None:
        return [np.arange(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    chunks = []
    while len(order):
        fitting = max(1, (most_tokens or len(order) * lengths[order[0]]) // lengths[order[0]])
        size = min(fitting, most_texts or len(order))
        chunks.append(order[:size])
        order = order[size:]
    return chunks


def deal_chunks(lengths: np.ndarray, hands: int, most_texts: int | None,
                most_tokens: int | None) -> tuple[list[np.ndarray], list[list[int]]]:
    """Cut the texts of a step into chunks for several hands that work side by side, so that all have as much to do.

    Args:
        lengths, most_texts, most_tokens: as `cut_chunks` takes them; without a limit of tokens all may be one hand's.

    Returns:
        The chunks, and for each hand the numbers of those that are its own.
    """
    chunks = cut_chunks(lengths, most_texts, most_tokens)
    if hands > 1 and most_tokens:
        wanted = hands * -(-len(chunks) // hands)
        tokens = int(lengths.sum()) // wanted
        while tokens < most_tokens and len(chunks := cut_chunks(lengths, most_texts, tokens)) > wanted:
            tokens += 1 + tokens // 50
    dealt: list[list[int]] = [[] for _ in range(hands)]
    loads = [0] * hands
    for number, chunk in enumerate(chunks):
        hand = loads.index(min(loads))
        dealt[hand].append(number)
        loads[hand] += int(lengths[chunk].max()) * len(chunk)
    return chunks, dealt
