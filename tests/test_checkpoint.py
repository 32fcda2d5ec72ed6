import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import make_encoder_folder, pair_lines, write

import predict
import recall
import train_batch_neg
from checkpoint import fingerprint_of, load_checkpoint, read_state_dict, restore_replaced, save_checkpoint
from files import UserError


def flags(params: str, *more: str) -> list[str]:
    return ["--device", "cpu", "--params_path", params, "--max_seq_length", "32", *more]


def bare_copy(trained: str, folder: Path, change=None) -> str:
    """The checkpoint in the form the reference publishes: a parameter file written by paddle.save, nothing beside it."""
    state = {name: paddle.to_tensor(value) for name, value in read_state_dict(trained).items()}
    if change:
        change(state)
    path = str(folder / "model_state.pdparams")
    paddle.save(state, path)
    return path


def test_paddle_reads_what_we_write_and_we_read_what_paddle_writes(trained, tmp_path):
    state = read_state_dict(trained)
    ours = paddle.load(trained)
    assert set(ours) == set(state)
    for protocol in (2, 3, 4):
        path = str(tmp_path / f"p{protocol}.pdparams")
        paddle.save(ours, path, protocol=protocol)
        assert all(np.array_equal(value, state[name]) for name, value in read_state_dict(path).items())


def test_newer_numpy_pickles_are_read(tmp_path):
    raw = pickle.dumps({"a": np.arange(6, dtype="float32").reshape(2, 3)}, protocol=2)
    path = tmp_path / "f.pdparams"
    path.write_bytes(raw.replace(b"numpy.core.multiarray", b"numpy._core.multiarray"))
    assert read_state_dict(path)["a"].shape == (2, 3)
    five = pickle.dumps({"a": np.arange(6, dtype="float32")}, protocol=5)
    path.write_bytes(five)
    assert read_state_dict(path)["a"].tolist() == [0, 1, 2, 3, 4, 5]


class Hostile:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("payload", [
    Hostile(os.system, "touch owned"), Hostile(eval, "open('owned', 'w')"), Hostile(getattr, "abc", "upper"),
    Hostile(np.load, "owned"), Hostile(np.ctypeslib.load_library, "a", "b"),
])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch, payload, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(pickle.dumps({"ptm.a": payload}, protocol=protocol))
    with pytest.raises(UserError, match="hostile"):
        read_state_dict(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("module, name", [("numpy", "ndarray.tofile"), ("numpy.core.multiarray", "_reconstruct.__call__"),
                                          ("builtins", "exec"), ("numpy", "dtype.__new__")])
def test_dotted_and_other_names_are_refused(tmp_path, module, name):
    stream = io.BytesIO(b"\x80\x04" + pickle.SHORT_BINUNICODE + bytes([len(module)]) + module.encode()
                        + pickle.SHORT_BINUNICODE + bytes([len(name)]) + name.encode() + b"\x93.")
    path = tmp_path / "f.pdparams"
    path.write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="hostile"):
        read_state_dict(path)


@pytest.mark.parametrize("value", [[1, 2], {"a": 3}, {}, "text"])
def test_what_is_no_state_dict_is_refused(tmp_path, value):
    path = tmp_path / "f.pdparams"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(UserError, match="state dict"):
        read_state_dict(path)


@pytest.mark.parametrize("percent", [0, 1, 60, 99])
def test_a_truncated_file_is_called_incomplete(trained, tmp_path, failure, pair_file, percent):
    folder = tmp_path / "cut"
    shutil.copytree(Path(trained).parent, folder)
    raw = Path(trained).read_bytes()
    (folder / "model_state.pdparams").write_bytes(raw[: len(raw) * percent // 100])
    line = failure(predict.main, flags(str(folder), "--text_pair_file", pair_file))
    assert "model_state.pdparams is incomplete" in line and f"of {len(raw)} bytes" in line
    (folder / "semantic_index.json").unlink()  # without a manifest the pickle itself has to tell
    line = failure(predict.main, flags(str(folder), "--text_pair_file", pair_file))
    assert "incomplete or damaged" in line and str(len(raw) * percent // 100) in line


def test_a_changed_byte_is_called_damage(trained, tmp_path, failure, pair_file):
    folder = tmp_path / "bad"
    shutil.copytree(Path(trained).parent, folder)
    raw = bytearray((folder / "model_state.pdparams").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "model_state.pdparams").write_bytes(raw)
    assert "is damaged" in failure(predict.main, flags(str(folder), "--text_pair_file", pair_file))


@pytest.mark.parametrize("name, change", [
    ("pooling", lambda facts: facts.update(pooling="max")), ("output_emb_size", lambda facts: facts.update(output_emb_size="256")),
    ("files", lambda facts: facts.pop("files")), ("no file", lambda facts: facts.update(files={})),
    ("training", lambda facts: facts.update(training=None)), ("checksum", lambda facts: facts.pop("sha256")),
])
def test_a_changed_manifest_is_refused(trained, tmp_path, failure, pair_file, name, change):
    shutil.copytree(Path(trained).parent, tmp_path / "m")
    path = tmp_path / "m" / "semantic_index.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    line = failure(predict.main, flags(str(tmp_path / "m"), "--text_pair_file", pair_file))
    assert f"{path} was changed" in line and "take another checkpoint" in line


def test_a_reference_form_file_needs_its_encoder_named(trained, tmp_path, failure, pair_file, encoder_folder, capsys):
    path = bare_copy(trained, tmp_path)
    assert "--model_name_or_path" in failure(predict.main, flags(path, "--text_pair_file", pair_file))
    assert predict.main(flags(path, "--text_pair_file", pair_file, "--model_name_or_path", encoder_folder)) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 16 and "[CLS] pooling" in err


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("ptm.pooler.dense.bias"), ["lacks", "ptm.pooler.dense.bias"]),
    (lambda s: s.update({"ptm.extra": paddle.zeros([1])}), ["more than the model", "ptm.extra"]),
    (lambda s: s.update({"ptm.pooler.dense.bias": paddle.zeros([7])}), ["ptm.pooler.dense.bias", "[7]", "[32]"]),
])
def test_a_file_that_does_not_fit_names_the_first_mismatch(trained, tmp_path, failure, pair_file, encoder_folder, change,
                                                           words):
    path = bare_copy(trained, tmp_path, change)
    line = failure(predict.main, flags(path, "--text_pair_file", pair_file, "--model_name_or_path", encoder_folder))
    for word in [path, *words]:
        assert word in line


