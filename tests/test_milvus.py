"""MilvusIndex against milvus-lite and against a real server: answers, counts, faults, and a server that is killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, run_process
from milvus_server import TOKEN, MilvusServer

import milvus_engine
from files import UserError
from milvus_engine import MilvusIndex

D, AGAIN = 16, "build it again"
LITE = pytest.mark.skipif(sys.version_info < (3, 10), reason="milvus-lite 3 needs Python 3.10")


class Rows:
    """Vectors of an array, in blocks; `before` is called with each block's first id."""

    def __init__(self, array: np.ndarray, size: int = 65536, before=lambda first: None) -> None:
        self.array, self.size, self.before, self.dimension = array, size, before, array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, start: int = 0):
        for first in range(start, len(self), self.size):
            self.before(first)
            yield first, self.array[first : first + self.size]


def unit_vectors(count: int, seed: int = 0, dimension: int = D) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


QUERIES = unit_vectors(8, seed=1)


def same_neighbours(found: np.ndarray, vectors: np.ndarray, k: int, queries: np.ndarray = QUERIES) -> bool:
    """Whether `found` is an exact top k: different ids with the k highest cosines, in any order."""
    cosines = queries @ vectors.T
    mine = np.sort(np.take_along_axis(cosines, found, axis=1), axis=1)
    best = np.sort(cosines, axis=1)[:, -k:]
    return (found.shape == (len(queries), k) and found.dtype == np.int64 and np.allclose(mine, best, atol=1e-5)
            and all(len(set(row)) == k for row in found.tolist()))


def index(uri, collection="texts", dimension=D, m=32, ef=200) -> MilvusIndex:
    return MilvusIndex(str(uri), collection, dimension, m, ef)


@pytest.fixture(scope="session")
def server(request, tmp_path_factory):
    server = MilvusServer(request.config.cache.mkdir("milvus"), tmp_path_factory.mktemp("milvus") / "server").start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=[pytest.param("lite", marks=LITE), "server"])
