"""A run that was killed and is resumed ends like one that was not, bit by bit."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_encoder_folder, pair_lines, read_log, train, write

import checkpoint
import train_batch_neg
import train_hardest_neg
import train_pairwise
import trainer

MORE = int(os.environ.get("MORE_KILLS", 0))
SPEEDS = ("pairs_per_second", "tokens_per_second")
SHORT = ["--batch_size", "4", "--epochs", "4", "--save_steps", "3", "--logging_steps", "7", "--learning_rate", "1e-3"]
LONG = ["--batch_size", "4", "--epochs", "30", "--save_steps", "5", "--learning_rate", "1e-3", "--logging_steps", "7"]


def outcome(save_dir: Path) -> dict:
    """All that has to be equal: names, weights, optimizers, links, evaluations, and the log without its speeds."""
    found = {str(path.relative_to(save_dir)): path.read_bytes() if path.suffix in (".pdparams", ".pdopt", ".txt") else b""
             for path in save_dir.glob("model_*/*")}
    found |= {path.name: os.readlink(path) if path.is_symlink() else "" for path in save_dir.iterdir()}
    found["train_log.jsonl"] = [{k: v for k, v in line.items() if k not in SPEEDS} for line in read_log(save_dir)]
    log = save_dir / "eval_log.jsonl"
    return {**found, "eval_log.jsonl": log.read_bytes() if log.is_file() else b""}


def assert_same(save_dir: Path, right: dict, where: object = "") -> None:
    got = outcome(save_dir)
    assert got.keys() == right.keys(), (where, got.keys() ^ right.keys())
    assert [name for name in right if got[name] != right[name]] == [], where


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[str, str]:
    """An encoder with dropout, and training pairs."""
    base = tmp_path_factory.mktemp("resume")
    return make_encoder_folder(base / "encoder"), write(base / "t.tsv", pair_lines())


@pytest.fixture
def evaluated(pair_file, corpus_file) -> list[str]:
    return ["--eval_pair_file", pair_file, "--eval_corpus_file", corpus_file, "--eval_corpus_size", "30", "--eval_steps", "4"]


class Killed(BaseException):
    pass


def train_until(step: int, monkeypatch, script, files, save_dir: Path, *flags: str) -> None:
    """A run that ends when it is about to take the step after this one."""
    gradients = trainer.Trainer.gradients

    def dying(self, rows, number):
        if number > step:
            raise Killed
        return gradients(self, rows, number)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Trainer, "gradients", dying)
        train(script, *files, save_dir, *flags)


def snapshots_of(run, save_dir: Path, monkeypatch) -> list[Path]:
    """What a kill before each change of a file's name or existence, and before each fsync, would leave of `save_dir`."""
    taken: list[Path] = []
    original = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "symlink", "rmdir")}

    def spying(name: str):
        def spy(*args, **kwargs):
            if os.symlink is spies["symlink"] and (save_dir / "train_log.jsonl").exists():
                os.symlink = original["symlink"]  # copytree calls it
                taken.append(save_dir.with_name(f"kill_{len(taken)}"))
                shutil.copytree(save_dir, taken[-1], symlinks=True)
                os.symlink = spies["symlink"]
            return original[name](*args, **kwargs)
        return spy

    spies = {name: spying(name) for name in original}

    with monkeypatch.context() as patch:
        for name, spy in spies.items():
            patch.setattr(os, name, spy)
        run()
    return taken


@pytest.mark.parametrize("script, flags", [
    (train_batch_neg, ["--keep_checkpoints", "2"]),
    (train_hardest_neg, ["--save_steps", "1", "--grad_cache_chunk_size", "2", "--keep_checkpoints", "1"])])
def test_a_kill_at_any_change_of_a_file(script, flags, files, evaluated, tmp_path, monkeypatch, capsys):
    """The folder as it stood before a call to the system is what a kill there leaves."""
    flags = [*SHORT, *evaluated, *flags]
    save_dir = tmp_path / "run"
    killed = snapshots_of(lambda: train(script, *files, save_dir, *flags), save_dir, monkeypatch)
    right = outcome(save_dir)
    assert len(killed) > 150 and len(right["train_log.jsonl"]) == 12 and right["eval_log.jsonl"].count(b"\n") == 5
    unfinished = [folder for folder in killed if [*folder.glob(".model_*.tmp"), *folder.glob(".model_*.old")]]
    assert len(unfinished) > len(killed) / 2
    chosen = np.random.default_rng().permutation(len(killed))[: MORE or 4]
    for folder in [*(killed[i] for i in chosen), *killed[-3:]]:  # at the end there is no later step to mend anything
        train(script, *files, folder, *flags, "--resume")
        assert_same(folder, right, folder)
    print(f"{len(chosen)} of {len(killed)} kills, {len(unfinished)} of them in a checkpoint")


