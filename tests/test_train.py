import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import pair_lines, read_log, train, weights, write
from test_resume import failure_after_notices

import cli
import predict
import train_batch_neg
import train_hardest_neg
import train_pairwise
import trainer
from batches import draw_negatives
from checkpoint import read_state_dict
from train_data import read_train_set
from train_flags import add_training_flags
from train_log import StepFigures, TrainLog

STRATEGIES = [train_batch_neg, train_hardest_neg, train_pairwise]
EMOJI = "😀😃😄🚀🪐🐙🦖🧭🪁🧊🥝🦚"


@pytest.mark.parametrize("script", STRATEGIES)
def test_training_lowers_the_loss_and_saves_the_last_step(script, encoder_folder, tmp_path, pair_file):
    log = train(script, encoder_folder, pair_file, tmp_path / "out", "--batch_size", "8", "--epochs", "20",
                "--learning_rate", "1e-2", "--save_steps", "15", "--pooling", "mean", "--dropout", "0")
    first, last = (np.mean([line["loss"] for line in part]) for part in (log[:4], log[-2:]))
    assert last < 0.8 * first
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["latest", "model_15", "model_30", "model_40", "train_log.jsonl", "training_curve.png"]
    assert (tmp_path / "out" / "latest").resolve().name == "model_40"
    assert json.loads((tmp_path / "out" / "latest" / "semantic_index.json").read_text())["step"] == 40


def emoji_rows(tmp_path: Path, *rows: tuple[int, ...]) -> str:
    return write(tmp_path / "emoji.tsv", "".join("\t".join(EMOJI[i] for i in row) + "\n" for row in rows))


def batch_neg_loss(negatives: int) -> float:
    """All vectors are equal, so S = 1 everywhere and the loss counts the columns (scale 30, margin 0.2)."""
    return math.log(1 + negatives * math.exp(30 * 0.2))


@pytest.mark.parametrize("rows, losses", [
    ([(0, 1), (2, 3), (4, 5), (6, 7)], batch_neg_loss(3)),
    ([(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)], batch_neg_loss(7)),            # 3 targets and 4 mined negatives
    ([(0, 1), (2, 1), (3, 4), (5, 6)], (2 * batch_neg_loss(2) + 2 * batch_neg_loss(3)) / 4),  # two share their target
    ([(0, 1), (0, 2), (3, 4), (5, 6)], (2 * batch_neg_loss(2) + 2 * batch_neg_loss(3)) / 4),  # one source, two targets
    ([(0, 1, 1), (2, 3)], (batch_neg_loss(1) + batch_neg_loss(2)) / 2),             # a mined "negative" is the target
    ([(0, 1, 2, 2), (3, 4)], batch_neg_loss(3)),                                    # a repeated column is not folded
    ([(0, 1), (2, 1)], 0.0),                                                        # nothing left to push away
])
def test_the_loss_counts_the_columns_that_are_negatives(encoder_folder, tmp_path, rows, losses):
    log = train(train_batch_neg, encoder_folder, emoji_rows(tmp_path, *rows), tmp_path / "out", "--batch_size",
                str(len(rows)), "--epochs", "1", "--dropout", "0", "--learning_rate", "1e-7")
    assert log[0]["loss"] == pytest.approx(losses, abs=2e-4)


def test_hardest_neg_costs_the_margin_where_all_is_equal(encoder_folder, tmp_path):
    rows = [(0, 1), (2, 3), (4, 5), (6, 7)]
    log = train(train_hardest_neg, encoder_folder, emoji_rows(tmp_path, *rows), tmp_path / "out", "--batch_size", "4",
                "--epochs", "1", "--dropout", "0")
    assert log[0]["loss"] == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize("script, steps, notice", [(train_batch_neg, 1, True), (train_hardest_neg, 1, True),
                                                   (train_pairwise, 2, False)])
