"""kill -9 and SIGTERM in the middle of a run of the command line: it goes on to the very end of an undisturbed one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, make_encoder_folder, pair_lines, write
from test_resume import assert_same, outcome

import cpu_ops
import train_batch_neg
import train_eval
import trainer
import training
from checkpoint import check_checkpoint
from stopping import EXIT_CODE

MORE = int(os.environ.get("MORE_KILLS", 0))
FLAGS = ["--batch_size", "4", "--epochs", "40", "--save_steps", "5", "--learning_rate", "1e-3", "--logging_steps", "7",
         "--keep_checkpoints", "3", "--eval_steps", "40"]
# Writing takes a little longer here, so that a kill can come in its middle.
DRIVER = f"""
import os, sys, time
sys.path.insert(0, {str(PROJECT)!r})
import train_batch_neg
for name in ("fsync", "replace"):
    def slowly(*args, call=getattr(os, name), **kwargs):
        time.sleep(float(os.environ["SECONDS"]))
        return call(*args, **kwargs)
    setattr(os, name, slowly)
sys.exit(train_batch_neg.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[list[str], dict]:
    """The flags of a run but for its folder, and the outcome of an undisturbed one."""
    base = tmp_path_factory.mktemp("job")
    encoder, pairs = make_encoder_folder(base / "encoder"), write(base / "t.tsv", pair_lines())
    flags = ["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", pairs, "--max_seq_length", "32",
             "--seed", "1", *FLAGS, "--eval_pair_file", pairs]
    assert start(base, flags, 0).wait() == 0, (base / "console").read_text()
    return flags, outcome(base / "run")


def unfinished(save_dir: Path) -> list[Path]:
    return [*save_dir.glob(".model_*.tmp"), *save_dir.glob(".model_*.old")]


def start(base: Path, flags: list[str], seconds: float) -> subprocess.Popen:
    driver = write(base / "driver.py", DRIVER)
    return subprocess.Popen([sys.executable, driver, *flags, "--save_dir", str(base / "run"), "--resume"],
                            env={**os.environ, "SECONDS": str(seconds)}, stderr=open(base / "console", "a"))


def steps_done(save_dir: Path) -> bytes:
    log = save_dir / "train_log.jsonl"
    return log.read_bytes() if log.is_file() else b""


def wait_until(condition, process: subprocess.Popen) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.001)


def kill_one(base: Path, flags: list[str], in_a_checkpoint: bool, rng) -> bool:
    """Kill a run within its first second, or in the writing of a checkpoint; returns whether one was half written."""
    process = start(base, flags, 0.02 if in_a_checkpoint else 0)
    before = steps_done(base / "run")
    wait_until(lambda: steps_done(base / "run") not in (b"", before), process)
    if in_a_checkpoint:
        for _ in range(int(rng.integers(3))):
            wait_until(lambda: unfinished(base / "run"), process)
            wait_until(lambda: not unfinished(base / "run"), process)
        while process.poll() is None:  # held where it is, so that it can't finish the checkpoint before the kill
            wait_until(lambda: unfinished(base / "run"), process)
            time.sleep(rng.random() * 0.15)
            process.send_signal(signal.SIGSTOP)
            if unfinished(base / "run"):
                break
            process.send_signal(signal.SIGCONT)
    else:
        time.sleep(rng.random())
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (base / "console").read_text()
    return bool(unfinished(base / "run"))


