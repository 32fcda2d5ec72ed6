"""Chunks and the gradient cache: the gradients stay those of one plain forward."""

import math
import time

import numpy as np
import paddle
import pytest
from conftest import make_encoder_folder, pair_lines, train, write
from test_train import emoji_rows

import cli
import cpu_ops
import train_batch_neg
import train_hardest_neg
import trainer
import training
from batches import cut_chunks, deal_chunks, make_batch
from pretrained import open_encoder
from train_data import read_train_set
from train_flags import add_training_flags
from training import classes_of


def many_rows(tmp_path, count: int) -> str:
    rng = np.random.default_rng(0)
    words = "".join(sorted(set(pair_lines()) - set("\t\n")))
    text = lambda: "".join(rng.choice(list(words), rng.integers(2, 14)))  # noqa: E731
    return write(tmp_path / "many.tsv", "".join(f"{text()}\t{text()}" + "\t错\n" * (i % 3 == 0) + "\n" * (i % 3 > 0)
                                                for i in range(count)))


def make_trainer(script, encoder_folder: str, pairs: str, *flags: str, copies: int = 1):
    parser = cli.Parser(None)
    add_training_flags(parser)
    args = parser.parse_args(["--train_set_file", pairs, *flags])
    paddle.seed(7)
    encoder, tokenizer = open_encoder(encoder_folder, 32, args.dropout)
    model_class, _ = classes_of(script.__name__.removeprefix("train_"))
    model = model_class(encoder, margin=0.2, output_emb_size=16, pooling="mean", dropout=args.dropout)
    model.train()
    return trainer.Trainer(args, read_train_set(pairs), model, tokenizer, "test", False,
                           copies=copies)


def gradients_of(made, rows) -> dict[str, np.ndarray]:
    made.optimizer.clear_grad()
    loss, _ = made.gradients(np.arange(rows), 1)
    found = {name: p.grad.numpy().copy() for name, p in made.model.named_parameters() if p.grad is not None}
    return {"loss": np.array([loss]), **found}


def assert_equal(first: dict, second: dict, tolerance: float = 1e-5) -> None:
    assert first.keys() == second.keys() and len(first) > 10
    norm = math.sqrt(sum(float((value**2).sum()) for name, value in first.items() if name != "loss"))
    assert norm > 1e-2
    for name in first:
        # Each of these rows sums the gradients of all tokens, in Paddle one after the other: rounding shows there first.
        allowed = 10 * tolerance if "token_type" in name or "task_type" in name else tolerance
        assert np.abs(first[name] - second[name]).max() <= allowed * max(norm, 1), name


@pytest.mark.parametrize("script", [train_batch_neg, train_hardest_neg])
@pytest.mark.parametrize("rows, chunk", [(33, 1), (33, 5), (33, 64), (2048, 64)])
def test_cached_gradients_are_those_of_one_plain_forward(script, rows, chunk, encoder_folder, tmp_path, monkeypatch):
    pairs = many_rows(tmp_path, rows)
    cached = gradients_of(make_trainer(script, encoder_folder, pairs, "--dropout", "0", "--grad_cache_chunk_size",
                                       str(chunk)), rows)
    monkeypatch.setattr(trainer, "CPU_CHUNK_TOKENS", None)
    plain = make_trainer(script, encoder_folder, pairs, "--dropout", "0")
    assert len(cut_chunks(plain.lengths, None, None)) == 1
    assert_equal(gradients_of(plain, rows), cached)


def test_dropout_is_replayed(encoder_folder, tmp_path, monkeypatch):
    """The same chunks with their graphs kept, under a dropout that would show: 0.5 in encoder and head."""
    pairs, with_cache = many_rows(tmp_path, 40), ["--dropout", "0.5", "--grad_cache_chunk_size", "4"]
    cached = make_trainer(train_batch_neg, encoder_folder, pairs, *with_cache)
    first = gradients_of(cached, 40)
    kept = make_trainer(train_batch_neg, encoder_folder, pairs, "--dropout", "0.5")
    monkeypatch.setattr(trainer, "deal_chunks", lambda lengths, hands, texts, most: deal_chunks(lengths, hands, 8, most))
    assert_equal(gradients_of(kept, 40), first, 1e-6)
    other = make_trainer(train_batch_neg, encoder_folder, pairs, *with_cache, "--seed", "5")
    assert abs(gradients_of(other, 40)["loss"] - first["loss"]) > 1e-3


