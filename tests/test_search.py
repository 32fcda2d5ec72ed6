"""What is done with a saved index: search.py, inspect_index.py, export_index.py."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, pair_lines, run_process, write
from test_index import TEXTS, lines, state_of, texts_of, vectors_of
from test_recall import run

import export_index
import index_store
import inspect_index
import search

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    """An index in three parts with a graph, and the rows of recall.py --keep_self for all SOURCES."""
    base = tmp_path_factory.mktemp("saved")
    pairs, corpus = write(base / "p", pair_lines()), write(base / "c", lines(TEXTS + SOURCES[:4]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_store, "PART", 30)
        rows = run(trained, pairs, corpus, base / "o", "--index_dir", str(base / "ix"), "--keep_self", "--recall_num", "10")
    precision = json.loads((base / "ix" / "manifest.json").read_text())["vectors"]["precision"]  # auto's, of this machine
    export = Path(trained).parent / "export" / f"openvino-{precision}"  # other tests leave those of other runtimes
    return SimpleNamespace(folder=base / "ix", rows=rows, params=trained, pairs=pairs, corpus=corpus, precision=precision,
                           export=export)


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved.folder, tmp_path / "ix"))


def ask(saved, *flags: str, index: Path | None = None) -> list[str]:
    return ["--device", "cpu", "--params_path", saved.params, "--index_dir", str(index or saved.folder), *flags]


def assert_same(rows, expected) -> None:
    """The same queries and texts; cosines within a rounding of the last digit."""
    assert [row[:2] for row in rows] == [row[:2] for row in expected] and rows
    assert [float(row[2]) for row in rows] == pytest.approx([float(row[2]) for row in expected], abs=1.1e-6)


@pytest.mark.parametrize("way", ["--query", "--query_file", "stdin"])
@pytest.mark.parametrize("form", ["tsv", "jsonl", "table"])
@pytest.mark.parametrize("engine", [[], ["--ann_engine", "flat"], ["--ann_engine", "hnsw"]], ids=["default", "flat", "hnsw"])
def test_search_answers_as_recall_does(saved, tmp_path, monkeypatch, capsys, way, form, engine):
    flags = {"--query": [word for source in SOURCES for word in ("--query", source)],
             "--query_file": ["--query_file", write(tmp_path / "q", lines(SOURCES))], "stdin": []}[way]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"\n{lines(SOURCES)}\r\n".encode())))
    capsys.readouterr()
    assert search.main(ask(saved, "--format", form, *flags, *engine)) == 0
    out = capsys.readouterr().out
    if form == "tsv":
        rows = [line.split("\t") for line in out.splitlines()]
    elif form == "jsonl":
        answers = [json.loads(line) for line in out.splitlines()]
        texts = texts_of(saved.folder)
        assert {a["engine"] for a in answers} == {"flat" if "flat" in engine else "hnsw"} and len(answers) == 16
        assert all(texts[r["id"]] == r["text"] for a in answers for r in a["results"])
        rows = [[a["query"], r["text"], r["cosine"]] for a in answers for r in a["results"]]
    else:
        blocks = [block.splitlines() for block in out.split("\n\n") if block.strip()]
        assert all([line.split()[0] for line in block[1:]] == [str(n) for n in range(1, 11)] for block in blocks)
        rows = [[block[0], line.split("  ")[-1], line.split()[1]] for block in blocks for line in block[1:]]
    assert_same(rows, saved.rows)


def test_top_k(saved, capsys):
    for k, rows in ((3, 3), (84, 84), (500, 84)):
        capsys.readouterr()
        assert search.main(ask(saved, "--query", "密码", "--format", "tsv", "--top_k", str(k))) == 0
        assert len(capsys.readouterr().out.splitlines()) == rows


@pytest.mark.parametrize("form", ["tsv", "jsonl", "table"])
def test_exact_search_shows_what_the_engine_missed(saved, monkeypatch, capsys, form):
    """An engine that finds the second half only of the exact best ten, and the ten after them."""
    class Bad:
        def close(self):
            pass

        def search(self, queries, k):
            return index_store.FlatIndex().build(self.vectors).search(queries, 2 * k)[:, k // 2 : -(k // 2)]

    def bad_engine(self, name, saved):
        engine = Bad()
        engine.vectors = saved.index.vectors
        return engine

    monkeypatch.setattr(index_store.IndexStore, "open_saved_engine", bad_engine)
    capsys.readouterr()
    assert search.main(ask(saved, "--query", SOURCES[0], "--query", SOURCES[1], "--format", form, "--exact")) == 0
    out, right = capsys.readouterr().out, saved.rows[:20]
    if form == "tsv":
        rows = [line.split("\t") for line in out.splitlines()]
        assert len(rows) == 30 and [row[3] for row in rows[:15]] == ["exact"] * 5 + ["both"] * 5 + ["hnsw"] * 5
        assert_same([row[:3] for row in rows if row[3] != "hnsw"], right)
    elif form == "jsonl":
        for answer, expected in zip(map(json.loads, out.splitlines()), (right[:10], right[10:])):
            assert_same([[answer["query"], r["text"], r["cosine"]] for r in answer["exact"]], expected)
            assert answer["missed"] == [r["id"] for r in answer["exact"][:5]]
            assert [r["id"] for r in answer["results"][:5]] == [r["id"] for r in answer["exact"][5:]]
    else:
        marked = [line for line in out.splitlines() if line[:4].strip().isdigit()]
        assert [line.split("  ")[-1].startswith("- ") for line in marked] == ([True] * 5 + [False] * 5) * 2
        assert out.count("hnsw missed 5 of the exact 10 (-)") == 2


def test_exact_search_of_a_right_engine_misses_nothing(saved, capsys):
    for form, words in (("table", "flat missed 0 of the exact 10\n"), ("jsonl", '"missed": []')):
        assert search.main(ask(saved, "--query", "密码", "--exact", "--ann_engine", "flat", "--format", form)) == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("flags, words", [
    (["--query", ""], "is empty or holds a TAB"), (["--query", "a\tb"], "is empty or holds a TAB"),
    (["--query", "a\nb"], "is empty or holds a TAB"), (["--query", "a", "--query_file", __file__], "not both"),
    (["--query_file", "nowhere"], "does not exist"), (["--query", "a", "--top_k", "0"], "is not a whole number above 0"),
    (["--query", "a", "--ann_engine", "milvus"], "no milvus engine of all its texts (it has flat, hnsw)"),
    (["--query", "a", "--max_seq_length", "16"], "--max_seq_length 32 there, 16 in this run"),
    (["--query", "a", "--output_emb_size", "128"], "--output_emb_size 128 contradicts"),
    (["--query", os.fsdecode(b"bad \xff")], "UTF-8")])
def test_bad_questions_end_in_one_line(saved, failure, flags, words):
    assert words in failure(search.main, ask(saved, *flags))


@pytest.mark.parametrize("raw, words", [(b"good\nb\xff\n", "standard input: line 2: byte 2 (0xff) is not UTF-8"),
                                        (b"\na\tb\n", "standard input: line 2: there is a TAB")])
def test_bad_lines_of_standard_input_are_named(saved, monkeypatch, capsys, raw, words):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    capsys.readouterr()
    assert search.main(ask(saved, "--format", "jsonl")) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == raw.count(b"good") and words in err.splitlines()[-1]


def test_queries_are_answered_one_by_one(saved):
    """The answer comes before the next question is asked, and the reader may leave."""
    process = subprocess.Popen([sys.executable, str(PROJECT / "search.py"), *ask(saved, "--format", "jsonl", "--top_k", "2")],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for source in SOURCES[:3]:
        process.stdin.write(f"{source}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["query"] == source
    process.stdout.close()
    _, err = process.communicate(f"{SOURCES[3]}\n{SOURCES[4]}\n".encode(), timeout=60)
    assert process.returncode == 0 and b"error" not in err and b"Traceback" not in err, err.decode()


def test_search_without_standard_input(saved):
    command = f"python search.py {' '.join(ask(saved))} <&-"
    result = run_process("bash", "-c", command)
    assert "Traceback" not in result.stderr and result.stdout == "", result.stderr


def test_an_index_of_another_checkpoint_or_without_its_engine_is_refused(saved, encoder_folder, copied, tmp_path, failure):
    import train_batch_neg

    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", saved.pairs,
                                 "--save_dir", str(tmp_path / "m"), "--max_steps", "1", "--output_emb_size", "128"]) == 0
    line = failure(search.main, ["--device", "cpu", "--index_dir", str(saved.folder), "--query", "a", "--params_path",
                                 str(tmp_path / "m" / "latest")])
    assert f"the index in {saved.folder} was made from other things: checkpoint" in line
    assert "dimension 256 there, 128 in this run" in line
    line = failure(search.main, ask(saved, "--query", "a", index=tmp_path))
    assert f"{tmp_path} holds no finished index" in line
    (copied / "hnsw-84.bin").unlink()
    assert f"{copied / 'hnsw-84.bin'} is missing" in failure(search.main, ask(saved, "--query", "a", index=copied))
    assert search.main(ask(saved, "--query", "a", "--ann_engine", "flat", index=copied)) == 0


def test_an_index_that_grew_without_its_graph_is_searched_all_the_same(saved, copied, tmp_path, capsys):
    """Appended to with --ann_engine flat: the graph is of the first texts alone, so the default is flat."""
    new = write(tmp_path / "new", "新的问题\n")
    run(saved.params, saved.pairs, saved.corpus, tmp_path / "o", "--index_dir", str(copied), "--ann_engine", "flat",
        "--append_corpus", new)
    capsys.readouterr()
    assert search.main(ask(saved, "--query", "新的问题", "--format", "tsv", "--top_k", "1", index=copied)) == 0
    assert capsys.readouterr().out == "新的问题\t新的问题\t1.000000\n"
    assert inspect_index.main([str(copied)]) == 0 and "whole: " in capsys.readouterr().out


def test_parts_of_another_index_of_the_same_checkpoint_are_refused(saved, copied, tmp_path, failure):
    """Each file fits its part's manifest, but the part is not of this index: it would answer with other texts."""
    other = write(tmp_path / "c", lines(reversed(TEXTS + SOURCES[:4])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_store, "PART", 30)
        run(saved.params, saved.pairs, other, tmp_path / "o", "--index_dir", str(tmp_path / "other"))
    for path in (tmp_path / "other" / "parts").glob("0000000030-*"):
        shutil.copy(path, copied / "parts")
    named = str(copied / "parts" / "0000000030-0000000060")
    assert named in failure(search.main, ask(saved, "--query", "a", "--ann_engine", "flat", index=copied))
    assert named in failure(export_index.main, ["--index_dir", str(copied), "--output_dir", str(tmp_path / "p")])


def test_an_export_in_another_precision_than_the_index_is_named(saved, copied, failure):
    from files import read_manifest, write_manifest

    for path in (copied / "parts").glob("*.json"):
        facts = read_manifest(path, 1, "")
        facts["made_from"]["precision"] = "other"
        write_manifest(path, facts)
    facts = read_manifest(copied / "manifest.json", 3, "")
    facts["vectors"]["precision"] = "other"
    facts["parts"] = [[first, end, json.loads((copied / "parts" / f"{first:010d}-{end:010d}.json").read_text())["sha256"]]
                      for first, end, _ in facts["parts"]]
    write_manifest(copied / "manifest.json", facts)
    line = failure(search.main, ["--device", "cpu", "--index_dir", str(copied), "--params_path", str(saved.export), "--query", "a"])
    assert f"--precision other there, {saved.precision} in this run" in line


def inspect(folder, capsys, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert inspect_index.main([str(folder)]) == code, folder
    return capsys.readouterr()


def test_inspect_tells_what_a_folder_is(saved, capsys):
    checkpoint = Path(saved.params).parent
    for folder, words in ((saved.folder, ["an index", "max_seq_length: 32", f"precision: {saved.precision}", "texts: 84 in 3 part(s)", "hnsw_m: 16",
                                          TEXTS[0]]),
                          (checkpoint, ["a checkpoint", "pooling: mean", "strategy: batch_neg", "step: 8"]),
                          (saved.export, ["an export", f"precision: {saved.precision}", "least_cosine: "])):
        out, err = inspect(folder, capsys)
        assert "error" not in err and out.splitlines()[-1].startswith("whole: ") and all(word in out for word in [str(folder), *words]), out


def test_inspect_names_what_is_wrong(saved, copied, tmp_path, capsys):
    checkpoint = Path(shutil.copytree(Path(saved.params).parent, tmp_path / "ck"))
    for folder in (copied, checkpoint, checkpoint / "export" / saved.export.name):
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md" and
                           (folder != checkpoint or "export" not in path.parts)):
            whole = path.read_bytes()
            for damaged in (whole[:-2], whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :], b"", None):
                path.write_bytes(damaged) if damaged is not None else path.unlink()
                out, err = inspect(folder, capsys, 2)
                assert out == "" and err.count("error: ") == 1 and "Traceback" not in err
                assert str(path) in err or (damaged is None and str(folder) in err), f"{path}: {err}"
            path.write_bytes(whole)
        inspect(folder, capsys)


