"""Who takes part in encode.py, what has to be prepared for them, and the processes that they run in."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from encode_worker import cores

import cli

SETTLE = 1.0  # seconds before each pass, for threads of the one before that still spin
LOAD_LIMIT = 1800  # seconds for a preparation (a static quantization takes minutes) or for loading a model
# Variables that set threads, kernels or paths to modules: a contestant's process has none but those it is given.
SCRUBBED = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_", "FLAGS_", "PADDLE_", "GLOG_",
            "TORCH", "ATEN_", "ACCELERATE_", "ORT_", "OV_", "TOKENIZERS_", "PYTHONPATH", "LD_PRELOAD", "MALLOC_")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # everything is local: don't wait for a network


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes:
        command: function of encode_paddle.py, or of encode_peers.py, and its arguments.
        needs: preparations, in order.
        whole: texts to vectors; else the runtime alone.
        environment: variables beyond the default ones.
    """

    name: str
    label: str
    precision: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ("make_checkpoint",)
    whole: bool = True
    of_peers: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def _ours(precision: str, whole: bool) -> Contestant:
    name = f"ours_{precision}" if whole else f"ours_{precision}_runtime"
    return Contestant(name, "ours" if whole else "ours, runtime", precision, ("ours" if whole else "ours_runtime",
                                                                             precision), whole=whole)


_ST = ("make_checkpoint", "make_sentence_transformer")
CONTESTANTS = [
    Contestant("reference", "reference: form of PaddleNLP's example", "fp32", ("reference",)),
    Contestant("reference_env", "reference, with the threads and BLAS path that ours sets", "fp32", ("reference",),
               environment={"OMP_NUM_THREADS": str(cores()), "MKL_NUM_THREADS": str(cores()),
                            "MKL_DEBUG_CPU_TYPE": "5"}),
    *(_ours(precision, whole=True) for precision in ("fp32", "bf16", "int8")),
    Contestant("st_fp32", "sentence-transformers, PyTorch", "fp32", ("sentence_transformer", "fp32"), _ST,
               of_peers=True),
    Contestant("st_bf16", "sentence-transformers, PyTorch", "bf16", ("sentence_transformer", "bf16"), _ST,
               of_peers=True),
    Contestant("st_openvino_int8", "sentence-transformers, OpenVINO static", "int8",
               ("sentence_transformer", "openvino_int8"), (*_ST, "quantize_openvino"), of_peers=True),
    *(_ours(precision, whole=False) for precision in ("fp32", "bf16", "int8")),
    Contestant("ort_fp32", "ONNX Runtime", "fp32", ("onnx_runtime", "model.onnx"), ("make_checkpoint", "export_onnx"),
               whole=False, of_peers=True),
    Contestant("ort_int8", "ONNX Runtime, dynamic", "int8", ("onnx_runtime", "model_int8.onnx"),
               ("make_checkpoint", "export_onnx", "quantize_onnx"), whole=False, of_peers=True),
]
# Preparation -> (whether the peers' interpreter does it, the preparations that it builds on).
PREPARATIONS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "make_checkpoint": (False, ()),
    "export_onnx": (False, ("make_checkpoint",)),
    "quantize_onnx": (True, ("export_onnx",)),
    "make_sentence_transformer": (True, ("make_checkpoint",)),
    "quantize_openvino": (True, ("make_sentence_transformer",)),
}