def test_another_encoder_for_a_reference_form_file_is_refused(trained, tmp_path, failure, pair_file):
    other = make_encoder_folder(tmp_path / "other", num_hidden_layers=2)
    line = failure(predict.main, flags(bare_copy(trained, tmp_path), "--text_pair_file", pair_file,
                                       "--model_name_or_path", other))
    assert "lacks" in line and "encoder.layers.1" in line


def test_flags_that_contradict_the_checkpoint_name_both_values(trained, failure, pair_file, tmp_path):
    line = failure(predict.main, flags(trained, "--text_pair_file", pair_file, "--output_emb_size", "128"))
    assert "128" in line and "256" in line
    other = make_encoder_folder(tmp_path / "other")
    line = failure(predict.main, flags(trained, "--text_pair_file", pair_file, "--model_name_or_path", other))
    assert other in line and "was trained from" in line
    line = failure(predict.main, ["--device", "cpu", "--params_path", trained, "--text_pair_file", pair_file,
                                  "--max_seq_length", "100000"])
    assert "100000" in line and "80" in line


def test_the_manifest_says_what_was_trained(trained, encoder_folder):
    manifest = json.loads((Path(trained).parent / "semantic_index.json").read_text())
    assert manifest["strategy"] == "batch_neg" and manifest["step"] == manifest["total_steps"] == 8
    assert manifest["training"]["model_name_or_path"] == encoder_folder
    assert set(manifest["files"]) == {"model_state.pdparams", "config.json", "vocab.txt"}


@pytest.mark.parametrize("path", ["./no/such/model_state.pdparams", "", "."])
def test_a_missing_checkpoint_is_named(failure, pair_file, corpus_file, path):
    assert f"--params_path: {path!r}" in failure(predict.main, flags(path, "--text_pair_file", pair_file)).replace(
        "the folder ", "")
    failure(recall.main, flags(path, "--similar_text_pair", pair_file, "--corpus_file", corpus_file))


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, failure, encoder_folder, file_size_limit):
    save_dir = tmp_path / "out"
    train = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--save_dir", str(save_dir), "--batch_size", "4",
             "--train_set_file", write(tmp_path / "t.tsv", pair_lines()), "--epochs", "1"]
    assert train_batch_neg.main([*train, "--max_steps", "2"]) == 0
    before = (save_dir / "model_2" / "model_state.pdparams").read_bytes()
    for limit in (10, 4096, 60_000):
        with file_size_limit(limit):
            line = failure(train_batch_neg.main, train)
        assert str(save_dir) in line and "free some space" in line
        assert sorted(p.name for p in save_dir.iterdir()) == ["latest", "model_2", "train_log.jsonl"]
    assert (save_dir / "latest" / "model_state.pdparams").read_bytes() == before
    assert load_checkpoint(str(save_dir / "latest" / "model_state.pdparams"), 32)


def test_a_loaded_model_drops_nothing(encoder_folder, tmp_path, pair_file, capsys):
    train = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--save_dir", str(tmp_path / "o"),
             "--train_set_file", pair_file, "--max_steps", "1", "--dropout", "0.5"]
    assert train_batch_neg.main(train) == 0
    capsys.readouterr()
    scores = []
    for size in ("64", "3"):  # every run has the same seed, so only other batches would meet other noise
        assert predict.main(flags(str(tmp_path / "o" / "latest"), "--text_pair_file", pair_file, "--batch_size", size)) == 0
        scores.append([float(line) for line in capsys.readouterr().out.splitlines()])
    assert len(scores[0]) == 16 and scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_pooling_comes_from_the_manifest(trained):
    assert load_checkpoint(trained, 32).model.pooling == "mean"


