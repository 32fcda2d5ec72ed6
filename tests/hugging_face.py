"""Tiny encoders in Hugging Face's form, and what they compute: BERT from its specification, in NumPy and float64."""

import json
from pathlib import Path

import numpy as np
from conftest import SOURCES, TARGETS
from scipy.special import erf

WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789",
              *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"), *"!\"#$%&'()*+,-./:;<=>?@[]", "query", "he", "##llo",
              *sorted(set("".join(SOURCES + TARGETS)))]
LAYERS, HIDDEN, INNER, HEADS, POSITIONS = 2, 12, 20, 3, 40
PREFIXES = {"bert": "bert.", "ernie": "ernie.", "roberta": "roberta.", "xlm-roberta": "roberta."}


def config_of(model_type: str, vocabulary: int, **changes) -> dict:
    """What transformers writes for such a model; its epsilon is so large that another one shows."""
    return {"_name_or_path": "tiny", "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
            "classifier_dropout": None, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": HIDDEN,
            "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "initializer_range": 0.02, "intermediate_size": INNER,
            "layer_norm_eps": 1e-3, "max_position_embeddings": POSITIONS, "model_type": model_type,
            "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "pad_token_id": 1 if "roberta" in model_type else 0,
            "position_embedding_type": "absolute", "torch_dtype": "float32", "transformers_version": "4.40.0",
            "type_vocab_size": 1 if "roberta" in model_type else 2, "use_cache": True, "vocab_size": vocabulary,
            **({"use_task_id": True, "task_type_vocab_size": 3} if model_type == "ernie" else {}), **changes}


def random_weights(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under transformers' names; those of a linear layer are [out, in]."""
    rng = np.random.default_rng(seed)

    def some(*shape: int, scale: float = 0.4, around: float = 0.0) -> np.ndarray:
        return (around + scale * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": some(hidden, around=1.0), f"{name}.bias": some(hidden)}

    def linear(name: str, out: int, size: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": some(out, size), f"{name}.bias": some(out)}

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {"word": config["vocab_size"], "position": config["max_position_embeddings"],
             "token_type": config["type_vocab_size"], **({"task_type": 3} if config.get("use_task_id") else {})}
    state = {f"embeddings.{name}_embeddings.weight": some(size, hidden, scale=0.1) for name, size in sizes.items()}
    state |= norm("embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            state |= linear(f"{layer}.attention.self.{name}", hidden, hidden)
        state |= linear(f"{layer}.attention.output.dense", hidden, hidden)
        state |= linear(f"{layer}.intermediate.dense", inner, hidden) | linear(f"{layer}.output.dense", hidden, inner)
        state |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    return state | linear("pooler.dense", hidden, hidden)


def bert(config: dict, state: dict[str, np.ndarray], ids: list[int], pooling: str) -> np.ndarray:
    """The unit vector of one text."""
    state = {name: value.astype(np.float64) for name, value in state.items()}
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + config["layer_norm_eps"])
        return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), heads, size).transpose(1, 0, 2)  # [heads, tokens, size]

    positions = np.arange(len(ids))
    if "roberta" in config["model_type"]:  # padding has pad_token_id, the tokens are counted from behind it
        text = np.array(ids) != config["pad_token_id"]
        positions = np.cumsum(text) * text + config["pad_token_id"]
    x = state["embeddings.word_embeddings.weight"][ids] + state["embeddings.position_embeddings.weight"][positions]
    x = x + state["embeddings.token_type_embeddings.weight"][0]
    if config.get("use_task_id"):
        x = x + state["embeddings.task_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (split(linear(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(size)
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        attended = (shares @ value).transpose(1, 0, 2).reshape(x.shape)
        x = norm(x + linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    vector = {"mean": lambda: x.mean(axis=0), "first": lambda: x[0], "cls": lambda: np.tanh(linear(x[:1], "pooler.dense"))[0]}
    found = vector[pooling]()
    return found / np.linalg.norm(found)


def wordpiece():
    """transformers' own rules for a vocab.txt of BERT; a spelt special token is read as such."""
    from tokenizers import BertWordPieceTokenizer

    return BertWordPieceTokenizer({piece: i for i, piece in enumerate(WORDPIECES)}, lowercase=True)._tokenizer


def unigram():
    """The form of XLM-RoBERTa and e5."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁query", ":", *WORDPIECES[5:41], *WORDPIECES[-200:], "<mask>"]
    pieces = list(dict.fromkeys(pieces))
    backend = Tokenizer(models.Unigram([(piece, 0.0 if i < 4 else -2.0 - i / 100) for i, piece in enumerate(pieces)], unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return _roberta_ends(backend, processors)


def byte_level_bpe():
    """The form of English RoBERTa; " x" is one token of it, as " " is."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator([*SOURCES, " x" * 9], trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return _roberta_ends(backend, processors)


def _roberta_ends(backend, processors):
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return backend


def write_folder(folder: Path, config: dict, state: dict[str, np.ndarray] | None, backend=None) -> str:
    """An encoder's folder; without `backend` its vocabulary is the vocab.txt of BERT."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if state is not None:
        save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    if backend is None:
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in WORDPIECES), encoding="utf-8")
    else:
        backend.save(str(folder / "tokenizer.json"))
    return str(folder)
