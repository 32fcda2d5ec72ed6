"""Several ranks: they share rows and files without overlap, and take the very steps of one process."""

import numpy as np
import paddle
import pytest
from conftest import launch, pair_lines, read_log, run_process, write

import cli
from batches import make_batch
from train_data import read_train_set


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_a_batch_without_overlap(tmp_path, ranks):
    data = read_train_set(write(tmp_path / "t", "".join(f"s{i}\tt{i}" + "\tn" * (i % 3) + "\n" for i in range(9))))
    rows = np.array([8, 1, 5, 3, 2])
    negatives = [data.negatives[row] for row in rows]
    batch = make_batch(data, rows, negatives, ranks)
    assert len(batch.texts) == ranks
    flat = [text for texts in batch.texts for text in texts]
    found = [(data.texts[flat[source]], data.texts[flat[target]]) for source, target in zip(batch.queries, batch.columns)]
    assert sorted(found) == [("s1", "t1"), ("s2", "t2"), ("s3", "t3"), ("s5", "t5"), ("s8", "t8")]
    assert [len(texts) - sum(data.texts[text] == "n" for text in texts) for texts in batch.texts] == [
        2 * len(range(rank, 5, ranks)) for rank in range(ranks)]
    assert all(data.texts[flat[i]] == "n" for i in batch.columns[5:])
    assert len(batch.columns) == 5 + sum(map(len, negatives)) == len(flat) - 5
    assert batch.not_negative.shape == (5, len(batch.columns)) and not batch.not_negative.any()


@pytest.mark.parametrize("script", ["train_batch_neg.py", "train_batch_neg.py --all_pairs", "train_hardest_neg.py",
                                    "train_pairwise.py"])
def test_two_ranks_take_the_steps_of_one(script, encoder_folder, tmp_path):
    """Gradients, not weights: AdamW hides a wrong constant factor. 7 rows make shares of 4 and 3, and a last batch of 3."""
    rows = "".join(line + ("\t一句不相干的话\n" if i % 2 else "\n") for i, line in enumerate(pair_lines(7).splitlines()))
    pairs = write(tmp_path / "t.tsv", rows)
    flags = [*script.split(), "--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs,
             "--epochs", "2", "--dropout", "0", "--learning_rate", "1e-3", "--max_seq_length", "32", "--pooling", "mean"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = run_process("python", "tests/record_gradients.py", str(tmp_path / "one"), *flags, "--batch_size", "4",
                      "--save_dir", str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    two = launch(2, "tests/record_gradients.py", str(tmp_path / "two"), *flags, "--batch_size", "2", "--save_dir",
                 str(tmp_path / "two"), cwd=tmp_path)
    assert two.returncode == 0, two.stdout
    gradients = [np.load(tmp_path / name) for name in ("one/gradients_0.npz", "two/gradients_0.npz", "two/gradients_1.npz")]
    for name in gradients[0]:
        whole, first, second = (file[name] for file in gradients)
        assert np.array_equal(first, second)
        assert np.abs(whole - first).max() <= 1e-5 * max(0.1, np.abs(whole).max()), name
    logs = [read_log(tmp_path / name) for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 4
    for a, b in zip(*logs):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["learning_rate"] == b["learning_rate"]
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3) and a["grad_norm"] > 1e-2


def test_more_ranks_than_rows(encoder_folder, tmp_path):
    """Two rows on three ranks: one encodes nothing, takes part in every collective, and changes nothing."""
    flags = ["train_batch_neg.py", "--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file",
             write(tmp_path / "t.tsv", pair_lines(2)), "--epochs", "2", "--dropout", "0", "--pooling", "mean"]
    for name in ("one", "three"):
        (tmp_path / name).mkdir()
    one = run_process("python", "tests/record_gradients.py", str(tmp_path / "one"), *flags, "--save_dir", str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    three = launch(3, "tests/record_gradients.py", str(tmp_path / "three"), *flags, "--save_dir", str(tmp_path / "three"),
                   cwd=tmp_path)
    assert three.returncode == 0, three.stdout
    assert len(read_log(tmp_path / "three")) == 2
    right = np.load(tmp_path / "one" / "gradients_0.npz")
    for rank in range(3):
        got = np.load(tmp_path / "three" / f"gradients_{rank}.npz")
        assert all(np.abs(got[name] - right[name]).max() <= 1e-4 * max(1e-2, np.abs(right[name]).max()) for name in right)


def test_a_bad_line_ends_all_ranks_and_is_read_once(encoder_folder, tmp_path):
    pairs = write(tmp_path / "bad.tsv", pair_lines(7) + "one column\n")
    result = launch(2, "train_batch_neg.py", "--device", "cpu", "--model_name_or_path", encoder_folder,
                    "--train_set_file", pairs, "--save_dir", str(tmp_path / "out"), cwd=tmp_path)
    console = result.stdout + result.stderr
    assert result.returncode != 0
    assert console.count("bad.tsv: line 8: 1 column") == 1, console
    assert not (tmp_path / "out").exists()


def test_rank_and_world_size_come_from_the_launcher(monkeypatch):
    assert (cli.rank(), cli.world_size()) == (0, 1)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "2")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    assert (cli.rank(), cli.world_size()) == (2, 4)


def test_gathered_rows_are_those_of_the_ranks_in_order(monkeypatch):
    """Also where an earlier rank has fewer rows than a later one, or none."""
    import runtime

    whole, counts, sent = paddle.arange(10).reshape([5, 2]), [1, 0, 3, 1], []
    monkeypatch.setattr(runtime, "world_size", lambda: 4)
    monkeypatch.setattr(paddle.distributed, "all_gather", lambda parts, padded: sent.append(padded) or parts.extend(sent))
    for rank, start in enumerate((0, 1, 1, 4)):
        monkeypatch.setattr(runtime, "rank", lambda rank=rank: rank)
        gathered = runtime.gather_rows(whole[start : start + counts[rank]], counts)
    assert gathered.tolist() == whole.tolist() and {tuple(padded.shape) for padded in sent} == {(3, 2)}