def test_a_last_batch_of_one_row(script, steps, notice, encoder_folder, tmp_path, capsys):
    log = train(script, encoder_folder, write(tmp_path / "t", pair_lines(5)), tmp_path / "out", "--batch_size", "4",
                "--epochs", "1")
    assert len(log) == steps and all(line["loss"] > 0 for line in log)
    assert ("would be a single pair" in capsys.readouterr().err) == notice


def test_fewer_rows_than_a_batch_are_trained_with_a_notice(encoder_folder, tmp_path, capsys):
    log = train(train_batch_neg, encoder_folder, write(tmp_path / "t", pair_lines(3)), tmp_path / "out", "--epochs", "2")
    assert len(log) == 2 and all(line["loss"] > 0 for line in log)
    assert "3 pairs, less than a batch of 64" in capsys.readouterr().err


def test_the_schedule(encoder_folder, tmp_path, pair_file):
    flags = ["--batch_size", "4", "--epochs", "3", "--learning_rate", "1e-3", "--logging_steps", "1"]
    plain = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "a", *flags)
    rates = [line["learning_rate"] for line in plain]
    assert rates == pytest.approx([1e-3 * (12 - s) / 12 for s in range(12)])
    warm = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "b", *flags, "--warmup_proportion", "0.25")
    assert [line["learning_rate"] for line in warm] == pytest.approx(
        [0, 1e-3 / 3, 2e-3 / 3] + [1e-3 * (12 - s) / 9 for s in range(3, 12)])
    short = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "c", *flags, "--max_steps", "5")
    assert [line["learning_rate"] for line in short] == pytest.approx([1e-3 * (5 - s) / 5 for s in range(5)])


def test_logged_steps(encoder_folder, tmp_path, pair_file):
    log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "o", "--batch_size", "4", "--epochs", "6",
                "--logging_steps", "7")
    assert [line["step"] for line in log] == [*range(1, 11), 14, 21, 24]
    assert set(log[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "padding", "pairs_per_second",
                           "tokens_per_second"}
    assert [line["epoch"] for line in log[:9]] == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_a_run_is_a_function_of_its_seed(encoder_folder, tmp_path, pair_file):
    flags = ["--batch_size", "4", "--epochs", "2"]
    one, two, other = (train(train_batch_neg, encoder_folder, pair_file, tmp_path / name, *flags, "--seed", seed)
                       for name, seed in (("a", "5"), ("b", "5"), ("c", "6")))
    losses = [[line["loss"] for line in log] for log in (one, two, other)]
    assert losses[0] == losses[1] != losses[2]
    files = [(tmp_path / name / "latest" / "model_state.pdparams").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_gradients_are_clipped_and_weights_decayed_where_they_should(encoder_folder, tmp_path, pair_file):
    base = ["--batch_size", "16", "--epochs", "1", "--dropout", "0", "--learning_rate", "1e-3"]
    log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "a", *base)
    again = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "b", *base, "--max_grad_norm", "1e-9")
    assert log[0]["grad_norm"] == again[0]["grad_norm"] > 1e-4
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "c", *base, "--weight_decay", "0.1")
    plain, clipped, decayed = (weights(tmp_path / name) for name in "abc")
    # AdamW takes the decay off before the step: w (1 - rate * decay); biases and norms are left alone.
    start = {name: value for name, value in weights(tmp_path / "b").items()}  # the clipped step moved next to nothing
    for name, value in plain.items():
        difference = value - decayed[name]
        expected = 0 if "bias" in name or "norm" in name else 1e-3 * 0.1 * start[name]
        assert np.allclose(difference, expected, atol=2e-6), name
    assert max(np.abs(clipped[name] - plain[name]).max() for name in plain) > 1e-4


def test_dropout_reaches_encoder_and_head(encoder_folder, tmp_path, pair_file):
    def losses(name, *flags):
        log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / name, "--batch_size", "16", "--epochs", "2",
                    "--learning_rate", "1e-12", *flags)
        return [line["loss"] for line in log]

    same, noisy, default = losses("a", "--dropout", "0"), losses("b", "--dropout", "0.5"), losses("c")
    assert same[0] == pytest.approx(same[1], abs=1e-5)  # the same rows twice, and nothing random
    assert abs(noisy[0] - noisy[1]) > 1e-3 and abs(default[0] - default[1]) > 1e-4


