"""The one training loop of all strategies: batches, steps, checkpoints, logs.

A step is the same on one rank and on many. Every rank knows the whole batch and encodes its share; the vectors are
gathered; each rank computes the full loss on them, so that every row meets the negatives of all ranks; each sends the
gradient of its own vectors back through its encoder; parameter gradients are summed over the ranks. N ranks with batch
B so take the very step that one process takes with batch N x B (the scheme of GradCache, Gao et al. 2021,
arXiv:2101.06983).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from tqdm import tqdm

from checkpoint import point_latest, save_checkpoint
from cli import notice, rank, world_size
from data import epoch_batches, known_positives, pad_batch
from files import UserError, make_folder, own_folder, write_failure
from runtime import describe_runtime, gather_rows, start_paddle
from tokenizer import Tokenizer
from train_data import TrainSet, read_train_set

ALWAYS_LOGGED = 10  # first steps: what is wrong with a run shows there


@dataclass
class Batch:
    """Rows of one step, of all ranks together.

    Attributes:
        texts: the text ids to encode on each rank; rank r has the sources of its rows, then their targets, then
            their negatives.
        sources, columns: places of the query vectors [B] and of the column vectors [C] in the gathered vectors;
            columns are the B targets, then all negatives.
        not_negative: bool [B, C], columns that are known targets of the row's source.
        rows: B.
    """

    texts: list[list[int]]
    sources: np.ndarray
    columns: np.ndarray
    not_negative: np.ndarray
    rows: int


def make_batch(data: TrainSet, rows: np.ndarray, negatives: list[list[int]], ranks: int) -> Batch:
    """Lay out a batch over the ranks, which get consecutive, disjoint rows.

    Args:
        rows: row numbers of the batch.
        negatives: text ids of the negatives of each of these rows.
    """
    texts: list[list[int]] = []
    sources: list[int] = []
    targets: list[int] = []
    mined: list[int] = []
    start = 0
    for share in np.array_split(np.arange(len(rows)), ranks):
        own = [int(data.sources[rows[i]]) for i in share] + [int(data.targets[rows[i]]) for i in share]
        own += [text for i in share for text in negatives[i]]
        sources += range(start, start + len(share))
        targets += range(start + len(share), start + 2 * len(share))
        mined += range(start + 2 * len(share), start + len(own))
        texts.append(own)
        start += len(own)
    columns = np.concatenate([data.targets[rows], [text for row in negatives for text in row]]).astype(np.int64)
    return Batch(texts, np.array(sources), np.array(targets + mined),
                 known_positives(data.sources[rows], columns, data.positives), len(rows))


def draw_negatives(data: TrainSet, rows: np.ndarray, seed: int, step: int) -> list[list[int]]:
    """One negative for each row, for pair-wise training: a random target of the file that is none of the source's.

    A row with a mined negative has that one instead. Hangs on (seed, step) alone.
    """
    rng = np.random.default_rng([seed, step, 1])
    drawn = []
    for row in rows:
        known = data.positives[int(data.sources[row])]
        candidates = data.negatives[row] or data.targets
        # Known targets are rare, so the first draw nearly always stands; where all are known the loss masks the row.
        picks = (int(candidates[i]) for i in rng.integers(len(candidates), size=100))
        drawn.append([next((text for text in picks if text not in known), int(candidates[0]))])
    return drawn


class Trainer:
    """Trains a model on a set of pairs and writes checkpoints and logs to `args.save_dir`.

    Args:
        args: the training flags (see `cli.add_training_flags`).
        model: has `loss(queries, columns, not_negative)` beside its forward.
        strategy: its name, for the checkpoint's manifest.
        pairwise: one negative of its own for each row, instead of the whole batch.
    """

    def __init__(self, args, data: TrainSet, model, tokenizer: Tokenizer, strategy: str, pairwise: bool) -> None:
        import paddle

        self.args, self.data, self.model, self.tokenizer = args, data, model, tokenizer
        self.strategy, self.pairwise = strategy, pairwise
        self.token_ids = tokenizer(data.texts)
        self.row_lengths = np.array([len(self.token_ids[s]) + len(self.token_ids[t])
                                     for s, t in zip(data.sources, data.targets)])
        self.steps_an_epoch = len(self.batches_of(0))
        self.total_steps = min(args.max_steps or math.inf, args.epochs * self.steps_an_epoch)
        self.optimizer = self._optimizer()
        self.scaler = paddle.amp.GradScaler(args.use_amp, init_loss_scaling=args.amp_loss_scale)
        if world_size() > 1:
            for parameter in model.parameters():  # the same start everywhere, whatever each rank did before
                paddle.distributed.broadcast(parameter, src=0)
        paddle.seed(args.seed + rank())  # ranks differ in their dropout

    def batches_of(self, epoch: int) -> list[np.ndarray]:
        """Row numbers of each step of an epoch; a last batch of one row has no negatives and is left out."""
        batches = epoch_batches(self.row_lengths, self.args.batch_size * world_size(), self.args.seed, epoch)
        return batches if self.pairwise else [batch for batch in batches if len(batch) > 1]

    def learning_rate(self, step: int) -> float:
        """Rate of a step, counted from 1: linear warm-up, then linear decay to 0 after the last."""
        warmup, done = int(self.args.warmup_proportion * self.total_steps), step - 1
        if done < warmup:
            return self.args.learning_rate * done / warmup
        return self.args.learning_rate * (self.total_steps - done) / (self.total_steps - warmup)

    def _optimizer(self):
        import paddle

        decayed = {parameter.name for name, parameter in self.model.named_parameters()
                   if "bias" not in name and "norm" not in name}
        return paddle.optimizer.AdamW(self.args.learning_rate, parameters=self.model.parameters(),
                                      weight_decay=self.args.weight_decay, apply_decay_param_fun=decayed.__contains__)

    def train(self) -> None:
        """Run all steps; the last one is always saved.

        Raises:
            UserError: the loss or a gradient is no longer finite, or a file can't be written.
        """
        self._announce()
        self.model.train()
        logs = Logs(self.args, self.total_steps) if rank() == 0 else None
        step = 0
        with logs or contextlib.nullcontext():
            for epoch in range(self.args.epochs):
                for rows in self.batches_of(epoch):
                    step += 1
                    rate, started = self.learning_rate(step), time.perf_counter()
                    loss, norm = self.step(rows, step, rate)
                    if logs:
                        logs.add(step, epoch + 1, loss, rate, norm, len(rows), time.perf_counter() - started)
                    last = step == self.total_steps
                    if logs and (last or step % self.args.save_steps == 0):
                        self.save(step)
                    if last:
                        return

    def step(self, rows: np.ndarray, step: int, rate: float) -> tuple[float, float]:
        """One update from the given rows; returns (loss, gradient norm before clipping), the same on all ranks."""
        import paddle

        negatives = [self.data.negatives[row] for row in rows]
        if self.pairwise:
            negatives = draw_negatives(self.data, rows, self.args.seed, step)
        batch = make_batch(self.data, rows, negatives, world_size())
        longest = max(len(self.token_ids[text]) for texts in batch.texts for text in texts)
        vectors = self._encode(batch.texts[rank()], longest)
        counts = [len(texts) for texts in batch.texts]

        gathered = gather_rows(vectors.detach(), counts)
        gathered.stop_gradient = False
        loss = self.model.loss(gathered.index_select(paddle.to_tensor(batch.sources)),
                               gathered.index_select(paddle.to_tensor(batch.columns)),
                               paddle.to_tensor(batch.not_negative))
        self.scaler.scale(loss).backward()
        own = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        # A rank without rows has encoded one empty text, so that its gradients exist: they are zero.
        gradient = gathered.grad[own] if counts[rank()] else paddle.zeros_like(vectors)
        paddle.autograd.backward([vectors], [gradient])
        return float(loss), self._update(float(loss), step, rate)

    def _encode(self, texts: list[int], length: int):
        """Vectors of texts, with their graph; one forward for both sides.

        All ranks pad to the same `length`: rounding in the encoder then does not hang on how rows are shared out.
        """
        import paddle

        token_ids = [self.token_ids[text] for text in texts] or self.tokenizer([""])
        ids, mask = pad_batch(token_ids, self.tokenizer.pad_id, length)
        with paddle.amp.auto_cast(self.args.use_amp, level="O1", dtype="float16"):
            return self.model(paddle.to_tensor(ids), paddle.to_tensor(mask))

    def _update(self, loss: float, step: int, rate: float) -> float:
        """Sum gradients over the ranks (each holds those of its own texts for the full loss), clip, and step.

        Raises:
            UserError: the loss or a gradient is not finite; the weights are left as they are.
        """
        import paddle

        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if world_size() > 1:
            for parameter in parameters:
                paddle.distributed.all_reduce(parameter.grad)
        self.scaler.unscale_(self.optimizer)
        norm = float(paddle.nn.utils.clip_grad_norm_(parameters, self.args.max_grad_norm))
        # Under fp16 an infinite gradient is a scale that was too high: the scaler skips the step and lowers it.
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.args.use_amp):
            raise UserError(f"training has diverged: loss {loss}, gradient norm {norm} at step {step}; lower "
                            f"--learning_rate {self.args.learning_rate} or raise --warmup_proportion (the checkpoints "
                            f"saved before are whole)")
        self.optimizer.set_lr(rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        return norm

    def save(self, step: int) -> None:
        """Write checkpoint `model_STEP` and point `latest` at it."""
        folder = Path(self.args.save_dir, f"model_{step}")
        facts = {"strategy": self.strategy, "step": step, "total_steps": self.total_steps, "training": vars(self.args)}
        save_checkpoint(folder, self.model, self.tokenizer, facts)
        point_latest(folder)
        notice(f"saved {folder}")

    def _announce(self) -> None:
        size = self.args.batch_size * world_size()
        notice(f"runtime: {describe_runtime()}")
        notice(f"{self.strategy}: {len(self.data)} pairs, {len(self.data.texts)} different texts, batch {size}, "
               f"{self.steps_an_epoch} steps an epoch, {self.total_steps} in all")
        if len(self.data) < size:
            notice(f"{self.args.train_set_file} has {len(self.data)} pairs, less than a batch of {size}: each step "
                   f"takes all of them")
        if not self.pairwise and len(self.data) % size == 1:
            notice("the last batch of each epoch would be a single pair, without negatives: it is left out, another "
                   "pair each epoch")
        earlier = sorted(path.name for path in Path(self.args.save_dir).glob("model_*"))
        if earlier:
            notice(f"{self.args.save_dir} holds checkpoints of an earlier run ({', '.join(earlier[:5])}): those of the "
                   f"same step are replaced, `latest` will point at this run's")


class Logs:
    """Progress bar on a terminal, lines elsewhere; train_log.jsonl; VisualDL scalars. Used as a context manager."""

    def __init__(self, args, total_steps: int) -> None:
        self.args, self.total = args, total_steps
        self.pairs = self.seconds = 0.0

    def __enter__(self) -> Logs:
        self.path = Path(self.args.save_dir, "train_log.jsonl")
        try:
            self.file = open(self.path, "wb", buffering=0)  # noqa: SIM115 - a line is on disk when it is logged
        except OSError as error:
            raise UserError(write_failure(self.path, error)) from error
        self.bar = tqdm(total=self.total, desc="training", unit=" steps", disable=None)
        self.visualdl: Any = None
        if self.args.visualdl_dir:
            from visualdl import LogWriter

            self.visualdl = LogWriter(self.args.visualdl_dir)
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        self.file.close()
        if self.visualdl:
            self.visualdl.close()

    def add(self, step: int, epoch: int, loss: float, rate: float, norm: float, pairs: int, seconds: float) -> None:
        """Count a step; log it if it is one of the first, one of every --logging_steps, or the last."""
        self.pairs, self.seconds = self.pairs + pairs, self.seconds + seconds
        self.bar.update()
        if step > ALWAYS_LOGGED and step % self.args.logging_steps and step < self.total:
            return
        speed = self.pairs / self.seconds
        self.pairs = self.seconds = 0.0
        record = {"step": step, "epoch": epoch, "loss": loss, "learning_rate": rate, "grad_norm": norm,
                  "pairs_per_second": round(speed, 1)}
        try:
            line = (json.dumps(record) + "\n").encode()
            if self.file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(write_failure(self.path, error)) from error
        if self.bar.disable:
            notice(f"global step {step}/{self.total}, epoch: {epoch}, loss: {loss:.5f}, learning rate: {rate:.3e}, "
                   f"grad norm: {norm:.4f}, speed: {speed:.1f} pairs/s")
        else:
            self.bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.2e}", pairs_per_s=f"{speed:.0f}")
        if self.visualdl:
            for name in ("loss", "learning_rate", "grad_norm", "pairs_per_second"):
                self.visualdl.add_scalar(f"train/{name}", record[name], step)


def run_training(args, strategy: str, make_model: Callable, pairwise: bool = False) -> None:
    """The story of a training script: check the input, build the model, train.

    Args:
        make_model: (encoder, **settings of SemanticIndexBase) -> model with a loss.
    """
    if args.use_amp and args.device == "cpu":
        raise UserError("--use_amp goes with --device gpu: Paddle has no mixed precision on a CPU; leave one out")
    data = read_train_set(args.train_set_file)
    if not pairwise and args.batch_size * world_size() < 2:
        raise UserError(f"--batch_size {args.batch_size} on {world_size()} rank(s) leaves a pair without negatives; "
                        f"use 2 or more")
    if not pairwise and len(data) < 2:
        raise UserError(f"{args.train_set_file}: {len(data)} pair has no negatives beside it; give 2 pairs or more")
    if args.visualdl_dir:
        make_folder(args.visualdl_dir)
    with own_folder(args.save_dir) if rank() == 0 else contextlib.nullcontext():
        start_paddle(args.device, args.seed)
        from checkpoint import load_weights, read_state_dict, restore_replaced
        from pretrained import open_encoder, start_encoder

        if rank() == 0:
            restore_replaced(args.save_dir)
        if args.init_from_ckpt:  # holds the encoder's weights too
            encoder, tokenizer = open_encoder(args.model_name_or_path, args.max_seq_length, args.dropout)
        else:
            encoder, tokenizer = start_encoder(args.model_name_or_path, args.max_seq_length, args.dropout,
                                               pooler_needed=args.pooling == "cls")
        model = make_model(encoder, output_emb_size=args.output_emb_size, pooling=args.pooling, dropout=args.dropout)
        if args.init_from_ckpt:
            load_weights(model, read_state_dict(args.init_from_ckpt), args.init_from_ckpt,
                         "--init_from_ckpt, --model_name_or_path and --output_emb_size have to fit each other")
        Trainer(args, data, model, tokenizer, strategy, pairwise).train()