@pytest.mark.parametrize("flags", [[], ["--grad_cache_chunk_size", "5"]])
@pytest.mark.parametrize("script", [train_batch_neg, train_hardest_neg])
def test_copies_in_threads_give_the_gradients_of_one_model(script, flags, encoder_folder, tmp_path, monkeypatch):
    pairs = many_rows(tmp_path, 33)
    plain = gradients_of(make_trainer(script, encoder_folder, pairs, "--dropout", "0"), 33)
    monkeypatch.setattr(trainer, "CPU_CHUNK_TOKENS", 64)
    with cpu_ops.replacing_paddles():
        for copies in (1, 2, 3, 50):
            made = make_trainer(script, encoder_folder, pairs, "--dropout", "0", *flags, copies=copies)
            for _ in range(2):  # the second time into gradients that are there already
                assert_equal(plain, gradients_of(made, 33))


def test_copies_follow_the_optimizer_and_repeat_to_the_last_bit(encoder_folder, tmp_path, monkeypatch):
    """Under dropout, whose noise each thread draws for itself, and over several steps."""
    pairs = many_rows(tmp_path, 33)
    monkeypatch.setattr(trainer, "CPU_CHUNK_TOKENS", 64)
    seen = []
    with cpu_ops.replacing_paddles():
        for _ in range(3):
            made = make_trainer(train_batch_neg, encoder_folder, pairs, "--dropout", "0.3", copies=3)
            for step in range(1, 5):
                made.update(made.gradients(np.arange(33), step)[0], step, 1e-2)
            for copy in made.replicas.models[1:]:
                for own, other in zip(made.model.parameters(), copy.parameters()):
                    assert np.array_equal(own.numpy(), other.numpy())
            seen.append(b"".join(p.numpy().tobytes() for p in made.model.parameters()))
    assert seen[0] == seen[1] == seen[2]


def test_an_error_in_one_thread_ends_the_others(encoder_folder, pair_file, monkeypatch):
    monkeypatch.setattr(trainer, "CPU_CHUNK_TOKENS", 8)
    made, done = make_trainer(train_batch_neg, encoder_folder, pair_file, copies=2), []
    waits = iter([True])

    def encode(*_):
        if next(waits, False):
            raise MemoryError("no room")
        done.append(time.sleep(0.05))

    monkeypatch.setattr(made, "_encode", encode)
    with pytest.raises(MemoryError, match="no room"):
        made.gradients(np.arange(16), 1)
    ended = len(done)
    time.sleep(0.2)
    assert len(done) == ended < 8


def test_noise_hangs_on_seed_step_rank_and_chunk(encoder_folder, pair_file, monkeypatch):
    made, seen = make_trainer(train_batch_neg, encoder_folder, pair_file), {}
    for rank, step, chunk in [(0, 1, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)]:
        monkeypatch.setattr(trainer, "rank", lambda rank=rank: rank)
        vectors = made._encode(made.model, [made.token_ids[0]], step, chunk)[0].numpy().tobytes()
        assert seen.setdefault((rank, step, chunk), vectors) == vectors
    assert len(set(seen.values())) == 4


def test_recomputing_gives_the_same_gradients(encoder_folder, tmp_path, pair_file):
    """Paddle's own dropout, which recomputing replays."""
    plain, again = (make_trainer(train_batch_neg, encoder_folder, pair_file, "--dropout", "0.5") for _ in range(2))
    again.model.ptm.recompute_enable()
    assert any(getattr(layer, "enable_recompute", False) for layer in again.model.sublayers())
    assert_equal(gradients_of(plain, 16), gradients_of(again, 16), 1e-6)


def test_recompute_and_cache_through_the_command_line(encoder_folder, tmp_path, pair_file):
    base = ["--dropout", "0", "--max_steps", "3", "--batch_size", "16", "--learning_rate", "1e-5"]
    logs = [train(train_batch_neg, encoder_folder, pair_file, tmp_path / str(i), *base, *flags)
            for i, flags in enumerate([[], ["--recompute"], ["--grad_cache_chunk_size", "3"]])]
    for log in logs[1:]:
        assert [line["loss"] for line in log] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4)
        assert [line["grad_norm"] for line in log] == pytest.approx([line["grad_norm"] for line in logs[0]], rel=1e-3)


