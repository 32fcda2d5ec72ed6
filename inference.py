"""How an exported model is run: one class a runtime, all called the same way.

    runner.run(batches, done) -> vectors of each batch

OpenVINO is the fast one on CPUs: int8 or bf16 where the processor has instructions for it. `paddle.inference` with
oneDNN needs nothing that PaddlePaddle does not bring, and serves where OpenVINO can't be installed. On a GPU, and while
training, the dygraph model itself is run. `benchmarks/encode.py` compares them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np

from files import UserError

Batch = tuple[np.ndarray, np.ndarray]  # token ids int64 [B, L], mask float32 [B, L]
# Tokens of a batch on a CPU. Of 512 to 4,096 the fastest or within noise of it, for nano and medium; larger batches
# leave the caches and, where there are few texts, one of two threads without work.
CPU_TOKENS = 1536
# Entries of each of OpenVINO's two caches of what it prepared for a batch shape. They hold the shapes of one pass over
# the lengths of short texts; by default they take gigabytes, since int8 packs all weights anew for each shape.
SHAPE_CACHE = "300"


class Runner(Protocol):
    """Runs a model on batches of token ids.

    Attributes:
        dimension: D, of its vectors.
        most_tokens: in a batch; None if a batch is the faster the larger it is.
        few_shapes: whether each shape of a batch costs it time and memory when it is new, so that there should be few.
        streams: batches that it computes at the same time.
    """

    dimension: int
    most_tokens: int | None
    few_shapes: bool
    streams: int

    def run(self, batches: Iterable[Batch], done: Callable[[int], Any]) -> list[np.ndarray]:
        """Unit vectors of each batch, float32 [B, D], in the order of the batches; `done(its number)` follows each."""


class DygraphRunner:
    """The model as it is, on the device that Paddle was started for; in half precision on a GPU where asked.

    Args:
        streams: more than one is for CPUs.
    """

    few_shapes = False

    def __init__(self, model, precision: str = "fp32", streams: int = 1) -> None:
        import paddle

        self.model, self.dimension, self.streams = model, model.dimension, streams
        self.most_tokens: int | None = CPU_TOKENS if paddle.get_device() == "cpu" else None
        self.half: Any = {"bf16": "bfloat16", "fp16": "float16"}.get(precision)

    def run(self, batches: Iterable[Batch], done: Callable[[int], Any]) -> list[np.ndarray]:
        import paddle

        def encode(batch: Batch) -> np.ndarray:
            with paddle.no_grad(), paddle.amp.auto_cast(self.half is not None, dtype=self.half or "float16"):
                return self.model(*map(paddle.to_tensor, batch)).numpy()

        vectors = []
        pool = ThreadPoolExecutor(self.streams)
        try:
            for number, found in enumerate((map if self.streams == 1 else pool.map)(encode, batches)):
                vectors.append(found)
                done(number)
        finally:
            pool.shutdown(cancel_futures=True)  # an end by SIGTERM does not wait for all that is queued
        return vectors


class OpenVinoRunner:
    """`model.xml` of an export, in as many streams of one thread each as there are threads.

    Streams work on batches of their own, so that no operator waits for the slowest of its threads.
    """

    most_tokens: int | None = CPU_TOKENS

    def __init__(self, folder: Path, dimension: int, precision: str, threads: int) -> None:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", SHAPE_CACHE)
        import openvino

        self.dimension, self.few_shapes, self.streams = dimension, precision == "int8", threads
        model = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", {
            "PERFORMANCE_HINT": "THROUGHPUT", "CPU_RUNTIME_CACHE_CAPACITY": SHAPE_CACHE,
            "NUM_STREAMS": str(threads), "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"})
        self.queue = openvino.AsyncInferQueue(model, threads + 1)  # one waits while the others compute

    def run(self, batches: Iterable[Batch], done: Callable[[int], Any]) -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}

        def keep(request, number: int) -> None:
            found[number] = np.array(request.get_output_tensor(0).data, dtype=np.float32)
            done(number)

        self.queue.set_callback(keep)
        for number, (ids, mask) in enumerate(batches):
            self.queue.start_async({0: ids, 1: mask}, number)
        self.queue.wait_all()
        return [found[number] for number in range(len(found))]


class PaddleRunner:
    """`model.json` of an export by paddle.inference with oneDNN. Without its memory pass, which fails in Paddle 3.3."""

    most_tokens: int | None = CPU_TOKENS
    few_shapes, streams = False, 1

    def __init__(self, folder: Path, dimension: int, precision: str, threads: int) -> None:
        from paddle import inference

        self.dimension = dimension
        config = inference.Config(str(folder / "model.json"), str(folder / "model.pdiparams"))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        config.enable_mkldnn()
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        self.predictor = inference.create_predictor(config)

    def run(self, batches: Iterable[Batch], done: Callable[[int], Any]) -> list[np.ndarray]:
        ids_input, mask_input = map(self.predictor.get_input_handle, self.predictor.get_input_names())
        output = self.predictor.get_output_handle(self.predictor.get_output_names()[0])
        vectors = []
        for number, (ids, mask) in enumerate(batches):
            ids_input.copy_from_cpu(ids)
            mask_input.copy_from_cpu(mask)
            self.predictor.run()
            vectors.append(output.copy_to_cpu())
            done(number)
        return vectors


RUNTIMES: dict[str, Callable[..., Runner]] = {"openvino": OpenVinoRunner, "paddle": PaddleRunner}


def default_runtime() -> str:
    """The faster of the runtimes that are installed."""
    return "openvino" if importlib.util.find_spec("openvino") else "paddle"


def choose_precision(wanted: str, runtime: str) -> str:
    """What `--precision auto` means on this machine; any other wish is checked against processor and runtime.

    auto takes the fastest that the processor has instructions for, by the measurements in docs/results.md, where
    neither bf16 nor int8 takes more than 0.1 point from Recall@10.

    Raises:
        UserError: this machine or runtime can't compute in the wanted precision.
    """
    bf16 = processor_has("avx512_bf16") or processor_has("amx_bf16")
    vnni = processor_has("avx512_vnni") or processor_has("avx_vnni") or processor_has("amx_int8")
    int8 = runtime == "openvino" and importlib.util.find_spec("nncf") is not None
    if wanted == "auto":
        return "int8" if int8 and vnni else "bf16" if bf16 else "fp32"
    if wanted == "int8" and not int8:
        raise UserError("--precision int8 needs the packages openvino and nncf; install them or take bf16 or fp32")
    if wanted == "fp16":
        raise UserError("--precision fp16 is for GPUs; take auto, int8, bf16 or fp32 on a CPU")
    if wanted == "bf16" and not bf16:
        raise UserError("--precision bf16: this processor has no avx512_bf16 or amx_bf16; take auto, int8 or fp32")
    return wanted


def processor_has(flag: str) -> bool:
    """Whether /proc/cpuinfo lists an instruction set; False where there is no such file."""
    try:
        with open("/proc/cpuinfo") as file:
            return any(flag in line.split() for line in file if line.startswith("flags"))
    except OSError:
        return False
