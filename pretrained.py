"""Encoders to start from: a hub name, a folder with weights, or a folder with only a config and a vocabulary.

The one door to paddlenlp, whose import takes seconds and talks: everything else gets its encoders here.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from typing import Any, Callable

from checkpoint import WEIGHTS, load_weights, read_state_dict
from cli import notice
from files import UserError
from hf_weights import SAFE_WEIGHTS, has_hugging_face_names, is_hugging_face, to_paddle, weights_in
from tokenizer import Tokenizer

# What files of whole pre-training models, and our own checkpoints, hold beside the encoder.
HEADS = ("cls.", "lm_head.", "lm_bias", "classifier.", "qa_outputs.", "discriminator.", "emb_reduce_linear.")
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # counted up anew in every model


def open_encoder(name_or_path: str, max_seq_length: int | None, dropout: float | None = None,
                 text_prefix: str = "") -> tuple[Any, Tokenizer]:
    """The encoder of a folder or hub name, with random weights, and its tokenizer.

    Args:
        max_seq_length: tokens that the tokenizer keeps of a text; None keeps as many as the encoder has positions.
        text_prefix: stands before every text.
        dropout: replaces every dropout of the config; None keeps the encoder's own.

    Raises:
        UserError: there is no such encoder, or it can't take texts of `max_seq_length` tokens.
    """
    config = _open_config(name_or_path)
    positions = positions_of(config)
    max_seq_length = positions if max_seq_length is None else max_seq_length
    tokenizer = _open_tokenizer(name_or_path, max_seq_length, text_prefix)
    if max_seq_length > positions:
        raise UserError(f"--max_seq_length {max_seq_length} is more than the {positions} tokens that the encoder "
                        f"{name_or_path} has positions for; use {positions} or less")
    tokenizer.check_room()
    if tokenizer.size > config.vocab_size:
        raise UserError(f"{name_or_path}: the vocabulary has {tokenizer.size} tokens, the encoder's config "
                        f"{config.vocab_size}; they belong to different encoders")
    if tokenizer.pad_id != config.pad_token_id:
        notice(f"{name_or_path}: padding is token {tokenizer.pad_id} in the vocabulary, but pad_token_id is "
               f"{config.pad_token_id} in config.json: the encoder ignores that token in every text; mend one of them, "
               f"unless it was trained so")
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    try:
        encoder = _encoder_class(config)(config)
    except Exception as error:  # whatever sizes that don't fit each other make Paddle raise
        raise UserError(f"{name_or_path}: PaddleNLP can't build the encoder of its config ({error}); mend the config "
                        f"or name another encoder") from error
    for layer in encoder.sublayers():  # PaddleNLP's ERNIE takes 1e-12, whatever its config says
        if hasattr(layer, "_epsilon"):
            layer._epsilon = getattr(config, "layer_norm_eps", layer._epsilon)
    if not hasattr(encoder, "pooler"):
        raise UserError(f"{name_or_path}: {type(encoder).__name__} is no BERT-like encoder (no pooler); name one "
                        f"such as ernie, bert or roberta")
    return encoder, tokenizer


def positions_of(config: Any) -> int:
    """The longest text, in tokens, that an encoder of this config takes."""
    positions = getattr(config, "max_position_embeddings", 1 << 30)
    if config.model_type == "roberta":  # counts its positions from behind the padding id
        positions -= config.pad_token_id + 1
    return positions


def start_encoder(name_or_path: str, max_seq_length: int | None, dropout: float | None = None, text_prefix: str = "",
                  pooler_needed: bool = True, weights_needed: bool = False) -> tuple[Any, Tokenizer]:
    """Like `open_encoder`, with the pretrained weights where there are some; says so where there are none.

    Args:
        pooler_needed: False lets a file without pooler weights pass, for pooling that needs none.
        weights_needed: whether it is an error if there are none.

    Raises:
        UserError: as `open_encoder`, or the weights don't fit the config.
    """
    encoder, tokenizer = open_encoder(name_or_path, max_seq_length, dropout, text_prefix)
    path = _find_weights(name_or_path, encoder)
    if path is None and weights_needed:
        raise UserError(f"{name_or_path} holds no weights ({WEIGHTS} or {SAFE_WEIGHTS}); name an encoder that does")
    if path is None:
        notice(f"{name_or_path} holds no weights: the encoder starts from random ones")
        return encoder, tokenizer
    state = _encoder_state(read_state_dict(path), encoder, path)
    if not pooler_needed and not any(name.startswith("pooler.") for name in state):
        state |= {name: value.numpy() for name, value in encoder.state_dict().items() if name.startswith("pooler.")}
    remedy = f"name the encoder that these weights belong to, or mend {name_or_path}"
    if pooler_needed and "pooler.dense.weight" not in state:
        remedy = "use --pooling mean or first, which need no pooler"
    load_weights(encoder, state, path, remedy)
    notice(f"encoder weights: {path}")
    return encoder, tokenizer


def _encoder_state(state: dict[str, Any], encoder: Any, path: str) -> dict[str, Any]:
    """The encoder's part of a file of weights, under the names of the model; heads are left out, with a notice."""
    prefixes = ("ptm.", f"{encoder.base_model_prefix}.", "roberta.", "model.")  # of checkpoints, of models with heads
    bare = {}
    for name, value in state.items():
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        bare[name] = value
    heads = [name for name in bare if name.startswith(HEADS)]
    if heads:
        notice(f"{path}: left out {len(heads)} tensors of heads, which the encoder has no place for: "
               f"{', '.join(heads[:5])}{', ...' if len(heads) > 5 else ''}")
    bare = {name: value for name, value in bare.items() if name not in heads and name not in BUFFERS}
    return to_paddle(bare) if has_hugging_face_names(bare) else bare