def test_inspect_of_what_is_no_index(copied, tmp_path, capsys):
    (copied / "manifest.json").unlink()
    for folder, words in ((copied, "an unfinished index"), (tmp_path, "holds no manifest"), (tmp_path / "no", "there is no such folder"),
                          (write(tmp_path / "f", "x"), "there is no such folder")):
        out, err = inspect(folder, capsys, 2)
        assert out == "" and words in err and str(folder) in err


def parquet(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_back(folder: Path):
    from pyarrow import parquet as pq

    tables = [pq.ParquetFile(path).read() for path in sorted(folder.glob("*.parquet"))]
    assert {tuple(map(str, table.schema.types)) for table in tables} == {("int64", "string", "fixed_size_list<element: float>[256]")}
    ids, texts, vectors = (sum((table[name].to_pylist() for table in tables), []) for name in ("id", "text", "vector"))
    return ids, texts, np.array(vectors, dtype=np.float32)


def test_an_exported_index_reads_back_the_same(saved, tmp_path, capsys):
    flags = ["--index_dir", str(saved.folder), "--output_dir", str(tmp_path / "out")]
    assert export_index.main(flags) == 0
    assert "3 file(s), 3 of them written now, 84 rows" in capsys.readouterr().err
    names = [f"{a:010d}-{b:010d}.parquet" for a, b in ((0, 30), (30, 60), (60, 84))]
    assert parquet(tmp_path / "out") == names
    ids, texts, vectors = read_back(tmp_path / "out")
    assert ids == list(range(84)) and texts == texts_of(saved.folder) and np.array_equal(vectors, vectors_of(saved.folder))
    before = state_of(tmp_path)
    assert export_index.main(flags) == 0 and "0 of them written now" in capsys.readouterr().err
    assert state_of(tmp_path) == before
    rng = np.random.default_rng(0)
    for number in range(12):  # damaged or stale files are written again, and they alone
        path = tmp_path / "out" / names[number % 3]
        raw = bytearray(path.read_bytes())
        place = int(rng.integers(len(raw) - 64))
        path.write_bytes([raw[:place], raw[:place] + rng.bytes(64) + raw[place + 64 :], b"", raw[: len(raw) - 8] + bytes(8)][number % 4])
        assert export_index.main(flags) == 0 and "1 of them written now" in capsys.readouterr().err
        assert {name: raw for name, (_, raw) in state_of(tmp_path).items()} == {name: raw for name, (_, raw) in before.items()}


def test_an_export_into_a_folder_named_like_a_partition(saved, tmp_path):
    assert export_index.main(["--index_dir", str(saved.folder), "--output_dir", str(tmp_path / "date=2024")]) == 0
    assert read_back(tmp_path / "date=2024")[1] == texts_of(saved.folder)


def test_an_export_refuses_strangers_and_damage(saved, copied, tmp_path, failure):
    flags = ["--index_dir", str(copied), "--output_dir", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    stranger = write(tmp_path / "out" / "0000000000-0000000040.parquet", "x")
    assert f"{stranger} is no part of this index" in failure(export_index.main, flags)
    assert parquet(tmp_path / "out") == [Path(stranger).name]
    Path(stranger).unlink()
    write(tmp_path / "out" / "notes.txt", "x")
    assert export_index.main(flags) == 0 and len(parquet(tmp_path / "out")) == 4
    path = copied / "parts" / "0000000030-0000000060.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} is incomplete" in failure(export_index.main, flags)
    assert "holds no finished index" in failure(export_index.main, ["--index_dir", str(tmp_path), *flags[2:]])


def test_a_killed_export_goes_on(saved, tmp_path, capsys):
    """Killed when the first file has its name; what it left of the second is in nobody's way."""
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", f"""
import sys, time
sys.path.insert(0, {str(PROJECT)!r})
import export_index
holds = export_index._holds
export_index._holds = lambda path, table: (time.sleep(0.5), holds(path, table))[1]  # time enough to be killed
sys.exit(export_index.main(["--index_dir", {str(saved.folder)!r}, "--output_dir", {str(out)!r}]))"""])
    while not list(out.glob(".0000000030*")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first = out / "0000000000-0000000030.parquet"
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert export_index.main(["--index_dir", str(saved.folder), "--output_dir", str(out)]) == 0
    assert "3 file(s), 2 of them written now" in capsys.readouterr().err and first.stat().st_mtime_ns == before
    assert len(parquet(out)) == 3 and read_back(out)[1] == texts_of(saved.folder)
