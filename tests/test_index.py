"""An index in parts, through recall.py: shards, machines, appended texts, engines' settings and plans."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, TARGETS, write
from test_recall import flags_of, run

import index_store
import recall

pytestmark = pytest.mark.usefixtures("compiled_once")

TEXTS = ["\u3000", *TARGETS[1:], *(f"{a}，{b}" for a in SOURCES[:8] for b in TARGETS[:8])]  # 80, one of them without a token
NEW = ["别的问题", TARGETS[3], *(f"{a}。{b}" for a in SOURCES[8:] for b in TARGETS[8:12]), "别的问题"]  # 35, of them 33 new


@pytest.fixture
def corpus(tmp_path) -> str:
    return write(tmp_path / "c.txt", lines(TEXTS))


@pytest.fixture
def new(tmp_path) -> str:
    return write(tmp_path / "new.txt", lines(NEW))


def lines(texts) -> str:
    return "".join(f"{text}\n" for text in texts)


def vectors_of(index: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted((index / "parts").glob("*.npy"))])


def texts_of(index: Path) -> list[str]:
    return [text for path in sorted((index / "parts").glob("*.txt")) for text in path.read_text().splitlines()]


def parts_of(index: Path) -> list[str]:
    return sorted(path.stem for path in (index / "parts").glob("*.json"))


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with the time of its last change and its content."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*") if path.is_file()}


def assert_same_index(one: Path, other: Path) -> None:
    assert texts_of(one) == texts_of(other)
    assert np.abs(vectors_of(one) - vectors_of(other)).max() < 1e-6
    facts = [json.loads((index / "manifest.json").read_text()) for index in (one, other)]
    for name in ("corpus", "texts", "tokenless", "vectors"):
        assert facts[0][name] == facts[1][name], name


def assert_same_rows(one: list[list[str]], other: list[list[str]]) -> None:
    """Batches of other texts round otherwise, so the last digit of a cosine may differ."""
    assert one and [row[:2] for row in one] == [row[:2] for row in other]
    assert [float(row[2]) for row in one] == pytest.approx([float(row[2]) for row in other], abs=1.1e-6)


@pytest.mark.parametrize("part, parts", [(65536, 3), (7, 12)])
@pytest.mark.parametrize("engine", ["flat", "hnsw"])
def test_shards_make_the_index_of_one_run(trained, pair_file, corpus, tmp_path, monkeypatch, capsys, part, parts, engine):
    flags = trained, pair_file, corpus
    plain = run(*flags, tmp_path / "a", "--index_dir", str(tmp_path / "one"), "--ann_engine", engine)
    monkeypatch.setattr(index_store, "PART", part)
    shared = ["--index_dir", str(tmp_path / "ix"), "--num_shards", "3", "--ann_engine", engine]
    seen: set[str] = set()
    for shard in (2, 0, 1):  # in any order
        assert recall.main(flags_of(*flags, tmp_path / "b", *shared, "--shard", str(shard))) == 0
        own = set(parts_of(tmp_path / "ix")) - seen
        assert own and not (tmp_path / "ix" / "manifest.json").exists()
        seen |= own
    assert len(seen) == parts and not list((tmp_path / "b").glob("*.txt"))
    before = state_of(tmp_path / "ix" / "parts")
    assert_same_rows(run(*flags, tmp_path / "b", *shared), plain)
    assert state_of(tmp_path / "ix" / "parts") == before
    assert_same_index(tmp_path / "one", tmp_path / "ix")
    capsys.readouterr()
    assert_same_rows(run(*flags, tmp_path / "c", *shared[:2], *shared[4:]), plain)  # without the shards it is the same index
    assert "0 in 0 part(s) to encode here" in capsys.readouterr().err and state_of(tmp_path / "ix" / "parts") == before


@pytest.mark.parametrize("shards", [79, 81, 200])
def test_more_shards_than_texts(trained, pair_file, corpus, tmp_path, shards):
    """A shard without a part of its own ends well; what the others have to do is not done by it."""
    shared = ["--index_dir", str(tmp_path / "ix"), "--num_shards", str(shards), "--shard"]
    assert recall.main(flags_of(trained, pair_file, corpus, tmp_path / "o", *shared, str(shards - 1))) == 0
    assert parts_of(tmp_path / "ix") == []
    assert recall.main(flags_of(trained, pair_file, corpus, tmp_path / "o", *shared, "3")) == 0
    size = 2 if shards == 79 else 1
    assert parts_of(tmp_path / "ix") == [f"{3 * size:010d}-{3 * size + size:010d}"]


def test_parts_that_do_not_make_one_index_are_refused(trained, pair_file, corpus, tmp_path, failure, encoder_folder):
    import train_batch_neg

    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pair_file,
                                 "--save_dir", str(tmp_path / "m"), "--max_steps", "1"]) == 0
    other = str(tmp_path / "m" / "latest" / "model_state.pdparams")
    whole, parts = tmp_path / "whole", tmp_path / "ix" / "parts"

    def shard(folder: Path, number: int, count: int = 3, params: str = trained) -> None:
        assert recall.main(flags_of(params, pair_file, corpus, tmp_path / "o", "--index_dir", str(folder), "--num_shards",
                                    str(count), "--shard", str(number))) == 0

    def refused(*words: str) -> None:
        line = failure(recall.main, flags_of(trained, pair_file, corpus, tmp_path / "o", "--index_dir",
                                             str(tmp_path / "ix"), "--num_shards", "3"))
        assert all(str(word) in line for word in words), line
        assert not (tmp_path / "ix" / "manifest.json").exists() and not (tmp_path / "o" / "recall_result.txt").exists()

    def restore() -> None:
        shutil.rmtree(parts.parent, ignore_errors=True)
        shutil.copytree(whole, parts.parent)

    for number in range(3):
        shard(whole, number)
    names = parts_of(whole)
    assert len(names) == 3
    for number, name in enumerate(names):
        for kind in ("json", "npy", "txt")[: 1 if number else 3]:
            restore()
            (parts / f"{name}.{kind}").unlink()
            refused(parts / f"{name}.{kind}", "is missing", f"part {number} of 3" if kind == "json" else "delete")
    shard(tmp_path / "other", 1, params=other)  # of another checkpoint, in the place of the right one
    restore()
    shutil.copytree(tmp_path / "other" / "parts", parts, dirs_exist_ok=True)
    refused(parts / f"{names[1]}.json", "was made from other things: checkpoint")
    for count in (1, 2, 4):  # a part more, which overlaps
        shard(tmp_path / f"of{count}", count - 1, count)
        restore()
        shutil.copytree(tmp_path / f"of{count}" / "parts", parts, dirs_exist_ok=True)
        refused(parts / parts_of(tmp_path / f"of{count}")[0], "overlaps other parts")
    for old, fresh, words in ((names[0], names[1], "was renamed"), (names[2], "0000000054-0000000079", "overlaps")):
        restore()
        for kind in ("json", "npy", "txt"):
            (parts / f"{old}.{kind}").replace(parts / f"{fresh}.{kind}")
        refused(parts / f"{fresh}.json", words)
    restore()  # two parts that are as long as each other change names
    for kind in ("json", "npy", "txt"):
        content = [(parts / f"{name}.{kind}").read_bytes() for name in names[:2]]
        for name, raw in zip(names[1::-1], content):
            (parts / f"{name}.{kind}").write_bytes(raw)
    refused(parts / f"{names[0]}.json", "was renamed")


@pytest.mark.parametrize("flags, words", [
    (["--shard", "0", "--index_dir", "ix"], "--shard 0 needs --num_shards 1 or more"),
    (["--shard", "3", "--num_shards", "3", "--index_dir", "ix"], "--shard 3 needs --num_shards 4 or more, not 3"),
    (["--shard", "-1", "--num_shards", "3", "--index_dir", "ix"], "--shard: '-1' is not"),
    (["--num_shards", "0", "--index_dir", "ix"], "--num_shards: '0' is not"),
    (["--num_shards", "3"], "--num_shards needs --index_dir"),
    (["--num_shards", "3", "--shard", "1"], "--num_shards needs --index_dir"),
    (["--append_corpus", "nowhere.txt"], "'nowhere.txt' does not exist"),
    (["--vector_dtype", "int8"], "--vector_dtype int8 goes with --ann_engine flat"),
    (["--vector_dtype", "float16", "--ann_engine", "milvus"], "goes with --ann_engine flat, not milvus"),
    (["--hnsw_deterministic", "--ann_engine", "flat"], "--hnsw_deterministic goes with --ann_engine hnsw"),
    (["--milvus_uri", "m.db"], "--milvus_uri goes with --ann_engine milvus"),
    (["--hnsw_m", "1"], "between 2 and 100"),
])
def test_flags_that_do_not_go_together(trained, pair_file, corpus, tmp_path, failure, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    assert words in failure(recall.main, flags_of(trained, pair_file, corpus, "o", *flags))
    assert not Path("ix").exists() and not Path("o").exists()


def test_two_machines_recall_what_one_process_does(trained, pair_file, corpus, tmp_path):
    """Two launchers on this machine stand for them."""
    plain = run(trained, pair_file, corpus, tmp_path / "a", "--index_dir", str(tmp_path / "one"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    command = [sys.executable, "-u", "-m", "paddle.distributed.launch", "--nnodes", "2", "--master", f"127.0.0.1:{port}",
               "--nproc_per_node", "1", "--log_dir"]
    machines = [subprocess.Popen([*command, str(tmp_path / f"log{number}"), str(PROJECT / "recall.py"),
                                  *flags_of(trained, pair_file, corpus, tmp_path / "b", "--index_dir", str(tmp_path / "ix"))],
                                 cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for number in range(2)]
    for machine in machines:
        output, _ = machine.communicate(timeout=120)
        assert machine.returncode == 0, output
    rows = [line.split("\t") for line in (tmp_path / "b" / "recall_result.txt").read_text().splitlines()]
    assert len(parts_of(tmp_path / "ix")) == 2
    assert_same_index(tmp_path / "one", tmp_path / "ix")
    assert_same_rows(rows, plain)


@pytest.mark.parametrize("part", [65536, 80])  # with 80 the parts are those of the joined files, and so are all bytes
@pytest.mark.parametrize("engine", [["--ann_engine", "flat"], [], ["--hnsw_deterministic"]], ids=["flat", "hnsw", "deterministic"])
def test_appending_equals_building(trained, pair_file, corpus, new, tmp_path, failure, monkeypatch, engine, part):
    monkeypatch.setattr(index_store, "PART", part)
    index, whole = ["--index_dir", str(tmp_path / "ix"), *engine], write(tmp_path / "both", lines(TEXTS + NEW))
    run(trained, pair_file, corpus, tmp_path / "a", *index)
    first = state_of(tmp_path / "ix" / "parts")
    appended = run(trained, pair_file, corpus, tmp_path / "a", *index, "--append_corpus", new)
    assert parts_of(tmp_path / "ix") == ["0000000000-0000000080", "0000000080-0000000113"]  # two lines of NEW are known
    assert first.items() <= state_of(tmp_path / "ix" / "parts").items()
    assert_same_rows(appended, run(trained, pair_file, whole, tmp_path / "b", "--index_dir", str(tmp_path / "whole"), *engine))
    assert_same_index(tmp_path / "ix", tmp_path / "whole")
    before = state_of(tmp_path / "ix")
    if part == 80:
        names = [name for name in before if name != "manifest.json" and (engine or "hnsw" not in name)]
        assert len(names) >= 7 and all(before[name][1] == (tmp_path / "whole" / name).read_bytes() for name in names)
    # The same again, and the files joined: nothing changes. The first corpus alone: refused.
    assert run(trained, pair_file, corpus, tmp_path / "a", *index, "--append_corpus", new) == appended
    assert run(trained, pair_file, whole, tmp_path / "a", *index) == appended
    assert state_of(tmp_path / "ix") == before
    line = failure(recall.main, flags_of(trained, pair_file, corpus, tmp_path / "c", *index))
    assert f"the index in {tmp_path / 'ix'} was made from another corpus" in line and "--append_corpus" in line
    assert state_of(tmp_path / "ix") == before


def test_appending_step_by_step_and_by_shards(trained, pair_file, corpus, new, tmp_path, capsys):
    index = ["--index_dir", str(tmp_path / "ix"), "--hnsw_deterministic"]
    known = write(tmp_path / "known.txt", lines(TEXTS[5:9]))
    more = write(tmp_path / "more.txt", lines([*NEW[5:9], "还有一个", "又一个", TEXTS[0]]))
    run(trained, pair_file, corpus, tmp_path / "a", *index)
    before = state_of(tmp_path / "ix")
    for files in ([known], [known, corpus]):  # nothing new: only the manifest is, which says so
        run(trained, pair_file, corpus, tmp_path / "a", *index, "--append_corpus", *files)
        changed = {name for name, state in state_of(tmp_path / "ix").items() if before.get(name) != state}
        assert changed == {"manifest.json", "repeated-80.npy"} and parts_of(tmp_path / "ix") == ["0000000000-0000000080"]
    files = ["--append_corpus", known, corpus, new]
    for shard in "10":
        assert recall.main(flags_of(trained, pair_file, corpus, tmp_path / "a", *index, *files, "--num_shards", "2",
                                    "--shard", shard)) == 0
    capsys.readouterr()
    run(trained, pair_file, corpus, tmp_path / "a", *index, *files, "--num_shards", "2")
    assert "adding 33 texts to the hnsw index" in capsys.readouterr().err
    appended = run(trained, pair_file, corpus, tmp_path / "a", *index, *files, more)
    assert parts_of(tmp_path / "ix") == [f"{a:010d}-{b:010d}" for a, b in ((0, 80), (80, 97), (97, 113), (113, 115))]
    assert sorted(path.name for path in (tmp_path / "ix").glob("hnsw*")) == ["hnsw-115.bin"]
    whole = write(tmp_path / "whole.txt", lines([*TEXTS, *NEW, "还有一个", "又一个"]))
    assert_same_rows(appended, run(trained, pair_file, whole, tmp_path / "b", "--hnsw_deterministic"))
    assert texts_of(tmp_path / "ix") == texts_of(tmp_path / "b" / "index")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_vectors_find_the_same(trained, pair_file, tmp_path, dtype):
    """Of 3000 near texts, among which a scan of rounded vectors alone would mistake some."""
    rng, words = np.random.default_rng(0), SOURCES + TARGETS
    texts = dict.fromkeys("".join(words[i] for i in rng.integers(32, size=3)) for _ in range(3000))
    flags = [trained, pair_file, write(tmp_path / "many", lines(texts)), tmp_path / "o", "--ann_engine", "flat"]
    run(*flags)
    right = (tmp_path / "o" / "recall_result.txt").read_bytes()
    run(*flags, "--vector_dtype", dtype)
    assert (tmp_path / "o" / "recall_result.txt").read_bytes() == right and right.count(b"\n") == 800


@pytest.mark.parametrize("flags, words", [
    ([], ["80 texts of 256 dimensions in 1 part.s., 80 in 1", r"time +\d+ s to encode at \d+ texts/s", "memory.* of graph",
          "disk +81.9 kB of vectors", "copy of the texts"]),
    (["--ann_engine", "flat"], ["the vectors stay on disk", "0 bytes of index"]),
    (["--ann_engine", "flat", "--vector_dtype", "float16"], ["memory +41.0 kB of float16 vectors"]),
    (["--ann_engine", "flat", "--vector_dtype", "int8"], ["memory +20.8 kB of int8 vectors"]),
    (["--num_shards", "4", "--index_dir", "ix"], ["80 texts .* in 4 part.s., 0 in 0", "missing 4 part.s., which --shard 0 to --shard 3"]),
    (["--num_shards", "4", "--shard", "1", "--index_dir", "ix"], ["80 texts .* in 4 part.s., 20 in 1", "1 of 4"]),
    (["--index_dir", "ix", "--append_corpus", "new.txt"], ["113 texts .* in 1 part.s., 113 in 1 part.s. to encode"]),
])
def test_a_dry_run_tells_the_plan_and_writes_nothing(trained, pair_file, corpus, new, tmp_path, monkeypatch, capsys, flags,
                                                     words):
    monkeypatch.chdir(tmp_path)
    before = state_of(tmp_path)
    capsys.readouterr()
    assert recall.main(flags_of(trained, pair_file, corpus, "o", *flags, "--dry_run")) == 0
    out, err = capsys.readouterr()
    assert out == "" and all(re.search(word, err) for word in ["plan: ", *words]), err
    assert state_of(tmp_path) == before and not list(tmp_path.glob("[io]*"))


@pytest.mark.parametrize("strict", [True, False])
def test_a_dry_run_over_an_index_leaves_it(trained, pair_file, corpus, new, tmp_path, capsys, strict):
    """What is there need not be encoded, and what would be refused or replaced is told, not touched."""
    flags = ["--index_dir", str(tmp_path / "o" / "index")] if strict else []
    run(trained, pair_file, corpus, tmp_path / "o", *flags)
    before = state_of(tmp_path)

    def plan(*more: str, code: int = 0, first: str = corpus) -> str:
        capsys.readouterr()
        assert recall.main(flags_of(trained, pair_file, first, tmp_path / "o", *flags, "--dry_run", *more)) == code
        assert state_of(tmp_path) == before
        return capsys.readouterr().err

    assert "0 in 0 part(s) to encode here" in plan() and "time    nothing" in plan()
    assert "113 texts of 256 dimensions in 2 part(s), 33 in 1 part(s)" in plan("--append_corpus", new)
    for text in (plan(code=2 if strict else 0, first=new), plan("--max_seq_length", "16", code=2 if strict else 0)):
        assert "was made from" in text and ("is built again" in text) is not strict
