"""scripts/run_best.sh on small data: from random weights, in two rounds, and from an encoder of the user's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import PROJECT, run_process, write

from train_data import read_train_set

STEPS = ["--batch_size", "8", "--max_steps", "2", "--output_emb_size", "16"]
PAIRS = [(f"怎么退掉第{n}号订单的款", f"第{n}号订单退款怎么办理") for n in range(24)]
OTHERS = [f"第{n}号快递几点能送到" for n in range(60)]
HEADINGS = ["encoder", "round 1: train", "round 2: mine", "round 2: train",
            "the last round's model: out/round_2/latest/model_state.pdparams", "recall by the model",
            "recall by BM25, and by both together", "evaluate", "result: out/evaluation.md"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("best")
    (folder / "data").mkdir()
    for name, rows in (("semantic_pair_train.tsv", PAIRS[4:]), ("semantic_similar_pair.tsv", PAIRS[:4]),
                       ("semantic_similar_pair.part", [["a"], ["a"], ["b"], ["b"]]),
                       ("corpus_file", [[text] for text in [*(target for _, target in PAIRS), *OTHERS]])):
        write(folder / "data" / name, "".join("\t".join(row) + "\n" for row in rows))
    return folder


def start(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return run_process("bash", str(PROJECT / "scripts" / "run_best.sh"), *words, cwd=folder, timeout=600, **environment)


def headings(told: str) -> list[str]:
    return [line[3:].rsplit(" (", 1)[0] for line in told.splitlines() if line.startswith("== ")]


def weights(out: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in [*out.rglob("*.pdparams"), *out.rglob("train_mined.tsv"), *out.glob("encoder/*.json")]}


def test_from_the_data_to_the_comparison_and_nothing_twice(folder):
    done = start(folder, "data", "out", *STEPS, ROUNDS="2")
    assert done.returncode == 0, done.stderr
    assert headings(done.stdout) == HEADINGS
    out = folder / "out"
    config = json.loads((out / "encoder" / "config.json").read_text())
    assert config["vocab_size"] == len((out / "encoder" / "vocab.txt").read_text().splitlines()) > 6763
    assert len(read_train_set(str(out / "round_2" / "train_mined.tsv"))) == len(PAIRS) - 4
    facts = json.loads((out / "round_2" / "latest" / "semantic_index.json").read_text())["training"]
    assert facts["init_from_ckpt"] == "out/round_1/latest/model_state.pdparams" and facts["learning_rate"] == 5e-4
    figures = json.loads((out / "metrics.json").read_text())["systems"]
    assert list(figures) == ["fused", "model", "bm25"] and figures["bm25"]["R@50"]["value"] == 1
    assert "| b " in (out / "evaluation.md").read_text() and (out / "recall.png").stat().st_size > 1000

    before = weights(out)
    again = start(folder, "data", "./out/", *STEPS, ROUNDS="2", RANKING="--keep_self")
    assert again.returncode == 0 and weights(out) == before, again.stderr
    assert headings(again.stdout) == [
        heading.replace(" out/", " ./out/") for heading in HEADINGS if heading not in ("encoder", "round 2: mine")]
    assert json.loads((out / "metrics.json").read_text())["keep_self"] is True
    other = start(folder, "data", "out", *STEPS, "--margin", "0.1", ROUNDS="2")
    assert other.returncode == 2 and "--margin" in other.stderr and weights(out) == before


def test_from_an_encoder_of_the_users_own(folder, encoder_folder):
    (folder / "data" / "semantic_similar_pair.tsv").rename(folder / "pairs")
    try:
        done = start(folder, "data", "own", "--model_name_or_path", encoder_folder, *STEPS)
    finally:
        (folder / "pairs").rename(folder / "data" / "semantic_similar_pair.tsv")
    assert done.returncode == 0, done.stderr
    assert headings(done.stdout) == [
        "round 1: train", "the last round's model: own/round_1/latest/model_state.pdparams"]
    assert sorted(path.name for path in (folder / "own").iterdir()) == ["round_1"]
    facts = json.loads((folder / "own" / "round_1" / "latest" / "semantic_index.json").read_text())["training"]
    assert facts["model_name_or_path"] == encoder_folder and facts["learning_rate"] == 1.5e-4


def test_wrong_settings_end_at_once(tmp_path):
    for words in ([], ["data"], ["data", "--epochs", "1"], ["data", "-out"], ["missing", "out"]):
        done = start(tmp_path, *words)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and not list(tmp_path.iterdir())


def test_a_length_that_recall_has_to_know_too_is_a_variable(folder):
    done = start(folder, "data", "long", "--max_seq_length", "64")
    assert done.returncode == 2 and "MAX_SEQ_LENGTH" in done.stderr and not (folder / "long").exists()