def _paddlenlp() -> Any:
    warnings.filterwarnings("ignore")
    import paddlenlp.transformers as transformers
    from paddlenlp.utils.log import logger

    logger.set_level("ERROR")
    logging.getLogger().setLevel(logging.ERROR)  # its download messages
    return transformers


def _open_config(name_or_path: str) -> Any:
    if os.path.isdir(name_or_path) and not os.path.isfile(os.path.join(name_or_path, "config.json")):
        raise UserError(f"--model_name_or_path: the folder {name_or_path} has no config.json; put the encoder's there")
    try:
        config = _paddlenlp().AutoConfig.from_pretrained(name_or_path)
    except Exception as error:  # whatever a config of any content makes PaddleNLP raise
        if isinstance(error, OSError) and not os.path.isdir(name_or_path):
            raise UserError(_not_found(name_or_path)) from error
        raise UserError(f"{name_or_path}: its config.json can't be used ({error}); it needs `model_type` (for example "
                        f"ernie, bert, roberta) and the encoder's sizes") from error
    if config.model_type == "xlm-roberta":  # the same encoder; PaddleNLP's own class can't be exported (it deadlocks)
        config = _paddlenlp().RobertaConfig(**{**config.to_dict(), "model_type": "roberta"})
    config.architectures = [_encoder_class(config).__name__]
    _check_numbers(config, name_or_path)
    return config


def _check_numbers(config: Any, name_or_path: str) -> None:
    """Refuse what Paddle takes without a word, or fails on much later."""
    wanted: dict[str, Callable[[Any], bool]] = dict.fromkeys(
        ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"),
        lambda value: type(value) is int and value > 0)
    wanted |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"),
                            lambda value: isinstance(value, (int, float)) and 0 <= value < 1)
    wanted["layer_norm_eps"] = lambda value: isinstance(value, (int, float)) and 0 <= value <= 1e-3  # Paddle's limit
    wanted["pad_token_id"] = lambda value: type(value) is int and 0 <= value < config.vocab_size
    for name, fits in wanted.items():
        value = getattr(config, name, None)
        if hasattr(config, name) and not fits(value):
            raise UserError(f"{name_or_path}: {name} {value!r} in its config.json can't be; mend the config or name "
                            f"another encoder")


def _encoder_class(config: Any) -> type:
    name = type(config).__name__.replace("Config", "Model")
    encoder = getattr(_paddlenlp(), name, None)
    if encoder is None or not hasattr(config, "hidden_dropout_prob") or not hasattr(config, "vocab_size"):
        raise UserError(f"model_type {getattr(config, 'model_type', None)!r} is no BERT-like encoder of PaddleNLP; "
                        f"use one such as ernie, bert or roberta")
    return encoder


def _open_tokenizer(name_or_path: str, max_seq_length: int, text_prefix: str) -> Tokenizer:
    if os.path.isdir(name_or_path):
        return Tokenizer(name_or_path, max_seq_length, text_prefix, is_hugging_face(name_or_path))
    with tempfile.TemporaryDirectory() as folder:
        try:
            _paddlenlp().AutoTokenizer.from_pretrained(name_or_path).save_pretrained(folder)
        except OSError as error:
            raise UserError(_not_found(name_or_path)) from error
        return Tokenizer(folder, max_seq_length, text_prefix)


def _find_weights(name_or_path: str, encoder: Any) -> str | None:
    """Path of the pretrained weights; of a hub name they are downloaded, without being opened by Paddle's loader."""
    if os.path.isdir(name_or_path):
        path = os.path.join(name_or_path, WEIGHTS)
        return path if os.path.isfile(path) else weights_in(name_or_path)
    try:
        return type(encoder)._resolve_model_file_path(name_or_path, config=encoder.config)[0]
    except OSError as error:
        raise UserError(_not_found(name_or_path)) from error


def has_weights(name_or_path: str) -> bool:
    """Whether an encoder's folder brings weights."""
    return _find_weights(name_or_path, None) is not None


def _not_found(name_or_path: str) -> str:
    return (f"--model_name_or_path {name_or_path}: no such folder, and it can't be downloaded as a hub name (unknown, "
            f"or no network); check the spelling or name a local folder with config.json and vocab.txt")
