"""Texts -> token ids, many at once, by the rules that the encoder was trained with.

The work is done in Rust by `tokenizers`. Special tokens are not registered with it, so that a text that spells out
"[SEP]" is read as that text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data import read_lines
from files import UserError, read_json

SYMBOLS = r"[\p{S}\u00AD\u00B2\u00BA\u3007\u00B5\u00D8\u014B\u01B1]"  # words of their own, as in PaddleNLP's BERT

BLOCK = 65_536  # texts at once: what `tokenizers` keeps of each is a hundred times its ids


class Tokenizer:
    """The tokenizer of an encoder's folder.

    Args:
        folder: holds tokenizer.json (Hugging Face's form, of any kind: WordPiece, Unigram, BPE), or vocab.txt
            (WordPiece: BERT, ERNIE, Chinese RoBERTa), or vocab.json and merges.txt (byte-level BPE: English RoBERTa),
            and, where the model has one, tokenizer_config.json.
        max_seq_length: tokens kept of a text, prefix and the special ones at its ends included.
        prefix: stands before every text.
        hugging_face: read a vocab.txt by the rules of transformers' BERT, not by those of PaddleNLP's.

    Attributes:
        files: name and content of the files that make the same tokenizer again.
        bare: token ids of an empty text; a text without tokens of its own has just these.

    Raises:
        UserError: the folder has no vocabulary, or it is not of its kind.
    """

    FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json")

    def __init__(self, folder: str | Path, max_seq_length: int, prefix: str = "", hugging_face: bool = False) -> None:
        folder = Path(folder)
        self.prefix, self.max_seq_length = prefix, max_seq_length
        self.files = {name: (folder / name).read_bytes() for name in self.FILES if (folder / name).is_file()}
        config = read_json(folder / "tokenizer_config.json") if "tokenizer_config.json" in self.files else {}
        if "tokenizer.json" in self.files:
            self._backend, pad = _ready_made(folder / "tokenizer.json", config)
        elif "vocab.txt" in self.files:
            self._backend, pad = _wordpiece(folder, config, hugging_face), "[PAD]"
            if hugging_face:
                self.files["tokenizer.json"] = self._backend.to_str().encode()
        elif {"vocab.json", "merges.txt"} <= self.files.keys():
            self._backend, pad = _byte_level_bpe(folder), "<pad>"
        else:
            raise UserError(f"{folder} has no tokenizer.json and no vocab.txt (or, for byte-level BPE, vocab.json and "
                            f"merges.txt); put the encoder's vocabulary beside its config.json")
        vocabulary = self._backend.get_vocab()
        self.size, self.pad_id = max(vocabulary.values()) + 1, vocabulary[pad]
        self.mask_id = vocabulary.get("[MASK]", vocabulary.get("<mask>"))
        self.bare = self._backend.encode(prefix).ids
        self._backend.enable_truncation(max_seq_length)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text between its two special tokens, cut to max_seq_length.

        A text without tokens keeps these two.
        """
        prefixed = [self.prefix + text for text in texts] if self.prefix else list(texts)
        return [encoding.ids for start in range(0, len(prefixed), BLOCK)
                for encoding in self._backend.encode_batch_fast(prefixed[start : start + BLOCK])]

    def check_room(self) -> None:
        """Raise UserError where nothing of a text would be kept."""
        if self.max_seq_length <= len(self.bare):
            beside = f"--text_prefix {self.prefix!r} and " if self.prefix else ""
            raise UserError(f"--max_seq_length {self.max_seq_length} leaves no room for a token beside {beside}[CLS] "
                            f"and [SEP]; use {len(self.bare) + 1} or more")


def _ready_made(path: Path, config: dict):
    """A tokenizer.json as it is, and its padding token; texts that spell out special tokens are read as texts."""
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the only kind that `tokenizers` raises
        raise UserError(f"{path}: `tokenizers` can't read it ({error}); get the file again") from error
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    named = config.get("pad_token")
    names = [named.get("content") if isinstance(named, dict) else named, "[PAD]", "<pad>"]
    pad = next((name for name in names if isinstance(name, str) and backend.token_to_id(name) is not None), None)
    if pad is None:
        raise UserError(f"{path}: has no padding token ([PAD] or <pad>); name it as pad_token in tokenizer_config.json")
    if len(backend.encode("").ids) != 2:
        raise UserError(f"{path}: puts {len(backend.encode('').ids)} special tokens around a text where a BERT-like "
                        f"encoder has 2; its post_processor has to add them")
    return backend, pad


def _wordpiece(folder: Path, config: dict, hugging_face: bool):
    """The tokenizer of BERT and ERNIE, [CLS] text [SEP]: PaddleNLP's, or that of transformers."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    path = folder / "vocab.txt"
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if not isinstance(config.get(name, True), bool) and not (name == "strip_accents" and config[name] is None):
            raise UserError(f"{folder / 'tokenizer_config.json'}: {name} {config[name]!r} is not true or false")
    vocabulary = {token: number - 1 for number, token in read_lines(str(path))}  # an id is its line's number from 0
    _check_special(path, vocabulary, "[PAD]", "[UNK]", "[CLS]", "[SEP]")
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True), strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True))
    own_words = [] if hugging_face else [pre_tokenizers.Split(Regex(SYMBOLS), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*own_words, pre_tokenizers.BertPreTokenizer()])
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return backend


def _byte_level_bpe(folder: Path):
    """The tokenizer of PaddleNLP's English RoBERTa: <s> text </s>."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    path, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary = read_json(path)
    _check_special(path, vocabulary, "<pad>", "<s>", "</s>")
    try:
        backend = Backend(models.BPE.from_file(str(path), str(merges)))
    except Exception as error:  # the only kind that `tokenizers` raises
        raise UserError(f"{merges}: does not fit {path} ({error}); take both files from the same encoder") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=False, add_prefix_space=False)
    return backend


def _check_special(path: Path, vocabulary: dict[str, int], *tokens: str) -> None:
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; it is no vocabulary of its kind")
