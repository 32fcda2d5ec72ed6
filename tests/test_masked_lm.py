"""Masked-language-model training: what is hidden, the loss, its gradients, and what becomes of the checkpoint."""

import json
import math
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from conftest import (
    SOURCES,
    TARGETS,
    launch,
    make_encoder_folder,
    pair_lines,
    read_log,
    train,
    weights,
    write,
)
from paddle.nn import functional as F
from test_grad_cache import assert_equal, gradients_of
from test_resume import Killed, assert_same, failure_after_notices, outcome

import cli
import cpu_ops
import masked_lm
import predict
import pretrain_mlm
import train_batch_neg
import trainer
from data import pad_batch
from masked_lm import MaskedLanguageModel, MaskedLmTrainer, hide
from pretrained import open_encoder, start_encoder
from train_data import read_train_set
from train_flags import add_training_flags

TEXTS = SOURCES + TARGETS
NO_TOKEN = "\ufffd"  # the tokenizer takes it out
VOCABULARY = SimpleNamespace(mask_id=3, size=1000)


@pytest.fixture
def text_file(tmp_path) -> str:
    return write(tmp_path / "texts", "".join(f"{text}\n" for text in TEXTS))


def make_trainer(encoder_folder: str, path: str, *flags: str, copies: int = 1) -> MaskedLmTrainer:
    parser = cli.Parser(None)
    add_training_flags(parser, vectors=False, pairs=False)
    parser.add_argument("--mask_probability", type=float, default=0.3)
    args = parser.parse_args(["--train_set_file", path, *flags])
    paddle.seed(7)
    encoder, tokenizer = open_encoder(encoder_folder, 32, args.dropout)
    model = MaskedLanguageModel(encoder)
    model.train()
    return MaskedLmTrainer(args, read_train_set(path), model, tokenizer, "masked_lm", False, copies=copies)


def test_of_ten_hidden_tokens_eight_are_masks_one_is_random_and_one_stays():
    kinds, hidden, tokens = np.zeros(3), 0, 0
    for number in range(3000):
        ids = [1, *range(100, 120), 2]
        text = hide(ids, 0.25, np.random.default_rng(number), VOCABULARY)
        assert text.ids == ids == [1, *range(100, 120), 2] and text.places == sorted(set(text.places))
        assert text.places[0] >= 1 and text.places[-1] <= 20
        assert all(old == new for i, (old, new) in enumerate(zip(ids, text.replaced)) if i not in text.places)
        for place in text.places:
            kinds[0 if text.replaced[place] == 3 else 2 if text.replaced[place] == ids[place] else 1] += 1
        hidden, tokens = hidden + len(text.places), tokens + 20
    assert hidden / tokens == pytest.approx(0.25, abs=0.01)
    assert kinds / hidden == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.99])
@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_every_text_with_a_token_hides_one(length, probability):
    counts = {len(hide([1, *[9] * length, 2], probability, np.random.default_rng(number), VOCABULARY).places)
              for number in range(50)}
    assert max(counts) <= length and min(counts) >= min(length, 1)
    assert probability or counts == {min(length, 1)}


def test_what_is_hidden_hangs_on_seed_step_and_text(encoder_folder, text_file):
    """Not on the rows beside it, nor on the epoch."""
    made, other = (make_trainer(encoder_folder, text_file, "--seed", seed) for seed in "12")
    texts, steps = range(len(TEXTS)), (1, 2)
    first, again = ([made._hidden(text, step) for text in texts for step in steps] for _ in range(2))
    assert first == again != [other._hidden(text, step) for text in texts for step in steps]
    assert first[::2] != first[1::2]
    pattern = [tuple(made._hidden(text, 1).places) for text in texts]
    assert len(set(pattern)) > 10


