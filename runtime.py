"""Start Paddle: settings that have to stand before its import, device, quiet logs, and the ranks of a launch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from cli import rank, world_size
from files import UserError

THREADS_GIVEN = os.environ.get("OMP_NUM_THREADS", "")  # the user's choice, before anything here sets it
threads_asked: int | None = None  # --num_threads, which goes before it


def start_paddle(device: str | None, seed: int = 0, threads: int | None = None) -> ModuleType:
    """Import paddle for `device` ("cpu", "gpu" or None for whichever there is) and join the other ranks.

    Every entry script calls this once, after its flags and files are checked, before anything imports paddle.

    Raises:
        UserError: "gpu" is asked for and there is none.
    """
    configure_environment(device, threads)
    with contextlib.redirect_stderr(io.StringIO()):  # its warning against the thread count set above
        import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device == "gpu" and not gpus:
        raise UserError("--device gpu: this PaddlePaddle sees no GPU; use --device cpu, or install paddlepaddle-gpu")
    device = device or ("gpu" if gpus else "cpu")
    if device == "cpu":  # transposed views cost more in the kernels that read them than a transposed copy does
        paddle.set_flags({"FLAGS_use_stride_kernel": False})
    selected = os.environ.get("FLAGS_selected_gpus", "0")  # noqa: SIM112 - the launcher's spelling: this rank's GPU
    paddle.set_device("cpu" if device == "cpu" else f"gpu:{selected.split(',')[0]}")
    if world_size() > 1 and not paddle.distributed.is_initialized():
        if device == "cpu":
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # a CUDA build would take NCCL
        with silent_stdout():
            paddle.distributed.init_parallel_env()
    paddle.seed(seed)
    return paddle


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Keep what C++ code prints on stdout (Paddle lists its flags there) from mixing with results."""
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def configure_environment(device: str | None, threads: int | None = None) -> None:
    """Threads, the BLAS path for AMD processors, and silence: all of it read by Paddle at import.

    Paddle's CPU build carries an MKL that takes a slow path on processors not made by Intel unless
    MKL_DEBUG_CPU_TYPE=5 is set. On Intel's the variable stays away: it would hold MKL to AVX2, and halve the speed of a
    processor with AVX-512. Paddle itself sets OMP_NUM_THREADS to 1 where it finds none, and its launcher hands that 1
    on to the ranks, so there it is not the user's choice and is replaced.

    Args:
        threads: for each operator; None takes all that this rank has.
    """
    if "paddle" in sys.modules:
        return
    if not _made_by_intel():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    os.environ["OMP_NUM_THREADS"] = str(threads or threads_of_rank())
    if threads or world_size() > 1:
        os.environ["MKL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    else:
        os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")  # ccache, setuptools and deprecations inside paddle: none is the user's to mend


def _made_by_intel() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any("GenuineIntel" in line for line in file if line.startswith("vendor_id"))
    except OSError:
        return False


def threads_of_rank() -> int:
    """Threads for this rank: those asked for, or its share of the processors that the ranks here may use.

    Raises:
        UserError: OMP_NUM_THREADS is no number of threads. OpenMP's list of a number for each level is one.
    """
    if threads_asked:
        return threads_asked
    if THREADS_GIVEN and world_size() == 1:
        outermost = THREADS_GIVEN.split(",")[0].strip()
        if not outermost.isdecimal() or int(outermost) == 0:
            raise UserError(f"OMP_NUM_THREADS={THREADS_GIVEN} is not a number of threads; set it to one above 0, or "
                            f"unset it")
        return int(outermost)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PADDLE_LOCAL_SIZE", world_size())))


def gpu_build() -> bool:
    """Whether the installed PaddlePaddle is a GPU build, without importing it."""
    try:
        importlib.metadata.distribution("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def describe_runtime(copies: int = 1) -> str:
    """Device, threads and ranks of this run, for its log.

    Args:
        copies: of the model that work side by side, each in threads of its own.
    """
    paddle = sys.modules.get("paddle")
    threads, mkl = copies * int(os.environ["OMP_NUM_THREADS"]), os.environ.get("MKL_DEBUG_CPU_TYPE")
    return (f"{paddle.get_device() if paddle else 'cpu'}, {world_size()} rank(s), {threads} threads each"
            + (f", MKL_DEBUG_CPU_TYPE={mkl}" if mkl else ""))


def wait_for_ranks() -> None:
    """Return when all ranks of the launch have come here."""
    if world_size() > 1:
        import paddle

        gather_rows(paddle.zeros([1]), [1] * world_size())


def gather_rows(rows, counts: list[int]):
    """Rows of all ranks in rank order, on every rank; no gradient passes.

    Args:
        rows: tensor of shape [counts[rank()], ...].
        counts: number of rows that each rank holds, known to all ranks.

    Returns:
        Tensor of shape [sum(counts), ...]. With one rank, `rows` itself.
    """
    if world_size() == 1:
        return rows
    import paddle

    # A collective wants the same shape from all ranks: pad to the longest, cut after.
    padded = paddle.zeros([max(counts), *rows.shape[1:]], dtype=rows.dtype)
    if counts[rank()]:
        padded[: counts[rank()]] = rows[: counts[rank()]]
    parts: list = []
    paddle.distributed.all_gather(parts, padded)
    return paddle.concat([part[:count] for part, count in zip(parts, counts)])
