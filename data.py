"""Files -> checked records, and records -> batches.

A line ends at LF. One CR before it and a byte-order mark at the file's start are taken off; nothing else is a line
break, and nothing is stripped, quoted or guessed: `str.splitlines`, text mode and the csv module all get this wrong
for some texts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np

from files import UserError

BUCKET_BATCHES = 20  # rows of so many batches are sorted by length together: little padding, still a random order


def is_whole(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a character (a lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of a UTF-8 file.

    Raises:
        UserError: the file is empty, or a line is not UTF-8 (file, line and byte are named).
    """
    with open(path, "rb") as file:  # binary: iteration breaks at LF alone
        number = 0
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.endswith(b"\n"):
                raw = raw[:-1].removesuffix(b"\r")
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} (0x{raw[error.start]:02x})"
                raise UserError(f"{path}: line {number}: {byte} is not UTF-8; save the file as UTF-8, for example with "
                                f"`iconv -f gb18030 -t utf-8`") from error
    if not number:
        raise UserError(f"{path}: the file is empty; it needs at least one line")


class Problems:
    """Bad lines of a file, reported together: the first in full, the numbers of the next ones."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.first = ""
        self.lines: list[int] = []

    def add(self, line: int, problem: str) -> None:
        self.first = self.first or f"{self.path}: line {line}: {problem}"
        self.lines.append(line)

    def raise_if_any(self, form: str) -> None:
        if not self.lines:
            return
        rest = self.lines[1:]
        also = f" (also line {', '.join(map(str, rest[:9]))}{' and others' if len(rest) > 9 else ''})" if rest else ""
        raise UserError(f"{self.first}{also}; {form}")


def read_records(path: str, form: str, check: Callable[[list[str]], str | None]) -> list[list[str]]:
    """Read lines of columns between TABs; `check(columns)` says what is wrong with a line, or None.

    Raises:
        UserError: some line is bad; its number, the fault and the wanted `form` are named.
    """
    records, problems = [], Problems(path)
    for number, line in read_lines(path):
        columns = line.split("\t")
        problem = "the line is empty" if not line else check(columns)
        if problem:
            problems.add(number, problem)
        else:
            records.append(columns)
    problems.raise_if_any(form)
    return records


def _two_columns(columns: list[str]) -> str | None:
    if len(columns) != 2:
        return f"{len(columns)} column{'s' * (len(columns) > 1)} where 2 belong"
    return _empty_column(columns)


def _empty_column(columns: list[str]) -> str | None:
    return next((f"column {i} is empty" for i, text in enumerate(columns, 1) if not text), None)


def read_pairs(path: str) -> list[tuple[str, str]]:
    """Evaluation pairs (source, target), one a line, in file order."""
    form = "each line is `source TAB target`, without a TAB inside a text"
    return [(source, target) for source, target in read_records(path, form, _two_columns)]


def read_text_pairs(path: str) -> tuple[list[tuple[str, str]], list[int] | None]:
    """Text pairs to score, and their 0/1 labels where the file has a third column (all lines or none)."""
    width: list[int] = []

    def check(columns: list[str]) -> str | None:
        if len(columns) not in (2, 3):
            return f"{len(columns)} column{'s' * (len(columns) > 1)} where 2, or 3 with a label, belong"
        width.append(len(columns))
        if width[0] != len(columns):
            return f"{len(columns)} columns where the first line has {width[0]}"
        if len(columns) == 3 and columns[2] not in ("0", "1"):
            return f"label {columns[2]!r} is neither 0 nor 1"
        return _empty_column(columns)

    form = "each line is `text TAB text`, or `text TAB text TAB label` with a label of 0 or 1"
    records = read_records(path, form, check)
    labels = [int(record[2]) for record in records] if width[0] == 3 else None
    if labels and len(set(labels)) == 1:
        raise UserError(f"{path}: all {len(labels)} labels are {labels[0]}; Spearman and AUC need both 0 and 1 among "
                        f"them: add pairs, or take the third column away")
    return [(record[0], record[1]) for record in records], labels


def read_texts(path: str) -> list[str]:
    """Texts, one a line, in file order: a corpus, or a list to embed."""

    def check(columns: list[str]) -> str | None:
        return None if len(columns) == 1 else "there is a TAB inside the text"

    return [columns[0] for columns in read_records(path, "each line is one text, without a TAB", check)]


def pad_batch(token_ids: Sequence[Sequence[int]], pad_id: int, length: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of several texts as one array, as long as the longest or `length`.

    Returns:
        ids: int64 [texts, L], filled up with `pad_id`.
        mask: float32 [texts, L], 1 where a token is and 0 where padding is.
    """
    lengths = np.array([len(ids) for ids in token_ids])
    mask = np.arange(max(lengths.max(), length)) < lengths[:, None]
    padded = np.full(mask.shape, pad_id, dtype=np.int64)
    padded[mask] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in token_ids])
    return padded, mask.astype(np.float32)


def epoch_batches(row_lengths: np.ndarray, batch_size: int, seed: int, epoch: int,
                  bucketing: bool = True) -> list[np.ndarray]:
    """Cut an epoch into batches of rows of similar length, in an order that hangs on (seed, epoch) alone.

    Rows are shuffled, sorted by length within windows of BUCKET_BATCHES batches, cut, and the batches shuffled. The
    batches are those of all ranks together, so they are the same however many ranks share them.

    Args:
        row_lengths: tokens of each row, [rows].
        batch_size: rows a batch; the last one cut may be smaller.
        bucketing: False leaves out the sorting: a batch holds rows of any length.

    Returns:
        Arrays of row numbers; each row is in exactly one.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(row_lengths))
    batches = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        window = order[start : start + batch_size * BUCKET_BATCHES]
        if bucketing:
            window = window[np.argsort(row_lengths[window], kind="stable")]
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def known_targets(sources: np.ndarray, targets: np.ndarray) -> dict[int, set[int]]:
    """For each text id in pairs the ids that it is paired with, as source or as target."""
    known: dict[int, set[int]] = {}
    for source, target in zip(sources.tolist(), targets.tolist()):
        known.setdefault(source, set()).add(target)
        known.setdefault(target, set()).add(source)
    return known


def known_positives(sources: np.ndarray, columns: np.ndarray, positives: dict[int, set[int]]) -> np.ndarray:
    """Which columns are no negatives of a row, by text identity.

    Args:
        sources: source text id of each row, [rows].
        columns: text id of each column, [columns]; column i is the positive of row i.
        positives: for each source, the texts that are never its negatives.

    Returns:
        bool [rows, columns]: the column holds one of these texts. False at the row's own positive.
    """
    where: dict[int, list[int]] = {}
    for column, text in enumerate(columns.tolist()):
        where.setdefault(text, []).append(column)
    mask = np.zeros((len(sources), len(columns)), dtype=bool)
    for row, source in enumerate(sources.tolist()):
        for text in positives[source]:
            mask[row, where.get(text, ())] = True
    np.fill_diagonal(mask, False)
    return mask
