"""The recall corpus as a stream.

A first pass checks its lines, folds equal texts and takes its SHA-256; then the texts are read again part by part. Of a
line no more than nine bytes stay in memory, so a corpus may be larger than memory.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from data import read_texts
from files import UserError

BLOCK = 1 << 22  # bytes read at once


@dataclass
class Corpus:
    """The different texts of one or more corpus files, each text in the place of its first line.

    Attributes:
        paths: its files, in order; all but the first were appended.
        is_first: bool [lines], whether a line's text stands in no earlier line.
        sha256: of all lines in their order.
        beginnings: for each file, the SHA-256 of the lines up to its end, and how many different texts they have.
        found: which of the texts that were looked for are there.
    """

    paths: Sequence[str]
    is_first: np.ndarray
    sha256: str
    beginnings: dict[str, int]
    found: set[str]

    def __len__(self) -> int:
        """Number of different texts."""
        return int(np.count_nonzero(self.is_first))

    def parts(self, ranges: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
        """The texts at each of these [first, end) ranges of the different texts; the ranges ascend.

        Raises:
            UserError: a file has become shorter since it was checked.
        """
        texts, at = self._different_texts(), 0
        for first, end in ranges:
            part = list(islice(texts, first - at, end - at))
            if len(part) < end - first:
                raise UserError(f"{self.paths[-1]}: the file was changed while it was being read; run again when it is "
                                f"complete")
            yield part
            at = end

    def _different_texts(self) -> Iterator[str]:
        line = 0
        for path in self.paths:
            for block in _blocks(path):
                texts = block.decode()[:-1].split("\n")
                keep = self.is_first[line : line + len(texts)]
                yield from (text for text, first in zip(texts, keep) if first)
                line += len(texts)


@contextlib.contextmanager
def open_corpus(paths: Sequence[str], wanted: set[str] = frozenset()) -> Iterator[Corpus]:  # type: ignore[assignment]
    """Check the corpus files, one text a line, and fold equal texts. Pipes are copied to disk first, to be read again.

    Args:
        wanted: texts to look for; `Corpus.found` tells which of them are there.

    Raises:
        UserError: a file is empty or not UTF-8, or a line is empty or holds a TAB; all as `data.read_texts` says it.
    """
    with contextlib.ExitStack() as copies:
        yield _read([path if os.path.isfile(path) else copies.enter_context(_copy(path)) for path in paths], wanted)


@contextlib.contextmanager
def _copy(path: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="corpus_") as copy:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy.name


def _read(paths: Sequence[str], wanted: set[str]) -> Corpus:
    hashes, ends, digests, digest = [], [], [], hashlib.sha256()
    found: set[str] = set()
    for path in paths:
        lines = 0
        for block in _blocks(path):
            texts = _checked(block, path)
            found |= wanted.intersection(texts)
            # 64 bits, keyed at random for each process: among 10 million texts two differing ones collide with a
            # probability of 3e-6.
            hashes.append(np.fromiter(map(hash, texts), np.int64, len(texts)))
            digest.update(block)
            lines += len(texts)
        if not lines:
            read_texts(path)  # says that the file is empty
        ends.append(lines)
        digests.append(digest.copy().hexdigest())
    is_first = np.zeros(sum(ends), dtype=bool)
    is_first[np.unique(np.concatenate(hashes), return_index=True)[1]] = True
    counts = [int(np.count_nonzero(is_first[:end])) for end in np.cumsum(ends)]
    return Corpus(paths, is_first, digests[-1], dict(zip(digests, counts)), found)


def _checked(block: bytes, path: str) -> list[str]:
    """The lines of a block; where one is bad, the file is read again line by line for an error that names it."""
    try:
        texts = block.decode()[:-1].split("\n")
    except UnicodeDecodeError:
        texts = []
    if not texts or b"\t" in block or b"\n\n" in block or block.startswith(b"\n"):
        read_texts(path)
        raise UserError(f"{path}: the file was changed while it was being read; run again when it is complete")
    return texts


def _blocks(path: str) -> Iterator[bytes]:
    """Whole lines of a file, each ended by LF alone: by the rules of `data.read_lines`, many at once."""
    with open(path, "rb") as file:
        rest = file.read(BLOCK).removeprefix(codecs.BOM_UTF8)
        while rest:
            end = rest.rfind(b"\n") + 1
            if end:
                yield rest[:end].replace(b"\r\n", b"\n")
            more = file.read(BLOCK)
            rest = rest[end:] + more
            if not more and rest:
                yield rest + b"\n"
                return
