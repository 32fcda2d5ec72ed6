"""Distillation: the loss, whose vector each text is to get, and that a student gets there."""

import hashlib
import math
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import SOURCES, TARGETS, pair_lines, read_log, weights, write
from test_grad_cache import assert_equal, gradients_of
from test_losses import stub
from test_masked_lm import assert_two_ranks_take_the_steps_of_one, kill_after
from test_resume import assert_same, failure_after_notices, outcome

import cli
import cpu_ops
import distill
import distillation
import trainer
from checkpoint import load_checkpoint
from data import pad_batch
from distillation import DistillationTrainer, SemanticIndexDistilled
from pretrained import open_encoder
from train_data import read_teacher, read_train_set
from train_flags import add_training_flags

TEXTS = SOURCES + TARGETS
SHORT = ["--output_emb_size", "8", "--pooling", "mean", "--batch_size", "8"]


def vector_of(text: str) -> np.ndarray:
    """The teacher's vector of a text: any function of it will do. Not of unit length."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return 3 * np.random.default_rng(seed).normal(size=8)


def unit_vector_of(text: str) -> np.ndarray:
    return vector_of(text) / np.linalg.norm(vector_of(text))


def write_files(folder: Path, texts: list[str], dtype: str = "float32") -> tuple[str, str]:
    """A file of texts and the teacher's vectors of its lines."""
    np.save(folder / "teacher.npy", np.array([vector_of(text) for text in texts]).astype(dtype))
    return write(folder / "texts", "".join(f"{text}\n" for text in texts)), str(folder / "teacher.npy")


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    return write_files(tmp_path, TEXTS)


def argv(encoder: str, files: tuple[str, str], save_dir: Path, *flags: str) -> list[str]:
    return ["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", files[0], "--teacher_vectors",
            files[1], "--save_dir", str(save_dir), "--max_seq_length", "32", "--seed", "1", *SHORT, *flags]


def make_trainer(encoder_folder: str, files: tuple[str, str], *flags: str, copies: int = 1) -> DistillationTrainer:
    parser = cli.Parser(None)
    add_training_flags(parser, pairs=False)
    args = parser.parse_args(["--train_set_file", files[0], *SHORT, *flags])
    paddle.seed(7)
    encoder, tokenizer = open_encoder(encoder_folder, 32, args.dropout)
    model = SemanticIndexDistilled(encoder, output_emb_size=8, pooling="mean", dropout=args.dropout)
    model.train()
    data = read_train_set(files[0])
    data.teacher = read_teacher(files[1], files[0], data)
    return DistillationTrainer(args, data, model, tokenizer, "distilled", False, copies=copies)


def right_loss(s: np.ndarray, t: np.ndarray, scale: float) -> float:
    """By the formula, a row and a column after the other."""
    place, order = 0.0, 0.0
    for i in range(len(s)):
        place += 1 - s[i] @ t[i]
        if len(s) == 1:
            return place
        others = [j for j in range(len(s)) if j != i]
        wanted, found = (np.array([scale * (v[i] @ v[j]) for j in others]) for v in (t, s))
        wanted, found = (values - np.log(np.exp(values).sum()) for values in (wanted, found))
        order += sum(np.exp(wanted) * (wanted - found))
    return (place + order) / len(s)


