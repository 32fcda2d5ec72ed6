"""scripts/mine_and_train.sh: rounds of mining and training, run again, killed in the middle, and wrongly called."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECT, read_log, run_process, write
from mining_case import CORPUS, PAIRS, lines

import mine_hard_negatives
from train_data import read_train_set

pytestmark = pytest.mark.usefixtures("compiled_once")

SCRIPT = str(PROJECT / "scripts" / "mine_and_train.sh")
SMALL = ["--batch_size", "4", "--max_steps", "2", "--output_emb_size", "16"]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory, encoder_folder) -> tuple[Path, str]:
    """Folder with data and with the output of an undisturbed run, and what that run said."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "data").mkdir()
    for name, rows in (("semantic_pair_train.tsv", PAIRS), ("corpus_file", [[t] for t in CORPUS])):
        write(folder / "data" / name, lines(rows))
    done = start(folder, encoder_folder, "right")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def start(folder: Path, encoder: str, out: str, *flags: str, data: str = "data",
          **environment: str) -> subprocess.CompletedProcess:
    return run_process("bash", SCRIPT, data, out, *SMALL, *flags, cwd=folder, **environment_of(encoder, environment))


def environment_of(encoder: str, more: dict[str, str]) -> dict[str, str]:
    return {"DEVICE": "cpu", "MODEL": encoder, "MAX_SEQ_LENGTH": "32", "MINING": "--num_negatives 1 --range_max 20", **more}


def made(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When what was written that is not to be written again."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".tsv", ".pdparams", ".pdopt", ".txt", ".md", ".npy")}


def test_rounds_alternate_mining_and_training(rounds, encoder_folder):
    folder, told = rounds
    right = folder / "right"
    assert [line.split(" (")[0][3:] for line in told.splitlines() if line.startswith("== ")] == [
        "round 1: train", "round 2: mine", "round 2: train",
        "the last round's model: right/round_2/latest/model_state.pdparams"]
    assert not (right / "round_1" / "train_mined.tsv").exists() and not list(right.rglob("mining_index"))
    mined = read_train_set(str(right / "round_2" / "train_mined.tsv"))
    assert len(mined) == len(PAIRS) and all(len(row) == 1 for row in mined.negatives)
    facts = [json.loads((right / name / "latest" / "semantic_index.json").read_text()) for name in ("round_1", "round_2")]
    assert [fact["training"]["init_from_ckpt"] for fact in facts] == [None, "right/round_1/latest/model_state.pdparams"]
    assert [len(read_log(right / name)) for name in ("round_1", "round_2")] == [2, 2]


def test_what_is_finished_is_not_done_again_and_other_flags_are_refused(rounds, encoder_folder):
    folder, _ = rounds
    before = made(folder)
    again = start(folder, encoder_folder, "right")
    assert again.returncode == 0 and made(folder) == before, again.stderr
    assert "mine" not in again.stdout
    other = start(folder, encoder_folder, "right", "--learning_rate", "1e-2")
    assert other.returncode == 2 and "--learning_rate 0.001, now it is 0.01" in other.stderr
    assert made(folder) == before


def test_a_kill_in_the_middle_ends_in_the_same_files(rounds, encoder_folder):
    """With START the first round mines too."""
    folder, _ = rounds
    first = "right/round_1/latest/model_state.pdparams"
    settings = {"ROUNDS": "1", "START": first}
    out, index = folder / "killed" / "round_1", folder / "killed" / "round_1" / "mining_index"
    env = {**os.environ, **environment_of(encoder_folder, settings), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", SCRIPT, "data", "killed", *SMALL], cwd=folder, env=env, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and not index.exists() and time.monotonic() < until:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and index.exists()
    done = start(folder, encoder_folder, "killed", **settings)
    assert done.returncode == 0 and not index.exists(), done.stderr
    assert mine_hard_negatives.main([
        "--device", "cpu", "--params_path", str(folder / first), "--max_seq_length", "32", "--train_set_file",
        str(folder / "data" / "semantic_pair_train.tsv"), "--corpus_file", str(folder / "data" / "corpus_file"),
        "--output_file", str(folder / "alone.tsv"), "--range_max", "20", "--seed", "1"]) == 0
    assert (out / "train_mined.tsv").read_bytes() == (folder / "alone.tsv").read_bytes()
    training = json.loads((out / "latest" / "semantic_index.json").read_text())["training"]
    assert training["init_from_ckpt"] == first and training["train_set_file"] == "killed/round_1/train_mined.tsv"
    before = made(folder)
    other = start(folder, encoder_folder, "killed", **settings, MINING="--num_negatives 2")
    assert other.returncode == 2 and "error: killed/round_1/train_mined.tsv was mined with --max_seq_length 32" in other.stderr
    shutil.copytree(folder / "data", folder / "other")
    with open(folder / "other" / "corpus_file", "a", encoding="utf-8") as file:
        file.write("又一条\n")
    other = start(folder, encoder_folder, "killed", data="other", **settings)
    assert other.returncode == 2 and "was mined with" in other.stderr
    shutil.rmtree(folder / "other")
    assert made(folder) == before


def test_wrong_settings_end_at_once(rounds, tmp_path):
    data = str(rounds[0] / "data")
    for words, environment in ((["data"], {}), (["data", "out"], {}), ([data, "out"], {"ROUNDS": "0"}), ([data, "out"], {"ROUNDS": "two"}),
                               ([data, "out", "--max_seq_length", "64"], {}), ([data, "--epochs"], {})):
        done = run_process("bash", SCRIPT, *words, cwd=tmp_path, **environment)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and not list(tmp_path.iterdir())