def default_environment() -> dict[str, str]:
    """That of a contestant's process: nothing set that speeds one of them up or slows it down."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith(SCRUBBED)}, **OFFLINE}


class Failure(Exception):
    """A contestant or a preparation is out; the text says why, in one line."""


class Worker:
    """A process of encode_paddle.py or encode_peers.py, see encode_worker.py; it writes its log beside the others."""

    def __init__(self, folder: Path, name: str, command: tuple[str, ...], python: str, of_peers: bool,
                 environment: dict[str, str]) -> None:
        self.log = folder / "logs" / f"{name}.log"
        script = Path(__file__).with_name("encode_peers.py" if of_peers else "encode_paddle.py")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [python, str(script), str(folder), name, *command], bufsize=0, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, env={**default_environment(), **environment})

    def answer(self, within: float) -> dict[str, Any]:
        """Its next answer.

        Raises:
            Failure: there is none within so many seconds, or it tells of an error.
        """
        if not select.select([self.process.stdout], [], [], within)[0]:
            raise Failure(f"no answer within {within:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._death()
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(" ".join(answer["error"].split())[:200])
        return answer

    def ask(self, within: float) -> dict[str, Any]:
        """Have it make a pass."""
        try:
            self.process.stdin.write(b"round\n")
        except BrokenPipeError:
            raise self._death() from None
        return self.answer(within)

    def _death(self) -> Failure:
        last_words = self.log.read_text("utf-8", "replace").split("\n")[-2:]
        return Failure(f"its process ended with code {self.process.wait()} ({' '.join(last_words).strip()[:150]}); "
                       f"see {self.log}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Run:
    """A contestant with its process and what came out.

    Attributes:
        facts: what it said when it had loaded: threads, versions, texts that it tokenizes differently.
        seconds, busy_cores: of each measured pass.
        failure: why it is out, None while it is not.
    """

    def __init__(self, contestant: Contestant, folder: Path, python: str, time_limit: float) -> None:
        self.contestant, self.folder, self.python, self.time_limit = contestant, folder, python, time_limit
        self.worker: Worker | None = None
        self.facts: dict[str, Any] = {}
        self.seconds: list[float] = []
        self.busy_cores: list[float] = []
        self.failure: str | None = None

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Make a step of this run, unless it is out; if that fails, it is."""
        if self.failure:
            return
        try:
            step(*arguments)
        except Failure as failure:
            self.failure = str(failure)
            self.end()
            cli.notice(f"{self.contestant.name}: {failure}")

    def load(self, broken: dict[str, str], texts: int) -> None:
        """Start its process and wait until the model is there.

        Args:
            broken: preparation that failed -> why.

        Raises:
            Failure: a preparation is broken, the model does not load, or a pass would take more than the time limit.
        """
        cli.notice(f"loading {self.contestant.name}")
        for need in self.contestant.needs:
            if need in broken:
                raise Failure(f"{need} failed: {broken[need]}")
        self.worker = Worker(self.folder, self.contestant.name, self.contestant.command, self.python,
                             self.contestant.of_peers, self.contestant.environment)
        self.facts = self.worker.answer(LOAD_LIMIT)
        estimate = self.facts["estimate"]
        if estimate > self.time_limit:
            raise Failure(f"not measured: about {texts / estimate:.0f} texts/s, so a pass would take {estimate:.0f} s, "
                          f"more than --time_limit {self.time_limit:.0f}")

    def round(self, number: int) -> None:
        """One pass; round 0 warms up.

        Raises:
            Failure: the process failed, or takes much longer than its first batch told.
        """
        time.sleep(SETTLE)
        answer = self.worker.ask(3 * self.time_limit)  # the estimate came of a single batch
        cli.notice(f"{f'round {number}' if number else 'warm-up'}: {self.contestant.name} {answer['seconds']:.2f} s")
        if number:
            self.seconds.append(answer["seconds"])
            self.busy_cores.append(answer["busy_cores"])

    def end(self) -> None:
        if self.worker:
            self.worker.end()
            self.worker = None


def prepare(chosen: list[Contestant], folder: Path, pythons: dict[bool, str]) -> dict[str, str]:
    """Run the preparations that somebody needs; those that failed -> why."""
    for old in (*(folder / "vectors").iterdir(), *(folder / "logs").iterdir()):
        old.unlink()  # of an earlier run in the same folder
    broken: dict[str, str] = {}
    for name, (of_peers, basis) in PREPARATIONS.items():
        if not any(name in contestant.needs for contestant in chosen) or any(step in broken for step in basis):
            continue
        cli.notice(f"preparing: {name}")
        worker = Worker(folder, name, (name,), pythons[of_peers], of_peers, {})
        try:
            worker.answer(LOAD_LIMIT)
        except Failure as failure:
            broken[name] = str(failure)
            cli.notice(f"{name} failed: {failure}")
        finally:
            worker.end()
    return broken
