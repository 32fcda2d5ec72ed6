"""An exported model against the dygraph model that it was made from."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SHARED_DATA, SOURCES, TARGETS, pair_lines, run_process, write
from test_recall import run, vectors_of

import encoder
import export
import predict
from checkpoint import fingerprint_of, load_checkpoint
from data import pad_batch, read_lines
from encoder import Encoder
from files import UserError, write_manifest
from inference import DygraphRunner, choose_precision

COUNT, LENGTH = 2000, 64


@pytest.fixture(scope="module")
def texts() -> list[str]:
    path = SHARED_DATA / "corpus_file"
    if not path.is_file():
        pytest.skip(f"no real texts: {path} is missing")
    return [text for _, text in read_lines(str(path))][::156][:COUNT]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    """Parameter file of a checkpoint of configs/ernie_tiny, whose vocabulary knows the real texts."""
    import train_batch_neg

    folder = tmp_path_factory.mktemp("real")
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", str(PROJECT / "configs" / "ernie_tiny"),
                                 "--train_set_file", write(folder / "t", pair_lines()), "--save_dir", str(folder / "out"),
                                 "--epochs", "4", "--learning_rate", "1e-3", "--pooling", "mean"]) == 0
    return str(folder / "out" / "latest" / "model_state.pdparams")


@pytest.fixture(scope="module")
def right(real, texts) -> Encoder:
    """The dygraph model; `right.vectors` are those of `texts`."""
    checkpoint = load_checkpoint(real, LENGTH)
    right = Encoder(DygraphRunner(checkpoint.model), checkpoint.tokenizer, 64, LENGTH)
    right.vectors = right.encode(texts)
    return right


KINDS = [(runtime, precision) for runtime in ("openvino", "paddle") for precision in ("fp32", "bf16", "int8")
         if (runtime, precision) != ("paddle", "int8")]


@pytest.fixture(scope="module", params=KINDS, ids=[f"{runtime}-{precision}" for runtime, precision in KINDS])
def exported(request, real, texts) -> tuple[export.Export, float]:
    """An export of each kind that this processor has, and the least cosine that it may have to the right vectors."""
    runtime, precision = request.param
    try:
        choose_precision(precision, runtime)
    except UserError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "default_runtime", lambda: runtime)
        opened = export.open_export(real, LENGTH, precision, None, texts[:400])
    assert (opened.runtime, opened.precision) == (runtime, precision)
    return opened, {"fp32": 1 - 1e-6, "bf16": 0.99, "int8": 0.98}[precision]


def encoder_of(opened: export.Export, length: int = LENGTH, batch_size: int = 64) -> Encoder:
    return Encoder(opened.runner, opened.tokenizer, batch_size, length)


def assert_near(vectors: np.ndarray, right: np.ndarray, least: float) -> None:
    assert vectors.shape == right.shape and vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    assert np.einsum("nd,nd->n", vectors, right).min() >= least
    if least > 0.999:
        assert np.abs(vectors - right).max() <= 1e-5


def test_real_texts_have_the_vectors_of_the_model(exported, right, texts):
    opened, least = exported
    assert len(set(texts)) == COUNT and right.vectors.std(axis=0).max() > 0.01
    assert_near(encoder_of(opened).encode(texts), right.vectors, least)


def test_batches_of_any_size(exported, right, texts):
    """OpenVINO kernels have been seen to fail from the 129th text of a batch on."""
    opened, least = exported
    for count in (1, 2, 31, 127, 128, 129, 256, 512):
        done = []
        batch = pad_batch(opened.tokenizer(texts[:count]), opened.tokenizer.pad_id)
        vectors, = opened.runner.run([batch], done.append)
        assert done == [0]
        assert_near(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), right.vectors[:count], least)


def test_many_batches_stand_in_their_order(exported, texts, right):
    opened, least = exported
    batches = [pad_batch(opened.tokenizer(texts[i : i + 1 + i % 5]), opened.tokenizer.pad_id) for i in range(100)]
    vectors = opened.runner.run(iter(batches), lambda _: None)
    assert [len(found) for found in vectors] == [1 + i % 5 for i in range(100)]
    firsts = np.stack([found[0] for found in vectors])
    assert_near(firsts / np.linalg.norm(firsts, axis=1, keepdims=True), right.vectors[:100], least)
    assert opened.runner.run([], lambda _: None) == []


def test_order_and_duplicates_are_kept(exported, texts, monkeypatch):
    """A vector hangs on its text alone: not on chunks, batch sizes, and the texts beside it."""
    opened, least = exported
    several = [*texts[:50], "ABC 和 密码", "abc 和密码"]
    some = encoder_of(opened).encode(several)
    assert np.array_equal(some[-2], some[-1])
    order = np.random.default_rng(0).integers(len(several), size=300)
    shuffled = encoder_of(opened).encode([several[i] for i in order])
    assert all(np.array_equal(shuffled[i], shuffled[j]) for i, j in zip(range(300), [list(order).index(o) for o in order]))
    monkeypatch.setattr(encoder, "CHUNK", 7)
    alone = np.concatenate([encoder_of(opened).encode([text]) for text in several])
    for found, expected in ((shuffled, some[order]), (encoder_of(opened, batch_size=1).encode(several), some), (alone, some)):
        assert np.abs(found - expected).max() <= {"openvino": 0, "paddle": 1e-6}[opened.runtime]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("most", [17, 20])
def test_all_texts_are_encoded_once_and_in_few_shapes_where_shapes_are_dear(few, most, at_once):
    """With a runner that gives the number and the sum of a text's tokens, and a tokenizer of numbers."""
    class Sums:
        dimension, most_tokens, few_shapes, streams = 2, 500, few, 1

        def run(self, batches, done):
            found = []
            for number, (ids, mask) in enumerate(batches):
                shapes.add(ids.shape)
                assert ids.size <= 500 and ids.shape[1] <= most and not ids[mask == 0].any()
                assert few or at_once or mask.all()
                found.append(np.stack([mask.sum(1), ids.sum(1)], axis=1).astype(np.float32))
                done(number)
            return found

    class Numbers:
        pad_id, bare = 0, []

        def __call__(self, texts):
            return [[int(word) for word in text.split()] for text in texts]

    rng, shapes, done = np.random.default_rng(0), set(), []
    for _ in range(60):
        token_ids = [rng.integers(1, 9999, length) for length in rng.integers(3, most + 1, rng.integers(1, 900))]
        texts = [" ".join(map(str, ids)) for ids in token_ids]
        done.clear()
        encoder = Encoder(Sums(), Numbers(), 64, most)
        encoder.few_at_once = at_once
        if at_once:
            encoder.warm_up()
            met = set(shapes)
        vectors, = encoder.encode_chunks([texts], done.append)
        right = np.array([(len(ids), ids.sum()) for ids in token_ids])
        assert np.allclose(vectors, right / np.linalg.norm(right, axis=1, keepdims=True)) and sum(done) == len(texts)
    lengths, sizes = {length for _, length in shapes}, {size for size, _ in shapes}
    if at_once:
        assert lengths == {8, 16, most}
    if few and at_once:
        assert sizes == {1, 2, 4, 8, 16} and shapes == met
    else:
        assert len(shapes) / len(lengths) <= 4 if few else len(shapes) / len(lengths) > 10


