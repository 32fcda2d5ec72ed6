"""Who takes part in train.py, and the processes that they train in."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from encode_contestants import Failure, default_environment
from encode_worker import BATCH_SIZE, DIMENSION, MAX_SEQ_LENGTH
from train_loops import LEARNING_RATE, MARGIN, SCALE, SEED, WEIGHT_DECAY

import cli
from data import epoch_batches

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 3 * BATCH_SIZE  # pairs, at least a step: buffers and caches find their sizes
LEAST_STEPS = 2  # that count, where the data are less
CHUNK = 64  # rows of a text batch that are encoded at once, in the second table
LOOK = 0.1  # seconds between looks at the ranks' memory


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    Attributes:
        loop: function of train_loops.py and its own arguments; none for this project's train_batch_neg.py.
        needs: preparations of encode_contestants.py.
        ranks: processes that share a batch.
        batch_size: pairs a step, of all ranks together.
        flags: of train_batch_neg.py, beyond those that each run of it has.
    """

    name: str
    label: str
    precision: str = "fp32"
    loop: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("make_checkpoint",)
    of_peers: bool = False
    ranks: int = 1
    batch_size: int = BATCH_SIZE
    flags: tuple[str, ...] = ()


def _sentence_transformers(precision: str) -> Contestant:
    return Contestant(f"st_{precision}", "sentence-transformers", precision, ("sentence_transformer", precision),
                      ("make_checkpoint", "make_sentence_transformer"), of_peers=True)


CONTESTANTS = [
    Contestant("ours", "ours"),
    Contestant("ours_2_ranks", "ours, 2 ranks", ranks=2),
    Contestant("reference", "reference: form of PaddleNLP's example", loop=("reference",)),
    _sentence_transformers("fp32"),
    _sentence_transformers("bf16"),
]


def of_batch_sizes(sizes: list[int], plain_up_to: int) -> list[Contestant]:
    """The rows of the second table; the first is what the others are compared with."""
    plain = sorted({BATCH_SIZE, *(size for size in sizes if size <= plain_up_to)})
    plain.remove(BATCH_SIZE)
    flags = ("--grad_cache_chunk_size", str(CHUNK))
    return [*(Contestant(f"plain_{size}", "plain", batch_size=size) for size in [BATCH_SIZE, *plain]),
            *(Contestant(f"chunks_{size}", f"chunks of {CHUNK}", batch_size=size, flags=flags)
              for size in sorted(set(sizes)))]


