"""A full disk while training: one line that names the file, whole earlier checkpoints, no litter, and the rerun goes on."""

import contextlib
import ctypes
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_encoder_folder, pair_lines, train, write
from test_resume import assert_same, outcome

import train_batch_neg
from checkpoint import check_checkpoint

MORE = int(os.environ.get("MORE_SIZES", 0))
FLAGS = ["--batch_size", "4", "--epochs", "6", "--save_steps", "10", "--learning_rate", "1e-3", "--logging_steps", "3"]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[list[str], Path]:
    """The flags of a run but for its folder, and the folder of an undisturbed one."""
    base = tmp_path_factory.mktemp("job")
    encoder, pairs = make_encoder_folder(base / "encoder"), write(base / "t.tsv", pair_lines())
    flags = [*FLAGS, "--eval_pair_file", pairs, "--eval_steps", "5"]
    train(train_batch_neg, encoder, pairs, base / "right", *flags)
    return ["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", pairs, "--max_seq_length", "32",
            "--seed", "1", *flags], base / "right"


def run(flags: list[str], save_dir: Path, expect: int = 0) -> str:
    """The error line of a run that has to end with that exit code."""
    with contextlib.redirect_stderr(io.StringIO()) as console:
        code = train_batch_neg.main([*flags, "--save_dir", str(save_dir), "--resume"])
    errors = [line for line in console.getvalue().splitlines() if line.startswith("error: ")]
    assert code == expect and len(errors) == (code == 2) and "Traceback" not in console.getvalue(), console.getvalue()
    return errors[0] if errors else ""


def assert_clean_failure(line: str, save_dir: Path) -> None:
    assert re.match(rf"error: cannot write {re.escape(str(save_dir))}\S*: .*\d+ bytes", line), line
    for folder in save_dir.glob("model_*"):
        assert check_checkpoint(folder, to_resume=True)["step"] == int(folder.name[6:])
    assert [path for path in save_dir.rglob(".*")] == []


def file_of(line: str) -> str:
    return Path(re.match(r"error: cannot write (\S+): ", line).group(1)).name


def sizes_of(right: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (*right.iterdir(), *(right / "model_24").iterdir()) if path.is_file()}


def test_no_file_may_grow(job, tmp_path, file_size_limit):
    """Each limit is too small for some file, and the first such file of the run is the one that is named."""
    flags, right = job
    sizes = sizes_of(right)
    limits = {sizes[name] - 1 for name in ("optimizer.pdopt", "model_state.pdparams", "training_curve.png", "eval_log.jsonl")}
    limits |= {0, 300} | {int(n) for n in np.random.default_rng(0).integers(1, sizes["optimizer.pdopt"], MORE)}
    hit = {}
    for limit in sorted(limits):
        save_dir = tmp_path / str(limit)
        with file_size_limit(limit):
            line = run(flags, save_dir, expect=2)
        assert_clean_failure(line, save_dir)
        hit[limit] = file_of(line)
        assert sizes[hit[limit]] > limit, line
        run(flags, save_dir)
        assert_same(save_dir, outcome(right), limit)
    print(hit)
    assert {"optimizer.pdopt", "model_state.pdparams", "eval_log.jsonl", "train_log.jsonl"} <= set(hit.values())


@pytest.mark.parametrize("name, nth", [
    ("train_log.jsonl", 1), ("eval_log.jsonl", 2), ("model_state.pdparams", 2), ("optimizer.pdopt", 2),
    ("semantic_index.json", 2), ("README.md", 2), ("vocab.txt", 2), ("training_curve.png", 1)])
def test_each_file(name, nth, job, tmp_path, monkeypatch):
    """The disk is full when this file is written for the nth time; at its fsync, as a late allocation shows it."""
    flags, right = job
    seen, fsync = [], os.fsync

    def full(number: int) -> None:
        if os.readlink(f"/proc/self/fd/{number}").endswith((f"/.{name}.tmp", f"/{name}")):
            seen.append(name)
            if len(seen) >= nth:
                raise OSError(28, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        line = run(flags, tmp_path / "run", expect=2)
    assert file_of(line) == name
    assert_clean_failure(line, tmp_path / "run")
    if nth == 2 and name != "eval_log.jsonl":
        assert (tmp_path / "run" / "latest").resolve().name != "model_24"
    run(flags, tmp_path / "run")
    assert_same(tmp_path / "run", outcome(right))


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(bytes)` is a folder on a file system of that size."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk_{size}"
        folder.mkdir()
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()):
            pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        libc.umount2(os.fsencode(folder), 2)


def test_a_small_disk(job, tmp_path, small_disk):
    """Room for some checkpoints only: at every size the rerun elsewhere, or with more room, goes on."""
    flags, right = job
    pages = sum(-(-path.stat().st_size // 4096) for path in right.rglob("*") if path.is_file() and not path.is_symlink())
    chosen = np.random.default_rng(0).permutation(range(4, pages))[: MORE or 3]
    hit = {}
    for count in sorted(int(n) for n in chosen):
        disk = small_disk(4096 * count)
        line = run(flags, disk / "run", expect=2)
        assert_clean_failure(line, disk / "run")
        hit[count] = file_of(line)
        shutil.copytree(disk / "run", tmp_path / f"run_{count}", symlinks=True)
        run(flags, tmp_path / f"run_{count}")
        assert_same(tmp_path / f"run_{count}", outcome(right), count)
    print(pages, hit)


@pytest.mark.parametrize("call", ["symlink", "replace"])
def test_a_full_disk_for_a_link(call, job, tmp_path, monkeypatch):
    flags, right = job
    before = getattr(os, call)

    def full(source, target, *args, **kwargs):
        if Path(target).name in ("latest", ".latest.tmp"):
            raise OSError(28, "No space left on device")
        return before(source, target, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        line = run(flags, tmp_path / "run", expect=2)
    assert file_of(line) == "latest"
    assert_clean_failure(line, tmp_path / "run")
    run(flags, tmp_path / "run")
    assert_same(tmp_path / "run", outcome(right))