@pytest.mark.parametrize("length", [LENGTH, 3])
def test_texts_of_any_length(exported, right, length):
    opened, least = exported
    several = ["", "长", "a", "😀", "密码" * 32, "密码" * 5000, " ", "\u200b"]
    opened.tokenizer._backend.enable_truncation(length)
    right.tokenizer._backend.enable_truncation(length)
    try:
        ours, theirs = encoder_of(opened, length), right.encode(several)
        vectors = ours.encode(several)
    finally:
        opened.tokenizer._backend.enable_truncation(LENGTH)
        right.tokenizer._backend.enable_truncation(LENGTH)
    assert_near(vectors, theirs, least)
    assert np.array_equal(vectors[0], vectors[6]) and np.array_equal(vectors[0], vectors[7]) and ours.tokenless == 3
    assert ours.encode([]).shape == (0, 256)


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    """A copy of the tiny checkpoint, without exports."""
    return Path(shutil.copytree(Path(trained).parent, tmp_path / "ck", ignore=shutil.ignore_patterns("export")))


def open_fp32(checkpoint: Path, **changes) -> export.Export:
    return export.open_export(str(checkpoint / "model_state.pdparams"), 32, "fp32", None, SOURCES, **changes)


def assert_vectors_of(opened: export.Export, checkpoint: Path) -> None:
    model = load_checkpoint(str(checkpoint / "model_state.pdparams"), 32)
    right = Encoder(DygraphRunner(model.model), model.tokenizer, 64, 32).encode(TARGETS)
    assert_near(encoder_of(opened, 32).encode(TARGETS), right, 1 - 1e-6)


