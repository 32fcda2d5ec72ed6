"""Training files -> rows of text ids.

Two forms, told apart by the file's name: JSON lines, and columns between TABs. Equal content gives equal rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data import Problems, known_targets, read_lines, read_records
from files import UserError

OF_TEXTS = ("masked_lm", "distilled")  # strategies that learn from texts; the others learn from pairs
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")

# No number is used, and as a float even one of a million digits is read at once and without an error.
JSON = json.JSONDecoder(parse_int=float)
JSON_TYPES = {dict: "an object", list: "a list", str: "a string", float: "a number", bool: "a truth value",
              type(None): "null"}


@dataclass
class TrainSet:
    """Training rows over a table of different texts; a text is known by its position there (its id).

    Attributes:
        texts: the different texts of the file.
        sources, targets: int64 arrays [rows], text ids.
        negatives: for each row the text ids of its mined negatives.
        positives: for each source id, the ids that are never its negatives: the texts that the file pairs it with, in
            either direction, and its own.
        unlabelled: True where each text is its own positive: the file is a list of texts, and sources equal targets.
        teacher: [rows, D], the vectors of a bigger model that the texts of the rows are to get, if there is one.
    """

    texts: list[str]
    sources: np.ndarray
    targets: np.ndarray
    negatives: list[list[int]]
    positives: dict[int, set[int]]
    unlabelled: bool = False
    teacher: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sources)

    def texts_alone(self) -> TrainSet:
        """Each text as a row of its own."""
        ids = np.arange(len(self.texts))
        return TrainSet(self.texts, ids, ids, [[] for _ in ids], {}, unlabelled=True)


def read_train_set(path: str) -> TrainSet:
    """Read training rows from JSON lines (by the file's name, see JSON_ENDINGS) or from columns between TABs.

    JSON: `{"query": text, "pos": text or texts, "neg": text or texts, if any}` a line; a row for each text of "pos".
    Columns: `source TAB target [TAB mined negative ...]` a line; or, without a TAB in any line, one text a line that is
    its own positive, as in unsupervised SimCSE (Gao et al. 2021, arXiv:2104.08821).

    Raises:
        UserError: some line is bad; its number, the fault and the wanted form are named.
    """
    if path.lower().endswith(JSON_ENDINGS):
        return _train_set(_json_rows(path), unlabelled=False)
    rows = _column_rows(path)
    unlabelled = len(rows[0]) == 1
    return _train_set((row * 2 for row in rows) if unlabelled else rows, unlabelled)


def read_teacher(path: str, train_set_file: str, data: TrainSet) -> np.ndarray:
    """A .npy array [rows, D] of finite numbers, mapped from its file: a vector for each row of a file of texts.

    Raises:
        UserError: it is no such file, or not one of these texts.
    """
    if not data.unlabelled:
        raise UserError(f"{train_set_file}: pairs where texts belong, one a line without a TAB")
    remedy = "write it with predict.py --output_embeddings"
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header, or a ZIP that is none, can raise anything
        raise UserError(f"{path}: no .npy file of an array ({_one_line(error)}); {remedy}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UserError(f"{path}: holds no array of vectors [N, D]; {remedy}")
    if len(vectors) != len(data):
        raise UserError(f"{path} has {len(vectors)} vectors, {train_set_file} {len(data)} lines; encode this very file "
                        f"with predict.py --text_file")
    for start in range(0, len(vectors), 65_536):
        with np.errstate(over="ignore"):
            block = vectors[start : start + 65_536].astype(np.float32)  # as which they are learnt from
        bad = np.flatnonzero(~(np.isfinite(block).all(axis=1) & block.any(axis=1)))
        if len(bad):
            raise UserError(f"{path}: vector {start + int(bad[0]) + 1} is zero or not finite; encode the texts again")
    return vectors


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


def _train_set(rows: Iterable[Sequence[str]], unlabelled: bool) -> TrainSet:
    """Number the texts of rows (source, target, negatives) in the order in which they first come."""
    ids: dict[str, int] = {}
    numbered = [[ids.setdefault(text, len(ids)) for text in row] for row in rows]
    sources, targets = (np.array([row[column] for row in numbered], dtype=np.int64) for column in (0, 1))
    positives = known_targets(sources, targets)
    for text, known in positives.items():
        known.add(text)
    return TrainSet(list(ids), sources, targets, [row[2:] for row in numbered], positives, unlabelled)


def _column_rows(path: str) -> list[list[str]]:
    """Rows of columns; the first line decides whether they are pairs (with a TAB) or single texts (without one).

    A blank column is refused, never skipped: in `a TAB TAB b` the paraphrase b would be read as a mined negative.
    """
    single: bool | None = None

    def check(columns: list[str]) -> str | None:
        nonlocal single
        if not any(text.strip() for text in columns):
            return "the line is blank"
        if single is None:
            single = len(columns) == 1
            if single and _is_json_row(columns[0]):
                raise UserError(f"{path}: the first line is a JSON object; give the file a name that ends in .jsonl, "
                                f"so that it is read as JSON lines")
        if single:
            return f"{len(columns)} columns where the first line has 1" if len(columns) > 1 else None
        if len(columns) == 1:
            return "1 column where at least 2 belong"
        names = ["source", "target"] + [f"negative {i}" for i in range(1, len(columns) - 1)]
        return next((f"column {i} ({name}) is empty or blank"
                     for i, (name, text) in enumerate(zip(names, columns), 1) if not text.strip()), None)

    return read_records(path, "each line is `source TAB target`, then mined negatives if any, with one TAB between "
                              "them; or no line has a TAB, and each is a text that is its own positive", check)


def _is_json_row(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and "query" in JSON.decode(line)
    except (ValueError, RecursionError):
        return False


def _json_rows(path: str) -> Iterator[list[str]]:
    """Yield query, positive and negatives of each positive in a file of JSON lines; bad lines are told at its end."""
    problems = Problems(path)
    for number, line in read_lines(path):
        if number == 1 and line.lstrip().startswith("["):
            raise UserError(f"{path}: line 1: a JSON array; write one object a line, without brackets around all of "
                            f"them, for example with `jq -c '.[]'`")
        try:
            query, positives, negatives = _json_texts(line)
        except ValueError as error:
            problems.add(number, str(error))
            continue
        for positive in positives:
            yield [query, positive, *negatives]
    problems.raise_if_any('each line is one object, {"query": "text", "pos": ["text", ...], "neg": ["text", ...]}, and '
                          '"neg" may be missing')


def _json_texts(line: str) -> tuple[str, list[str], list[str]]:
    """Query, positives and negatives of a JSON line.

    Raises:
        ValueError: its text says what is wrong with the line.
    """
    if not line.strip():
        raise ValueError("the line is empty")
    try:
        row = JSON.decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (character {error.colno})") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"{JSON_TYPES[type(row)]} where an object belongs")
    for name in ("query", "pos"):
        if name not in row:
            raise ValueError(f'"{name}" is missing')
    if isinstance(row["query"], list):
        raise ValueError('"query" is a list where a string belongs')
    negatives = row.get("neg")
    return (_texts_of("query", row["query"])[0], _texts_of("pos", row["pos"]),
            [] if negatives in (None, "", []) else _texts_of("neg", negatives))


def _texts_of(name: str, value: object) -> list[str]:
    """The string or list of strings under a key, as a list, checked."""
    if value == []:
        raise ValueError(f'"{name}" is empty')
    texts = value if isinstance(value, list) else [value]
    for i, text in enumerate(texts, 1):
        fault = _fault_of(text)
        if fault:
            raise ValueError(f'text {i} of "{name}" {fault}' if isinstance(value, list) else f'"{name}" {fault}')
    return texts


def _fault_of(text: object) -> str | None:
    if not isinstance(text, str):
        return f"is {JSON_TYPES[type(text)]} where a string belongs"
    if not text.strip():
        return "is empty or blank"
    try:
        text.encode()
    except UnicodeEncodeError as error:  # an escape such as \ud83d without its second half
        return f"has half a character, \\u{ord(text[error.start]):04x}, at character {error.start + 1}"
    return None
