"""Texts -> unit vectors: the only place that knows how a model is run for inference."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import numpy as np

import runtime
from checkpoint import fingerprint_of, load_checkpoint
from cli import notice, progress_bar, rank, world_size
from data import pad_batch
from export import open_export
from files import UserError
from inference import DygraphRunner, Runner
from runtime import configure_environment, describe_runtime, gather_rows, gpu_build, start_paddle, wait_for_ranks
from tokenizer import Tokenizer

CHUNK = 65_536  # texts that are tokenized and sorted by length together
# A few texts are computed at 8, 16, 24, 32, 48, 64, 96, ... tokens and in batches of up to 16 texts, so that every
# thread gets some. For 12 and for 32 texts that is as fast as any; more shapes would take more memory.
MOST_OF_FEW = 16


class Encoder:
    """Embeds texts with a trained model.

    Batches hold texts of one length, so little is spent on padding, and a text's vector does not hang on the texts
    beside it: on a CPU it is the same to the last bit, alone or among millions. Equal token sequences of a chunk are
    encoded once. While a chunk is computed, the next one is tokenized.

    Args:
        runner: runs the model (see inference.py).
        batch_size: texts of full length a batch, at most; of shorter ones a batch takes more, up to the same number of
            tokens, or to as many as the runner takes well.
        max_seq_length: tokens that the tokenizer keeps of a text.
        output_dim: first dimensions of a vector that are kept; None keeps all.
        matryoshka_dims: sizes to which vectors may be cut.

    Attributes:
        tokenless: how many of the texts encoded so far had no token of their own.
        few_at_once: set it where calls bring a few texts each, as in a service: texts of nearly the same length then
            share a batch, where it would else hold one or two.
    """

    few_at_once = False

    def __init__(self, runner: Runner, tokenizer: Tokenizer, batch_size: int, max_seq_length: int,
                 output_dim: int | None = None, matryoshka_dims: Sequence[int] = ()) -> None:
        self.runner, self.tokenizer, self.dimension = runner, tokenizer, output_dim or runner.dimension
        self.max_seq_length, self.matryoshka_dims = max_seq_length, matryoshka_dims
        self.token_budget = min(batch_size * max_seq_length, runner.most_tokens or sys.maxsize)
        self.tokenless = 0

    def encode(self, texts: Sequence[str], progress: str | None = None, shared: bool = False) -> np.ndarray:
        """Unit vectors of `texts`, float32 [N, D], in their order.

        Args:
            progress: label of a progress bar on a terminal; None shows none.
            shared: the ranks of a launch share the work, and all get all vectors.

        Raises:
            UserError: the model gave a vector that is not finite.
        """
        position: dict[str, int] = {}
        place_of_text = np.fromiter((position.setdefault(text, len(position)) for text in texts), np.int64, len(texts))
        ranks = world_size() if shared else 1
        shares = [np.arange(r, len(position), ranks) for r in range(ranks)]
        different = list(position)
        mine = [different[i] for i in shares[rank() if shared else 0]]
        with progress_bar(len(mine), progress) as bar:
            chunks = (mine[i : i + CHUNK] for i in range(0, len(mine), CHUNK))
            vectors = np.concatenate(list(self.encode_chunks(chunks, bar.update)) or
                                     [np.zeros((0, self.dimension), np.float32)])
        if ranks > 1:
            vectors = self._gather(vectors, shares)
        report_tokenless(self.tokenless)
        return vectors[place_of_text]

    def _gather(self, vectors: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
        """The vectors of all ranks, each in its place."""
        import paddle

        gathered = np.empty((sum(map(len, shares)), vectors.shape[1]), dtype=np.float32)
        rows = gather_rows(paddle.to_tensor(vectors), [len(share) for share in shares])
        gathered[np.concatenate(shares)] = rows.numpy()
        self.tokenless = int(gather_rows(paddle.to_tensor([self.tokenless]), [1] * len(shares)).sum())
        return gathered

    def encode_chunks(self, chunks: Iterable[Sequence[str]], done: Callable[[int], Any]) -> Iterator[np.ndarray]:
        """Unit vectors of each chunk of texts, float32 [chunk, D], computed by this process alone.

        Args:
            done: called with the number of texts that were just computed.

        Raises:
            UserError: the model gave a vector that is not finite.
        """
        with ThreadPoolExecutor(1) as ahead:
            chunks = iter(chunks)
            waiting = ahead.submit(self._tokenize_next, chunks)
            while (token_ids := waiting.result()) is not None:
                waiting = ahead.submit(self._tokenize_next, chunks)
                yield self.encode_tokens(token_ids, done)

    def _tokenize_next(self, chunks: Iterator[Sequence[str]]) -> list[list[int]] | None:
        chunk = next(chunks, None)
        return None if chunk is None else self.tokenizer(chunk)

    def encode_tokens(self, token_ids: list[list[int]], done: Callable[[int], Any] = lambda count: None) -> np.ndarray:
        """Unit vectors of texts as the tokenizer gave them, float32 [N, D]; `done` and errors as above."""
        self.tokenless += sum(ids == self.tokenizer.bare for ids in token_ids)
        position: dict[tuple[int, ...], int] = {}
        place_of_text = np.array([position.setdefault(tuple(ids), len(position)) for ids in token_ids])
        done(len(token_ids) - len(position))
        different = list(position)
        lengths = self._lengths(different)
        batches = self._batches(lengths)
        outputs = self.runner.run(
            (pad_batch([different[i] for i in rows], self.tokenizer.pad_id, lengths[rows[0]]) for rows in batches),
            lambda number: done(len(set(batches[number].tolist()))))
        vectors = np.empty((len(position), self.dimension), dtype=np.float32)
        vectors[np.concatenate(batches)] = np.concatenate(outputs)[:, : self.dimension]
        if not np.isfinite(vectors).all():
            raise UserError("the model gives vectors that are not finite (NaN); its training has diverged: take an "
                            "earlier checkpoint")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # half precision leaves them off by some 1e-3
        return vectors[place_of_text]

    def warm_up(self) -> None:
        """With few at once: meet each shape of a batch before the first text does, where a new one is dear."""
        if not self.runner.few_shapes:
            return
        texts_of_all_lengths = [range(length) for length in range(2, self.max_seq_length + 1)]
        for length in np.unique(self._lengths(texts_of_all_lengths)).tolist():
            full = max(1, self.token_budget // length)
            for size in {self._size_for(texts, full) for texts in (1, 2, 4, 8, MOST_OF_FEW)}:
                shape = size, length
                batch = np.zeros(shape, np.int64), np.ones(shape, np.float32)
                self.runner.run([batch] * 2 * self.runner.streams, lambda number: None)

    def _lengths(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """The length, with padding, at which each text is computed; it hangs on its own length alone."""
        lengths = np.array([len(ids) for ids in token_ids])
        step: Any = 2 if self.runner.few_shapes else 1
        if self.few_at_once:
            step = np.maximum(8, 2.0 ** (np.ceil(np.log2(lengths)) - 2)).astype(int)
        return np.minimum(-(-lengths // step) * step, self.max_seq_length)

    def _batches(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Numbers of texts of one length each, the longest first, so that too little memory shows at once.

        For few shapes a batch that would not be full has one of some smaller sizes, filled up with texts it has.
        """
        order = np.argsort(-lengths, kind="stable")
        batches = []
        for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            full = max(1, self.token_budget // int(lengths[same[0]]))
            while len(same):
                size = self._size_for(len(same), full) if self.runner.few_shapes else min(full, len(same))
                batches.append(np.resize(same[:size], size))
                same = same[size:]
        return batches

    def _size_for(self, texts: int, full: int) -> int:
        """The size of the next batch of so many texts: full, a quarter of it, or for the last of few texts 8 or 1.

        With few at once: a power of two up to MOST_OF_FEW, the next one if three quarters of it are there.
        """
        if self.few_at_once:
            size = 1 << (texts - 1).bit_length()
            return min(size if 4 * texts >= 3 * size else size // 2, MOST_OF_FEW, full)
        quarter = -(-full // 4)
        return full if texts >= full else next((size for size in (1, 8) if texts <= size < quarter), quarter)


def open_encoder(args, sample: Sequence[str]) -> tuple[Encoder, dict]:
    """The encoder that the flags of `cli.add_model_flags` name, and what its vectors hang on.

    On a GPU the dygraph model is run, on a CPU its export.

    Args:
        sample: texts like those to be encoded; a new export is checked on them.

    Returns:
        The encoder, and {"checkpoint": fingerprint, "precision", "max_seq_length", "dimension", "metric"}.
    """
    runtime.threads_asked = args.num_threads  # of index and search too
    if args.device == "gpu" or (args.device is None and gpu_build()):
        paddle = start_paddle(args.device, threads=args.num_threads)
        if paddle.get_device() != "cpu":
            return _gpu_encoder(args, paddle)
    configure_environment("cpu", args.num_threads)
    if world_size() > 1:
        start_paddle("cpu", threads=args.num_threads)
        if os.path.isfile(args.params_path):
            fingerprint_of(args.params_path, args.model_name_or_path)  # a bad checkpoint ends all ranks here
    if rank():
        wait_for_ranks()  # for rank 0, which makes the export if there is none yet
    export = open_export(args.params_path, args.max_seq_length, args.precision, args.num_threads, sample,
                         args.model_name_or_path, args.output_emb_size)
    if not rank():
        wait_for_ranks()
    notice(f"encoder: {export.runtime}, {export.precision}, {describe_runtime()}")
    check_output_dim(args, export.matryoshka_dims)
    encoder = Encoder(export.runner, export.tokenizer, args.batch_size, args.max_seq_length, args.output_dim,
                      export.matryoshka_dims)
    return encoder, _facts(args, export.fingerprint, export.precision, encoder)


def _gpu_encoder(args, paddle) -> tuple[Encoder, dict]:
    precision = args.precision
    if precision == "auto":
        precision = "bf16" if paddle.amp.is_bfloat16_supported() else "fp16"
    if precision == "int8":
        raise UserError("--precision int8 is for CPUs; take auto, bf16, fp16 or fp32 with --device gpu")
    checkpoint = load_checkpoint(args.params_path, args.max_seq_length, args.model_name_or_path, args.output_emb_size)
    runner = DygraphRunner(checkpoint.model, precision)
    notice(f"encoder: paddle, {precision}, {describe_runtime()}")
    check_output_dim(args, checkpoint.model.matryoshka_dims)
    encoder = Encoder(runner, checkpoint.tokenizer, args.batch_size, args.max_seq_length, args.output_dim,
                      checkpoint.model.matryoshka_dims)
    return encoder, _facts(args, fingerprint_of(args.params_path, args.model_name_or_path), precision, encoder)


def check_output_dim(args, trained: Sequence[int]) -> None:
    """Raise UserError where --output_dim is no size that the model was trained to be cut to."""
    if args.output_dim is not None and args.output_dim not in trained:
        can = f"can be cut to {', '.join(map(str, trained))}" if trained else "was trained without --matryoshka_dims"
        raise UserError(f"--output_dim {args.output_dim}: {args.params_path} {can}; otherwise its vectors lose much")


def _facts(args, fingerprint: str, precision: str, encoder: Encoder) -> dict:
    return {"checkpoint": fingerprint, "precision": precision, "max_seq_length": args.max_seq_length,
            "dimension": encoder.dimension, "metric": "cosine"}


def report_tokenless(count: int) -> None:
    if count:
        notice(f"{count} text(s) have no tokens (blank or unknown to the tokenizer); they are encoded as the bare "
               f"[CLS] [SEP]")