def plain_loss(made: MaskedLmTrainer, rows, step: int) -> tuple[paddle.Tensor, list, paddle.Tensor]:
    """The mean loss of rows in one padded batch, in Paddle's own operators; the texts; the last hidden states."""
    texts = [hide(made.token_ids[row], made.args.mask_probability, np.random.default_rng([made.args.seed, step, row]),
                  made.tokenizer) for row in map(int, rows)]
    ids, mask = pad_batch([text.replaced for text in texts], made.tokenizer.pad_id)
    states = made.model.ptm(paddle.to_tensor(ids), attention_mask=paddle.to_tensor(mask))[0]
    found = paddle.stack([states[row, place] for row, text in enumerate(texts) for place in text.places])
    words = paddle.to_tensor([text.ids[place] for text in texts for place in text.places])
    head, table = made.model.lm_head, made.model.ptm.embeddings.word_embeddings.weight
    scores = head["norm"](F.gelu(head["dense"](found))) @ table.T + made.model.lm_bias
    return F.cross_entropy(scores, words), texts, states


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens(encoder_folder, text_file):
    """Counted anew in float64, from the encoder's last hidden states on."""
    made = make_trainer(encoder_folder, text_file, "--dropout", "0")
    loss, figures = made.gradients(np.arange(20), 3)
    _, texts, states = plain_loss(made, np.arange(20), 3)
    own = {name: value.numpy().astype(np.float64) for name, value in made.model.state_dict().items()}
    found = np.array([states.numpy()[row, place] for row, text in enumerate(texts) for place in text.places], np.float64)
    x = found @ own["lm_head.dense.weight"] + own["lm_head.dense.bias"]
    x *= np.array([[(1 + math.erf(value / math.sqrt(2))) / 2 for value in row] for row in x])
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    x = x * own["lm_head.norm.weight"] + own["lm_head.norm.bias"]
    scores = x @ own["ptm.embeddings.word_embeddings.weight"].T + own["lm_bias"]
    words = [text.ids[place] for text in texts for place in text.places]
    right = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(words)), words]
    assert loss == pytest.approx(right.mean(), rel=1e-5)
    lengths = [len(text.ids) for text in texts]
    assert figures["pairs"] == 20 and figures["tokens"] == figures["own"] == sum(lengths) <= figures["computed"]


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_one_plain_forward(recompute, encoder_folder, text_file, monkeypatch):
    """The word embeddings have theirs from both ends: tokens that go in, and words that are found."""
    plain = make_trainer(encoder_folder, text_file, "--dropout", "0")
    loss, texts, _ = plain_loss(plain, np.arange(20), 1)
    loss.backward()
    right = {"loss": np.array([float(loss)]),
             **{name: p.grad.numpy() for name, p in plain.model.named_parameters() if p.grad is not None}}
    assert "pooler" not in " ".join(right) and len(right) > 20
    table = np.abs(right["ptm.embeddings.word_embeddings.weight"]).max(1)
    assert table[1] > 0 and table[plain.tokenizer.mask_id] > 0 and (table > 0).all()
    monkeypatch.setattr(masked_lm, "CPU_CHUNK_TOKENS", 40)
    if recompute:  # Paddle's own operators
        made = make_trainer(encoder_folder, text_file, "--dropout", "0")
        made.model.ptm.recompute_enable()
        assert_equal(right, gradients_of(made, 20))
        return
    with cpu_ops.replacing_paddles():
        for copies in (1, 2, 30):
            made = make_trainer(encoder_folder, text_file, "--dropout", "0", copies=copies)
            for _ in range(2):  # the second time into gradients that are there already
                assert_equal(right, gradients_of(made, 20))


def test_copies_repeat_to_the_last_bit_under_dropout(encoder_folder, text_file, monkeypatch):
    monkeypatch.setattr(masked_lm, "CPU_CHUNK_TOKENS", 64)
    seen = []
    with cpu_ops.replacing_paddles():
        for seed in "112":
            made = make_trainer(encoder_folder, text_file, "--dropout", "0.3", "--seed", seed, copies=3)
            for step in (1, 2, 3):
                made.update(made.gradients(np.arange(30), step)[0], step, 1e-2)
            seen.append(b"".join(p.numpy().tobytes() for p in made.model.parameters()))
    assert seen[0] == seen[1] != seen[2]


def test_mixed_precision_is_that_of_the_other_strategies(encoder_folder, text_file, monkeypatch):
    """No GPU here: the precision is asked for, and the loss is scaled, as `update` takes for granted."""
    made, asked = make_trainer(encoder_folder, text_file, "--dropout", "0"), []
    right = gradients_of(made, 8)
    auto_cast = paddle.amp.auto_cast
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda enable, level, dtype: asked.append((enable, dtype))
                        or auto_cast(False))
    made.args.amp, made.scaler = "bf16", SimpleNamespace(scale=lambda loss: loss * 4)
    scaled = gradients_of(made, 8)
    assert set(asked) == {(True, "bfloat16")} and scaled["loss"] == right["loss"]
    assert all(np.allclose(scaled[name], 4 * right[name], atol=1e-6) for name in right if name != "loss")


