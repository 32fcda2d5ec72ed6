import sys
from pathlib import Path

import hnswlib
import numpy as np
import pytest
from conftest import PROJECT, run_process

from files import UserError
from hnsw_file import HEADER, check_graph

LOAD_AND_SEARCH = f"""
import sys, numpy as np
sys.path.insert(0, {str(PROJECT)!r})
from ann_util import HnswIndex, TextIndex, share_of_exact
from parts import Vectors
for line in open(sys.argv[1]):
    path, vectors, m = line.split()
    vectors = np.load(vectors)
    engine = HnswIndex(vectors.shape[1], int(m), 100)
    engine.graph.load_index(path, max_elements=len(vectors))
    index = TextIndex(Vectors([vectors]), np.zeros((0, 2), np.int64))
    found, _ = index.search(engine, vectors[:50], min(10, len(vectors)))
    print(share_of_exact(index, vectors[:50], found), flush=True)
"""


def unit_vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(path: Path, vectors: np.ndarray, m: int, threads: int = 2, labels=None) -> Path:
    graph = hnswlib.Index("ip", vectors.shape[1])
    graph.init_index(len(vectors), M=m, ef_construction=100)
    graph.add_items(vectors, np.arange(len(vectors)) if labels is None else labels, num_threads=threads)
    graph.save_index(str(path))
    return path


def check(path: Path, vectors: np.ndarray, m: int, compare: bool = True) -> None:
    check_graph(path, vectors.shape[1], np.arange(len(vectors)), m, "build it again", vectors if compare else None)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("m", [2, 5, 16, 100])
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_graphs_that_hnswlib_wrote_pass(tmp_path, count, m, threads):
    check(build(tmp_path / "g", unit_vectors(count), m, threads), unit_vectors(count), m)