def test_killed_runs_end_like_an_undisturbed_one(job, tmp_path):
    flags, right = job
    rng, landed = np.random.default_rng(), 0
    kills = [False, True] * max(1, MORE // 2)
    for number, in_a_checkpoint in enumerate(kills, 1):
        landed += kill_one(tmp_path, flags, in_a_checkpoint, rng)
        if number % 4 == 0 or number == len(kills):  # then to the end, and from the beginning again
            process = start(tmp_path, flags, 0)
            assert process.wait() == 0, (tmp_path / "console").read_text()
            assert_same(tmp_path / "run", right)
            shutil.rmtree(tmp_path / "run")
    print(f"{len(kills)} kills, {landed} of them in the writing of a checkpoint")
    assert landed >= len(kills) / 2


def test_sigterm_leaves_a_whole_checkpoint(job, tmp_path):
    flags, right = job
    for _ in range(max(1, MORE // 4)):
        process = start(tmp_path, flags, 0)
        wait_until(lambda: (tmp_path / "run" / "latest").exists(), process)
        time.sleep(np.random.default_rng().random() / 2)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == EXIT_CODE and time.monotonic() - sent < 30, (tmp_path / "console").read_text()
        told = (tmp_path / "console").read_text().splitlines()[-1]
        folder = (tmp_path / "run" / "latest").resolve()
        assert told.startswith("stopped by SIGTERM at step ") and f"saved {folder}; start again with --resume" in told
        assert check_checkpoint(folder, to_resume=True)["step"] == int(folder.name[6:])
        assert start(tmp_path, flags, 0).wait() == 0, (tmp_path / "console").read_text()
        assert_same_but_for_what_is_kept(tmp_path / "run", right)
        shutil.rmtree(tmp_path / "run")


def assert_same_but_for_what_is_kept(save_dir: Path, right: dict) -> None:
    """The newest ones of a stopped run can be others, since the checkpoint at the stop is one of them."""
    got = outcome(save_dir)
    common = right.keys() & got.keys()
    assert {"latest", "train_log.jsonl", "eval_log.jsonl"} <= common and len(common) > 3 * 5
    assert [name for name in common if got[name] != right[name]] == []


@pytest.fixture(scope="module")
def short(job, tmp_path_factory) -> tuple[list[str], dict]:
    """A shorter run, with more evaluations."""
    flags, folder = [*job[0], "--epochs", "3", "--eval_steps", "4", "--keep_checkpoints", "9"], tmp_path_factory.mktemp("short")
    assert train_batch_neg.main([*flags, "--save_dir", str(folder)]) == 0
    return flags, outcome(folder)


@pytest.mark.parametrize("place, name", [
    (cpu_ops, "dropout"), (cpu_ops._Gelu, "backward"), (trainer.Trainer, "update"), (trainer, "save_checkpoint"),
    (trainer, "settle"), (train_eval.Evaluation, "run"), (trainer.Trainer, "rows_of")])
def test_sigterm_anywhere(place, name, short, tmp_path, monkeypatch, capsys):
    """Also where Paddle calls back, and would make an error of its own of it."""
    flags, right = short
    done, before = [], getattr(place, name)

    def stopped(*args, **kwargs):
        done.append(name)
        if len(done) == {"dropout": 150, "run": 2, "save_checkpoint": 2, "settle": 2}.get(name, 5):
            signal.raise_signal(signal.SIGTERM)
        return before(*args, **kwargs)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, staticmethod(stopped) if name == "backward" else stopped)
        assert train_batch_neg.main([*flags, "--save_dir", str(tmp_path / "run")]) == EXIT_CODE
    assert signal.getsignal(signal.SIGTERM) == handler
    told = capsys.readouterr().err.splitlines()[-1]
    saved = (tmp_path / "run" / "latest").resolve()
    assert told.startswith("stopped by SIGTERM at step ") and not unfinished(tmp_path / "run"), told
    assert check_checkpoint(saved, to_resume=True)["step"] == int(saved.name[6:]) == int(told.split("step ")[1].split(":")[0])
    assert train_batch_neg.main([*flags, "--save_dir", str(tmp_path / "run"), "--resume"]) == 0
    assert_same_but_for_what_is_kept(tmp_path / "run", right)


def test_a_resumed_run_keeps_its_number_of_copies(job, tmp_path, monkeypatch):
    """On fewer cores too: how a step is cut, and with it the noise of dropout, hangs on them."""
    flags, right = job[0], []
    for number, (before, after) in enumerate([(2, 2), (2, 1)]):
        run = [*flags, "--save_dir", str(tmp_path / str(number)), "--save_steps", "2"]
        for most, more in ((before, ["--max_steps", "4"]), (after, ["--max_steps", "4", "--resume"])):
            monkeypatch.setattr(training, "threads_of_rank", lambda most=most: most)
            if more[-1] == "--resume":
                shutil.rmtree(tmp_path / str(number) / "model_4")
                (tmp_path / str(number) / "latest").unlink()
                (tmp_path / str(number) / "latest").symlink_to("model_2")
            assert train_batch_neg.main([*run, *more]) == 0
        right.append((tmp_path / str(number) / "model_4" / "model_state.pdparams").read_bytes())
    assert right[0] == right[1]
