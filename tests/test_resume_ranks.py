"""Two ranks that are killed, stopped and resumed, and two runs that want the same folder."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, make_encoder_folder, pair_lines, write
from test_resume import outcome

from checkpoint import check_checkpoint

MORE, TWINS = int(os.environ.get("MORE_KILLS", 0)), int(os.environ.get("MORE_TWINS", 2))


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    base = tmp_path_factory.mktemp("ranks")
    pairs = write(base / "t.tsv", pair_lines())
    return ["--device", "cpu", "--model_name_or_path", make_encoder_folder(base / "encoder"), "--train_set_file", pairs,
            "--max_seq_length", "32", "--batch_size", "2", "--epochs", "8", "--save_steps", "5", "--logging_steps", "7",
            "--learning_rate", "1e-3", "--eval_pair_file", pairs, "--eval_steps", "12"]


def start(base: Path, *flags: str, ranks: int = 2, name: str = "run") -> subprocess.Popen:
    command = [sys.executable, "-u"]
    if ranks > 1:
        command += ["-m", "paddle.distributed.launch", "--log_dir", str(base / "log"), "--nproc_per_node", str(ranks)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    base.mkdir(exist_ok=True)
    return subprocess.Popen([*command, str(PROJECT / "train_batch_neg.py"), *flags, "--save_dir", str(base / name)], env=env,
                            stdout=open(base / "console", "ab"), stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen, base: Path, seconds: float = 120) -> tuple[int, str]:
    """Exit code and console of a process that has to end within so many seconds."""
    code = process.wait(seconds)
    console = (base / "console").read_text()
    (base / "console").unlink()
    return code, console


def ranks_of(launcher: subprocess.Popen) -> dict[int, int]:
    """Process id of each rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        found = re.search(rb"PADDLE_TRAINER_ID=(\d+)", Path(f"/proc/{child}/environ").read_bytes())
        if found:
            ranks[int(found.group(1))] = int(child)
    return ranks


def lines_in(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def wait_for_more_lines(process: subprocess.Popen, base: Path, before: int = 0) -> None:
    while process.poll() is None and lines_in(base / "run" / "train_log.jsonl") <= before:
        time.sleep(0.01)
    assert process.poll() is None, (base / "console").read_text()


def assert_same(save_dir: Path, right: dict) -> None:
    """But for the checkpoint of a SIGTERM, which an undisturbed run has not."""
    got = outcome(save_dir)
    assert right.keys() <= got.keys(), right.keys() - got.keys()
    assert [name for name in right if got[name] != right[name]] == []


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory) -> dict:
    base = tmp_path_factory.mktemp("undisturbed")
    outcomes = []
    for number in range(2 if MORE else 1):
        code, console = finish(start(base, *flags, name=str(number)), base)
        assert code == 0, console
        outcomes.append(outcome(base / str(number)))
    assert outcomes[0] == outcomes[-1] and len(outcomes[0]["eval_log.jsonl"].splitlines()) == 4
    return outcomes[0]


def test_a_killed_rank_a_sigterm_and_the_end(flags, undisturbed, tmp_path):
    for number in range(max(1, MORE // 5)):
        log = tmp_path / "run" / "train_log.jsonl"
        launcher = start(tmp_path, *flags)
        wait_for_more_lines(launcher, tmp_path)
        time.sleep(np.random.default_rng().random() / 2)
        killed = time.monotonic()
        os.kill(ranks_of(launcher)[1 - number % 2], signal.SIGKILL)
        code, console = finish(launcher, tmp_path, 60)
        assert code and time.monotonic() - killed < 60 and "Traceback" not in console, console
        assert f"Container rank {1 - number % 2} status failed" in console and "code -9" in console, console
        assert f"rank {1 - number % 2} of 2: if it is lost, the run ends; start again with --resume" in console, console
        if number % 2 == 0:  # it notes the loss itself, or is told to stop
            told = (tmp_path / "log" / "workerlog.0").read_text().splitlines()[-1]
            assert re.match(r"error: another rank has ended in or after step \d+.*start again"
                            r"|stopped by SIGTERM at step \d+: .*start again with --resume", told), told

        before = lines_in(log)
        launcher = start(tmp_path, *flags, "--resume")
        wait_for_more_lines(launcher, tmp_path, before)
        sent = time.monotonic()
        launcher.send_signal(signal.SIGTERM)
        code, console = finish(launcher, tmp_path, 60)
        newest = (tmp_path / "run" / "latest").resolve()
        assert code and time.monotonic() - sent < 30 and "Traceback" not in console, console
        assert check_checkpoint(newest, to_resume=True)["step"] == int(newest.name[6:]) > 0
        assert "stopped by SIGTERM" in (tmp_path / "log" / "workerlog.0").read_text()

        code, console = finish(start(tmp_path, *flags, "--resume"), tmp_path)
        assert code == 0 and f"resuming from {tmp_path}/run/{newest.name}\n" in console, console
        assert_same(tmp_path / "run", undisturbed)
        shutil.rmtree(tmp_path / "run")


@pytest.mark.skipif(not MORE, reason="MORE_KILLS asks for it")
def test_killed_launches_end_like_an_undisturbed_one(flags, undisturbed, tmp_path):
    log, kills = tmp_path / "run" / "train_log.jsonl", 0

    def written_anew() -> int:
        return log.stat().st_ino if log.is_file() else 0

    while kills < MORE // 2:
        before = written_anew()
        launcher = start(tmp_path, *flags, "--resume")
        while launcher.poll() is None and written_anew() == before:
            time.sleep(0.01)
        time.sleep(np.random.default_rng().random())
        for pid in [launcher.pid, *ranks_of(launcher).values()]:
            os.kill(pid, signal.SIGKILL)
        launcher.wait()
        kills += 1
        if kills % 3 == 0 or kills == MORE // 2:
            code, console = finish(start(tmp_path, *flags, "--resume"), tmp_path)
            assert code == 0, console
            assert_same(tmp_path / "run", undisturbed)
            shutil.rmtree(tmp_path / "run")
    print(f"{kills} kills of two ranks and their launcher")


def test_of_two_runs_in_a_folder_one_works(flags, tmp_path):
    for number in range(TWINS):
        twins = [start(tmp_path / name, *flags[:-4], "--save_steps", "1", ranks=1, name=f"../o{number}")
                 for name in "ab"]
        ended = [finish(twin, tmp_path / name) for twin, name in zip(twins, "ab")]
        assert sorted(code for code, _ in ended) == [0, 2], ended
        winner = next(twin for twin, (code, _) in zip(twins, ended) if code == 0)
        error = next(console for code, console in ended if code == 2).splitlines()[-1]
        assert error.startswith("error: ") and f"o{number} is in use by pid {winner.pid} on {socket.gethostname()}: " in error
        assert check_checkpoint(tmp_path / f"o{number}" / "model_64", to_resume=True)["step"] == 64