def assert_two_ranks_take_the_steps_of_one(script, flags, tmp_path, monkeypatch, steps: int) -> None:
    """As in test_ranks.py; batches of 4, and the single process is this one."""
    one, two, right, norm = tmp_path / "one", tmp_path / "two", [], trainer._norm
    two.mkdir()
    monkeypatch.setattr(trainer, "_norm", lambda parameters: right.append([p.grad.numpy() for p in parameters])
                        or norm(parameters))
    assert script.main([*flags, "--batch_size", "4", "--save_dir", str(one)]) == 0
    result = launch(2, "tests/record_gradients.py", str(two), f"{script.__name__}.py", *flags, "--batch_size", "2",
                    "--save_dir", str(two), cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    got = [np.load(two / f"gradients_{rank}.npz") for rank in (0, 1)]
    assert len(right[0]) == len(got[0].files) > 10
    for whole, name in zip(right[0], got[0].files):
        assert np.array_equal(got[0][name], got[1][name])
        assert np.abs(whole - got[0][name]).max() <= 1e-5 * max(0.1, np.abs(whole).max()), name
    logs = read_log(one), read_log(two)
    assert len(logs[0]) == len(logs[1]) == steps
    for a, b in zip(*logs):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3, abs=1e-6)


def test_two_ranks_take_the_steps_of_one(encoder_folder, tmp_path, monkeypatch):
    """5 texts: the last batch of an epoch is one text, so that the second rank has none. One text has no token."""
    texts = write(tmp_path / "t", "".join(f"{text}\n" for text in [*TEXTS[:4], NO_TOKEN]))
    flags = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", texts, "--epochs", "3",
             "--dropout", "0", "--learning_rate", "1e-3", "--max_seq_length", "32"]
    assert_two_ranks_take_the_steps_of_one(pretrain_mlm, flags, tmp_path, monkeypatch, 6)


def kill_after(step: int, monkeypatch, run) -> None:
    rows_of = trainer.Trainer.rows_of

    def dying(self, number):
        if number > step:
            raise Killed
        return rows_of(self, number)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Trainer, "rows_of", dying)
        run()


def test_a_resumed_run_ends_like_one_without_a_stop(encoder_folder, text_file, tmp_path, monkeypatch):
    flags = ["--batch_size", "8", "--epochs", "3", "--save_steps", "5", "--learning_rate", "1e-3", "--logging_steps", "7"]
    train(pretrain_mlm, encoder_folder, text_file, tmp_path / "a", *flags)
    kill_after(7, monkeypatch, lambda: train(pretrain_mlm, encoder_folder, text_file, tmp_path / "b", *flags))
    assert (tmp_path / "b" / "latest").resolve().name == "model_5"
    again = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", text_file, "--save_dir",
             str(tmp_path / "b"), "--max_seq_length", "32", "--seed", "1", *flags, "--resume"]
    assert "--mask_probability 0.15, now it is 0.2" in failure_after_notices(pretrain_mlm.main, [*again, "--mask_probability", "0.2"])
    assert pretrain_mlm.main(again) == 0
    assert_same(tmp_path / "b", outcome(tmp_path / "a"))


def test_training_lowers_the_loss_and_its_checkpoint_is_an_encoder(encoder_folder, text_file, tmp_path, capsys, failure):
    out = tmp_path / "out"
    log = train(pretrain_mlm, encoder_folder, text_file, out, "--batch_size", "32", "--epochs", "60", "--learning_rate",
                "1e-2", "--dropout", "0", "--warmup_proportion", "0.1", "--mask_probability", "0.3")
    told = capsys.readouterr().err
    assert "32 texts, 32 different texts" in told and "own positive" not in told and " pair" not in told
    assert log[0]["loss"] > 5 and log[-1]["loss"] < 0.75 * log[0]["loss"]
    warm = weights(out)
    encoder, _ = start_encoder(str(out / "latest"), 32)
    started = {name: value.numpy() for name, value in encoder.state_dict().items()}
    assert all(np.array_equal(value, warm[f"ptm.{name}"]) for name, value in started.items())
    assert {name for name in warm if name.removeprefix("ptm.") not in started} == {
        "lm_bias", *(f"lm_head.{layer}.{kind}" for layer in ("dense", "norm") for kind in ("weight", "bias"))}

    capsys.readouterr()
    train(train_batch_neg, str(out / "latest"), write(tmp_path / "pairs", pair_lines()), tmp_path / "next",
          "--max_steps", "1", "--learning_rate", "1e-12", "--pooling", "mean")
    assert "left out 5 tensors of heads" in capsys.readouterr().err
    after = weights(tmp_path / "next")
    assert all(np.allclose(after[f"ptm.{name}"], value, atol=1e-9) for name, value in started.items())

    line = failure(predict.main, ["--device", "cpu", "--params_path", str(out / "latest"), "--text_pair_file",
                                  write(tmp_path / "pairs", pair_lines())])
    assert "masked language model" in line and f"--model_name_or_path {out / 'latest'}" in line
    card = (out / "latest" / "README.md").read_text()
    assert "train_batch_neg.py --model_name_or_path CHECKPOINT" in card and "predict.py" not in card and "pooling" not in card


