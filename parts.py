"""The parts of an index: ranges of a corpus, each with its vectors, its texts and a manifest.

FIRST-END.npy    float32 [texts, D], unit length
FIRST-END.txt    the texts, one a line, each ended by LF
FIRST-END.json   what the vectors were made from, the range, size and SHA-256 of both files; written last

A part is whole or absent, and it is known by its manifest alone: so ranks, shards and machines write parts of one
index into one folder without talking to each other.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from files import UserError, check_file, describe_file, read_manifest, whole_file, write_manifest

FORMAT = 1
FILE = {"bytes": int, "sha256": str}
FIELDS = {"made_from": dict, "first": int, "end": int, "tokenless": int, "files": {"npy": FILE, "txt": FILE}}
Range = tuple[int, int]  # first and end: positions among the different texts of the corpus


def part_path(folder: Path, part: Range, kind: str) -> Path:
    """`kind` is npy, txt or json."""
    return folder / f"{part[0]:010d}-{part[1]:010d}.{kind}"


def cut(first: int, end: int, size: int) -> list[Range]:
    """Cut a range into parts of `size`, the last one shorter."""
    return [(i, min(i + size, end)) for i in range(first, end, size)]


def write_part(folder: Path, part: Range, texts: Sequence[str], vectors: np.ndarray, tokenless: int,
               made_from: dict) -> None:
    """Write a part; its manifest last, so that the part is not there before it is whole."""
    with whole_file(part_path(folder, part, "npy")) as file:
        np.save(file, vectors)
    with whole_file(part_path(folder, part, "txt")) as file:
        file.write(text_bytes(texts))
    files = {kind: describe_file(part_path(folder, part, kind)) for kind in ("npy", "txt")}
    write_manifest(part_path(folder, part, "json"), {
        "format": FORMAT, "made_from": made_from, "first": part[0], "end": part[1], "tokenless": tokenless,
        "files": files})


def text_bytes(texts: Sequence[str]) -> bytes:
    """The content of a part's text file."""
    return "".join(f"{text}\n" for text in texts).encode()


def find_parts(folder: Path) -> list[Range]:
    """The parts that have a manifest, in the order of their ranges."""
    found = []
    for path in folder.glob("*-*.json"):
        first, _, end = path.stem.partition("-")
        if first.isdecimal() and end.isdecimal():
            found.append((int(first), int(end)))
    return sorted(found)


def read_part(folder: Path, part: Range, remedy: str) -> dict:
    """A part's manifest, after its files were compared with it.

    Raises:
        UserError: the manifest or a file is missing, incomplete or damaged, or belongs to another range.
    """
    path = part_path(folder, part, "json")
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    facts = read_manifest(path, FORMAT, remedy, FIELDS)
    if (facts["first"], facts["end"]) != part:
        raise UserError(f"{path} is of the texts from {facts['first']} to {facts['end']}: it was renamed; {remedy}")
    for kind in ("npy", "txt"):
        check_file(part_path(folder, part, kind), facts["files"][kind], remedy)
    return facts


def open_vectors(folder: Path, part: Range, dimension: int, remedy: str) -> np.ndarray:
    """A part's vectors, memory-mapped; UserError, ending with `remedy`, where the file holds none of its size."""
    path = part_path(folder, part, "npy")
    try:
        array = np.load(path, mmap_mode="r")
    except Exception as error:  # a damaged header can raise anything
        raise UserError(f"{path}: no array ({type(error).__name__}: {error}); {remedy}") from error
    form = (getattr(array, "dtype", None), getattr(array, "shape", None))
    if form != (np.float32, (part[1] - part[0], dimension)) or not array.flags.c_contiguous:
        raise UserError(f"{path}: {form[0]} {form[1]} where float32 {(part[1] - part[0], dimension)} belongs; {remedy}")
    for first in range(0, len(array), 4096):
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.einsum("nd,nd->n", array[first : first + 4096], array[first : first + 4096])
        if not (abs(lengths - 1) < 1e-3).all():
            raise UserError(f"{path}: a vector is not of length 1; {remedy}")
    return array


def remove_part(folder: Path, part: Range) -> None:
    """Remove a part, its manifest first: what is left of a killed removal is no part."""
    for kind in ("json", "npy", "txt"):
        part_path(folder, part, kind).unlink(missing_ok=True)


class Vectors:
    """Unit vectors in one or more arrays, usually memory-mapped; text ids are their positions.

    Args:
        arrays: float32 [n, D] each, at least one.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self.starts = np.cumsum([0, *map(len, arrays)])
        self.dimension = arrays[0].shape[1]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        """The vectors [n, D] of these ids."""
        found = np.empty((len(ids), self.dimension), dtype=np.float32)
        places = np.searchsorted(self.starts, ids, side="right") - 1
        for place in np.unique(places):
            here = places == place
            found[here] = self.arrays[place][ids[here] - self.starts[place]]
        return found

    def blocks(self, start: int = 0, rows: int = 65_536) -> Iterator[tuple[int, np.ndarray]]:
        """All vectors from id `start` on: (id of the first, float32 [n, D]) with n up to `rows`."""
        for offset, array in zip(self.starts, self.arrays):
            for first in range(max(0, start - offset), len(array), rows):
                yield int(offset) + first, array[first : first + rows]


class Texts:
    """The texts of the parts, read from their files when they are asked for; text ids are their positions."""

    def __init__(self, folder: Path, parts: Sequence[Range], remedy: str) -> None:
        self.folder, self.parts, self.remedy = folder, parts, remedy
        self.firsts = [first for first, _ in parts]
        self.opened: dict[int, tuple[mmap.mmap, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.parts[-1][1]

    def open_all(self) -> None:
        """Open the files now; a text of an open one is read from it even after the folder has changed."""
        for number, part in enumerate(self.parts):
            if number not in self.opened:
                self.opened[number] = self._open(part)

    def __getitem__(self, position: int) -> str:
        number = bisect_right(self.firsts, position) - 1
        if number not in self.opened:
            self.opened[number] = self._open(self.parts[number])
        content, ends = self.opened[number]
        row = position - self.firsts[number]
        try:
            return content[ends[row] + 1 : ends[row + 1]].decode()
        except UnicodeDecodeError as error:
            path = part_path(self.folder, self.parts[number], "txt")
            raise UserError(f"{path}: line {row + 1} is not UTF-8; {self.remedy}") from error

    def _open(self, part: Range) -> tuple[mmap.mmap, np.ndarray]:
        path = part_path(self.folder, part, "txt")
        with open(path, "rb") as file:
            if not os.path.getsize(path):
                raise UserError(f"{path} is empty; {self.remedy}")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n"))
        if len(ends) != part[1] - part[0] or ends[-1] != len(content) - 1:
            raise UserError(f"{path} holds {len(ends)} lines where {part[1] - part[0]} belong; {self.remedy}")
        return content, np.concatenate([[-1], ends])
