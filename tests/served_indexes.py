"""Small indexes of a tiny checkpoint and a service on them, for tests that speak HTTP with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SOURCES, TARGETS, pair_lines, write
from running_service import Service


def build_index(folder: Path, params: str, texts: list[str], *flags: str) -> Path:
    import recall

    corpus = write(folder.with_suffix(".txt"), "".join(f"{text}\n" for text in texts))
    pairs = write(folder.with_suffix(".tsv"), pair_lines(2))
    assert recall.main(["--device", "cpu", "--params_path", params, "--similar_text_pair", pairs, "--corpus_file", corpus,
                        "--recall_result_dir", str(folder.with_suffix(".result")), "--index_dir", str(folder),
                        "--hnsw_m", "16", "--precision", "fp32", "--max_seq_length", "32", *flags]) == 0
    return folder


@pytest.fixture(name="folders", scope="module")
def folders_fixture(tmp_path_factory, trained, encoder_folder):
    """Two indexes of different corpora by one checkpoint, and a third one, of a model that can be cut."""
    import train_batch_neg

    root = tmp_path_factory.mktemp("served")
    pairs = write(root / "train.tsv", pair_lines())
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs,
                                 "--save_dir", str(root / "cut"), "--batch_size", "8", "--max_steps", "4",
                                 "--matryoshka_dims", "256,64", "--pooling", "mean"]) == 0
    return {"root": root, "params": trained, "cut_params": str(root / "cut" / "latest" / "model_state.pdparams"),
            "bank": build_index(root / "bank", trained, TARGETS + SOURCES[8:]),
            "small": build_index(root / "small", trained, SOURCES, "--ann_engine", "flat"),
            "cut": build_index(root / "cut_index", str(root / "cut" / "latest"), TARGETS, "--output_dim", "64")}


def flags_of(folders, *names: str) -> list[str]:
    flags = [flag for name in names for flag in ("--index", f"{name}={folders[name]}")]
    return [*flags, "--params_path", folders["params"], "--params_path", folders["cut_params"]]


@pytest.fixture(name="service", scope="module")
def service_fixture(folders):
    with Service(*flags_of(folders, "bank", "small", "cut")) as running:
        yield running


@pytest.fixture(name="encoder", scope="module")
def encoder_fixture(folders):
    """The encoder of the indexes, asked directly."""
    import argparse

    from encoder import open_encoder

    args = argparse.Namespace(device="cpu", params_path=folders["params"], max_seq_length=32, precision="fp32",
                              num_threads=None, model_name_or_path=None, output_emb_size=None, output_dim=None,
                              batch_size=64)
    return open_encoder(args, TARGETS)[0]


def error_of(answer, status: int) -> str:
    """The code of an error, whose form is checked."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert answer.headers["content-type"] == "application/json" and set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    return error["code"]
