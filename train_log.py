"""What a training run tells while it runs: a progress bar or lines, train_log.jsonl, eval_log.jsonl, VisualDL."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli import notice
from files import UserError, whole_file, write_failure

ALWAYS_LOGGED = 10  # first steps: what is wrong with a run shows there


@dataclass
class StepFigures:
    """What is to be said of one step.

    Attributes:
        loss, grad_norm: the gradient's norm is the one before clipping.
        learning_rate: the one the step used.
        pairs, tokens: of all ranks; tokens without padding.
        computed: tokens that this rank computed, padding included, and `own` those of them that are no padding.
        seconds: that the step took.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    pairs: int
    tokens: int
    computed: int
    own: int
    seconds: float


class TrainLog:
    """Used as a context manager, on rank 0.

    Args:
        args: the training flags.
        total_steps: of the run.
        done: steps of a run that is resumed; what the log has of later ones is taken out.
        unlogged: tokens of the steps since the last line, as `unlogged` was when the run stopped.
        unit: what a row of the data is, "pairs" or "texts".
    """

    def __init__(self, args, total_steps: int, done: int, unlogged: tuple[int, int] = (0, 0),
                 unit: str = "pairs") -> None:
        self.args, self.total, self.done, self.unit = args, total_steps, done, unit
        self.unlogged = unlogged  # tokens since the last line: `own` and `computed` of StepFigures
        self.waiting: list[StepFigures] = []

    def __enter__(self) -> TrainLog:
        self.path = Path(self.args.save_dir, "train_log.jsonl")
        if not self.done:
            for name in ("eval_log.jsonl", "training_curve.png", "best"):  # of an earlier run
                Path(self.args.save_dir, name).unlink(missing_ok=True)
        kept = _lines_until(self.path, self.done) if self.done else []
        with whole_file(self.path) as file:
            file.write(b"".join(kept))
        try:
            self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - a line is on disk when it is logged
        except OSError as error:
            raise UserError(write_failure(self.path, error)) from error
        self.bar = tqdm(total=self.total, initial=self.done, desc="training", unit=" steps", disable=None)
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

    def add(self, step: int, epoch: int, figures: StepFigures) -> None:
        """Count a step; log it if it is one of the first, one of every --logging_steps, or the last."""
        self.waiting.append(figures)
        self.unlogged = (self.unlogged[0] + figures.own, self.unlogged[1] + figures.computed)
        self.bar.update()
        if step > ALWAYS_LOGGED and step % self.args.logging_steps and step < self.total:
            return
        seconds = sum(past.seconds for past in self.waiting)
        record = {
            "step": step, "epoch": epoch, "loss": figures.loss, "learning_rate": figures.learning_rate,
            "grad_norm": figures.grad_norm,
            "padding": round(1 - self.unlogged[0] / self.unlogged[1], 4),
            "pairs_per_second": round(sum(past.pairs for past in self.waiting) / seconds, 1),
            "tokens_per_second": round(sum(past.tokens for past in self.waiting) / seconds, 1)}
        self.waiting, self.unlogged = [], (0, 0)
        self._append(record)
        if self.bar.disable:
            notice(f"global step {step}/{self.total}, epoch: {epoch}, loss: {figures.loss:.5f}, learning rate: "
                   f"{figures.learning_rate:.3e}, grad norm: {figures.grad_norm:.4f}, speed: "
                   f"{record['pairs_per_second']} {self.unit}/s, {record['tokens_per_second']:.0f} tokens/s, padding: "
                   f"{100 * record['padding']:.1f} %")
        else:
            self.bar.set_postfix(loss=f"{figures.loss:.4f}", lr=f"{figures.learning_rate:.2e}",
                                 speed=f"{record['pairs_per_second']:.0f} {self.unit}/s")
        self._draw("train", step, record)

    def _append(self, record: dict) -> None:
        line = (json.dumps(record) + "\n").encode()
        try:
            written = self.file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} after {written} of {len(line)} bytes")
        except OSError as error:
            raise UserError(write_failure(self.path, error)) from error

    def flush(self) -> None:
        """Bring the log to disk; before a checkpoint is written, so that a log reaches as far as its checkpoint."""
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UserError(write_failure(self.path, error)) from error

    def evaluated(self, evaluations: list[dict], seconds: float) -> None:
        """Tell of the last of these evaluations, and write all of them to eval_log.jsonl."""
        write_evaluations(self.args.save_dir, evaluations)
        last = evaluations[-1]
        notice(f"evaluation at step {last['step']}: " + ", ".join(
            f"{name} {last[name]:.2f} [{last['intervals'][name][0]:.2f}, {last['intervals'][name][1]:.2f}]"
            for name in ("R@10", "R@50")) + f" ({seconds:.1f} s)")
        self._draw("eval", last["step"], {name: last[name] for name in ("R@10", "R@50")})

    def _draw(self, group: str, step: int, values: dict[str, float]) -> None:
        if self.visualdl:
            for name, value in values.items():
                if name not in ("step", "epoch"):
                    self.visualdl.add_scalar(f"{group}/{name}", value, step)


def write_evaluations(save_dir: str, evaluations: list[dict]) -> None:
    """All evaluations of a run, one a line."""
    with whole_file(Path(save_dir, "eval_log.jsonl")) as file:
        file.write("".join(json.dumps(evaluation) + "\n" for evaluation in evaluations).encode())


def read_log(path: Path) -> list[dict]:
    """The records of a log; a line that a kill or a full disk cut short ends it."""
    records = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _lines_until(path: Path, step: int) -> list[bytes]:
    """The lines of a log that belong to the steps up to this one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line, record in zip(lines, read_log(path)) if record["step"] <= step]
