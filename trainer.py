"""The one training loop of all strategies: batches, steps, evaluations, checkpoints.

A step is the same on one rank and on many, with a gradient cache and without. Every rank knows the whole batch and
encodes its share, chunk by chunk; the vectors are gathered; each rank computes the full loss on them, so that every row
meets the negatives of all ranks; each sends the gradient of its own vectors back through its encoder; parameter
gradients are summed over the ranks. N ranks with batch B so take the very step that one process takes with batch N x B.
With a gradient cache only the vectors of a chunk are kept, and it is encoded again, with the same dropout, when its
gradient is there (the scheme of GradCache, Gao et al. 2021, arXiv:2101.06983). On a CPU the chunks of a rank are dealt
out to copies of the model, one a thread.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle

from batches import deal_chunks, draw_negatives, make_batch
from checkpoint import save_checkpoint
from cli import LostRankError, notice, rank, world_size
from cpu_ops import add_gradients, remembering_lookups, seed_noise, sum_gradients
from data import epoch_batches, pad_batch
from files import UserError
from model_card import model_card
from replicas import Replicas
from runtime import describe_runtime, gather_rows
from stopping import EXIT_CODE, Terminable, Terminated
from tokenizer import Tokenizer
from train_data import OF_TEXTS, TrainSet
from train_eval import Evaluation, best_of, without_gain
from train_log import StepFigures, TrainLog, read_log
from train_state import Resumed, optimizer_state, restore_optimizer, run_facts, settle, steps_in

# Tokens of a chunk on a CPU: little padding, and what is computed stays in the caches. Of 256 to 4,096 the fastest.
CPU_CHUNK_TOKENS = 512


class Trainer:
    """Trains a model on a set of pairs and writes checkpoints and logs to `args.save_dir`.

    Args:
        args: the training flags (see train_flags.py).
        model: has `loss(queries, columns, not_negative)` beside its forward.
        strategy: its name, for the checkpoint's manifest.
        pairwise: one negative of its own for each row, instead of the whole batch.
        evaluation: None trains without.
        resumed: the checkpoint that the model's weights are of; None starts at step 0.
        digests: of the files that are learnt from (`train_state.sha256_of_data`), for checkpoints and their cards.
        copies: of the model that compute side by side; more than one needs `cpu_ops.replacing_paddles`.
    """

    def __init__(self, args, data: TrainSet, model, tokenizer: Tokenizer, strategy: str, pairwise: bool,
                 evaluation: Evaluation | None = None, resumed: Resumed | None = None,
                 digests: dict[str, str | None] | None = None, copies: int = 1) -> None:
        self.args, self.data, self.model, self.tokenizer = args, data, model, tokenizer
        self.strategy, self.pairwise, self.evaluation, self.resumed = strategy, pairwise, evaluation, resumed
        self.digests = digests or {}
        self.alone = pairwise or strategy in OF_TEXTS  # a row can be learnt from without others beside it
        self.token_ids = tokenizer(data.texts)
        self.lengths = np.array([len(ids) for ids in self.token_ids])
        self.row_lengths = self.lengths[data.sources] + self.lengths[data.targets]
        self.on_cpu = paddle.get_device() == "cpu"
        self.epoch, self.batches = 0, self.batches_of(0)
        self.steps_an_epoch = len(self.batches)
        self.total_steps = min(args.max_steps or math.inf, args.epochs * self.steps_an_epoch)
        self.optimizer = self._optimizer()
        self.scaler = paddle.amp.GradScaler(args.amp == "fp16", init_loss_scaling=args.amp_loss_scale)
        self.done = self.saved = resumed.step if resumed else 0
        self.evaluations = resumed.evaluations if resumed else []
        if resumed:
            restore_optimizer(resumed.folder, model, self.optimizer, self.scaler)
        if world_size() > 1:
            for parameter in model.parameters():  # the same start everywhere, whatever each rank did before
                paddle.distributed.broadcast(parameter, src=0)
        self.replicas = Replicas(model, copies)

    def batches_of(self, epoch: int) -> list[np.ndarray]:
        """Row numbers of each step of an epoch; a last batch of one row, if it has no negatives, is left out."""
        batches = epoch_batches(self.row_lengths, self.args.batch_size * world_size(), self.args.seed, epoch,
                                not self.args.no_length_bucketing)
        return batches if self.alone else [batch for batch in batches if len(batch) > 1]

    def rows_of(self, step: int) -> np.ndarray:
        """Row numbers of a step, counted from 1: a function of seed and step alone."""
        epoch, position = divmod(step - 1, self.steps_an_epoch)
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, self.batches_of(epoch)
        return self.batches[position]

    def learning_rate(self, step: int) -> float:
        """Rate of a step, counted from 1: linear warm-up, then linear decay to 0 after the last."""
        warmup, done = int(self.args.warmup_proportion * self.total_steps), step - 1
        if done < warmup:
            return self.args.learning_rate * done / warmup
        return self.args.learning_rate * (self.total_steps - done) / (self.total_steps - warmup)

    def _optimizer(self):
        decayed = {parameter.name for name, parameter in self.model.named_parameters()
                   if "bias" not in name and "norm" not in name}
        return paddle.optimizer.AdamW(self.args.learning_rate, parameters=self.model.parameters(),
                                      weight_decay=self.args.weight_decay, apply_decay_param_fun=decayed.__contains__)

    def train(self) -> int:
        """Run all steps that are left; the last one is always saved.

        Returns:
            The exit code: 0, or that of SIGTERM, after which a checkpoint of the last whole step was saved.

        Raises:
            UserError: the loss or a gradient is no longer finite, another rank has died, or a file can't be written.
        """
        self._announce()
        self.replicas.train()
        log = TrainLog(self.args, self.total_steps, self.done, self.resumed.unlogged if self.resumed else (0, 0),
                       "texts" if self.data.unlabelled else "pairs")
        with log if rank() == 0 else contextlib.nullcontext() as self.log:
            if self.log and self.resumed:
                settle(self.args.save_dir, self.done, best_of(self.evaluations), self.args.keep_checkpoints)
            self.stop = Terminable(self.args.save_dir)
            try:
                with self.stop:
                    self._run()
            except Terminated:
                return self._leave_early()
            except RuntimeError as error:
                if world_size() == 1 or "gloo" not in str(error):
                    raise
                raise LostRankError(self._lost_rank(error)) from error
        if rank() == 0:
            self._finish()
        return 0

    def _run(self) -> None:
        while True:
            self._after_step()
            if self.over():
                return
            step = self.done + 1
            started = time.perf_counter()
            loss, figures = self.gradients(self.rows_of(step), step)
            with self.stop.held_back():
                rate = self.learning_rate(step)
                norm = self.update(loss, step, rate)
                self.done = step
                if self.log:
                    seconds = time.perf_counter() - started
                    self.log.add(step, self.epoch + 1, StepFigures(loss, norm, rate, seconds=seconds, **figures))

    def _after_step(self) -> None:
        """Evaluate and save where it is due; a resumed run makes up for what was still to be done after its step."""
        last, better = self.done == self.total_steps, False
        evaluated = bool(self.evaluations) and self.evaluations[-1]["step"] == self.done
        if self.evaluation and not evaluated and (last or self.done % self.args.eval_steps == 0):
            started = time.perf_counter()
            found = {"step": self.done,
                     **self.evaluation.run(self.model, self.tokenizer, len(self.replicas.models))}
            with self.stop.held_back():
                self.evaluations.append(found)
                better = best_of(self.evaluations) is found
                if self.log:
                    self.log.evaluated(self.evaluations, time.perf_counter() - started)
                if better:
                    self.save()
        if self.done and self.done != self.saved and (self.over() or self.done % self.args.save_steps == 0):
            with self.stop.held_back():
                self.save()

    def over(self) -> bool:
        """Whether the last step is done, or --early_stop_patience is at its end."""
        patience = self.args.early_stop_patience or math.inf
        return self.done == self.total_steps or without_gain(self.evaluations) >= patience

    def batch_of(self, rows: np.ndarray, step: int) -> tuple[list[list[int]], Callable]:
        """The texts that each rank encodes for these rows, and the loss of the vectors of all of them, [N, D]."""
        negatives = [self.data.negatives[row] for row in rows]
        if self.pairwise:
            negatives = draw_negatives(self.data, rows, self.args.seed, step)
        batch = make_batch(self.data, rows, negatives, world_size(), self.args.cross_batch_negatives,
                           self.args.all_pairs)
        queries, columns, not_negative = map(paddle.to_tensor, (batch.queries, batch.columns, batch.not_negative))
        return batch.texts, lambda vectors: self.model.matryoshka_loss(
            vectors.index_select(queries), vectors.index_select(columns), not_negative)

    def gradients(self, rows: np.ndarray, step: int) -> tuple[float, dict[str, int]]:
        """Give every parameter this rank's share of the gradient of the loss over the given rows of all ranks.

        Returns:
            The loss, the same on all ranks, and the counts that `StepFigures` wants.
        """
        texts, loss_of = self.batch_of(rows, step)
        counts = [len(share) for share in texts]
        # A rank without rows encodes one empty text, so that its gradients exist: they are zero.
        token_ids = [self.token_ids[text] for text in texts[rank()]] or self.tokenizer([""])
        lengths = np.array([len(ids) for ids in token_ids])
        cached = self.args.grad_cache_chunk_size
        chunks, shares = deal_chunks(lengths, len(self.replicas.models), cached and 2 * cached,
                                     CPU_CHUNK_TOKENS if self.on_cpu else None)

        def encode(model, number: int, keep: bool = True) -> tuple[Any, list]:
            with contextlib.nullcontext() if keep else paddle.no_grad():
                return self._encode(model, [token_ids[i] for i in chunks[number]], step, number)

        def send_back(model, number: int) -> list:
            vectors, lookups = encode(model, number) if cached else encoded[number]
            own_gradient = gradient.index_select(paddle.to_tensor(chunks[number]))
            paddle.autograd.backward([vectors], [own_gradient])
            return sum_gradients(lookups)

        encoded = self.replicas.run(lambda model, number: encode(model, number, keep=not cached), shares)
        in_order = paddle.to_tensor(np.argsort(np.concatenate(chunks)))
        own = paddle.concat([vectors.detach() for vectors, _ in encoded]).index_select(in_order)
        gathered = gather_rows(own, counts)
        gathered.stop_gradient = False
        loss = loss_of(gathered)
        self.scaler.scale(loss).backward()
        first = sum(counts[: rank()])
        gradient = gathered.grad[first : first + len(token_ids)] if counts[rank()] else paddle.zeros_like(own)
        for summed in self.replicas.run(send_back, shares):
            add_gradients(summed)
        self.replicas.sum_gradients()
        return float(loss), {
            "pairs": len(rows), "tokens": int(sum(self.lengths[share].sum() for share in texts if share)),
            "own": int(lengths.sum()), "computed": int(sum(lengths[chunk].max() * len(chunk) for chunk in chunks))}

    def _encode(self, model, token_ids: list[list[int]], step: int, chunk: int) -> tuple[Any, list]:
        """Vectors of texts, and the lookups of their embeddings.

        The noise of dropout hangs on seed, step, rank and chunk alone, and can be drawn again.
        """
        seed_noise(self.args.seed, step, rank(), chunk)
        ids, mask = pad_batch(token_ids, self.tokenizer.pad_id)
        with self.mixed_precision(), remembering_lookups() as lookups:
            return model(paddle.to_tensor(ids), paddle.to_tensor(mask)), lookups

    def mixed_precision(self) -> contextlib.AbstractContextManager:
        """What a forward pass computes in, by --amp; its loss goes through `self.scaler`."""
        half: Any = {"bf16": "bfloat16", "fp16": "float16"}.get(self.args.amp)
        return paddle.amp.auto_cast(half is not None, level="O1", dtype=half or "float16")

    @paddle.no_grad()
    def update(self, loss: float, step: int, rate: float) -> float:
        """Sum gradients over the ranks (each holds those of its own texts for the full loss), clip, and step.

        Returns:
            The gradient's norm before clipping, the same on all ranks.

        Raises:
            UserError: the loss or a gradient is not finite; the weights are left as they are.
        """
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if world_size() > 1:
            _sum_over_ranks([parameter.grad for parameter in parameters])
        self.scaler.unscale_(self.optimizer)
        norm = _norm(parameters)
        # Under fp16 an infinite gradient is a scale that was too high: the scaler skips the step and lowers it.
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.args.amp == "fp16"):
            good = f"the last good checkpoint is {self._folder(self.saved)}" if self.saved else "none was saved before"
            raise UserError(f"training has diverged: loss {loss}, gradient norm {norm} at step {step}; lower "
                            f"--learning_rate {self.args.learning_rate} or raise --warmup_proportion ({good})")
        if norm > self.args.max_grad_norm:
            for parameter in parameters:
                parameter.grad.scale_(self.args.max_grad_norm / norm)
        self.optimizer.set_lr(rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        return norm

    def save(self) -> None:
        """Write the checkpoint of the last step that was done (rank 0 does), and keep `latest` and `best`."""
        self.saved = self.done
        if not self.log:
            return
        self.log.flush()
        evaluation = next((e for e in self.evaluations if e["step"] == self.done), None)
        card = model_card(self.args, self.strategy, self.model, self.data, self.digests.get("train_set_sha256"),
                          self.done, self.total_steps, world_size(), evaluation)
        facts = {"strategy": self.strategy, "step": self.done, "total_steps": self.total_steps,
                 "training": vars(self.args),
                 **run_facts(self.digests, self.evaluations, self.log.unlogged, len(self.replicas.models))}
        save_checkpoint(self._folder(self.done), self.model, self.tokenizer, facts,
                        optimizer_state(self.model, self.optimizer, self.scaler), card)
        settle(self.args.save_dir, self.done, best_of(self.evaluations), self.args.keep_checkpoints)
        notice(f"saved {self._folder(self.done)}")

    def _folder(self, step: int) -> Path:
        return Path(self.args.save_dir, f"model_{step}")

    def _leave_early(self) -> int:
        """After SIGTERM: save what is done, if anything is, and say how to go on."""
        self.optimizer.clear_grad()
        if self.done and self.done != self.saved:
            self.save()
        where = f"saved {self._folder(self.saved)}; " if self.saved else "no step was done; "
        notice(f"stopped by SIGTERM at step {self.done}: {where}start again with --resume to go on")
        return EXIT_CODE

    def _lost_rank(self, error: RuntimeError) -> str:
        go_on = f"start again with --resume to go on from {self._folder(self.saved)}"
        return (f"another rank has ended in or after step {self.done}, the launcher tells which ({error}); "
                f"{go_on if self.saved else 'no checkpoint was saved yet, so start again'}")

    def _finish(self) -> None:
        """The picture of the run, and its outcome."""
        from plots import plot_training

        curve = Path(self.args.save_dir, "training_curve.png")
        plot_training(curve, read_log(Path(self.args.save_dir, "train_log.jsonl")), self.evaluations)
        if self.done < self.total_steps:
            notice(f"stopped early at step {self.done} of {self.total_steps}: {self.args.early_stop_patience} "
                   f"evaluation(s) without a better one")
        best = best_of(self.evaluations)
        if best:
            notice(f"best: {self._folder(best['step'])}, R@10 {best['R@10']:.2f}, R@50 {best['R@50']:.2f}")
        notice(f"training curve: {curve}")

    def _announce(self) -> None:
        size = self.args.batch_size * world_size()
        rows = "texts" if self.strategy in OF_TEXTS else "pairs"
        notice(f"runtime: {describe_runtime(len(self.replicas.models))}")
        if world_size() > 1:  # the launcher shows the last lines of a lost rank
            notice(f"rank {rank()} of {world_size()}: if it is lost, the run ends; start again with --resume to go on",
                   every_rank=True)
        notice(f"{self.strategy}: {len(self.data)} {rows}, {len(self.data.texts)} different texts, batch {size}, "
               f"{self.steps_an_epoch} steps an epoch, {self.total_steps} in all")
        if self.data.unlabelled and self.strategy not in OF_TEXTS:
            notice(f"{self.args.train_set_file} has no TAB: each line is a text that is its own positive, under "
                   f"dropout (SimCSE)")
        if len(self.data) < size:
            notice(f"{self.args.train_set_file} has {len(self.data)} {rows}, less than a batch of {size}: each step "
                   f"takes all of them")
        if not self.alone and len(self.data) % size == 1:
            notice("the last batch of each epoch would be a single pair, without negatives: it is left out, another "
                   "pair each epoch")
        earlier = [f"model_{step}" for step in steps_in(self.args.save_dir)]
        if earlier and not self.done:
            notice(f"{self.args.save_dir} holds checkpoints of an earlier run ({', '.join(earlier[:5])}): those of the "
                   f"same step are replaced, `latest` will point at this run's")


def _sum_over_ranks(gradients: list) -> None:
    """In place. One sum of many small tensors is faster than many sums; a large one is spared the copies."""
    small = [gradient for gradient in gradients if gradient.size < 2**20]
    together = paddle.concat([gradient.flatten() for gradient in small])
    for gradient in [together, *(gradient for gradient in gradients if gradient.size >= 2**20)]:
        paddle.distributed.all_reduce(gradient)
    for gradient, part in zip(small, together.split([gradient.size for gradient in small])):
        gradient.copy_(part.reshape(gradient.shape), True)


def _norm(parameters: list) -> float:
    """Length of all gradients together; paddle.nn.utils.clip_grad_norm_ takes ten times as long for it."""
    squares = [flat @ flat for flat in (parameter.grad.flatten() for parameter in parameters)]
    return math.sqrt(float(paddle.stack(squares).sum()))