@pytest.mark.parametrize("rows, scale", [(1, 20.0), (2, 20.0), (7, 20.0), (7, 1.0), (30, 50.0)])
def test_loss_and_gradient_are_those_of_the_formula(rows, scale):
    rng = np.random.default_rng(rows)
    s, t = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in rng.normal(size=(2, rows, 5)))
    leaf = paddle.to_tensor(s.astype(np.float32), stop_gradient=False)
    loss = SemanticIndexDistilled(stub(), scale=scale).loss(leaf, paddle.to_tensor(t.astype(np.float32)))
    loss.backward()
    assert float(loss) == pytest.approx(right_loss(s, t, scale), rel=1e-4)
    for i, j in [(0, 0), (rows - 1, 3), (rows // 2, 4)]:
        step = np.zeros_like(s)
        step[i, j] = 1e-5
        right = (right_loss(s + step, t, scale) - right_loss(s - step, t, scale)) / 2e-5
        assert leaf.grad.numpy()[i, j] == pytest.approx(right, rel=1e-3, abs=1e-5)


def test_the_loss_of_the_teacher_itself_is_nothing():
    t = paddle.nn.functional.normalize(paddle.randn([9, 5]))
    assert float(SemanticIndexDistilled(stub()).loss(t, t)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_row_gets_the_vector_of_its_text(ranks, dtype, encoder_folder, tmp_path, monkeypatch):
    """Over all batches of two epochs, of which the last is smaller; some lines are equal."""
    files = write_files(tmp_path, [*TEXTS[:20], *TEXTS[3:9]], dtype)
    for module in (distillation, trainer):
        monkeypatch.setattr(module, "world_size", lambda: ranks)
    made = make_trainer(encoder_folder, files, "--batch_size", "4", copies=1) if ranks == 1 else None
    if made is None:  # without collectives
        monkeypatch.setattr(paddle.distributed, "broadcast", lambda *_, **__: None)
        made = make_trainer(encoder_folder, files, "--batch_size", "4")
    met, seen = [], []
    monkeypatch.setattr(made.model, "loss", lambda vectors, teacher: seen.append(teacher.numpy()))
    for epoch in (0, 1):
        for rows in made.batches_of(epoch):
            shares, loss_of = made.batch_of(rows, 1)
            assert len(shares) == ranks and max(map(len, shares)) - min(map(len, shares)) <= 1
            loss_of(None)
            texts = [made.data.texts[text] for share in shares for text in share]
            assert np.allclose(seen[-1], [unit_vector_of(text) for text in texts], atol=2e-3 if dtype == "float16" else 1e-6)
            met += texts
    assert sorted(met) == sorted(2 * [*TEXTS[:20], *TEXTS[3:9]]) and len(seen) == 2 * math.ceil(26 / (4 * ranks))


def test_vectors_of_any_length_are_taken_by_their_direction(encoder_folder, files):
    """Also those whose squares float32 can't hold."""
    np.save(files[1], np.array([vector_of(text) for text in TEXTS]) * np.logspace(-30, 30, 32)[:, None])
    made, seen = make_trainer(encoder_folder, files), []
    made.model.loss = lambda vectors, teacher: seen.append(teacher.numpy())
    made.batch_of(np.arange(32), 1)[1](None)
    assert np.allclose(seen[0], [unit_vector_of(text) for text in TEXTS], atol=1e-6)


@pytest.mark.parametrize("flags", [["--grad_cache_chunk_size", "1"], ["--grad_cache_chunk_size", "3"], []])
def test_cache_and_copies_give_the_gradients_of_one_forward(flags, encoder_folder, files, monkeypatch):
    plain = make_trainer(encoder_folder, files, "--dropout", "0")
    ids, mask = pad_batch(plain.token_ids, plain.tokenizer.pad_id)
    teacher = np.array([unit_vector_of(text) for text in TEXTS], np.float32)
    loss = plain.model.loss(plain.model(paddle.to_tensor(ids), paddle.to_tensor(mask)), paddle.to_tensor(teacher))
    loss.backward()
    right = {"loss": np.array([float(loss)]),
             **{name: p.grad.numpy() for name, p in plain.model.named_parameters() if p.grad is not None}}
    monkeypatch.setattr(trainer, "CPU_CHUNK_TOKENS", 64)
    with cpu_ops.replacing_paddles():
        for copies in (1, 2):
            made = make_trainer(encoder_folder, files, "--dropout", "0", *flags, copies=copies)
            assert_equal(right, gradients_of(made, 32))


def test_two_ranks_take_the_steps_of_one(encoder_folder, tmp_path, monkeypatch):
    """5 texts: the last batch of an epoch is one text, so that the second rank has none."""
    flags = argv(encoder_folder, write_files(tmp_path, TEXTS[:5]), tmp_path / "o", "--epochs", "2", "--dropout", "0")
    assert_two_ranks_take_the_steps_of_one(distill, flags, tmp_path, monkeypatch, 4)


def cosines(save_dir: Path) -> np.ndarray:
    """Of student and teacher, for each text."""
    checkpoint = load_checkpoint(str(save_dir / "latest" / "model_state.pdparams"), 32)
    ids, mask = pad_batch(checkpoint.tokenizer(TEXTS), checkpoint.tokenizer.pad_id)
    found = checkpoint.model(paddle.to_tensor(ids), paddle.to_tensor(mask)).numpy()
    return (found * [unit_vector_of(text) for text in TEXTS]).sum(axis=1)


def test_a_student_reaches_its_teacher(encoder_folder, tmp_path, pair_file):
    files = write_files(tmp_path, TEXTS, "float16")
    flags = ["--batch_size", "32", "--learning_rate", "1e-2", "--dropout", "0"]
    assert distill.main(argv(encoder_folder, files, tmp_path / "short", *flags, "--max_steps", "1")) == 0
    assert distill.main(argv(encoder_folder, files, tmp_path / "out", *flags, "--epochs", "100", "--warmup_proportion", "0.1",
                             "--eval_pair_file", pair_file)) == 0
    before, after = cosines(tmp_path / "short"), cosines(tmp_path / "out")
    assert abs(before.mean()) < 0.5 and after.mean() > 0.95 and after.min() > 0.8
    log = read_log(tmp_path / "out")
    assert log[-1]["loss"] < 0.2 * log[0]["loss"]
    assert (tmp_path / "out" / "eval_log.jsonl").read_text().count("\n") == 2


def test_scale_reaches_the_loss(encoder_folder, files, tmp_path):
    losses = []
    for scale in ("1e-6", "20"):
        assert distill.main(argv(encoder_folder, files, tmp_path / scale, "--max_steps", "1", "--dropout", "0", "--scale",
                                 scale)) == 0
        losses.append(read_log(tmp_path / scale)[0]["loss"])
    assert losses[0] < 2.1 and losses[1] > losses[0] + 0.5  # with no scale, the first part of the loss is all of it


@pytest.mark.parametrize("texts, steps", [(TEXTS[:1], 2), (TEXTS[:3], 4), ([TEXTS[0]] * 3, 4), (["\ufffd", TEXTS[1]], 2)])
def test_few_texts_equal_texts_and_texts_without_tokens(texts, steps, encoder_folder, tmp_path):
    files = write_files(tmp_path, texts)
    assert distill.main(argv(encoder_folder, files, tmp_path / "out", "--epochs", "2", "--batch_size", "2")) == 0
    log = read_log(tmp_path / "out")
    assert len(log) == steps and all(0 < line["loss"] < 30 and line["grad_norm"] > 1e-3 for line in log)


def test_a_resumed_run_ends_like_one_without_a_stop(encoder_folder, files, tmp_path, monkeypatch):
    flags = ["--epochs", "3", "--save_steps", "5", "--learning_rate", "1e-3", "--logging_steps", "7"]
    assert distill.main(argv(encoder_folder, files, tmp_path / "a", *flags)) == 0
    kill_after(7, monkeypatch, lambda: distill.main(argv(encoder_folder, files, tmp_path / "b", *flags)))
    assert (tmp_path / "b" / "latest").resolve().name == "model_5"
    vectors = np.load(files[1])
    vectors[3, 3] += 1
    np.save(tmp_path / "other.npy", vectors)
    other = argv(encoder_folder, (files[0], str(tmp_path / "other.npy")), tmp_path / "b", *flags, "--resume")
    line = failure_after_notices(distill.main, other)
    assert f"--teacher_vectors {tmp_path / 'other.npy'} is not the file" in line and "SHA-256" in line
    line = failure_after_notices(distill.main, argv(encoder_folder, files, tmp_path / "b", *flags, "--resume", "--scale", "5"))
    assert "--scale 20.0, now it is 5.0" in line
    Path(files[1]).rename(tmp_path / "other.npy")  # the same vectors elsewhere will do
    assert distill.main(other) == 0
    assert_same(tmp_path / "b", outcome(tmp_path / "a"))


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def header_damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': (('''", 1))


def archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, a=np.ones(3))


def no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))


