"""Evaluation while training: right figures, the best checkpoint, an early end, and no trace in the training."""

import json

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, launch, pair_lines, read_log, recall_of, train, weights, write

import recall
import train_batch_neg
import train_hardest_neg
import trainer
from checkpoint import check_checkpoint
from train_eval import Evaluation, best_of, without_gain


@pytest.fixture
def eval_files(tmp_path) -> list[str]:
    pairs = write(tmp_path / "pair.tsv", pair_lines())
    corpus = write(tmp_path / "corpus.txt", "".join(f"{text}\n" for text in TARGETS + SOURCES))
    return ["--eval_pair_file", pairs, "--eval_corpus_file", corpus]


def evaluations(save_dir) -> list[dict]:
    return [json.loads(line) for line in (save_dir / "eval_log.jsonl").read_text().splitlines()]


BASE = ["--batch_size", "4", "--epochs", "2", "--learning_rate", "1e-3", "--logging_steps", "1"]


def test_evaluating_leaves_no_trace_in_the_training(encoder_folder, tmp_path, eval_files):
    """Dropout is on: a model left in evaluation mode, or a random number drawn, would show."""
    plain = train(train_batch_neg, encoder_folder, write(tmp_path / "t", pair_lines()), tmp_path / "a", *BASE)
    seen = train(train_batch_neg, encoder_folder, write(tmp_path / "t", pair_lines()), tmp_path / "b", *BASE, *eval_files,
                 "--eval_steps", "1")
    assert [(line["loss"], line["grad_norm"]) for line in plain] == [(line["loss"], line["grad_norm"]) for line in seen]
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert [line["step"] for line in evaluations(tmp_path / "b")] == list(range(9))


def test_the_figures_are_those_of_recall_and_evaluate(encoder_folder, tmp_path, eval_files, capsys):
    train(train_hardest_neg, encoder_folder, write(tmp_path / "t", pair_lines()), tmp_path / "out", *BASE, *eval_files,
          "--eval_steps", "4", "--learning_rate", "1e-5")
    last = evaluations(tmp_path / "out")[-1]
    assert last["step"] == 8 and last["texts"] == 32
    assert recall.main(["--device", "cpu", "--params_path", str(tmp_path / "out" / "model_8"), "--max_seq_length", "32",
                        "--similar_text_pair", eval_files[1], "--corpus_file", eval_files[3], "--ann_engine", "flat",
                        "--precision", "fp32", "--recall_result_dir", str(tmp_path / "r")]) == 0
    figures = recall_of(eval_files[1], tmp_path / "r" / "recall_result.txt", capsys)
    assert [last["R@10"], last["R@50"]] == pytest.approx(figures, abs=0.01)
    assert last["R@10"] < 100
    low, high = last["intervals"]["R@10"]
    assert low <= last["R@10"] <= high and low < high


def test_a_new_run_leaves_no_figures_of_the_earlier_one(encoder_folder, tmp_path, eval_files):
    train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / "out", *BASE, *eval_files)
    train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / "out", *BASE)
    assert not (tmp_path / "out" / "eval_log.jsonl").exists() and not (tmp_path / "out" / "best").is_symlink()


def test_two_ranks_evaluate_alike(encoder_folder, tmp_path, eval_files):
    flags = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", eval_files[1], "--dropout", "0",
             "--max_seq_length", "32", "--epochs", "1", "--learning_rate", "1e-3", *eval_files, "--eval_steps", "2",
             "--early_stop_patience", "1"]
    assert train_batch_neg.main([*flags, "--batch_size", "4", "--save_dir", str(tmp_path / "one")]) == 0
    result = launch(2, "train_batch_neg.py", *flags, "--batch_size", "2", "--save_dir", str(tmp_path / "two"), cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    one, two = evaluations(tmp_path / "one"), evaluations(tmp_path / "two")
    assert [line["R@10"] for line in one] == pytest.approx([line["R@10"] for line in two], abs=6.3)  # a case may tip over
    assert one[0] == two[0]


class Scripted(Evaluation):
    """Gives the figures it is told, one an evaluation."""

    def run(self, model, tokenizer, threads) -> dict:
        value = SCRIPT.pop(0)
        return {"R@10": value, "R@50": 100.0, "texts": 1, "intervals": {"R@10": [0, 1], "R@50": [0, 1]}}


SCRIPT: list[float] = []


@pytest.mark.parametrize("figures, patience, steps, best", [
    ([90, 10, 30, 20, 20, 40, 1, 1, 1], None, 8, 5), ([90, 10, 30, 20, 20, 40, 1, 1, 1], 2, 4, 2),
    ([0, 5, 5, 5, 5], 3, 4, 1), ([0, 1, 2, 3, 4, 5, 6, 7, 8], 1, 8, 8)])
def test_the_best_is_kept_and_patience_ends(figures, patience, steps, best, encoder_folder, tmp_path, eval_files, monkeypatch):
    import training

    SCRIPT[:] = [float(figure) for figure in figures]
    monkeypatch.setattr(training, "Evaluation", Scripted)
    log = train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / "out", *BASE, *eval_files, "--eval_steps", "1",
                "--keep_checkpoints", "1", *(["--early_stop_patience", str(patience)] if patience else []))
    assert [line["step"] for line in log] == list(range(1, steps + 1))
    kept = {path.name for path in (tmp_path / "out").glob("model_*")}
    assert kept == {f"model_{best}", f"model_{steps}"}
    assert (tmp_path / "out" / "best").resolve().name == f"model_{best}"
    assert (tmp_path / "out" / "latest").resolve().name == f"model_{steps}"
    assert all(check_checkpoint(path, to_resume=True) for path in (tmp_path / "out").glob("model_*"))