def test_an_export_is_made_once_and_only_for_its_checkpoint(checkpoint, real, tmp_path, capsys):
    assert_vectors_of(open_fp32(checkpoint), checkpoint)
    assert "(once)" in capsys.readouterr().err
    folder, = (checkpoint / "export").iterdir()
    facts, before = json.loads((folder / "export.json").read_text()), folder.stat().st_mtime_ns
    assert facts["checkpoint"] == fingerprint_of(str(checkpoint / "model_state.pdparams"))
    open_fp32(checkpoint)
    assert capsys.readouterr().err == "" and folder.stat().st_mtime_ns == before
    other = Path(shutil.copytree(Path(real).parent, tmp_path / "other", ignore=shutil.ignore_patterns("export")))
    shutil.copytree(checkpoint / "export", other / "export")
    assert_vectors_of(open_fp32(other), other)
    assert "(once)" in capsys.readouterr().err
    assert json.loads((other / "export" / folder.name / "export.json").read_text())["checkpoint"] != facts["checkpoint"]
    assert sorted(path.name for path in (other / "export").iterdir()) == [folder.name]


def test_what_killed_exports_left_is_removed_when_it_is_old(checkpoint):
    old, young = (checkpoint / "export" / f".openvino-fp32.{name}" for name in ("old", "young"))
    for left in (old, young):
        left.mkdir(parents=True)
    os.utime(old, (0, 0))
    shutil.rmtree(checkpoint / "export" / "openvino-fp32", ignore_errors=True)
    open_fp32(checkpoint)
    assert young.is_dir() and not old.exists()


def test_a_damaged_export_is_made_again(checkpoint, capsys):
    open_fp32(checkpoint)
    folder, = (checkpoint / "export").iterdir()
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        middle = len(raw) // 2
        for damaged in (raw[:middle], None, raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            if path.name != "export.json" or damaged:
                with pytest.raises(UserError, match=f"^{path}.*(delete the folder|make it again)"):
                    export.open_export(str(folder), 32, "auto", None, SOURCES)  # there is nothing to make it from
        path.write_bytes(raw)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1] + b"?")
    capsys.readouterr()
    opened = open_fp32(checkpoint)
    err = capsys.readouterr().err
    assert f"{folder / 'model.bin'} is damaged" in err and "it is made again" in err and "(once)" in err
    assert_vectors_of(opened, checkpoint)
    assert sorted(path.name for path in (checkpoint / "export").iterdir()) == [folder.name]


def test_a_checkpoint_in_a_read_only_folder_is_used(checkpoint, monkeypatch, capsys):
    if os.geteuid():
        checkpoint.chmod(0o555)
    else:  # who may write everywhere
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != checkpoint)
    before = set(Path(export.tempfile.gettempdir()).glob("export_*"))
    assert_vectors_of(open_fp32(checkpoint), checkpoint)
    assert "its folder is not writable" in capsys.readouterr().err
    assert not (checkpoint / "export").exists() and set(Path(export.tempfile.gettempdir()).glob("export_*")) == before
    checkpoint.chmod(0o755)


WITHOUT_PADDLE = """
import sys
import predict, recall, search
flags, pairs, texts, out = ["--device", "cpu", "--max_seq_length", "32", "--params_path", sys.argv[1]], *sys.argv[2:]
recalled = ["--recall_result_dir", out, "--recall_num", "3", "--hnsw_m", "16"]
codes = [predict.main([*flags, "--text_pair_file", pairs]),
         predict.main([*flags, "--text_file", texts, "--output_embeddings", out + ".npy"]),
         recall.main([*flags, "--similar_text_pair", pairs, "--corpus_file", texts, *recalled]),
         search.main([*flags, "--index_dir", out + "/index", "--query_file", texts])]
print(codes, [name for name in ("paddle", "paddlenlp", "paddle2onnx", "nncf", "openvino") if name in sys.modules])
"""


@pytest.mark.parametrize("runtime, loaded", [("openvino", ["openvino"]), ("paddle", ["paddle"])])
def test_an_export_needs_no_paddlenlp(trained, checkpoint, pair_file, tmp_path, monkeypatch, runtime, loaded):
    monkeypatch.setattr(export, "default_runtime", lambda: runtime)
    open_fp32(checkpoint)
    alone = shutil.copytree(checkpoint / "export" / f"{runtime}-fp32", tmp_path / "export")
    corpus = write(tmp_path / "texts", "".join(f"{text}\n" for text in TARGETS))
    result = run_process("python", "-c", WITHOUT_PADDLE, str(alone), pair_file, corpus, str(tmp_path / "out"))
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == f"[0, 0, 0, 0] {loaded}", result.stdout + result.stderr
    assert np.abs(np.load(tmp_path / "out.npy") - vectors_of(trained, TARGETS, tmp_path, "--precision", "fp32")).max() < 1e-5
    rows = [line.split("\t") for line in (tmp_path / "out" / "recall_result.txt").read_text().splitlines()]
    expected = run(trained, pair_file, corpus, tmp_path / "o", "--recall_num", "3", "--precision", "fp32")  # from the checkpoint
    assert [row[:2] for row in rows] == [row[:2] for row in expected]