def test_no_projection(encoder_folder, tmp_path, pair_file):
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--output_emb_size", "0", "--epochs", "1")
    assert not any(name.startswith("emb_reduce_linear") for name in weights(tmp_path / "out"))


def test_init_from_ckpt_continues_from_all_weights(encoder_folder, trained, tmp_path, pair_file):
    train(train_hardest_neg, encoder_folder, pair_file, tmp_path / "out", "--init_from_ckpt", trained,
          "--pooling", "mean", "--learning_rate", "1e-12", "--max_steps", "1")
    before, after = read_state_dict(trained), weights(tmp_path / "out")
    assert all(np.allclose(after[name], before[name], atol=1e-9) for name in before)


@pytest.mark.parametrize("flags, words", [
    (["--pooling", "first"], ["--pooling 'mean', now it is 'first'"]),
    (["--pooling", "mean", "--text_prefix", "query: "], ["--text_prefix '', now it is 'query: '"])])
def test_vectors_of_another_kind_are_not_trained_on(encoder_folder, trained, tmp_path, pair_file, failure, flags, words):
    line = failure_after_notices(train_batch_neg.main, [
        "--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pair_file, "--max_seq_length", "32",
        "--output_emb_size", "16", "--save_dir", str(tmp_path / "out"), "--init_from_ckpt", trained, *flags])
    assert all(word in line for word in [trained, *words]) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("change, words", [
    (["--model_name_or_path", "no-such/model"], ["no-such/model", "no such folder", "no network"]),
    (["--model_name_or_path", "ernie-1.0"], ["ernie-1.0", "no network"]),
    (["--batch_size", "1"], ["--batch_size 1", "2 or more"]),
    (["--use_amp"], ["--use_amp", "--device gpu"]),
    (["--use_amp", "False"], ["unrecognized arguments: False"]),
    (["--init_from_ckpt", "./nope.pdparams"], ["--init_from_ckpt", "./nope.pdparams"]),
    (["--learning_rate", "nan"], ["--learning_rate", "'nan'"]),
    (["--dropout", "1"], ["--dropout", "'1'"]),
    (["--seed", "99999999999999999999"], ["--seed", "4294967295"]),
    (["--visualdl_dir", "/dev/null"], ["/dev/null"]),
    (["--scale", "1e38"], ["diverged", "gradient norm inf", "step 1"]),
    (["--max_seq_length", "500"], ["500", "80 tokens"]),
    (["--max_seq_length", "2"], ["--max_seq_length 2"]),
    (["--save_ste", "3"], ["unrecognized arguments: --save_ste"]),
])
def test_bad_flags_end_in_one_line(change, words, encoder_folder, tmp_path, pair_file, failure):
    flags = ["--device", "cpu", "--train_set_file", pair_file, "--save_dir", str(tmp_path / "out")]
    if "--model_name_or_path" not in change:
        flags += ["--model_name_or_path", encoder_folder]
    line = failure(train_batch_neg.main, flags + change)
    for word in words:
        assert word in line
    assert not list(tmp_path.glob("out/model_*"))


def test_a_second_run_is_told_who_owns_the_folder(encoder_folder, tmp_path, pair_file, failure):
    from files import own_folder

    with own_folder(tmp_path / "out"):
        line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", encoder_folder, "--save_dir",
                                              str(tmp_path / "out"), "--train_set_file", pair_file])
    assert "in use by pid" in line
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--max_steps", "1")


def test_a_run_over_an_earlier_one_says_so(encoder_folder, tmp_path, pair_file, capsys):
    for _ in range(2):
        log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--max_steps", "2")
        assert [line["step"] for line in log] == [1, 2]
    assert "holds checkpoints of an earlier run (model_2)" in capsys.readouterr().err