def test_the_fingerprint_hangs_on_all_that_makes_a_vector(trained, tmp_path):
    loaded = load_checkpoint(trained, 32)

    def saved(name: str) -> str:
        save_checkpoint(tmp_path / name, loaded.model, loaded.tokenizer, {"training": {"model_name_or_path": name}})
        return fingerprint_of(str(tmp_path / name / "model_state.pdparams"))

    seen = [saved("same")]
    assert saved("again") == seen[0]
    bias = loaded.model.emb_reduce_linear.bias
    bias.set_value(bias + 1)
    seen.append(saved("weights"))
    loaded.model.pooling = "cls"
    seen.append(saved("pooling"))
    loaded.model.ptm.config.hidden_act = "relu"
    seen.append(saved("config"))
    loaded.tokenizer.files["vocab.txt"] += b"x\n"
    seen.append(saved("vocabulary"))
    assert len(set(seen)) == 5


def test_the_fingerprint_of_a_bare_file_hangs_on_its_encoder_too(trained, encoder_folder, tmp_path):
    path = bare_copy(trained, tmp_path)
    other = make_encoder_folder(tmp_path / "other", hidden_act="relu")
    seen = {fingerprint_of(path, encoder) for encoder in (encoder_folder, other, "ernie-1.0", "ernie-3.0-nano-zh")}
    assert len(seen) == 4 and fingerprint_of(path, encoder_folder) in seen


@pytest.mark.parametrize("name", ["config.json", "vocab.txt"])
def test_a_changed_file_beside_the_weights_is_called_damage(trained, tmp_path, failure, pair_file, name):
    folder = tmp_path / "bad"
    shutil.copytree(Path(trained).parent, folder)
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw.replace(b"a", b"b", 1))
    assert f"{name} is damaged" in failure(predict.main, flags(str(folder), "--text_pair_file", pair_file))


def test_a_manifest_of_another_version_is_refused(trained, tmp_path, failure, pair_file):
    folder = tmp_path / "new"
    shutil.copytree(Path(trained).parent, folder)
    manifest = json.loads((folder / "semantic_index.json").read_text())
    write(folder / "semantic_index.json", json.dumps({**manifest, "format": 3}))
    assert "format 3, this version reads 2" in failure(predict.main, flags(str(folder), "--text_pair_file", pair_file))


def test_a_state_dict_of_something_else_is_called_that(trained, tmp_path, failure, pair_file, encoder_folder):
    path = str(tmp_path / "model_state.pdparams")
    paddle.save({"fc.weight": paddle.zeros([2])}, path)
    line = failure(predict.main, flags(path, "--text_pair_file", pair_file, "--model_name_or_path", encoder_folder))
    assert "no name begins with `ptm.`" in line and "'fc.weight'" in line


def test_vectors_that_are_not_finite_are_refused(trained, tmp_path, failure, pair_file, encoder_folder, capsys):
    path = bare_copy(trained, tmp_path, lambda s: s.update({"emb_reduce_linear.bias": paddle.full([256], np.nan)}))
    line = failure(predict.main, flags(path, "--text_pair_file", pair_file, "--model_name_or_path", encoder_folder))
    assert "not finite" in line


def test_texts_without_tokens_are_told(trained, tmp_path, capsys):
    assert predict.main(flags(trained, "--text_pair_file", write(tmp_path / "p", "\u200b\t快递\n \t\ufffd\n"))) == 0
    assert "3 text(s) have no tokens" in capsys.readouterr().err


def test_a_failed_replacement_leaves_the_earlier_checkpoint(encoder_folder, tmp_path, pair_file, failure, monkeypatch):
    train = ["--device", "cpu", "--model_name_or_path", encoder_folder, "--save_dir", str(tmp_path / "o"),
             "--train_set_file", pair_file, "--max_steps", "1"]
    assert train_batch_neg.main(train) == 0
    weights = tmp_path / "o" / "model_1" / "model_state.pdparams"
    before, replace = weights.read_bytes(), os.replace

    def full(source, target):
        if Path(target).name == "model_1" and Path(source).name == ".model_1.tmp":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert "model_1: No space left" in failure(train_batch_neg.main, [*train, "--seed", "5"])
    monkeypatch.undo()
    assert weights.read_bytes() == before
    os.replace(tmp_path / "o" / "model_1", tmp_path / "o" / ".model_1.old")  # as a kill between the renames leaves it
    restore_replaced(tmp_path / "o")
    assert weights.read_bytes() == before and not list((tmp_path / "o").glob(".*"))
