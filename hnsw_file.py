"""The structure of a graph file, checked before hnswlib loads it.

hnswlib 0.8.0 believes its files: a wrong size or link crashes the process, and the graph of another dimension loads
without a word. A file (`saveIndex` in hnswalg.h, little-endian) is a header; for each element its links at level 0, its
vector and its label; then for each element the bytes of its upper lists, and the lists, one a level from 1 on.
"""

from __future__ import annotations

import math
import os
from typing import IO, Any

import numpy as np

from files import UserError

HEADER = np.dtype([("offsetLevel0_", "<u8"), ("max_elements_", "<u8"), ("cur_element_count", "<u8"),
                   ("size_data_per_element_", "<u8"), ("label_offset_", "<u8"), ("offsetData_", "<u8"),
                   ("maxlevel_", "<i4"), ("enterpoint_node_", "<u4"), ("maxM_", "<u8"), ("maxM0_", "<u8"),
                   ("M_", "<u8"), ("mult_", "<f8"), ("ef_construction_", "<u8")])
BLOCK = 4096  # elements; 8 MB at dimension 256 and M 100


class _Misfit(Exception):
    """What of a file is not as it must be."""


def check_graph(path: str | os.PathLike, dimension: int, labels: np.ndarray, m: int, remedy: str,
                vectors: Any = None) -> None:
    """Make sure that hnswlib can load and search a file, and that it is the graph of the right vectors.

    A link may lead to any element of its level: that it leads to a near one can't be seen. Wrong ones cost recall only.
    Nor can the space be seen, which hnswlib does not keep. Load with max_elements=N: the file may say up to 2**31 - 1.

    Args:
        labels: int64 [N], sorted, all different, N > 0: the labels that the graph must hold.
        m: links a node keeps, 2 or more.
        vectors: `vectors[ids]` gives float32 [n, dimension], the vectors of n labels; the graph's must equal them.

    Raises:
        UserError: the file can't be read, is damaged, or has other vectors or settings; the text ends with `remedy`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            header = _read_header(file, dimension, len(labels), m)
            _check_elements(file, dimension, labels, m, vectors)
            _check_upper_lists(file.read(), header["enterpoint_node_"], header["maxlevel_"], len(labels), m)
    except (_Misfit, OSError) as error:
        raise UserError(f"{path} is not the graph of {len(labels)} vectors of dimension {dimension} with M {m}: "
                        f"{error}; {remedy}") from error


def _read_header(file: IO[bytes], dimension: int, count: int, m: int) -> dict:
    header = dict(zip(HEADER.names or (), _read(file, HEADER, 1)[0].item()))
    vector, label = 4 + 8 * m, 4 + 8 * m + 4 * dimension
    wanted = {"cur_element_count": count, "M_": m, "maxM_": m, "maxM0_": 2 * m, "offsetLevel0_": 0,
              "offsetData_": vector, "label_offset_": label, "size_data_per_element_": label + 8,
              # The others have some freedom: room for more elements, any ef from M on, a logarithm's last bit.
              "max_elements_": min(max(header["max_elements_"], count), 2**31 - 1),
              "ef_construction_": max(header["ef_construction_"], m),
              "mult_": header["mult_"] if math.isclose(header["mult_"] * math.log(m), 1) else 1 / math.log(m)}
    differences = [f"{name} {header[name]} there, {value} wanted" for name, value in wanted.items()
                   if header[name] != value]
    if differences:
        raise _Misfit(", ".join(differences))
    return header


def _check_elements(file: IO[bytes], dimension: int, labels: np.ndarray, m: int, vectors: Any) -> None:
    """Check links, labels and vectors, block by block."""
    count, seen = len(labels), np.zeros(len(labels), dtype=bool)
    for start in range(0, count, BLOCK):
        block = _read(file, np.dtype([*_list(2 * m), ("vector", "<f4", (dimension,)), ("label", "<i8")]),
                      min(BLOCK, count - start))
        ids, found, vector = start + np.arange(len(block), dtype=np.uint32), block["label"], block["vector"]
        _check_links(block, ids, count)
        _expect((block["size"] > 0) | (count == 1), ids, "has 0 links, 1 or more wanted")
        places = np.searchsorted(labels, found).clip(max=count - 1)
        _expect(labels[places] == found, ids, "has label {}, which is none of theirs", found)
        seen[places] = True
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("nd,nd->n", vector, vector))
        _expect(abs(lengths - 1) <= 1e-3, ids, "has a vector of length {}, 1 wanted", lengths)
        if vectors is not None:
            _expect((vector == vectors[found]).all(axis=1), ids, "has label {} and another vector", found)
    if not seen.all():
        raise _Misfit(f"label {labels[~seen][0]} is missing, and another one there twice")


def _check_upper_lists(rest: bytes, entry: int, top: int, count: int, m: int) -> None:
    """Check what follows the elements: the lists above level 0."""
    words, places, place = np.frombuffer(rest[: len(rest) // 4 * 4], "<u4"), np.zeros(count, dtype=np.int64), 0
    numbers = words.data
    for i in range(count):  # only its size tells where an element's lists end
        if place >= len(numbers):
            raise _Misfit(f"it ends before the upper lists of element {i} of {count}")
        places[i] = place
        place += 1 + numbers[place] // 4
    ids, sizes = np.arange(count, dtype=np.uint32), words[places].astype(np.int64)
    levels, excess = np.divmod(sizes, 4 + 4 * m)
    _expect(excess == 0, ids, f"has {{}} bytes of upper lists, a multiple of {4 + 4 * m} wanted", sizes)
    if len(rest) != 4 * place:
        raise _Misfit(f"{len(rest)} bytes of upper lists there, {4 * place} wanted")
    if not (entry < count and levels[entry] == top == levels.max()):
        raise _Misfit(f"entry {entry} of {count} elements at level {top}, one at level {levels.max()} wanted")
    lists, owners = np.delete(words, places).view(_list(m)), np.repeat(ids, levels)
    heights = 1 + np.arange(len(owners)) - np.repeat(np.cumsum(levels) - levels, levels)
    used = _check_links(lists, owners, count)
    _expect(~(used & (levels[lists["links"]] < heights[:, None])).any(axis=1), owners,
            "links at level {} to an element that ends below", heights)


def _list(room: int) -> list[tuple]:
    """The fields of a list of links. Its size stands in 4 bytes, whose upper half marks deleted elements."""
    return [("size", "<u2"), ("mark", "<u2"), ("links", "<u4", (room,))]


def _check_links(lists: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Check lists [n] of the elements `owners` [n]; returns which of their links are in use, bool [n, room]."""
    sizes, links = lists["size"], lists["links"]
    highest = links.max(axis=1)  # of all: places not in use hold 0 or what was in use once
    used = np.arange(links.shape[1]) < sizes[:, None]
    _expect(lists["mark"] == 0, owners, "has mark {}, 0 wanted: it may be deleted", lists["mark"])
    _expect(sizes <= links.shape[1], owners, f"has {{}} links, at most {links.shape[1]} wanted", sizes)
    _expect(highest < count, owners, f"links to {{}}, one of {count} wanted", highest)
    _expect(~(used & (links == owners[:, None])).any(axis=1), owners, "links to itself")
    return used


def _expect(right: np.ndarray, ids: np.ndarray, text: str, values: np.ndarray | None = None) -> None:
    """Name the first element for which `right` [n] does not hold, with its value."""
    if not right.all():
        i = right.argmin()
        raise _Misfit(f"element {ids[i]} {text.format(None if values is None else values[i])}")


def _read(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    items = np.fromfile(file, dtype, count)
    if len(items) < count:
        raise _Misfit(f"it ends after {os.fstat(file.fileno()).st_size} bytes, in the middle")
    return items
