"""Encoders in Hugging Face's form -> names and layout of PaddleNLP's weights.

BERT, RoBERTa and ERNIE differ between the two libraries in names alone, and in linear layers: Hugging Face keeps them
as [out, in], Paddle as [in, out].
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from files import UserError

SAFE_WEIGHTS = "model.safetensors"
# Weights that can't be read: a pickle of PyTorch's runs what it contains, the others need their own frameworks.
UNREADABLE = (".bin", ".safetensors", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".pdparams")
RENAMED = tuple((re.compile(old), new) for old, new in (
    (r"\.gamma$", ".weight"),  # of files made from TensorFlow's
    (r"\.beta$", ".bias"),
    (r"^embeddings\.LayerNorm\.", "embeddings.layer_norm."),
    (r"^encoder\.layer\.", "encoder.layers."),
    (r"\.attention\.self\.(query|key|value)\.", lambda found: f".self_attn.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".self_attn.out_proj."),
    (r"\.attention\.output\.LayerNorm\.", ".norm1."),
    (r"\.intermediate\.dense\.", ".linear1."),
    (r"\.output\.dense\.", ".linear2."),
    (r"\.output\.LayerNorm\.", ".norm2.")))


def weights_in(folder: str) -> str | None:
    """The safetensors file of an encoder's folder, or None where the folder holds no weights at all.

    Raises:
        UserError: there are weights, but in a form that is not read.
    """
    path = os.path.join(folder, SAFE_WEIGHTS)
    if os.path.isfile(path):
        return path
    unreadable = next((name for name in sorted(os.listdir(folder)) if name.endswith(UNREADABLE)), None)
    if unreadable:
        raise UserError(f"{folder}: {unreadable} is not read (only {SAFE_WEIGHTS} and model_state.pdparams are: a "
                        f"PyTorch file runs what it contains when it is loaded); put the weights beside it as one "
                        f"{SAFE_WEIGHTS}, for example with transformers: "
                        f"`AutoModel.from_pretrained(...).save_pretrained(folder)`")
    return None


def is_hugging_face(folder: str | Path) -> bool:
    """Whether the folder's weights have Hugging Face's names; only the names are read."""
    path = os.path.join(folder, SAFE_WEIGHTS)
    if not os.path.isfile(path):
        return False
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return has_hugging_face_names(file.keys())
    except Exception as error:  # the kinds that safetensors raises are not all public
        raise UserError(f"{path}: incomplete or damaged ({error}); get the file again") from error


def has_hugging_face_names(names) -> bool:
    return any(".attention.self.query." in name for name in names)


def to_paddle(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename, and turn linear layers; names without a counterpart keep what they have.

    Args:
        state: without prefixes such as `bert.`.
    """
    renamed = {}
    for name, value in state.items():
        for pattern, new in RENAMED:
            name = pattern.sub(new, name)
        linear = value.ndim == 2 and "embeddings" not in name
        renamed[name] = value.T if linear else value
    return renamed