class Run:
    """A contestant with what came out.

    Attributes:
        pairs_file, lengths: its pairs, and the tokens of their texts, [pairs, 2].
        passes: figures of each pass; a pass is a fresh process.
        failure: why it is out, None while it is not.
    """

    def __init__(self, contestant: Contestant, folder: Path, python: str, pairs_file: Path,
                 lengths: np.ndarray) -> None:
        self.contestant, self.folder, self.python = contestant, folder, python
        self.pairs_file, self.lengths = pairs_file, lengths
        self.warm_up = math.ceil(WARM_UP / contestant.batch_size)
        self.steps = self.warm_up + max(LEAST_STEPS, math.ceil(len(lengths) / contestant.batch_size))
        self.trained = folder / "trained" / contestant.name
        self.passes: list[dict[str, Any]] = []
        self.versions: dict[str, str] = {}
        self.failure: str | None = None

    def attempt(self, number: int, broken: dict[str, str]) -> None:
        """A pass, unless the contestant is out; if that fails, it is.

        Args:
            broken: preparation that failed -> why.
        """
        self.failure = self.failure or next(
            (f"{need} failed: {broken[need]}" for need in self.contestant.needs if need in broken), None)
        if self.failure:
            return
        try:
            found = self._train()
        except Failure as failure:
            self.failure = str(failure)
            cli.notice(f"{self.contestant.name}: {failure}")
            return
        self.passes.append(found)
        cli.notice(f"round {number}: {self.contestant.name} {found['pairs_per_second']:.1f} pairs/s, "
                   f"{found['peak_mb']:.0f} MB, {found['process_seconds']:.0f} s in all")

    def _train(self) -> dict[str, Any]:
        """One pass.

        Raises:
            Failure: the process failed.
        """
        shutil.rmtree(self.trained, ignore_errors=True)
        self.trained.mkdir(parents=True)
        log_file, started = self.folder / "logs" / f"{self.contestant.name}.log", time.perf_counter()
        command = self._loop() if self.contestant.loop else self._ours()
        with open(log_file, "wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=default_environment())
        try:
            peak = _watch(process)
        finally:
            if process.returncode is None:  # the benchmark is interrupted
                process.terminate()
                process.wait()
        seconds = time.perf_counter() - started
        if process.returncode:
            lines = [line.strip() for line in log_file.read_text("utf-8", "replace").splitlines() if line.strip()]
            errors = [line for line in lines if re.match(r"([\w.]+Error|error)\b", line)] or lines or ["no word"]
            raise Failure(f"its process ended with code {process.returncode} ({errors[-1][:200]}); see {log_file}")
        records = self._records_of_loop() if self.contestant.loop else self._records_of_ours()
        shutil.rmtree(self.trained)
        return {"peak_mb": peak, "process_seconds": seconds, **self._figures(records)}

    def _figures(self, records: list[tuple[int, float, int, int]]) -> dict[str, Any]:
        pairs, seconds, tokens, padded = (sum(column) for column in zip(*records[self.warm_up:]))
        return {"pairs": pairs, "seconds": seconds, "steps": len(records) - self.warm_up,
                "pairs_per_second": pairs / seconds, "step_seconds": [record[1] for record in records],
                "padded_tokens_a_text": padded / (2 * pairs), "padding": 1 - tokens / padded}

    def _loop(self) -> list[str]:
        function, *arguments = self.contestant.loop
        return [self.python, str(ROOT / "benchmarks" / "train_loops.py"), function, str(self.folder),
                str(self.pairs_file), str(self.steps), str(self.trained / "result.json"), *arguments]

    def _records_of_loop(self) -> list[tuple[int, float, int, int]]:
        result = json.loads((self.trained / "result.json").read_text())
        self.versions = result["versions"]
        return result["steps"]

    def _ours(self) -> list[str]:
        contestant, checkpoint = self.contestant, str(self.folder / "checkpoint")
        launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(contestant.ranks), "--log_dir",
                    str(self.trained / "ranks")]
        flags = {"device": "cpu", "train_set_file": self.pairs_file, "model_name_or_path": checkpoint,
                 "init_from_ckpt": checkpoint, "pooling": "mean", "output_emb_size": DIMENSION,
                 "max_seq_length": MAX_SEQ_LENGTH, "batch_size": contestant.batch_size // contestant.ranks,
                 "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "margin": MARGIN, "scale": SCALE,
                 "seed": SEED, "epochs": self.steps, "max_steps": self.steps, "save_steps": self.steps,
                 "logging_steps": 1, "save_dir": self.trained}
        return [self.python, *(launcher if contestant.ranks > 1 else []), str(ROOT / "train_batch_neg.py"),
                *(str(part) for name, value in flags.items() for part in (f"--{name}", value)), *contestant.flags]

    def _records_of_ours(self) -> list[tuple[int, float, int, int]]:
        """Its log has speed and padding (of two ranks, the first one's); the pairs of a step are known beforehand."""
        order = (batch for epoch in itertools.count() for batch in
                 epoch_batches(self.lengths.sum(axis=1), self.contestant.batch_size, SEED, epoch) if len(batch) > 1)
        with open(self.trained / "train_log.jsonl") as log:
            lines = [json.loads(line) for line in log]
        if len(lines) != self.steps:
            raise Failure(f"its train_log.jsonl has {len(lines)} steps, not {self.steps}")
        return [(len(batch), len(batch) / line["pairs_per_second"], tokens := int(self.lengths[batch].sum()),
                 round(tokens / (1 - line["padding"]))) for line, batch in zip(lines, order)]


def _watch(process: subprocess.Popen) -> float:
    """Wait for the process's end; returns the peak of its memory in MB, summed over the ranks if it launched some.

    The kernel's own figure (ru_maxrss) begins with the peak of the process that started it, this benchmark: that is
    less than what importing Paddle or PyTorch takes. It knows no sums, so ranks are looked at while they live.
    """
    peaks: dict[str, int] = {}
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return max(usage.ru_maxrss, sum(peaks.values())) / 1024
        with contextlib.suppress(OSError):  # one of them ended a moment ago
            for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child}/status").read_text())
                    if peak:
                        peaks[child] = int(peak[1])
        time.sleep(LOOK)