def uri(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "lite":
            yield str(tmp_path_factory.mktemp("lite") / "new" / "milvus.db")
        else:
            patch.setenv("MILVUS_TOKEN", TOKEN)
            yield request.getfixturevalue("server").uri


@pytest.fixture(scope="module")
def filled(uri):
    """1500 vectors, of which 20 are others' equals: (uri, vectors)."""
    vectors = unit_vectors(1500)
    vectors[100:120] = vectors[:20]
    with index(uri) as made:
        made.build(Rows(vectors, 400))
    return uri, vectors


def test_neighbours_are_those_of_numpy_after_opening_again(filled, capfd):
    uri, vectors = filled
    with index(uri).load(Path(), {"texts": 1500}, range(1500), AGAIN) as opened:
        assert opened.count() == 1500
        for k in (1, 10, 1500):
            assert same_neighbours(opened.search(QUERIES, k), vectors, k)
        assert opened.search(QUERIES[:0], 10).shape == (0, 10)
        opened.close()
        assert opened.load(Path(), {"texts": 1500}, range(1500), AGAIN).count() == 1500
    assert capfd.readouterr() == ("", "")


def test_the_graph_is_as_ordered_and_has_all_vectors(filled):
    """milvus-lite builds with values of its own where it doesn't find those that are sent."""
    with index(filled[0]).load(Path(), {"texts": 1500}, range(1500), AGAIN) as opened:
        made = opened._client.describe_index("texts", "vector")
    assert (made["index_type"], made["metric_type"], made["indexed_rows"]) == ("HNSW", "IP", 1500)
    assert {name: int(value) for name, value in made["params"].items()} == {"M": 32, "efConstruction": 200}


@pytest.mark.parametrize("count, changes, named", [
    (1499, {}, "the collection 'texts' holds 1500 vectors where 1499 belong; build it again"),
    (1501, {}, "the collection 'texts' holds 1500 vectors where 1501 belong; build it again"),
    (1500, {"collection": "none"}, "there is no collection 'none'; build it first"),
    (1500, {"dimension": 8}, "the collection 'texts' has dimension 16 where 8 belongs"),
])
def test_another_collection_than_expected_is_refused(filled, count, changes, named):
    with index(filled[0], **changes) as other, pytest.raises(UserError, match=re.escape(f"{filled[0]}: {named}")):
        other.load(Path(), {"texts": count}, range(count), AGAIN)


def test_vectors_and_queries_of_another_dimension_are_refused(filled):
    with index(filled[0]) as opened:
        for act in (lambda: opened.search(unit_vectors(2, dimension=8), 1),
                    lambda: opened.build(Rows(unit_vectors(2, dimension=8))),
                    lambda: opened.add(Rows(unit_vectors(2, dimension=8)), 0)):
            with pytest.raises(UserError, match="have dimension 8 where 16 belongs"):
                act()
        assert opened.load(Path(), {"texts": 1500}, range(1500), AGAIN).count() == 1500


def test_more_neighbours_than_a_server_finds_are_refused():
    with pytest.raises(UserError, match="x.db: Milvus finds at most 16384 neighbours of a query and 16385 are wanted"):
        index("x.db").search(QUERIES, 16385)


def test_what_milvus_refuses_is_told(filled):
    with index(filled[0], "no/name") as bad, pytest.raises(UserError) as told:
        bad.build(Rows(unit_vectors(2)))
    assert re.fullmatch(f"{filled[0]}: can't make the collection: .*nvalid collection name: .*, then run again",
                        str(told.value))


def test_added_vectors_are_found_like_built_ones_however_often(uri, monkeypatch):
    monkeypatch.setattr(milvus_engine, "REQUEST_BYTES", 7000)  # 97 vectors
    monkeypatch.setattr(milvus_engine, "REQUEST_HITS", 30)  # three queries
    vectors = unit_vectors(500)
    with index(uri, "added") as made:
        made.build(Rows(vectors[:300]))
        assert same_neighbours(made.search(QUERIES, 10), vectors[:300], 10)
        for start, wanted in (300, [97, 13, 90]), (250, [97, 13, 97, 13, 30]):
            written = sizes_of(made, "upsert", 1)
            made.add(Rows(vectors, 110), start)
            assert written == wanted
            assert made.count() == 500
            asked = sizes_of(made, "search", 1)
            assert same_neighbours(made.search(QUERIES, 10), vectors, 10)
            assert asked == [3, 3, 2]
    with index(uri, "added").load(Path(), {"texts": 500}, range(500), AGAIN) as opened:
        assert same_neighbours(opened.search(QUERIES, 10), vectors, 10)
        with pytest.raises(UserError, match="holds 500 vectors where 400 belong"):
            opened.add(Rows(vectors[:400]), 390)


def sizes_of(opened: MilvusIndex, verb: str, place: int) -> list:
    """Collects the lengths of an argument of the client's calls from now on."""
    sizes, call = [], getattr(opened._client, verb)
    setattr(opened._client, verb, lambda *args, **rest: sizes.append(len(args[place])) or call(*args, **rest))
    return sizes


def test_building_again_leaves_nothing_of_before(uri):
    with index(uri, "again") as made:
        made.build(Rows(unit_vectors(50)))
    one = unit_vectors(1, dimension=8)
    with index(uri, "again", dimension=8) as made:
        made.build(Rows(one))
        assert made.count() == 1
        assert same_neighbours(made.search(one, 1), one, 1, one)


def test_a_build_that_was_broken_off_is_refused(uri):
    def stop(first):
        if first:
            raise KeyboardInterrupt

    with index(uri, "broken") as made:
        with pytest.raises(KeyboardInterrupt):
            made.build(Rows(unit_vectors(20), 10, stop))
        with pytest.raises(UserError, match=f"{uri}: .*; build it again"):
            made.load(Path(), {"texts": 20}, range(20), AGAIN)


def test_repeated_ids_are_noticed(server, monkeypatch):
    """Milvus takes them without a word, as from an insert that was sent twice; milvus-lite replaces."""
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    with index(server.uri, "doubled") as made:
        made.build(Rows(unit_vectors(5)))
        made._client.insert("doubled", [{"id": 3, "vector": QUERIES[0]}])
        with pytest.raises(UserError, match="the collection 'doubled' holds 6 vectors where 5 belong"):
            made.load(Path(), {"texts": 5}, range(5), AGAIN)


@LITE
def test_a_walk_that_ends_early_is_widened(tmp_path):
    """Replaced and deleted vectors stay in the graph and are walked through."""
    vectors, queries = unit_vectors(1000), unit_vectors(40, seed=1)
    with index(tmp_path / "milvus.db", m=8, ef=10) as made:
        made.build(Rows(vectors))
        made._client.delete("texts", filter="id >= 100")
        assert same_neighbours(made.load(Path(), {"texts": 100}, range(100), AGAIN).search(queries, 100), vectors[:100], 100, queries)
        asked = sizes_of(made, "search", 1)
        found = made.search(queries, 25)
        assert asked[0] == 40 and 0 < asked[1] < 40  # some queries are asked again, and put where they belong
        best = np.argsort(-queries @ vectors[:100].T, axis=1)[:, :25]
        assert min(np.isin(mine, right).mean() for mine, right in zip(found, best)) > 0.5


@LITE
def test_a_graph_that_falls_apart_is_told(tmp_path):
    with index(tmp_path / "milvus.db", m=2, ef=1) as made:
        made.build(Rows(np.repeat(unit_vectors(40), 60, axis=0)))
        with pytest.raises(UserError, match="the graph of 'texts' reaches less than 100 neighbours of some query; build"):
            made.search(QUERIES, 100)


@pytest.mark.parametrize("uri", ["milvus", "/folder/milvus", "ftp://host", "http://", "http://host/a/b", "http://host/a.db",
                                 "http://user:secret@host:19530", "file:///a.db"])
def test_an_address_of_another_form_is_refused(uri):
    with pytest.raises(UserError, match="no address of Milvus; write /folder/name.db for milvus-lite or http") as told:
        index(uri)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("scheme, answer", [("http", "refused"), ("https", "refused"), ("tcp", "refused"), ("http", "none")])
def test_a_dead_address_is_told_within_ten_seconds(scheme, answer, capfd):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if answer == "refused":
            listener.close()
        start = time.monotonic()
        with pytest.raises(UserError, match=f"{scheme}://127.0.0.1:{port}: can't connect: .*; check that a Milvus server"):
            index(f"{scheme}://127.0.0.1:{port}").load(Path(), {"texts": 1}, range(1), AGAIN)
    assert time.monotonic() - start < 10
    assert capfd.readouterr() == ("", "")


def test_a_port_that_can_not_be_is_told():
    with pytest.raises(UserError, match="http://host:99999: can't connect: Port out of range"):
        index("http://host:99999").load(Path(), {"texts": 1}, range(1), AGAIN)


def test_a_wrong_token_is_told(server, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:wrong")
    with pytest.raises(UserError, match="UNAUTHENTICATED: auth check failure.*; check .* that MILVUS_TOKEN fits"):
        index(server.uri).load(Path(), {"texts": 1}, range(1), AGAIN)


@pytest.mark.parametrize("uri, missing, command", [
    ("x.db", "pymilvus", 'pip install pymilvus "milvus-lite>=3" (Python 3.10 or newer)'),
    ("x.db", "milvus_lite", 'pip install pymilvus "milvus-lite>=3" (Python 3.10 or newer)'),
    ("http://127.0.0.1:1", "pymilvus", "pip install pymilvus")])
def test_a_missing_package_is_told_with_its_command(uri, missing, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("milvus_lite.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"^{uri}: .*{missing}.*; {re.escape(command)}$"):
        index(uri).build(Rows(unit_vectors(1)))
    assert not list(tmp_path.iterdir())


def test_looking_for_a_collection_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no collection 'texts'; build it first"):
        index(tmp_path / "milvus.db").load(Path(), {"texts": 1}, range(1), AGAIN)
    assert not list(tmp_path.iterdir())


@LITE
def test_a_file_at_the_place_of_the_folder_is_told(tmp_path, capfd):
    (tmp_path / "milvus.db").write_text("")
    with pytest.raises(UserError, match="milvus.db: can't start milvus-lite: .*File exists.*or name another path"):
        index(tmp_path / "milvus.db").build(Rows(unit_vectors(1)))
    assert capfd.readouterr() == ("", "")


WRITER = f"""
import sys, time
sys.path[:0] = [{str(PROJECT)!r}, {str(Path(__file__).parent)!r}]
import test_milvus as t
def slowly(first):
    if first == 400:
        print("writing", flush=True)
        time.sleep(60)
t.index(sys.argv[1]).build(t.Rows(t.unit_vectors(500), 100, slowly))
"""


@LITE
def test_a_process_has_the_folder_alone_and_can_be_killed(tmp_path, capfd):
    path = tmp_path / "milvus.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        with pytest.raises(UserError, match="milvus.db: can't start milvus-lite: .*another process holds the lock on .*; end the proc"):
            index(path).load(Path(), {"texts": 500}, range(500), AGAIN)
        writer.kill()
    with index(path) as left, pytest.raises(UserError, match="milvus.db: .*collection"):
        left.load(Path(), {"texts": 500}, range(500), AGAIN)
    vectors = unit_vectors(500)
    with index(path) as made:
        assert same_neighbours(made.build(Rows(vectors)).search(QUERIES, 10), vectors, 10)
    assert capfd.readouterr() == ("", "")


@LITE
def test_another_process_takes_over_says_nothing_and_ends(tmp_path):
    """Fresh imports, a proxy that must not be asked for 127.0.0.1, and no close."""
    with index(tmp_path / "milvus.db") as made:
        made.build(Rows(unit_vectors(5)))
    script = WRITER.replace("== 400", "< 0")
    done = run_process("python", "-c", script, str(tmp_path / "milvus.db"), http_proxy="http://127.0.0.1:9", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    index(tmp_path / "milvus.db").load(Path(), {"texts": 500}, range(500), AGAIN).close()


def test_a_server_killed_in_the_middle_of_an_insert(server, monkeypatch, capfd):
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    vectors = unit_vectors(900)
    killed = []

    def kill(first):
        if first >= 600 and not killed:
            killed.append(time.monotonic())
            threading.Thread(target=server.kill).start()

    with index(server.uri, "killed") as made:
        made.build(Rows(vectors[:300]))
        try:
            with pytest.raises(UserError, match=f"{server.uri}: can't upsert the vectors from .*, then run again"):
                made.add(Rows(vectors, 10, kill), 300)
            assert time.monotonic() - killed[0] < 30
        finally:
            server.start()
        with pytest.raises(UserError, match="the collection 'killed' holds .* vectors where 900 belong; build it again"):
            made.load(Path(), {"texts": 900}, range(900), AGAIN)
        assert same_neighbours(made.add(Rows(vectors), 300).search(QUERIES, 10), vectors, 10)
        assert made.count() == 900
    with index(server.uri, "killed").load(Path(), {"texts": 900}, range(900), AGAIN) as opened:
        assert same_neighbours(opened.search(QUERIES, 10), vectors, 10)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_hangs(server, monkeypatch, capfd):
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    monkeypatch.setattr(milvus_engine, "ANSWER_WITHIN", 2)
    with index(server.uri, "none") as opened:
        with pytest.raises(UserError, match="there is no collection 'none'"):
            opened.load(Path(), {"texts": 1}, range(1), AGAIN)
        os.killpg(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UserError, match=f"{server.uri}: can't look up the collection: DEADLINE_EXCEEDED: .*, then"):
                opened.load(Path(), {"texts": 1}, range(1), AGAIN)
        finally:
            os.killpg(server.process.pid, signal.SIGCONT)
        with pytest.raises(UserError, match="there is no collection 'none'"):
            opened.load(Path(), {"texts": 1}, range(1), AGAIN)
    assert capfd.readouterr() == ("", "")


def test_the_server_is_reached_by_loopback_only(server):
    """All that its processes listen on outside of their namespace is the port of 127.0.0.1."""
    group = [path for path in Path("/proc").glob("[0-9]*") if _group(path) == server.process.pid]
    assert len(group) == 2
    outside = os.readlink("/proc/self/ns/net")
    listening = {line.split()[1] for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]
                 if line.split()[3] == "0A" and line.split()[9] in _sockets(group)}
    assert listening == {f"0100007F:{server.port:04X}"}
    assert all(os.readlink(path / "ns" / "net") != outside for path in group)


def _group(process: Path) -> int:
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return 0


def _sockets(processes: list) -> set:
    links = [os.readlink(link) for process in processes for link in (process / "fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}
