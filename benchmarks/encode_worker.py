"""A contestant of encode.py, in a process of its own: it loads, warms up, and embeds all texts when it is told to.

    python encode_paddle.py FOLDER NAME FUNCTION [ARGUMENT ...]      # or encode_peers.py, by the peers' interpreter

FUNCTION(folder, *arguments) returns a loaded Model, or None if it only prepares files. Each line on stdin asks for one
pass over all texts. Answers are JSON, one a line, on what was stdout at the start; all else that libraries print goes
to stderr.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import platform
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

BATCH_SIZE, MAX_SEQ_LENGTH, DIMENSION = 64, 64, 256
CHECKED = 64  # texts whose vectors are compared: one batch


@dataclass
class Workload:
    """What there is to embed.

    Attributes:
        texts: in file order.
        token_ids: of each text, by the project's tokenizer.
        batches: (rows, ids, mask) of texts of similar length, for the contestants that get no texts.
    """

    texts: list[str]
    token_ids: list[list[int]]
    batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @classmethod
    def read(cls, folder: Path) -> tuple[Workload, Workload, list[str]]:
        """All texts, the first CHECKED of them, and other texts to calibrate a quantization with."""
        with open(folder / "workload.pickle", "rb") as file:
            everything, checked, calibration = pickle.load(file)
        return cls(*everything), cls(*checked), calibration

    def in_order(self, outputs: Any) -> np.ndarray:
        """The vectors of the batches, put back into file order."""
        vectors = np.empty((len(self.texts), DIMENSION), dtype=np.float32)
        for (rows, _, _), output in zip(self.batches, outputs):
            vectors[rows] = output
        return vectors


@dataclass
class Model:
    """A contestant that is loaded.

    Attributes:
        embed: maps a Workload to its vectors, float32 [texts, DIMENSION].
        threads: that it was told to use, or takes by itself.
        token_ids: how it tokenizes, None if it takes the batches.
    """

    embed: Callable[[Workload], np.ndarray]
    threads: int
    token_ids: Callable[[list[str]], list[list[int]]] | None = None


def cores() -> int:
    return len(os.sched_getaffinity(0))


def serve(*loaders: Callable[..., Model | None]) -> None:
    """The life of a worker, see the head of this file."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # C++ code prints on stdout, too
    folder, name, function, *arguments = sys.argv[1:]
    try:
        load = {loader.__name__: loader for loader in loaders}[function]
        for answer in _answers(load, Path(folder), name, arguments):
            channel.write(json.dumps(answer) + "\n")
            channel.flush()
    except BaseException as error:  # whatever a library ends with becomes the contestant's row
        traceback.print_exc()
        channel.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        channel.flush()
        sys.exit(1)


def _answers(load: Callable[..., Model | None], folder: Path, name: str, arguments: list[str]):
    model = load(folder, *arguments)
    if model is None:
        yield {"prepared": True}
        return
    everything, checked, _ = Workload.read(folder)
    vectors = model.embed(checked)  # the first pass compiles and allocates
    seconds, _ = _timed(model, checked)
    np.save(folder / "vectors" / f"{name}.npy", vectors.astype(np.float32))
    differing = _differing(model, everything)
    yield {"threads": model.threads, "versions": versions(), "tokenized_differently": len(differing),
           "not_comparable": [i for i in differing if i < len(checked.texts)],
           "estimate": seconds / len(checked.texts) * len(everything.texts)}
    for _ in sys.stdin:
        seconds, busy = _timed(model, everything)
        yield {"seconds": seconds, "busy_cores": busy}


def _timed(model: Model, workload: Workload) -> tuple[float, float]:
    """Seconds of a pass, and how many cores it kept busy on average."""
    start, start_cpu = time.perf_counter(), time.process_time()
    model.embed(workload)
    seconds = time.perf_counter() - start
    return seconds, (time.process_time() - start_cpu) / seconds


def _differing(model: Model, workload: Workload) -> list[int]:
    """Numbers of the texts that the model's own tokenizer reads otherwise than the project's."""
    if model.token_ids is None:
        return []
    own = model.token_ids(workload.texts)
    return [i for i, (ids, expected) in enumerate(zip(own, workload.token_ids)) if list(ids) != list(expected)]


def versions() -> dict[str, str]:
    """Versions of what this process has imported, of the packages that matter."""
    packages = {"paddle": "paddlepaddle", "paddlenlp": "paddlenlp", "numpy": "numpy", "tokenizers": "tokenizers",
                "torch": "torch", "transformers": "transformers", "sentence_transformers": "sentence-transformers",
                "accelerate": "accelerate", "datasets": "datasets", "optimum": "optimum-intel",
                "openvino": "openvino", "onnxruntime": "onnxruntime"}
    found = {"python": platform.python_version()}
    for module, package in packages.items():
        if module in sys.modules:
            found[package] = importlib.metadata.version(package)
    return found