@pytest.mark.parametrize("flags, words", [
    (["--precision", "int8"], "--precision int8 contradicts"), (["--output_emb_size", "128"], "--output_emb_size 128 contradicts"),
    (["--max_seq_length", "81"], "takes 80 tokens at most"), (["--max_seq_length", "2"], "--max_seq_length 2 leaves no room")])
def test_flags_that_contradict_an_export_are_refused(trained, pair_file, failure, flags, words):
    open_fp32(Path(trained).parent)
    folder = Path(trained).parent / "export" / f"{export.default_runtime()}-fp32"
    line = failure(predict.main, ["--device", "cpu", "--params_path", str(folder), "--text_pair_file", pair_file, *flags])
    assert words in line and (str(folder) in line or "no room" in line)


@pytest.mark.parametrize("fault, words", [(0.5, r"in fp32 differs from the model: a text has cosine 0?\.?-?\d.*0\.9999 is the least"),
                                          (float("nan"), "not finite")])
def test_an_export_that_differs_from_the_model_is_an_error(checkpoint, pair_file, tmp_path, monkeypatch, failure, fault, words):
    write_graph = export._write_graph

    def write_another(folder, model, runtime):
        import paddle

        weight = model.emb_reduce_linear.weight
        right = weight.numpy()
        weight.set_value(paddle.to_tensor(right * np.where(np.arange(256) % 2, fault, 1).astype(np.float32)))
        write_graph(folder, model, runtime)
        if fault == fault:  # with NaN the model itself is broken
            weight.set_value(paddle.to_tensor(right))

    monkeypatch.setattr(export, "_write_graph", write_another)
    line = failure(predict.main, ["--device", "cpu", "--params_path", str(checkpoint), "--precision", "fp32", "--text_pair_file", pair_file])
    assert re.search(words, line), line
    assert list((checkpoint / "export").iterdir()) == []


def test_of_two_processes_that_export_at_once_both_get_a_whole_one(checkpoint, tmp_path):
    """One was faster: its export stays. One of another checkpoint, or a damaged one, makes way."""
    opened = open_fp32(checkpoint)
    folder, = (checkpoint / "export").iterdir()
    for number, fingerprint in enumerate((opened.fingerprint, "0" * 64)):
        temporary = Path(shutil.copytree(folder, tmp_path / f"new{number}"))
        write(temporary / "mark", "new")
        export._put(temporary, folder, fingerprint)
        assert (folder / "mark").exists() is (number == 1)


def test_the_texts_of_a_first_run_do_not_set_the_ranges_of_int8_for_all_later_ones(checkpoint, monkeypatch):
    """Set by 400 texts the mean cosine to the right vectors is 0.9999, by one text it was 0.988."""
    try:
        choose_precision("int8", export.default_runtime())
    except UserError as error:
        pytest.skip(str(error))

    def is_made_again(sample: list[str]) -> bool:
        made, whole = [], shutil.copytree(folder, checkpoint / "whole", dirs_exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(export, "make_export", lambda *_: shutil.copytree(whole, made.append(1) or folder, dirs_exist_ok=True))
            export.open_export(params, 32, "int8", None, sample)
        return bool(made)

    params, folder = str(checkpoint / "model_state.pdparams"), checkpoint / "export" / "openvino-int8"
    export.open_export(params, 32, "int8", None, ["密"])  # as `predict.py --text_pair_file` of one pair does
    assert not is_made_again(["密"]) and not is_made_again(["快"])
    assert is_made_again(SOURCES)
    facts = json.loads((folder / "export.json").read_text())
    for name in ("sha256", "calibrated_on"):  # an export of an earlier version does not say how many there were
        facts.pop(name, None)
    write_manifest(folder / "export.json", facts)
    assert is_made_again(["密"])


def test_a_full_disk_ends_an_export_in_one_line(checkpoint, pair_file):
    """In a process of its own: paddle2onnx ends the process where a file is incomplete."""
    code = (f"import resource, sys, predict; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
            f"sys.exit(predict.main(['--device', 'cpu', '--params_path', {str(checkpoint)!r}, '--text_pair_file', {pair_file!r}]))")
    result = run_process("python", "-c", code)
    assert result.returncode == 2 and result.stdout == "" and "Traceback" not in result.stderr, result.stderr
    assert str(checkpoint / "export") in (line := result.stderr.splitlines()[-1]) and line.startswith("error: cannot write") and "space" in line
    assert list((checkpoint / "export").iterdir()) == []
