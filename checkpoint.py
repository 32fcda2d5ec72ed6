"""Checkpoints: what lies in one, how it is written whole, read safely and checked.

A checkpoint folder holds

    model_state.pdparams    weights, names `ptm.*` and `emb_reduce_linear.*`
    config.json             the encoder's config, in PaddleNLP's form
    vocab.txt, ...          the tokenizer's files (tokenizer.json of an encoder in Hugging Face's form)
    optimizer.pdopt         what `--resume` needs beside the weights: the optimizer's state
    README.md               the model card
    semantic_index.json     projection size, pooling, text prefix, training flags, and size and SHA-256 of the files
                            above (but for the card, which may be edited); written last

A bare `model_state.pdparams`, as the reference publishes them, loads too if its encoder is named.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli import notice
from files import (
    UserError,
    check_file,
    describe_file,
    made_by,
    read_json,
    read_manifest,
    sha256_file,
    whole_file,
    write_failure,
    write_manifest,
)
from tokenizer import Tokenizer

WEIGHTS, CONFIG, MANIFEST = "model_state.pdparams", "config.json", "semantic_index.json"
OPTIMIZER, CARD = "optimizer.pdopt", "README.md"
FORMAT = 2  # of the manifest
SAFE_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
              "I8": "i1", "U8": "u1", "BOOL": "?"}  # safetensors' names of them, and NumPy's
# Checkpoints that only an encoder is started from, by their strategies.
WARM_UPS = {"masked_lm": "a masked language model", "embeddings": "an encoder with warmed-up embeddings alone"}
REMEDY = "take another checkpoint, or copy this one again"

# All that a state dict needs. A pickle may name any callable of any module and have it run: everything else is refused.
_PICKLE_NAMES = {("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode")} | {
    (f"numpy.{core}.{module}", name) for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))}


class _StateDictUnpickler(pickle.Unpickler):
    """Reads NumPy arrays in plain containers, and refuses whatever else a pickle may hold."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLE_NAMES:
            raise UserError(f"it asks to run {module}.{name}, which no state dict needs, so it may be hostile; "
                            f"don't use it")
        return super().find_class(module, name)


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a `.pdparams` (a pickle) or `.safetensors` state dict without running anything that it contains.

    Raises:
        UserError: the file is cut short, is no state dict, or holds more than arrays.
    """
    size = os.path.getsize(path)
    try:
        if str(path).endswith(".safetensors"):
            return _read_safetensors(path)
        with open(path, "rb") as file:
            state = _StateDictUnpickler(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: incomplete or damaged ({size} bytes, {type(error).__name__}: {error}); "
                        f"take another checkpoint or get the file again") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not a state dict; take another file")
    arrays = {name: value for name, value in state.items() if name != "StructuredToParameterName@@"}
    stranger = next((name for name, value in arrays.items() if not isinstance(value, np.ndarray)), None)
    if stranger is not None or not arrays:
        raise UserError(f"{path}: no state dict of arrays (look at {stranger!r}); take another file")
    return arrays


def _read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Like safetensors.numpy.load_file, but bfloat16 too: it is the upper half of a float32."""
    from safetensors import deserialize

    state = {}
    with open(path, "rb") as file:
        tensors = deserialize(file.read())
    for name, tensor in tensors:
        kind = tensor["dtype"]
        if kind not in SAFE_TYPES:
            raise UserError(f"{name} is of type {kind}, which is not read; save it in float32")
        value = np.frombuffer(tensor["data"], SAFE_TYPES[kind])
        value = (value.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else value
        state[name] = value.reshape(tensor["shape"])
    return state


def load_weights(model, state: dict[str, np.ndarray], path: str | os.PathLike, remedy: str) -> None:
    """Copy `state` into `model`; every name and every shape has to fit.

    Raises:
        UserError: the first names or shapes that don't, and `remedy`.
    """
    own = model.state_dict()
    missing, extra = [n for n in own if n not in state], [n for n in state if n not in own]
    shapes = [f"{n} is {list(state[n].shape)} in the file and {list(own[n].shape)} in the model"
              for n in own if n in state and list(state[n].shape) != list(own[n].shape)]
    for problem, names in (("differs in shape", shapes), ("lacks", missing), ("has more than the model", extra)):
        if names:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise UserError(f"{path} {problem}: {', '.join(names[:20])}{more}; {remedy}")
    model.set_state_dict({name: state[name].astype("float32") for name in own})


def save_checkpoint(folder: str | os.PathLike, model, tokenizer: Tokenizer, facts: dict,
                    optimizer: dict[str, np.ndarray] | None = None, card: str | None = None) -> None:
    """Write a checkpoint folder, whole or not at all; one of the same name is replaced.

    Args:
        facts: goes into the manifest beside projection size and pooling (strategy, step, training flags).
        optimizer: its state, for a run that is to be resumed from this checkpoint.
        card: text of the model card.

    Raises:
        UserError: a file could not be written; nothing is left of the new folder, the earlier ones are untouched.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with whole_file(temporary / WEIGHTS) as file:
            state = {name: value.numpy() for name, value in model.state_dict().items()}
            pickle.dump(state, file, protocol=4)
        with whole_file(temporary / CONFIG) as file:
            file.write(model.ptm.config.to_json_string(use_diff=True).encode())
        for name, content in tokenizer.files.items():
            with whole_file(temporary / name) as file:
                file.write(content)
        training_files = {}
        if optimizer is not None:
            with whole_file(temporary / OPTIMIZER) as file:
                pickle.dump(optimizer, file, protocol=4)
            training_files[OPTIMIZER] = describe_file(temporary / OPTIMIZER)
        if card is not None:
            with whole_file(temporary / CARD) as file:
                file.write(card.encode())
        files = {name: describe_file(temporary / name) for name in (WEIGHTS, CONFIG, *tokenizer.files)}
        write_manifest(temporary / MANIFEST, {
            "format": FORMAT, "output_emb_size": model.output_emb_size, "pooling": model.pooling,
            "text_prefix": tokenizer.prefix, "matryoshka_dims": list(model.matryoshka_dims), **facts,
            "made_by": made_by(), "files": files, "training_files": training_files})
        _swap(temporary, folder)
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(folder))) from error
    except OSError as error:
        raise UserError(write_failure(folder, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: Path, strategy: str | None) -> None:
    """Refuse to write a checkpoint where something else than an earlier one of this strategy is.

    Raises:
        UserError: there is a link, another folder, or a checkpoint that took long to train.
    """
    manifest = folder / MANIFEST
    if folder.is_symlink() or folder.exists() and not (
            manifest.is_file() and read_json(manifest).get("strategy", "") == strategy):
        raise UserError(f"--save_dir {folder} is there and was not written by this script; name a new folder")


def _swap(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`; if that fails the earlier one stays."""
    replaced = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        os.replace(folder, replaced)
    try:
        os.replace(temporary, folder)
    except OSError:
        if replaced.exists():
            os.replace(replaced, folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def restore_replaced(save_dir: str | os.PathLike) -> None:
    """Bring back a checkpoint whose replacement was killed between its two renames; the caller owns `save_dir`."""
    for replaced in Path(save_dir).glob(".*.old"):
        folder = replaced.with_name(replaced.name[1:-4])
        if not folder.exists():
            os.replace(replaced, folder)


def point_at(checkpoint: Path, name: str) -> None:
    """Make `name` beside a checkpoint a link to it, without a moment in which there is none."""
    temporary, link = checkpoint.with_name(f".{name}.tmp"), checkpoint.with_name(name)
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(checkpoint.name)
        os.replace(temporary, link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(write_failure(link, error)) from error


@dataclass
class Checkpoint:
    """A trained model as it was loaded, in evaluation mode."""

    path: str
    model: Any
    tokenizer: Tokenizer


def fingerprint_of(params_path: str, model_name_or_path: str | None = None) -> str:
    """SHA-256 over all that a checkpoint's vectors hang on: weights, config, vocabulary, pooling and projection.

    Raises:
        UserError: a file of the checkpoint is missing or damaged, or it was trained from another encoder than that.
    """
    folder = Path(params_path).parent
    if (folder / MANIFEST).is_file():
        facts = _read_manifest(folder, params_path)
        _check_same_encoder(facts, params_path, model_name_or_path)
        whole = {"files": {name: file["sha256"] for name, file in facts["files"].items()},
                 "output_emb_size": facts["output_emb_size"], "pooling": facts["pooling"]}
        if facts.get("text_prefix"):
            whole["text_prefix"] = facts["text_prefix"]
    else:  # a bare parameter file hangs on the encoder that is named beside it
        encoder = Path(model_name_or_path or "")
        names = [name for name in (CONFIG, *Tokenizer.FILES) if model_name_or_path and (encoder / name).is_file()]
        whole = {"files": {WEIGHTS: sha256_file(params_path), **{name: sha256_file(encoder / name) for name in names}},
                 "encoder": None if names else model_name_or_path}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def load_checkpoint(params_path: str, max_seq_length: int | None, model_name_or_path: str | None = None,
                    output_emb_size: int | None = None) -> Checkpoint:
    """Load a checkpoint for inference.

    Args:
        params_path: its parameter file; what else is needed lies beside it.
        max_seq_length: tokens kept of a text; None keeps as many as the encoder has positions.
        model_name_or_path: the encoder of a bare parameter file.
        output_emb_size: only compared with the checkpoint's, None skips that.

    Raises:
        UserError: a file is missing, incomplete, damaged or hostile, or contradicts a flag; both values are named.
    """
    folder = Path(params_path).parent
    bare = not (folder / MANIFEST).is_file()
    if not bare:
        facts = _read_manifest(folder, params_path)
        _check_same_encoder(facts, params_path, model_name_or_path)
        if facts.get("strategy") in WARM_UPS:
            raise UserError(f"{params_path} is of {WARM_UPS[facts['strategy']]}, which gives no vectors; train from "
                            f"it, with --model_name_or_path {folder}")
    state = read_state_dict(params_path)
    if bare:
        facts = _bare_facts(state, params_path, model_name_or_path)
    dimension = facts["output_emb_size"]
    if output_emb_size is not None and output_emb_size != dimension:
        raise UserError(f"--output_emb_size {output_emb_size} contradicts {params_path}, which was trained with "
                        f"{dimension}; leave the flag out or name another checkpoint")

    from model import SemanticIndexBase
    from pretrained import open_encoder

    encoder, tokenizer = open_encoder(str(model_name_or_path if bare else folder), max_seq_length,
                                      text_prefix=facts.get("text_prefix", ""))
    model = SemanticIndexBase(encoder, dimension, facts["pooling"], matryoshka_dims=facts.get("matryoshka_dims", ()))
    load_weights(model, state, params_path, "the file belongs to another encoder: name its own")
    model.eval()
    return Checkpoint(params_path, model, tokenizer)


def check_checkpoint(folder: Path, to_resume: bool = False) -> dict:
    """The manifest of a checkpoint folder, after its files were compared with it.

    Args:
        to_resume: also the optimizer's state has to be there.

    Raises:
        UserError: a file is missing, incomplete or damaged.
    """
    facts = _read_manifest(folder, str(folder / WEIGHTS))
    training_files = facts.get("training_files", {})
    if to_resume and OPTIMIZER not in training_files:
        raise UserError(f"{folder} holds no optimizer state, so no run can be resumed from it (an earlier version "
                        f"wrote it); start a new run with --init_from_ckpt {folder}")
    for name, expected in training_files.items():
        check_file(folder / name, expected, REMEDY)
    return facts


def check_continued(params_path: str, pooling: str, text_prefix: str) -> None:
    """Refuse to train on from a checkpoint whose vectors were made in another way; shapes alone don't tell.

    Raises:
        UserError: pooling or prefix differ, or a file is missing or damaged. A bare parameter file passes.
    """
    folder = Path(params_path).parent
    if not (folder / MANIFEST).is_file():
        return
    facts = _read_manifest(folder, params_path)
    for flag, there, here in (("pooling", facts["pooling"], pooling),
                              ("text_prefix", facts.get("text_prefix", ""), text_prefix)):
        if there != here:
            raise UserError(f"--init_from_ckpt {params_path} was trained with --{flag} {there!r}, now it is {here!r}; "
                            f"give the same")


def _read_manifest(folder: Path, params_path: str) -> dict:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder / MANIFEST} is missing; {REMEDY}")
    facts = read_manifest(folder / MANIFEST, FORMAT, REMEDY)
    for name, expected in facts["files"].items():
        check_file(params_path if name == WEIGHTS else folder / name, expected, REMEDY)
    return facts


def _check_same_encoder(facts: dict, params_path: str, model_name_or_path: str | None) -> None:
    trained_from = str(facts["training"]["model_name_or_path"])
    if model_name_or_path and os.path.abspath(model_name_or_path) != os.path.abspath(trained_from):
        raise UserError(f"--model_name_or_path {model_name_or_path} contradicts {params_path}, which was trained from "
                        f"{trained_from}; leave the flag out: the checkpoint folder has all that it needs")


def _bare_facts(state: dict[str, np.ndarray], params_path: str, model_name_or_path: str | None) -> dict:
    """What a reference-form parameter file does not say in words, taken from its shapes."""
    if not model_name_or_path:
        raise UserError(f"{params_path} has no {MANIFEST} beside it, so its encoder is unknown; name it with "
                        f"--model_name_or_path (the published checkpoints have ernie-1.0)")
    if not any(name.startswith("ptm.") for name in state):
        raise UserError(f"{params_path}: no name begins with `ptm.` (the first is {next(iter(state))!r}), so it is no "
                        f"semantic-index checkpoint; name one")
    notice(f"{params_path} is a bare parameter file: taken for one with [CLS] pooling")
    projection = state.get("emb_reduce_linear.weight")
    return {"output_emb_size": 0 if projection is None else int(projection.shape[-1]), "pooling": "cls"}