def test_chunks_hold_every_text_once_within_their_limits():
    lengths = np.random.default_rng(0).integers(2, 40, 101)
    for texts, tokens in [(None, 64), (7, None), (7, 64), (1, 1), (None, None)]:
        chunks = cut_chunks(lengths, texts, tokens)
        assert sorted(np.concatenate(chunks).tolist()) == list(range(101))
        for chunk in chunks:
            assert texts is None or len(chunk) <= texts
            assert tokens is None or len(chunk) == 1 or len(chunk) * lengths[chunk].max() <= tokens


def test_hands_get_as_much_to_do():
    rng = np.random.default_rng(0)
    for hands in (1, 2, 3, 4):
        for count, texts in ((1, None), (128, None), (400, None), (128, 10)):
            lengths = rng.integers(4, 40, count)
            chunks, dealt = deal_chunks(lengths, hands, texts, 512)
            assert sorted(np.concatenate(chunks).tolist()) == list(range(count))
            assert sorted(sum(dealt, [])) == list(range(len(chunks))) and len(dealt) == hands
            costs = [int(lengths[chunk].max()) * len(chunk) for chunk in chunks]
            assert max(costs) <= 512 and all(len(chunk) <= (texts or count) for chunk in chunks)
            loads = [sum(costs[number] for number in numbers) for numbers in dealt]
            assert count == 1 or min(loads) > 0.85 * max(loads)


def test_rows_stay_on_their_rank_without_cross_batch_negatives(tmp_path):
    data = read_train_set(write(tmp_path / "t", "".join(f"s{i}\tt{i}\tn{i}\n" for i in range(4))))
    rows = np.arange(4)
    alone = make_batch(data, rows, data.negatives, 2, across_ranks=False)
    allowed = [[data.texts[text] for text, out in zip([*data.targets, *sum(data.negatives, [])], row) if not out]
               for row in alone.not_negative]
    assert allowed == [["t0", "t1", "n0", "n1"]] * 2 + [["t2", "t3", "n2", "n3"]] * 2
    assert not make_batch(data, rows, data.negatives, 2).not_negative.any()


@pytest.mark.parametrize("ranks, across", [(1, True), (2, True), (2, False)])
def test_with_all_pairs_each_text_meets_all_others_but_those_it_is_paired_with(tmp_path, ranks, across):
    pairs = [("a", "b"), ("c", "d"), ("a", "e"), ("f", "a"), ("g", "h")]
    data = read_train_set(write(tmp_path / "t", "".join(f"{s}\t{t}" + "\tn\td\n" * (s == "c") + "\n" * (s != "c") for s, t in pairs)))
    batch = make_batch(data, np.arange(5), data.negatives, ranks, across, all_pairs=True)
    flat = [(data.texts[text], rank) for rank, texts in enumerate(batch.texts) for text in texts]
    both = [*pairs, *(pair[::-1] for pair in pairs)]
    assert sorted((flat[q][0], flat[c][0]) for q, c in zip(batch.queries, batch.columns)) == sorted(both)
    assert sorted(flat[c][0] for c in batch.columns) == sorted("abcdaefaghnd") and batch.not_negative.shape == (10, 12)
    for row, query in enumerate(batch.queries):
        text, rank = flat[query]
        for column, place in enumerate(batch.columns):
            other, its_rank = flat[place]
            never = other == text or (text, other) in both or not across and its_rank != rank
            assert batch.not_negative[row, column] == (never and column != row), (text, other)