def vectors_with(place: tuple, value: float, dtype: str = "float32"):
    def change(path: Path) -> None:
        vectors = np.load(path).astype(dtype)
        vectors[place] = value
        np.save(path, vectors)

    return change


@pytest.mark.parametrize("change, words", [
    (lambda path: np.save(path, np.load(path)[:-1]), ["31 vectors", "32 lines", "--text_file"]),
    (lambda path: np.save(path, np.ones((0, 8), np.float32)), ["0 vectors", "32 lines"]),
    (lambda path: np.save(path, np.load(path)[0]), ["no array of vectors"]),
    (lambda path: np.save(path, np.load(path)[None]), ["no array of vectors"]),
    (lambda path: np.save(path, np.load(path).astype(int)), ["no array of vectors"]),
    (lambda path: np.save(path, np.load(path).astype(complex)), ["no array of vectors"]),
    (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), ["no .npy file"]),
    (lambda path: path.write_bytes(b"\x80\x04]."), ["no .npy file"]),
    (archive, ["no array of vectors"]),
    (lambda path: path.write_bytes(b""), ["no .npy file"]), (damaged, ["no .npy file"]),
    (header_damaged, ["no .npy file"]), (no_zip, ["no .npy file"]),
    (vectors_with((4,), 0), ["vector 5 is zero or not finite"]), (vectors_with((31, 7), np.nan), ["vector 32 is zero"]),
    (vectors_with((0, 0), np.inf, "float16"), ["vector 1 is zero or not finite"]),
    (vectors_with((2, 1), 1e200, "float64"), ["vector 3 is zero or not finite"]),
    (vectors_with((2,), 1e-200, "float64"), ["vector 3 is zero or not finite"]),
])
def test_bad_vectors_end_in_one_line(change, words, encoder_folder, files, tmp_path, failure):
    change(Path(files[1]))
    line = failure(distill.main, argv(encoder_folder, files, tmp_path / "out"))
    assert all(word in line for word in [files[1], *words])
    assert not (tmp_path / "out").exists()