def test_visualdl_gets_scalars(encoder_folder, tmp_path, pair_file):
    from visualdl import LogReader

    log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--max_steps", "3", "--visualdl_dir",
                str(tmp_path / "vdl"))
    (path,) = (tmp_path / "vdl").iterdir()
    values = [record.value for record in LogReader(file_path=str(path)).get_data("scalar", "train/loss")]
    assert values == pytest.approx([line["loss"] for line in log], rel=1e-5)


def test_drawn_negatives_are_no_known_targets(tmp_path):
    rows = "".join(f"q{i % 5}\tt{i}\n" for i in range(25)) + "mined\ttm\tn1\tn2\n"
    data = read_train_set(write(tmp_path / "t", rows))
    for step in range(30):
        drawn = draw_negatives(data, np.arange(26), seed=1, step=step)
        assert all(len(d) == 1 and d[0] not in data.positives[int(s)] for d, s in zip(drawn, data.sources))
        assert data.texts[drawn[25][0]] in ("n1", "n2")
    assert draw_negatives(data, np.arange(26), 1, 3) != draw_negatives(data, np.arange(26), 1, 4)


@pytest.mark.parametrize("script, flags, loss", [
    (train_hardest_neg, [], 0.2), (train_hardest_neg, ["--margin", "0.35"], 0.35), (train_pairwise, [], 0.2),
    (train_pairwise, ["--margin", "0.35"], 0.35), (train_batch_neg, [], math.log(1 + 3 * math.exp(30 * 0.2))),
    (train_batch_neg, ["--margin", "0.1", "--scale", "7"], math.log(1 + 3 * math.exp(7 * 0.1))),
])
def test_margin_and_scale_reach_the_loss(script, flags, loss, encoder_folder, tmp_path):
    pairs = emoji_rows(tmp_path, (0, 1), (2, 3), (4, 5), (6, 7))
    log = train(script, encoder_folder, pairs, tmp_path / "out", "--epochs", "1", "--dropout", "0", *flags)
    assert log[0]["loss"] == pytest.approx(loss, abs=1e-4)
    manifest = json.loads((tmp_path / "out" / "latest" / "semantic_index.json").read_text())
    assert f"train_{manifest['strategy']}" == script.__name__


def test_the_rate_of_the_schedule_is_the_one_taken(encoder_folder, trained, tmp_path, pair_file):
    """Warm-up begins at 0, so the first step moves nothing."""
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--init_from_ckpt", trained, "--max_steps", "2",
          "--pooling", "mean", "--save_steps", "1", "--warmup_proportion", "0.5", "--learning_rate", "1e-2")
    start, first, second = (read_state_dict(path) for path in (
        trained, *(tmp_path / "out" / f"model_{step}" / "model_state.pdparams" for step in (1, 2))))
    assert all(np.array_equal(first[name], start[name]) for name in start)
    assert any(np.abs(second[name] - start[name]).max() > 1e-3 for name in start)


def test_a_step_forgets_the_gradients_of_the_last(encoder_folder, tmp_path, pair_file):
    log = train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--epochs", "3", "--dropout", "0",
                "--learning_rate", "1e-12")
    assert [line["grad_norm"] for line in log] == pytest.approx([log[0]["grad_norm"]] * 3, rel=1e-3)


@pytest.mark.parametrize("script", STRATEGIES)
def test_a_run_that_diverges_ends_and_keeps_its_checkpoints(script, encoder_folder, tmp_path, pair_file, failure):
    """16 pairs: there Paddle's loss of nothing but NaN is finite, and the gradients alone tell."""
    line = failure(script.main, ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pair_file,
                                 "--save_dir", str(tmp_path / "out"), "--save_steps", "1", "--learning_rate", "1e38"])
    assert "training has diverged" in line and "at step 2" in line
    assert f"the last good checkpoint is {tmp_path / 'out' / 'model_1'}" in line
    assert (tmp_path / "out" / "latest").resolve().name == "model_1"