def test_all_pairs_cost_what_their_columns_cost(encoder_folder, tmp_path):
    """Texts of one unknown character each have equal vectors, so that S is 1 everywhere: the loss counts the columns."""
    pairs = write(tmp_path / "t", "".join(f"{chr(0x1F600 + i)}\t{chr(0x1F680 + i)}\n" for i in range(4)))
    for script, flags, loss in ((train_batch_neg, [], math.log(1 + 3 * math.exp(6))),
                                (train_batch_neg, ["--all_pairs"], math.log(1 + 6 * math.exp(6))),
                                (train_hardest_neg, ["--all_pairs"], 0.2)):
        log = train(script, encoder_folder, pairs, tmp_path / f"out{len(flags)}{script.__name__}", "--dropout", "0",
                    "--batch_size", "4", "--epochs", "1", *flags)
        assert log[0]["loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("script, loss", [(train_batch_neg, 0.0), (train_hardest_neg, 0.0)])
def test_equal_targets_cost_nothing(script, loss, encoder_folder, tmp_path):
    """All rows have one target: none is a negative, so there is nothing to learn, and nothing is not a number."""
    pairs = write(tmp_path / "t", "".join(f"{source}\t物流信息好几天不动怎么办\n" for source in ("密码", "快递", "耳机", "爬山")))
    log = train(script, encoder_folder, pairs, tmp_path / "out", "--max_steps", "2")
    assert [line["loss"] for line in log] == pytest.approx([loss] * 2, abs=1e-6)
    assert [line["grad_norm"] for line in log] == pytest.approx([0, 0], abs=1e-6)


def test_texts_alone_are_their_own_positives(encoder_folder, tmp_path, failure):
    """SimCSE: under dropout the two vectors of a text differ, and the loss can fall."""
    texts = write(tmp_path / "t", "".join(f"{line.split(chr(9))[0]}\n" for line in pair_lines().splitlines()))
    log = train(train_batch_neg, encoder_folder, texts, tmp_path / "out", "--epochs", "15", "--learning_rate", "1e-3",
                "--batch_size", "8", "--warmup_proportion", "0.2", "--pooling", "mean")
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
    line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file",
                                          texts, "--save_dir", str(tmp_path / "none"), "--dropout", "0"])
    assert "--dropout 0" in line and not list(tmp_path.glob("none/model_*"))


def test_an_encoder_without_dropout_learns_nothing_from_texts_alone(tmp_path, failure):
    encoder = make_encoder_folder(tmp_path / "e", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file",
                                          write(tmp_path / "t", "密码\n快递\n"), "--save_dir", str(tmp_path / "none")])
    assert "dropout" in line


def test_json_rows_train_like_columns(encoder_folder, tmp_path, pair_file):
    import json

    rows = [line.split("\t") for line in pair_lines().splitlines()]
    jsonl = write(tmp_path / "t.jsonl", "".join(json.dumps({"query": q, "pos": [p]}) + "\n" for q, p in rows))
    first, second = (train(train_batch_neg, encoder_folder, path, tmp_path / name, "--max_steps", "2")
                     for name, path in (("a", pair_file), ("b", jsonl)))
    assert [line["loss"] for line in first] == [line["loss"] for line in second]


def test_mined_negatives_serve_all_rows(encoder_folder, tmp_path):
    """Equal vectors: a row with n other columns costs ln(1 + n e^6)."""
    log = train(train_batch_neg, encoder_folder, emoji_rows(tmp_path, (0, 1, 8), (2, 3, 9, 10), (4, 5)), tmp_path / "out",
                "--epochs", "1", "--dropout", "0")
    assert log[0]["loss"] == pytest.approx(math.log(1 + 5 * math.exp(6)), abs=1e-3)


def test_the_log_tells_padding_and_tokens(encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MOST_COPIES", 1)  # so that all texts are one chunk
    pairs = write(tmp_path / "t", "密码\t登录密码\n" * 2)  # 2 and 4 tokens, and two special ones each
    (line,) = train(train_batch_neg, encoder_folder, pairs, tmp_path / "out", "--epochs", "1")
    assert line["padding"] == round(1 - (4 + 4 + 6 + 6) / 24, 4)
    assert line["tokens_per_second"] == pytest.approx(10 * line["pairs_per_second"], rel=0.02)


def test_batches_without_bucketing_mix_lengths(encoder_folder, tmp_path):
    pairs = many_rows(tmp_path, 400)
    spread = []
    for flags in ([], ["--no_length_bucketing"]):
        made = make_trainer(train_batch_neg, encoder_folder, pairs, "--batch_size", "10", *flags)
        batches = made.batches_of(0)
        assert sorted(np.concatenate(batches).tolist()) == list(range(400))
        spread.append(np.mean([np.ptp(made.row_lengths[batch]) for batch in batches]))
    assert spread[0] < 0.3 * spread[1]