def test_pairs_and_another_dimension_are_refused(encoder_folder, files, tmp_path, failure):
    pairs = write(tmp_path / "pairs", pair_lines())
    assert f"{pairs}: pairs where texts belong" in failure(distill.main, argv(encoder_folder, (pairs, files[1]), tmp_path / "o"))
    for size in ("0", "9"):
        line = failure_after_notices(distill.main, argv(encoder_folder, files, tmp_path / "out", "--output_emb_size", size))
        assert f"8 dimensions, the model {size.replace('0', '32')}" in line and "--output_emb_size 8" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--no_cross_batch_negatives"], ["--cross_batch_negatives"], ["--matryoshka_dims", "8,4"]])
def test_flags_without_an_effect_are_unknown(flags, encoder_folder, files, tmp_path, failure):
    line = failure(distill.main, argv(encoder_folder, files, tmp_path / "out", *flags))
    assert f"unrecognized arguments: {flags[0]}" in line and not (tmp_path / "out").exists()


def test_without_a_projection_the_encoder_s_own_vectors_learn(encoder_folder, files, tmp_path):
    np.save(files[1], np.random.default_rng(0).normal(size=(32, 32)))
    assert distill.main(argv(encoder_folder, files, tmp_path / "out", "--output_emb_size", "0", "--max_steps", "2")) == 0
    assert not any(name.startswith("emb_reduce_linear") for name in weights(tmp_path / "out"))