def test_a_file_of_pairs_is_taken_as_its_texts(encoder_folder, pair_file, tmp_path):
    texts = write(tmp_path / "t", "".join(f"{text}\n" for pair in zip(SOURCES, TARGETS) for text in pair))
    for name, path in (("pairs", pair_file), ("texts", texts)):
        log = train(pretrain_mlm, encoder_folder, path, tmp_path / name, "--batch_size", "8", "--epochs", "1")
        assert len(log) == 4
    files = [(tmp_path / name / "latest" / "model_state.pdparams").read_bytes() for name in ("pairs", "texts")]
    assert files[0] == files[1]
    manifest = json.loads((tmp_path / "pairs" / "latest" / "semantic_index.json").read_text())
    assert manifest["strategy"] == "masked_lm" and manifest["output_emb_size"] == 0


@pytest.mark.parametrize("texts, steps, learns", [
    ("密码\n", 2, True), ("密码\n快递\n耳机\n", 4, True),  # batches of 2: one text is left
    (f"{NO_TOKEN}\n密码\n快递\n{NO_TOKEN}耳机\n", 4, True), (f"{NO_TOKEN}\n{NO_TOKEN}{NO_TOKEN}\n", 2, False)])
def test_few_texts_and_texts_without_tokens(texts, steps, learns, encoder_folder, tmp_path):
    log = train(pretrain_mlm, encoder_folder, write(tmp_path / "t", texts), tmp_path / "out", "--batch_size", "2",
                "--epochs", "2")
    assert len(log) == steps and all((line["loss"] > 1) == (line["grad_norm"] > 1e-2) for line in log)
    assert any(line["loss"] > 1 for line in log) == learns


def test_norms_are_not_decayed(encoder_folder, text_file, tmp_path):
    base = ["--max_steps", "1", "--dropout", "0", "--learning_rate", "1e-3"]
    train(pretrain_mlm, encoder_folder, text_file, tmp_path / "a", *base)
    train(pretrain_mlm, encoder_folder, text_file, tmp_path / "b", *base, "--weight_decay", "0.5")
    plain, decayed = weights(tmp_path / "a"), weights(tmp_path / "b")
    moved = {name for name in plain if np.abs(plain[name] - decayed[name]).max() > 1e-5}
    assert {name for name in moved if not name.startswith("ptm.")} == {"lm_head.dense.weight"}
    assert "ptm.embeddings.word_embeddings.weight" in moved


@pytest.mark.parametrize("flag", [
    "--grad_cache_chunk_size", "--no_cross_batch_negatives", "--cross_batch_negatives", "--output_emb_size", "--pooling",
    "--matryoshka_dims", "--eval_pair_file", "--eval_corpus_file", "--eval_corpus_size", "--eval_steps",
    "--early_stop_patience"])
def test_flags_without_an_effect_are_unknown(flag, encoder_folder, text_file, tmp_path, failure):
    value = [] if "cross" in flag else [text_file if "file" in flag else "mean" if "pool" in flag else "1"]
    line = failure(pretrain_mlm.main, ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file",
                                       text_file, "--save_dir", str(tmp_path / "out"), flag, *value])
    assert f"unrecognized arguments: {flag}" in line and not (tmp_path / "out").exists()


def without_mask(folder) -> str:
    path = folder / "vocab.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("[MASK]", "[unused]"), encoding="utf-8")
    return "[MASK]"


def without_shared_table(folder) -> str:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "model_type": "albert", "embedding_size": 16, "num_hidden_groups": 1}
    path.write_text(json.dumps(config))
    return "AlbertModel has no word embeddings of its hidden size 32"


@pytest.mark.parametrize("change", [without_mask, without_shared_table])
def test_encoders_that_cannot_are_refused(change, tmp_path, text_file, failure):
    encoder = make_encoder_folder(tmp_path / "e")
    words = change(tmp_path / "e")
    line = failure(pretrain_mlm.main, ["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", text_file,
                                       "--save_dir", str(tmp_path / "out")])
    assert words in line and not list(tmp_path.glob("out/model_*"))
