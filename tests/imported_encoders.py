"""import_encoder.py on tiny encoders in Hugging Face's form: the checkpoints that it makes, and their vectors."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write
from hugging_face import config_of, random_weights, wordpiece, write_folder

import import_encoder
import predict
from checkpoint import load_checkpoint
from encoder import Encoder
from inference import DygraphRunner

QUERY = "query: "


def import_flags(folder, out, pooling: str = "mean", *flags: str) -> list[str]:
    return ["--model_name_or_path", str(folder), "--pooling", pooling, "--save_dir", str(out), *flags]


def imported(folder, out, *flags: str) -> str:
    """Parameter file of the checkpoint that import_encoder.py makes."""
    assert import_encoder.main(import_flags(folder, out, *flags)) == 0
    return str(Path(out) / "model_state.pdparams")


def vectors_of(params: str, texts: list[str], tmp_path: Path, length: int = 32) -> np.ndarray:
    """Through the export, as a user has them on a CPU."""
    out = tmp_path / "v.npy"
    assert predict.main(["--device", "cpu", "--params_path", params, "--precision", "fp32", "--max_seq_length", str(length),
                         "--text_file", write(tmp_path / "texts", "".join(f"{text}\n" for text in texts)),
                         "--output_embeddings", str(out)]) == 0
    return np.load(out)


def encoder_of(params: str, length: int = 32) -> Encoder:
    loaded = load_checkpoint(params, length)
    return Encoder(DygraphRunner(loaded.model), loaded.tokenizer, 64, length)


@pytest.fixture(name="tiny")
def tiny_fixture(tmp_path):
    """`tiny(change)` is a folder whose weights, {name: array}, and config were changed."""

    def make(change=lambda state, config: None) -> str:
        config = config_of("bert", wordpiece().get_vocab_size())
        state = random_weights(config)
        change(state, config)
        return write_folder(tmp_path / "hf", config, state)

    return make
