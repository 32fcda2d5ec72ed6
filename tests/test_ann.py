"""The engines against plain float64 NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest

from ann_util import FlatIndex, HnswIndex, TextIndex, find_repeated, share_of_exact
from files import UserError
from flat_index import _RunningTop
from parts import Vectors


def unit_vectors(count: int, dimension: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(count).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_parts(array: np.ndarray) -> Vectors:
    return Vectors(np.array_split(array, min(3, len(array))))


def text_index(array: np.ndarray) -> TextIndex:
    return TextIndex(in_parts(array), find_repeated(in_parts(array)))


def engine_of(name: str, index: TextIndex):
    if name == "hnsw":
        return HnswIndex(index.vectors.dimension, 32, 200, index.repeated[:, 0]).build(index.vectors)
    dtype, _, device = name.partition("-")
    return FlatIndex(dtype, on_gpu=device == "paddle").build(index.vectors)


ENGINES = ["float32", "float16", "int8", "float32-paddle", "int8-paddle", "hnsw"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("count, k", [(1, 1), (1, 5), (3, 3), (1000, 10), (9000, 50), (5, 50)])
def test_every_engine_finds_what_plain_numpy_finds(name, count, k):
    array = unit_vectors(count, 16)
    array[count // 2 :: 7] = array[0]  # many equal vectors
    queries = np.concatenate([array[:20], unit_vectors(21, 16)])
    index = text_index(array)
    ids, cosines = index.search(engine_of(name, index), queries, k)
    scores = queries.astype(np.float64) @ array.T.astype(np.float64)
    k = min(k, count)
    assert ids.shape == cosines.shape == (len(queries), k)
    assert all(len(set(row)) == k for row in ids.tolist())
    best = -np.sort(-scores, axis=1)[:, :k]
    right = np.abs(np.take_along_axis(scores, ids, 1) - best) < 1e-6
    assert right.mean() > 0.99 if name == "hnsw" else right.all()
    assert np.abs(np.take_along_axis(scores, ids, 1) - cosines).max() < 1e-6
    assert (np.diff(cosines, axis=1) <= 0).all() and np.abs(cosines).max() <= 1
    assert all(a < b for row, c in zip(ids, cosines) for a, b, x, y in zip(row, row[1:], c, c[1:]) if x == y)


@pytest.mark.parametrize("name", ENGINES)
def test_equal_vectors_come_in_corpus_order_even_where_they_exceed_k(name):
    array = np.concatenate([unit_vectors(9, 16), np.repeat(unit_vectors(1, 16), 400, axis=0), unit_vectors(7, 16)])
    index = text_index(array)
    ids, cosines = index.search(engine_of(name, index), array[9:11], 30)
    assert ids.tolist() == [list(range(9, 39))] * 2 and (cosines == cosines[0, 0]).all()


@pytest.mark.parametrize("name", ["float32", "int8", "hnsw"])
def test_adding_equals_building(name, tmp_path):
    array = unit_vectors(2500, 16)
    array[1000:2500:9] = array[3]
    index, first = text_index(array), text_index(array[:1100])
    started = engine_of(name, first)
    facts = {"texts": 1100, **started.save(tmp_path)}
    grown = HnswIndex(16, 32, 200, index.repeated[:, 0]) if name == "hnsw" else FlatIndex(name)
    grown.load(tmp_path, facts, Vectors([array[:1100]]) if name != "hnsw" else index.vectors, "again")
    grown.add(index.vectors, 1100)
    queries = np.concatenate([array[::100], unit_vectors(30, 16)])
    built = index.search(engine_of(name, index), queries, 20)
    added = index.search(grown, queries, 20)
    assert np.array_equal(built[0], added[0]) and np.array_equal(built[1], added[1])


def test_a_deterministic_graph_grows_to_the_bytes_of_one_built_at_once(tmp_path):
    array, m = unit_vectors(900, 16), 16
    array[::90] = array[0]
    index = text_index(array)

    def graph() -> HnswIndex:
        return HnswIndex(16, m, 60, index.repeated[:, 0], deterministic=True)

    def first(count: int) -> Vectors:
        return Vectors([array[:count]])

    engine = HnswIndex(16, m, 60, find_repeated(first(200))[:, 0], deterministic=True).build(first(200))
    facts = {"texts": 200, **engine.save(tmp_path)}
    for count in (500, 900):
        engine = HnswIndex(16, m, 60, find_repeated(first(count))[:, 0], deterministic=True)
        engine.load(tmp_path, facts, first(count), "again").add(first(count), facts["texts"])
        facts = {"texts": count, **engine.save(tmp_path)}
    (tmp_path / "once").mkdir()
    assert graph().build(index.vectors).save(tmp_path / "once")["sha256"] == facts["sha256"]


def test_no_queries_no_rows():
    index = text_index(unit_vectors(30))
    assert FlatIndex().build(index.vectors).search(np.zeros((0, 8), np.float32), 5).shape == (0, 5)


def test_repeated_vectors_are_found():
    array = unit_vectors(5000, 16)
    array[[70, 4000, 4999]] = array[2]
    array[300] = array[299]
    array[4] = -array[2]
    assert find_repeated(in_parts(array)).tolist() == [[70, 2], [300, 299], [4000, 2], [4999, 2]]


def test_vectors_are_read_across_their_parts():
    array = unit_vectors(50)
    vectors = Vectors([array[:1], array[1:30], array[30:]])
    ids = np.random.default_rng(0).permutation(50)
    assert np.array_equal(vectors[ids], array[ids]) and len(vectors) == 50
    blocks = list(vectors.blocks(start=20, rows=7))
    assert [first for first, _ in blocks] == [20, 27, 30, 37, 44]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), array[20:])


def test_hnsw_takes_its_settings():
    vectors = unit_vectors(60)
    engine = HnswIndex(8, 7, 33).build(Vectors([vectors]))
    engine.search(vectors, 5)
    assert (engine.graph.M, engine.graph.ef_construction, engine.graph.ef) == (7, 33, 33)
    engine.search(vectors, 40)
    assert engine.graph.ef == 40


def test_a_deterministic_graph_has_the_same_bytes(tmp_path):
    vectors = Vectors([unit_vectors(3000, 16)])
    names = [HnswIndex(16, 16, 50, deterministic=True).build(vectors).save(tmp_path)["sha256"] for _ in range(2)]
    assert names[0] == names[1]


def test_a_graph_of_another_corpus_is_refused(tmp_path):
    facts = HnswIndex(8, 7, 33).build(Vectors([unit_vectors(20)])).save(tmp_path)
    with pytest.raises(UserError, match="again$"):
        HnswIndex(8, 7, 33).load(tmp_path, {"texts": 20, **facts}, Vectors([unit_vectors(30)]), "again")
    with pytest.raises(UserError, match="again$"):
        HnswIndex(8, 7, 33).load(tmp_path, {"texts": 30, **facts}, Vectors([unit_vectors(30)]), "again")
    with pytest.raises(UserError, match="again$"):
        HnswIndex(8, 9, 33).load(tmp_path, {"texts": 20, **facts}, Vectors([unit_vectors(20)]), "again")


def test_a_graph_that_falls_apart_is_searched_exactly(capsys):
    vectors = unit_vectors(60)
    engine = HnswIndex(8, 7, 33).build(Vectors([vectors]))
    tried = []

    def fail(*_, **__):
        raise RuntimeError("Cannot return the results in a contiguous 2D array")

    engine.graph = SimpleNamespace(get_current_count=lambda: 60, set_ef=tried.append, knn_query=fail,
                                   get_ids_list=engine.graph.get_ids_list, get_items=engine.graph.get_items)
    assert np.array_equal(engine.search(vectors[:9], 5), FlatIndex().build(Vectors([vectors])).search(vectors[:9], 5))
    assert tried == [33, 60] and "searched exactly" in capsys.readouterr().err


def test_the_share_of_exact_counts_what_is_missing():
    class HalfRight:
        def search(self, queries, k):
            exact = FlatIndex().build(index.vectors).search(queries, 60)
            return np.concatenate([exact[:, : k // 2], exact[:, -(k // 2) :]], axis=1)

    vectors = unit_vectors(60)
    index = text_index(vectors)
    for engine, share in ((FlatIndex().build(index.vectors), 1), (HalfRight(), 0.5)):
        assert share_of_exact(index, vectors[:9], index.search(engine, vectors[:9], 10)[0]) == share


def test_a_graph_that_came_out_short_is_refused(tmp_path, file_size_limit):
    """Hnswlib itself reports success."""
    engine = HnswIndex(8, 7, 33).build(Vectors([unit_vectors(60)]))
    with file_size_limit(1000), pytest.raises(UserError, match="cannot write .*hnsw-60.bin.*bytes arrived"):
        engine.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("levels", [2, 50, 10**9])
def test_the_running_top_is_that_of_a_stable_sort(k, levels):
    """Few different scores, so that most are ties at the bound; blocks smaller and larger than k."""
    rng = np.random.default_rng(k)
    scores = (rng.integers(-levels, levels, size=(33, 5000)) / levels).astype(np.float32)
    scores[3] = scores[4, 0]
    top, first = _RunningTop(np.zeros((33, 4), dtype=np.float32), k), 0
    while first < 5000:
        block = scores[:, first : first + int(rng.integers(1, 400))]
        top.push(first, block)
        first += block.shape[1]
    assert top.ids().tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