def test_a_graph_that_grew_passes(tmp_path):
    """With room for more elements, and any labels."""
    vectors, labels = unit_vectors(900), 2**40 + 7 * np.arange(900)
    order = np.random.default_rng(1).permutation(900)
    graph = hnswlib.Index("ip", 16)
    graph.load_index(str(build(tmp_path / "a", vectors[order[:500]], 16, labels=labels[order[:500]])))
    graph.resize_index(1200)
    graph.add_items(vectors[order[500:]], labels[order[500:]], num_threads=2)
    graph.save_index(str(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_size == graph.index_file_size()

    class ByLabel:
        def __getitem__(self, ids):
            return vectors[np.searchsorted(labels, ids)]

    check_graph(tmp_path / "b", 16, labels, 16, "build it again", ByLabel())
    with pytest.raises(UserError, match="cur_element_count 900 there, 500 wanted; build it again$"):
        check_graph(tmp_path / "b", 16, labels[:500], 16, "build it again")
    with pytest.raises(UserError, match=r"element \d+ has label \d+, which is none of theirs; build it again$"):
        check_graph(tmp_path / "b", 16, labels - 7, 16, "build it again")


@pytest.mark.parametrize("other, words", [
    (unit_vectors(200, 8), "label_offset_ 76 there, 108 wanted, size_data_per_element_ 84 there, 116 wanted"),
    (unit_vectors(201), "cur_element_count 201 there, 200 wanted"),
    (unit_vectors(200, seed=9), "element 0 has label 0 and another vector"),
    (unit_vectors(200)[::-1], "element 0 has label 0 and another vector"),
    (unit_vectors(200) * 1.01, "element 0 has a vector of length 1.01.*, 1 wanted")])
def test_the_graph_of_other_vectors_is_refused(tmp_path, other, words):
    path = build(tmp_path / "g", other, 5, threads=1)
    right = f"^{path} is not the graph of 200 vectors of dimension 16 with M 5: {words}; build it again$"
    with pytest.raises(UserError, match=right):
        check(path, unit_vectors(200), 5)


def test_a_graph_of_another_m_is_refused(tmp_path):
    with pytest.raises(UserError, match="M_ 16 there, 5 wanted"):
        check(build(tmp_path / "g", unit_vectors(200), 16), unit_vectors(200), 5)


def test_a_graph_with_deleted_elements_is_refused(tmp_path):
    build(tmp_path / "g", unit_vectors(200), 5)
    graph = hnswlib.Index("ip", 16)
    graph.load_index(str(tmp_path / "g"))
    graph.mark_deleted(7)
    graph.save_index(str(tmp_path / "g"))
    with pytest.raises(UserError, match="has mark 1, 0 wanted: it may be deleted"):
        check(tmp_path / "g", unit_vectors(200), 5)


def test_a_file_that_cannot_be_read(tmp_path):
    for path, words in ((tmp_path / "g", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"{words}.*; build it again$"):
            check(path, unit_vectors(2), 5)


class Graph:
    """A graph file in memory, with names for its places, to be damaged."""

    def __init__(self, path: Path, vectors: np.ndarray, m: int) -> None:
        self.raw, self.vectors, self.m = path.read_bytes(), vectors, m
        self.count, self.dimension = vectors.shape
        self.element_size = 4 + 8 * m + 4 * self.dimension + 8
        self.tail = HEADER.itemsize + self.count * self.element_size
        sizes = np.frombuffer(self.raw[self.tail :], "<u4")
        self.low, self.high = int(np.argmax(sizes == 0)), int(np.argmax(sizes > 0))  # first elements of and above level 0

    def element(self, i: int) -> int:
        return HEADER.itemsize + i * self.element_size

    def put(self, place: int, value: int, size: int) -> bytes:
        return self.raw[:place] + int(value).to_bytes(size, "little") + self.raw[place + size :]

    def set(self, name: str, value: int) -> bytes:
        return self.put(HEADER.fields[name][1], value, HEADER[name].itemsize)

    def flip(self, rng, low: int, high: int) -> bytes:
        raw = bytearray(self.raw)
        for place in rng.integers(low, high, rng.integers(1, 9)):
            raw[place] ^= 1 << rng.integers(8)
        return bytes(raw)

    def block(self, rng, fill) -> bytes:
        size = int(rng.integers(1, min(4096, len(self.raw))))
        place = int(rng.integers(len(self.raw) - size))
        return self.raw[:place] + fill(size) + self.raw[place + size :]

    def field(self, rng) -> bytes:
        name = rng.choice(HEADER.names)
        size, place = HEADER[name].itemsize, HEADER.fields[name][1]
        value = int.from_bytes(self.raw[place : place + size], "little")
        others = [0, 1, value + 1, value - 1, 2 * value, value // 2, 2**31 - 1, 2**31, 2**32, 2**63, -1, *rng.integers(2**62, size=2)]
        return self.set(name, int(rng.choice(np.array(others, dtype=object))) % 256**size)

    def swap(self, a: int, b: int, size: int) -> bytes:
        raw = bytearray(self.raw)
        raw[a : a + size], raw[b : b + size] = raw[b : b + size], raw[a : a + size]
        return bytes(raw)


def _any(rng, graph) -> int:
    return int(rng.integers(graph.count))


DAMAGES = {
    "bits": lambda g, rng: g.flip(rng, 0, len(g.raw)),
    "bits of the header": lambda g, rng: g.flip(rng, 0, HEADER.itemsize),
    "bits of links": lambda g, rng: g.flip(rng, p := g.element(_any(rng, g)), p + 4 + 8 * g.m),
    "bits of a vector": lambda g, rng: g.flip(rng, p := g.element(_any(rng, g)) + 4 + 8 * g.m, p + 4 * g.dimension),
    "bits of upper lists": lambda g, rng: g.flip(rng, g.tail, len(g.raw)),
    "a header field": lambda g, rng: g.field(rng),
    "cut": lambda g, rng: g.raw[: rng.integers(len(g.raw))],
    "cut of the end": lambda g, rng: g.raw[: -rng.integers(1, min(len(g.raw) - g.tail, 64) + 1)],
    "bytes left over": lambda g, rng: g.raw + rng.bytes(rng.integers(1, 64)),
    "an element left out": lambda g, rng: g.raw[: (p := g.element(_any(rng, g)))] + g.raw[p + g.element_size :],
    "zeros": lambda g, rng: g.block(rng, bytes),
    "ones": lambda g, rng: g.block(rng, lambda size: b"\xff" * size),
    "noise": lambda g, rng: g.block(rng, rng.bytes),
    "small numbers": lambda g, rng: g.block(rng, lambda size: np.resize(rng.integers(0, g.count, 1024, dtype=np.uint32), 1024).tobytes()[:size]),
    "halves": lambda g, rng: g.raw[len(g.raw) // 2 :] + g.raw[: len(g.raw) // 2],
    "halves of the elements": lambda g, rng: g.swap(g.element(0), g.element(g.count // 2), g.count // 2 * g.element_size),
    "two elements": lambda g, rng: g.swap(g.element(0), g.element(g.count - 1 - _any(rng, g) // 2), g.element_size),
    "two labels": lambda g, rng: g.swap(g.element(1) - 8, g.element(1 + _any(rng, g)) - 8, 8),
    "two vectors": lambda g, rng: g.swap(g.element(0) + 4 + 8 * g.m, g.element(_any(rng, g)) + 4 + 8 * g.m, 4 * g.dimension),
    "two lists": lambda g, rng: g.swap(g.element(0), g.element(_any(rng, g)), 4 + 8 * g.m),
    "a label": lambda g, rng: g.put(g.element(1 + _any(rng, g)) - 8, rng.choice([0, g.count - 1, g.count, 2**63]), 8),
    "a size": lambda g, rng: g.put(g.element(_any(rng, g)), rng.choice([0, 1, 2 * g.m, 2 * g.m + 1, 65535, 65537]), 4),
    "a link": lambda g, rng: g.put(g.element(_any(rng, g)) + 4, _any(rng, g), 4),
    "a link too far": lambda g, rng: g.put(g.element(_any(rng, g)) + 4, g.count + rng.choice([0, 1, 2**16, 2**31]), 4),
    "a link to itself": lambda g, rng: g.put(g.element(p := _any(rng, g)) + 4, p, 4),
    "a number of upper lists": lambda g, rng: g.put(g.tail + 4 * int(rng.integers((len(g.raw) - g.tail) // 4)),
                                                     rng.choice([0, 1, g.count - 1, 4 + 4 * g.m, 8 + 8 * g.m, 2**32 - 4]), 4),
}
REFUSED = {"bytes left over", "cut", "cut of the end", "an element left out", "ones", "noise", "halves", "a label",
           "a link too far", "a link to itself"}
REFUSED_WITH_VECTORS = REFUSED | {"bits of a vector", "two labels", "two vectors"}


FAULTS = {
    "M_ 6 there, 5 wanted": lambda g: g.set("M_", 6),
    "maxM_ 6 there, 5 wanted": lambda g: g.set("maxM_", 6),
    "maxM0_ 5 there, 10 wanted": lambda g: g.set("maxM0_", 5),
    "offsetLevel0_ 4 there, 0 wanted": lambda g: g.set("offsetLevel0_", 4),
    "offsetData_ 40 there, 44 wanted": lambda g: g.set("offsetData_", 40),
    "max_elements_ 299 there, 300 wanted": lambda g: g.set("max_elements_", 299),
    "max_elements_ 2147483648 there, 2147483647 wanted": lambda g: g.set("max_elements_", 2**31),
    "ef_construction_ 4 there, 5 wanted": lambda g: g.set("ef_construction_", 4),
    "mult_ 0.0 there, 0.62.* wanted": lambda g: g.set("mult_", 0),
    r"entry 300 of 300 elements at level \d, one at level \d wanted": lambda g: g.set("enterpoint_node_", 300),
    r"entry \d+ of 300 elements at level [1-9], one at level \d wanted": lambda g: g.set("enterpoint_node_", g.low),
    r"entry \d+ of 300 elements at level 99, one at level \d wanted": lambda g: g.set("maxlevel_", 99),
    r"entry \d+ of 300 elements at level 0, one at level \d wanted": lambda g: g.put(48, g.low << 32, 8),
    "element 3 has 11 links, at most 10 wanted": lambda g: g.put(g.element(3), 11, 2),
    "element 3 has 0 links, 1 or more wanted": lambda g: g.put(g.element(3), 0, 2),
    "element 3 links to 300, one of 300 wanted": lambda g: g.put(g.element(3) + 40, 300, 4),
    "element 3 has mark 256, 0 wanted: it may be deleted": lambda g: g.put(g.element(3) + 2, 256, 2),
    r"element \d+ has 25 bytes of upper lists, a multiple of 24 wanted": lambda g: g.put(g.tail + 4 * g.high, 25, 4),
    r"element \d+ links at level 1 to an element that ends below": lambda g: g.put(g.tail + 4 * g.high + 8, g.low, 4),
    "it ends after 34895 bytes, in the middle": lambda g: g.raw[: g.tail - 1],
    "it ends before the upper lists of element 0 of 300": lambda g: g.raw[: g.tail],
}


@pytest.mark.parametrize("words", FAULTS)
def test_every_fact_is_checked(tmp_path, words):
    graph = Graph(build(tmp_path / "g", unit_vectors(300), 5, threads=1), unit_vectors(300), 5)
    (tmp_path / "g").write_bytes(FAULTS[words](graph))
    with pytest.raises(UserError, match=f"with M 5: {words}; build it again$"):
        check(tmp_path / "g", graph.vectors, 5)


def damaged(graph: Graph, rounds: int, seed: int):
    """(name, bytes) of damaged files; those that came out unchanged are left out."""
    rng = np.random.default_rng(seed)
    for name, damage in DAMAGES.items():
        for raw in {damage(graph, rng) for _ in range(rounds)} - {graph.raw}:
            yield name, raw


def passes(path: Path, graph: Graph, compare: bool) -> bool:
    try:
        check(path, graph.vectors, graph.m, compare)
    except UserError as error:
        assert str(error).startswith(str(path)) and str(error).endswith("; build it again") and "\n" not in str(error)
        return False
    return True


def test_a_damaged_graph_is_refused_or_can_be_searched(tmp_path):
    graph = Graph(build(tmp_path / "g", unit_vectors(300), 5, threads=1), unit_vectors(300), 5)
    np.save(tmp_path / "v.npy", graph.vectors)
    lines, let_through = [], {False: set(), True: set()}
    for count, (name, raw) in enumerate(damaged(graph, 7, seed=1), 1):
        path = tmp_path / str(count)
        path.write_bytes(raw)
        for compare in (False, True):
            if passes(path, graph, compare):
                let_through[compare].add(name)
                lines.append(f"{path} {tmp_path / 'v.npy'} {graph.m}\n")
    assert count > 150 and let_through[True] < let_through[False]
    assert not let_through[False] & REFUSED and not let_through[True] & REFUSED_WITH_VECTORS
    # In a process of its own, which what was let through must not crash. Changed links to other elements are among it.
    (tmp_path / "lines").write_text("".join(lines))
    result = run_process(sys.executable, "-c", LOAD_AND_SEARCH, str(tmp_path / "lines"))
    shares = np.array(result.stdout.split(), dtype=float)
    assert result.returncode == 0 and len(shares) == len(lines) and shares.min() > 0.9