def test_a_kill_while_checkpoints_are_replaced(half, complete, files, tmp_path, monkeypatch):
    """Beyond `latest` lie checkpoints of the same steps: put aside, replaced, removed."""
    for step in (12, 15):
        shutil.copytree(complete / f"model_{step}", half / f"model_{step}")
    shutil.copytree(complete / "model_6", half / ".model_6.old")
    killed = snapshots_of(lambda: train(train_batch_neg, *files, half, *SHORT, "--resume"), half, monkeypatch)
    replaced = [folder for folder in killed if [*folder.glob(".model_*.old")]]
    gone = [folder for folder in replaced if not all((folder / f"model_{step}").exists() for step in (12, 15))]
    assert len(replaced) > 10 and len(gone) == 2
    assert_same(half, outcome(complete))
    chosen = np.random.default_rng().permutation(len(replaced))[: MORE or 3]
    for folder in [*gone, *(replaced[i] for i in chosen)]:
        train(train_batch_neg, *files, folder, *SHORT, "--resume")
        assert_same(folder, outcome(complete), folder)


@pytest.mark.parametrize("script, flags", [(train_batch_neg, []), (train_pairwise, ["--weight_decay", "0.1"])])
def test_runs_are_equal_and_a_resumed_one_too(script, flags, files, tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        train(script, *files, tmp_path / name, *SHORT, *flags)
    right = outcome(tmp_path / "a")
    assert_same(tmp_path / "b", right)
    for step in (2, 13):  # without a checkpoint, and between a log line and the next
        train_until(step, monkeypatch, script, files, tmp_path / str(step), *SHORT, *flags)
        capsys.readouterr()
        train(script, *files, tmp_path / str(step), *SHORT, *flags, "--resume")
        told = capsys.readouterr().err
        assert ("resuming from" in told and "model_12\n" in told) if step > 2 else "begins at step 0" in told
        assert_same(tmp_path / str(step), right, step)


def test_flags_of_output_may_change(files, tmp_path, monkeypatch):
    train(train_batch_neg, *files, tmp_path / "a", *SHORT)
    train_until(7, monkeypatch, train_batch_neg, files, tmp_path / "b", *SHORT)
    train(train_batch_neg, *files, tmp_path / "b", *SHORT, "--save_steps", "5", "--logging_steps", "1", "--resume")
    right, got = outcome(tmp_path / "a"), outcome(tmp_path / "b")
    same = [name for name in right.keys() & got.keys() if name.endswith((".pdparams", ".pdopt"))]
    assert len(same) == 2 * 4 and [name for name in same if right[name] != got[name]] == []  # 3, 6, 15, 16
    assert [line["step"] for line in got["train_log.jsonl"]] == list(range(1, 17))


@pytest.fixture(scope="module")
def complete(tmp_path_factory, files) -> Path:
    folder = tmp_path_factory.mktemp("complete") / "run"
    train(train_batch_neg, *files, folder, *SHORT)
    return folder


@pytest.fixture
def half(complete, tmp_path) -> Path:
    """A run killed after step 9, without the checkpoints beyond."""
    folder = tmp_path / "half"
    shutil.copytree(complete, folder, symlinks=True)
    for step in (12, 15, 16):
        shutil.rmtree(folder / f"model_{step}")
    checkpoint.point_at(folder / "model_9", "latest")
    return folder


def argv(files, folder: Path, *flags: str) -> list[str]:
    return ["--device", "cpu", "--model_name_or_path", files[0], "--train_set_file", files[1], "--save_dir", str(folder),
            "--max_seq_length", "32", "--seed", "1", *SHORT, "--resume", *flags]


def test_a_complete_run_stays_as_it_is(complete, files, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(complete, folder, symlinks=True)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("model_*/*")}
    train(train_batch_neg, *files, folder, *SHORT, "--resume")
    assert_same(folder, outcome(complete))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("model_*/*")} == times


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name, harm", [
    ("model_state.pdparams", "changed"), ("model_state.pdparams", "short"), ("optimizer.pdopt", "changed"),
    ("optimizer.pdopt", "gone"), ("semantic_index.json", "changed"), ("semantic_index.json", "short"),
    ("semantic_index.json", "gone"), ("config.json", "gone"), ("vocab.txt", "changed")])
