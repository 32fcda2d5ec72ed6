"""kill -9 while an index is made: what is finished stays, and in the end there is no trace of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, TARGETS, write
from test_recall import flags_of

import index_store
import recall

PART = 256
DRIVER = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
import index_store, recall
index_store.PART = {PART}
sys.exit(recall.main(sys.argv[1:]))
"""
PHASES = {  # a kill comes after this file was written, within so many seconds
    "start": ("ix/.lock", 0.5), "embedding": ("ix/parts/{:010d}-{:010d}.npy", 0.05), "repeated": ("ix/parts/0000002816-0000003000.json", 0.05),
    "graph": ("ix/manifest.json", 0.8), "search": ("ix/hnsw-3000.bin", 0.5), "result": ("out/.recall_result.txt.tmp", 0.2)}
MORE = np.random.default_rng(0).choice(list(PHASES), (int(os.environ.get("MORE_KILLS", 0)) // 3, 3))


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    words = SOURCES + TARGETS
    made = ("".join(words[i] for i in rng.integers(len(words), size=rng.integers(1, 4))) for _ in range(3 * count))
    return list(dict.fromkeys(made))[:count]


def content(*folders: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder.parent)): path.read_bytes() for folder in folders for path in folder.rglob("*")
            if path.is_file()}


def finished_parts(index: Path) -> dict[str, int]:
    """The files of the parts that are whole, with the time at which they were written."""
    return {path.name: path.stat().st_mtime_ns for manifest in (index / "parts").glob("*.json")
            for path in (index / "parts").glob(f"{manifest.stem}.*")}


def run_and_kill(command: list[str], base: Path, phase: str, rng) -> bool:
    """Start a run and kill it in `phase`; returns whether it was still there."""
    first = min(11, len(finished_parts(base / "ix")) // 3 + int(rng.integers(3))) * PART
    name, within = PHASES[phase]
    awaited = base / name.format(first, min(first + PART, 3000))

    def state():
        try:
            return awaited.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    before, process = state(), subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and state() in (None, before):
        time.sleep(0.001)
    time.sleep(rng.random() * within)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def kill_until_done(command: list[str], base: Path, phases: list[str], rng) -> int:
    """Returns how many runs were killed; no part that was finished before a kill may be written again."""
    finished: dict[str, int] = {}
    killed = 0
    for phase in phases:
        killed += run_and_kill(command, base, phase, rng)
        now = finished_parts(base / "ix")
        assert finished.items() <= now.items(), phase
        assert [int(name[:10]) for name in sorted(now) if name.endswith("json")] == list(range(0, 256 * (len(now) // 3), 256))
        unfinished = {path.stem for path in (base / "ix" / "parts").glob("[0-9]*")} - {Path(name).stem for name in now}
        assert len(unfinished) <= 1, phase  # no more than one part is encoded twice
        finished = now
    last = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert last.returncode == 0, last.stderr
    assert finished.items() <= finished_parts(base / "ix").items()
    return killed


@pytest.fixture
def job(trained, tmp_path) -> list[str]:
    """The flags of a recall run but for its folders; about a second of embedding, one of indexing, one of search."""
    sources = texts(500, seed=1)
    pairs = write(tmp_path / "pairs", "".join(f"{source}\t{TARGETS[i % 16]}\n" for i, source in enumerate(sources * 3)))
    corpus = write(tmp_path / "corpus", "".join(f"{text}\n" for text in texts(3000, seed=0)))
    return [*flags_of(trained, pairs, corpus, "out"), "--hnsw_deterministic"]


def folders(base: Path) -> list[str]:
    return ["--recall_result_dir", str(base / "out"), "--index_dir", str(base / "ix")]


@pytest.mark.parametrize("phases", [["embedding", "graph", "result"], *(sorted(row, key=list(PHASES).index) for row in MORE)])
def test_a_killed_run_ends_like_an_undisturbed_one(job, tmp_path, monkeypatch, phases):
    monkeypatch.setattr(index_store, "PART", PART)
    assert recall.main([*job, *folders(tmp_path / "right")]) == 0
    right = content(tmp_path / "right" / "out", tmp_path / "right" / "ix")
    assert len(right) == 36 + 4 and len(right["out/recall_result.txt"].splitlines()) == 75_000
    command = [sys.executable, write(tmp_path / "driver.py", DRIVER), *job, *folders(tmp_path / "killed")]
    killed = kill_until_done(command, tmp_path / "killed", phases, np.random.default_rng())
    print(f"{killed} of 3 killed: {phases}")
    assert killed >= 2  # the last may have been too late
    got = content(tmp_path / "killed" / "out", tmp_path / "killed" / "ix")
    assert got.keys() == right.keys() and [name for name in right if got[name] != right[name]] == []