def test_a_single_pair_is_refused_where_it_has_no_negative(encoder_folder, tmp_path, failure):
    flags = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", write(tmp_path / "t", pair_lines(1)),
             "--save_dir", str(tmp_path / "out")]
    for script in (train_batch_neg, train_hardest_neg):
        assert "1 pair has no negatives beside it" in failure(script.main, flags)


def test_drawn_negatives_hang_on_the_seed(tmp_path):
    data = read_train_set(write(tmp_path / "t", "".join(f"q{i}\tt{i}\n" for i in range(25))))
    one, two, other = (draw_negatives(data, np.arange(25), seed, 3) for seed in (1, 1, 2))
    assert one == two != other


def make_trainer(encoder_folder: str, pair_file: str, *flags: str) -> trainer.Trainer:
    from pretrained import open_encoder

    parser = cli.Parser(None)
    add_training_flags(parser)
    args = parser.parse_args(["--train_set_file", pair_file, *flags])
    return trainer.Trainer(args, read_train_set(pair_file), *open_encoder(encoder_folder, 32), "batch_neg", False)


def test_epochs_of_a_run_have_batches_of_their_own(encoder_folder, pair_file):
    made = make_trainer(encoder_folder, pair_file, "--batch_size", "4")
    first, again, second = ([rows.tolist() for rows in made.batches_of(epoch)] for epoch in (0, 0, 1))
    assert first == again != second and sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(16))


def test_biases_that_are_not_zero_are_not_decayed_either(encoder_folder, trained, tmp_path, pair_file):
    """Fresh biases are zero, and a decay of zero is not seen."""
    base = ["--epochs", "1", "--dropout", "0", "--learning_rate", "1e-3", "--pooling", "mean", "--init_from_ckpt", trained]
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "a", *base)
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "b", *base, "--weight_decay", "0.5")
    start, plain, decayed = read_state_dict(trained), weights(tmp_path / "a"), weights(tmp_path / "b")
    assert np.abs(start["emb_reduce_linear.bias"]).max() > 1e-2
    for name, value in start.items():
        unused = "pooler" in name  # by the mean
        expected = 0 if "bias" in name or "norm" in name or unused else 1e-3 * 0.5 * value
        assert np.allclose(plain[name] - decayed[name], expected, atol=1e-6), name


def test_the_speed_is_of_the_steps_since_the_last_line(tmp_path):
    args = SimpleNamespace(save_dir=str(tmp_path), visualdl_dir=None, logging_steps=4)
    with TrainLog(args, 16, done=0) as log:
        for step in range(1, 17):
            log.add(step, 1, StepFigures(1.0, 1.0, 1.0, pairs=step, tokens=10 * step, own=3, computed=4, seconds=0.5))
    assert [line["pairs_per_second"] for line in read_log(tmp_path)] == [2.0 * s for s in range(1, 11)] + [23.0, 29.0]
    assert [line["tokens_per_second"] for line in read_log(tmp_path)][-1] == 290.0
    assert {line["padding"] for line in read_log(tmp_path)} == {0.25}


def test_the_pooling_flag_reaches_the_model(encoder_folder, tmp_path, pair_file):
    for pooling in ("cls", "mean"):
        train(train_batch_neg, encoder_folder, pair_file, tmp_path / pooling, "--pooling", pooling, "--max_steps", "1")
        assert json.loads((tmp_path / pooling / "latest" / "semantic_index.json").read_text())["pooling"] == pooling


def test_vectors_without_a_projection_have_the_encoder_s_size(encoder_folder, tmp_path, pair_file):
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--output_emb_size", "0", "--max_steps", "1")
    assert predict.main(["--device", "cpu", "--params_path", str(tmp_path / "out" / "latest"), "--text_file",
                         write(tmp_path / "texts", "快递\n密码\n密码\n"), "--output_embeddings", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (3, 32) and np.array_equal(vectors[1], vectors[2])
