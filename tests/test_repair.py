"""An index that is not as it was left: parts that are made again, and what killed runs leave."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import SOURCES, write
from test_index import TEXTS, assert_same_rows, lines, parts_of
from test_recall import flags_of, run

import index_store
import recall
import search
from corpus import open_corpus
from files import UserError, own_folder

pytestmark = pytest.mark.usefixtures("compiled_once")


class Other:
    """Another rank of a launch, which is at its part for a moment."""

    def __init__(self, folder: Path, part: Path | None) -> None:
        self.folder, self.part, self.at_work = folder, part, threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()
        self.at_work.wait()

    def work(self) -> None:
        with own_folder(self.folder, ".lock-rank-1"):
            self.at_work.set()
            time.sleep(0.5)
            if self.part:
                self.part.touch()


@pytest.mark.parametrize("leaves", [True, False])
def test_rank_0_waits_for_the_parts_of_the_others(tmp_path, monkeypatch, leaves):
    monkeypatch.setattr(recall.cli, "world_size", lambda: 2)
    store = index_store.IndexStore(tmp_path, strict=True)
    store.parts_folder.mkdir()
    (store.parts_folder / "0000000000-0000000005.json").touch()
    other = Other(tmp_path, store.parts_folder / "0000000005-0000000009.json" if leaves else None)
    plan = index_store.Plan([(0, 5), (5, 9)], [])
    with contextlib.nullcontext() if leaves else pytest.raises(UserError, match="rank 1 has left without all its parts"):
        recall.wait_for_parts(plan, store)
    other.thread.join()
    assert store.has(plan.parts) is leaves


@pytest.fixture
def corpus(tmp_path) -> str:
    return write(tmp_path / "c.txt", lines(TEXTS))


def test_a_part_of_an_own_index_is_built_again(trained, pair_file, corpus, tmp_path, capsys):
    """Also with other batches, which round otherwise, so that its vectors are not those of before to the last bit."""
    rows = run(trained, pair_file, corpus, tmp_path / "o")
    path = tmp_path / "o" / "index" / "parts" / "0000000000-0000000080.npy"
    for flags in ([], ["--batch_size", "3"]):
        path.write_bytes(path.read_bytes()[:-1])
        capsys.readouterr()
        assert_same_rows(run(trained, pair_file, corpus, tmp_path / "o", *flags), rows)
        assert f"{path} is incomplete" in (err := capsys.readouterr().err) and "is built again in its place" in err
    run(trained, pair_file, corpus, tmp_path / "o")
    assert "is built again" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["damaged", "of another cut"])
def test_ranks_agree_on_the_parts_of_an_own_index(trained, pair_file, corpus, tmp_path, fault):
    """Rank 0 clears away what does not fit; the others, who look after it, find the parts that it has planned."""
    run(trained, pair_file, corpus, tmp_path / "o")
    folder = tmp_path / "o" / "index"
    part = folder / "parts" / "0000000000-0000000080"
    if fault == "damaged":
        part.with_suffix(".npy").write_bytes(b"")
    else:  # what a killed run of two ranks with more texts has left
        for kind in ("json", "npy", "txt"):
            shutil.copy(part.with_suffix(f".{kind}"), folder / "parts" / f"0000000080-0000000113.{kind}")
    made_from = json.loads((folder / "manifest.json").read_text())["vectors"]
    with open_corpus([corpus]) as texts:
        plans = [index_store.IndexStore(folder, strict=False).plan(texts, made_from, 2, shard) for shard in (None, 1)]
    assert plans[0].parts == plans[1].parts
    assert run(trained, pair_file, corpus, tmp_path / "o") and parts_of(folder) == ["0000000000-0000000080"]


def test_a_killed_append_leaves_the_earlier_index_in_use(trained, pair_file, corpus, tmp_path, monkeypatch, capsys):
    """Killed at its first change of the manifest, with new parts and new pairs of equal vectors on the disk."""
    new = write(tmp_path / "new.txt", lines(["😀", "😁", "😂"]))
    flags = [trained, pair_file, corpus, tmp_path / "o", "--index_dir", str(tmp_path / "ix"), "--hnsw_deterministic"]
    question = ["--device", "cpu", "--params_path", trained, "--index_dir", str(tmp_path / "ix"), "--query", SOURCES[0]]
    run(*flags)
    capsys.readouterr()
    assert search.main(question) == 0
    answer = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(index_store, "write_manifest", lambda *_: sys.exit(9))
        assert recall.main(flags_of(*flags, "--append_corpus", new)) == 9
    capsys.readouterr()
    assert search.main(question) == 0 and capsys.readouterr().out == answer
    stray = write(tmp_path / "ix" / "hnsw-70.bin", "left by a run that was killed before it could remove it")
    run(*flags, "--append_corpus", new)
    assert not Path(stray).exists() and len(list((tmp_path / "ix").glob("*.*"))) == 3


@pytest.mark.parametrize("strict", [True, False])
def test_the_parts_of_a_run_over_another_corpus_are_not_taken(trained, pair_file, corpus, tmp_path, failure, capsys, strict):
    """An unfinished index says by its parts alone what it is of; these have the same number of texts, and the same model."""
    flags = ["--index_dir", str(tmp_path / "o" / "index")] if strict else []
    run(trained, pair_file, write(tmp_path / "other", lines(TEXTS[::-1])), tmp_path / "o", *flags)
    (tmp_path / "o" / "index" / "manifest.json").unlink()
    if strict:
        line = failure(recall.main, flags_of(trained, pair_file, corpus, tmp_path / "o", *flags))
        assert f"{tmp_path / 'o' / 'index' / 'parts' / '0000000000-0000000080.txt'} holds other texts than this corpus" in line
    else:
        rows = run(trained, pair_file, corpus, tmp_path / "o")
        assert "holds other texts" in capsys.readouterr().err
        assert rows == run(trained, pair_file, corpus, tmp_path / "right")