def test_a_damaged_checkpoint_is_passed_over(name, harm, half, complete, files, capsys):
    path = half / "model_9" / name
    if harm == "gone":
        path.unlink()
    elif harm == "short":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        damage(path)
    capsys.readouterr()
    assert train_batch_neg.main(argv(files, half)) == 0
    told = capsys.readouterr().err
    assert f"passing over {half}/model_9: {half}/model_9/{name}" in told and f"resuming from {half}/model_6\n" in told
    assert_same(half, outcome(complete))


def test_without_a_whole_checkpoint_nothing_is_begun(half, files):
    for path in half.glob("model_*/optimizer.pdopt"):
        damage(path)
    before = outcome(half)
    line = failure_after_notices(train_batch_neg.main, argv(files, half))
    assert "no checkpoint in" in line and "is whole" in line and "model_9/optimizer.pdopt is damaged" in line
    assert_same(half, before)


def failure_after_notices(main, flags: list[str]) -> str:
    """The error line of a run that has to fail."""
    with contextlib.redirect_stderr(io.StringIO()) as console:
        assert main(flags) == 2
    errors = [line for line in console.getvalue().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in console.getvalue(), console.getvalue()
    return errors[0]


@pytest.mark.parametrize("flags", [
    ["--learning_rate", "2e-3"], ["--batch_size", "8"], ["--epochs", "5"], ["--seed", "2"], ["--margin", "0.1"],
    ["--scale", "20"], ["--max_steps", "12"], ["--max_seq_length", "30"], ["--dropout", "0.2"], ["--weight_decay", "0.1"],
    ["--warmup_proportion", "0.1"], ["--max_grad_norm", "2.0"], ["--pooling", "mean"], ["--output_emb_size", "64"],
    ["--grad_cache_chunk_size", "2"], ["--no_length_bucketing"], ["--no_cross_batch_negatives"], ["--recompute"]])
def test_another_run_is_refused(flags, half, files):
    name = flags[0].replace("--no_cross", "--cross")
    line = failure_after_notices(train_batch_neg.main, argv(files, half, *flags))
    assert f"trained with {name} " in line and "now it is " in line and "--save_dir" in line


def test_another_strategy_other_ranks_other_data_are_refused(half, complete, files, tmp_path, monkeypatch):
    before = outcome(half)
    assert "trained with batch_neg, this is hardest_neg" in failure_after_notices(train_hardest_neg.main, argv(files, half))
    with monkeypatch.context() as patch:
        patch.setattr("train_state.world_size", lambda: 2)
        assert "on 1 rank(s), now there are 2" in failure_after_notices(train_batch_neg.main, argv(files, half))
    moved = tmp_path / "elsewhere.tsv"
    moved.write_text(pair_lines()[:-1] + "了\n", encoding="utf-8")
    line = failure_after_notices(train_batch_neg.main, argv((files[0], str(moved)), half))
    assert str(moved) in line and "SHA-256" in line
    assert_same(half, before)
    moved.write_text(pair_lines(), encoding="utf-8")
    assert train_batch_neg.main(argv((files[0], str(moved)), half)) == 0
    assert_same(half, outcome(complete))


def test_the_newest_and_the_best_are_kept(files, evaluated, tmp_path):
    train(train_batch_neg, *files, tmp_path / "o", *SHORT, *evaluated, "--keep_checkpoints", "2")
    evaluations = [json.loads(line) for line in (tmp_path / "o" / "eval_log.jsonl").read_text().splitlines()]
    best = max(evaluations[1:], key=lambda found: (found["R@10"], found["R@50"]))["step"]  # the first of equals
    assert os.readlink(tmp_path / "o" / "best") == f"model_{best}"
    assert {path.name for path in (tmp_path / "o").glob("model_*")} == {"model_15", "model_16", f"model_{best}"}


def test_keeping_comes_up_to_date_with_the_flag(complete, files, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(complete, folder, symlinks=True)
    train(train_batch_neg, *files, folder, *SHORT, "--resume", "--keep_checkpoints", "3")
    assert {path.name for path in folder.glob("model_*")} == {"model_12", "model_15", "model_16"}