def test_best_of_evaluations():
    made = [{"step": step, "R@10": ten, "R@50": fifty} for step, ten, fifty in
            [(0, 99, 99), (1, 5, 7), (2, 5, 8), (3, 5, 8), (4, 4, 99)]]
    assert best_of(made)["step"] == 2 and without_gain(made) == 2
    assert best_of(made[:1]) is None and without_gain(made[:1]) == 0


def test_a_sample_of_the_corpus_holds_the_targets(encoder_folder, tmp_path, eval_files, capsys):
    corpus = write(tmp_path / "big.txt", "".join(f"第{i}条\n" for i in range(500)) + "".join(f"{t}\n" for t in TARGETS[:10]))
    flags = ["--eval_pair_file", eval_files[1], "--eval_corpus_file", corpus, "--eval_corpus_size", "50"]
    sizes = []
    for seed in ("1", "1", "2"):
        train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / "out", "--max_steps", "1", *flags, "--seed", seed)
        sizes.append(evaluations(tmp_path / "out")[-1])
    assert all(50 <= line["texts"] <= 60 for line in sizes) and sizes[0] == sizes[1]
    assert "6 target(s)" in capsys.readouterr().err


def test_the_card_of_a_checkpoint(encoder_folder, tmp_path, eval_files):
    import hashlib

    pairs = write(tmp_path / "train.tsv", pair_lines() + f"{SOURCES[0]}\t{TARGETS[0]}\t反例\n")
    train(train_batch_neg, encoder_folder, pairs, tmp_path / "out", *BASE, *eval_files, "--eval_steps", "4")
    last = evaluations(tmp_path / "out")[-1]
    card = (tmp_path / "out" / "latest" / "README.md").read_text()
    with open(pairs, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    low, high = last["intervals"]["R@50"]
    for words in ("17 pairs, 33 different texts, 1 mined negatives", digest, "| `--learning_rate` | 0.001 |",
                  f"| R@10 | {last['R@10']:.2f} |", f"| R@50 | {last['R@50']:.2f} | {low:.2f} to {high:.2f} |",
                  "paddlepaddle 3", "python search.py"):
        assert words in card, words


def test_the_picture_of_a_run(encoder_folder, tmp_path, eval_files):
    for name, flags in (("plain", []), ("evaluated", eval_files)):
        train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / name, *BASE, *flags)
    sizes = []
    for name in ("plain", "evaluated"):
        content = (tmp_path / name / "training_curve.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        sizes.append(int.from_bytes(content[20:24], "big"))  # its height
    assert sizes[1] > sizes[0]


def test_visualdl_gets_the_evaluations(encoder_folder, tmp_path, eval_files):
    from visualdl import LogReader

    train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / "out", *BASE, *eval_files, "--visualdl_dir",
          str(tmp_path / "vdl"))
    (path,) = (tmp_path / "vdl").iterdir()
    values = [record.value for record in LogReader(file_path=str(path)).get_data("scalar", "eval/R@10")]
    assert values == pytest.approx([line["R@10"] for line in evaluations(tmp_path / "out")], rel=1e-5)


@pytest.mark.parametrize("change, words", [
    (["--eval_steps", "5"], ["--eval_steps 5", "--eval_pair_file"]),
    (["--eval_corpus_file", "@corpus"], ["--eval_corpus_file", "--eval_pair_file"]),
    (["--early_stop_patience", "2"], ["--early_stop_patience 2", "--eval_pair_file"]),
    (["--eval_pair_file", "no/such"], ["--eval_pair_file", "no/such"]),
    (["--eval_pair_file", "@corpus"], ["corpus.txt: line 1: 1 column"]),
    (["--amp", "bf16"], ["--amp bf16", "--device gpu"]),
    (["--grad_cache_chunk_size", "0"], ["--grad_cache_chunk_size", "'0'"]),
    (["--cross_batch_negatives", "--no_cross_batch_negatives"], ["not allowed with"]),
])
def test_bad_flags(change, words, encoder_folder, tmp_path, eval_files, failure):
    line = failure(train_batch_neg.main, [
        "--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", eval_files[1], "--save_dir",
        str(tmp_path / "out"), *(eval_files[3] if word == "@corpus" else word for word in change)])
    assert all(word in line for word in words), line
    assert not list(tmp_path.glob("out/model_*"))


def test_each_spelling_of_the_evaluation_files(encoder_folder, tmp_path, eval_files):
    for spelling in ("--similar_text_pair", "--similar_text_pair_file", "--similar_pair_file"):
        log = train(train_batch_neg, encoder_folder, eval_files[1], tmp_path / spelling, "--max_steps", "1", spelling,
                    eval_files[1], "--corpus_file", eval_files[3])
        assert len(log) == 1 and len(evaluations(tmp_path / spelling)) == 2
    assert trainer.CPU_CHUNK_TOKENS and read_log(tmp_path / "--similar_text_pair")
