"""Speed of serve.py: one client, 32 clients with and without batching and against a peer, and twice what it can bear.

    python benchmarks/serve.py --index_dir result/index --params_path latest --query_file queries --work_dir /tmp/serve

Services run in turn in one run, each a fresh process on the same machine as its clients, without a cache of vectors
where not said otherwise. With --peers_python (an interpreter that has benchmarks/requirements.txt) the peer is
sentence-transformers in bf16 with faiss' exact index over the same vectors, its model nano with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import numpy as np
from encode_contestants import SCRUBBED
from http_load import Address, closed_loop, open_loop, searches, slow_clients
from machine import describe_machine, markdown_table, median

from recall import make_checkpoint

PROJECT = Path(__file__).resolve().parents[1]
CLIENTS, SLOW = 32, 200


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index_dir", required=True)
    parser.add_argument("--params_path", required=True)
    parser.add_argument("--query_file", required=True, help="queries, one a line, or pairs, whose sources are taken")
    parser.add_argument("--work_dir", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of a measurement")
    parser.add_argument("--overload_seconds", type=float, default=60, help="0 leaves it out")
    parser.add_argument("--peers_python", help="interpreter with benchmarks/requirements.txt")
    parser.add_argument("--output", default="serve_benchmark", help="path without its ending")
    return parser.parse_args()


def main() -> None:
    args = parse_flags()
    work = Path(args.work_dir).resolve()
    work.mkdir(parents=True, exist_ok=True)
    lines = Path(args.query_file).read_text(encoding="utf-8").split("\n")
    queries = list(dict.fromkeys(line.split("\t")[0] for line in lines if line))
    services = {"serve.py": ours(args), "serve.py --no_batching": ours(args, "--no_batching")}
    if args.peers_python:
        services["sentence-transformers bf16, faiss flat"] = peer(args, work)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in services}
    for number in range(args.rounds):
        for name, command in services.items():
            measure(command, queries, args.seconds, found[name], work / "log.txt")
            shown = {key: round(values[-1], 1) for key, values in found[name].items()}
            print(f"round {number + 1}, {name}: {shown}", file=sys.stderr, flush=True)
    overload = None
    if args.overload_seconds:
        peak = median(found["serve.py"]["queries/s"])
        overload = measure_overload(ours(args), queries, peak, args.overload_seconds, work / "log.txt")
    report(args, found, overload, len(queries))


def ours(args, *flags: str) -> list[str]:
    return [sys.executable, str(PROJECT / "serve.py"), "--device", "cpu", "--index", f"bank={args.index_dir}",
            "--params_path", args.params_path, "--cache_size", "0", *flags, "--port"]


def peer(args, work: Path) -> list[str]:
    """The peer's command; its model has the weights of benchmarks/encode.py, which are random."""
    texts = work / "texts"
    texts.write_bytes(b"".join(path.read_bytes() for path in sorted(Path(args.index_dir, "parts").glob("*.txt"))))
    make_checkpoint(work, SimpleNamespace(encoder="nano"), texts)
    return [args.peers_python, str(PROJECT / "benchmarks" / "serve_peer.py"), str(work), args.index_dir]


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[tuple[subprocess.Popen, Address]]:
    """A service on a free port, from when it answers; the first answers are not measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
    started = time.perf_counter()
    with open(log, "ab") as file:
        process = subprocess.Popen([*command, str(port)], env=environment, stdout=file, stderr=file)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.perf_counter() > started + 600:
                raise SystemExit(f"{' '.join(command)} did not start; see {log}")
            time.sleep(0.02)
        print(f"{time.perf_counter() - started:.1f} s until it listens", file=sys.stderr, flush=True)
        yield process, ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait()


def measure(command: list[str], queries: list[str], seconds: float, found: dict[str, list[float]], log: Path) -> None:
    """One round of a service: a client alone, then 32 at once. Each query is asked once before, so that no first
    meeting of a length is measured.
    """
    with running(command, log) as (_, address):
        requests = searches(queries)
        asyncio.run(closed_loop(address, requests, CLIENTS, min(seconds, 10)))
        alone = asyncio.run(closed_loop(address, requests, 1, seconds))
        many = asyncio.run(closed_loop(address, requests, CLIENTS, seconds))
    assert set(alone.statuses) == set(many.statuses) == {200}, (alone.statuses, many.statuses)
    for name, value in (("p50, ms", alone.percentile(0.5)), ("p99, ms", alone.percentile(0.99)),
                        ("queries/s", many.rate), ("p99 of 32, ms", many.percentile(0.99))):
        found.setdefault(name, []).append(value)


def measure_overload(command: list[str], queries: list[str], peak: float, seconds: float, log: Path) -> dict:
    """Twice the peak, with slow clients beside it, and the memory of the service meanwhile."""

    async def both(address: Address, process: subprocess.Popen) -> tuple:
        memory: list[tuple[float, float]] = []

        async def watch() -> None:
            while True:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                memory.append((time.perf_counter(), pages * os.sysconf("SC_PAGESIZE") / 1e6))
                await asyncio.sleep(0.5)

        watching = asyncio.create_task(watch())
        slow = asyncio.create_task(slow_clients(address, SLOW, seconds))
        load = await open_loop(address, searches(queries), 2 * peak, seconds)
        watching.cancel()
        await slow
        return load, memory

    with running(command, log) as (process, address):
        asyncio.run(closed_loop(address, searches(queries), CLIENTS, 20))
        load, memory = asyncio.run(both(address, process))
    times, sizes = np.array(memory).T
    late = times > times[0] + seconds / 4  # buffers of connections and queues are there by then
    return {"asked": 2 * peak, "good": load.rate, "share_of_peak": load.rate / peak, "statuses": dict(load.statuses),
            "p99_ms": load.percentile(0.99), "mb_a_minute": 60 * np.polyfit(times[late], sizes[late], 1)[0]}


def report(args, found: dict[str, dict[str, list[float]]], overload: dict | None, queries: int) -> None:
    machine, names = describe_machine(), list(next(iter(found.values())))
    base = median(found["serve.py"]["queries/s"])
    rows = [[service, *(f"{median(values[name]):.1f} ({min(values[name]):.1f} to {max(values[name]):.1f})"
                        for name in names), f"{base / median(values['queries/s']):.2f}"]
            for service, values in found.items()]
    text = (f"{queries} queries, medians of {args.rounds} round(s) of {args.seconds:g} s; p50 and p99 of one client, "
            f"queries a second of {CLIENTS}.\n\n{machine['summary']}\n\n"
            + markdown_table(["service", *names, "serve.py is so many times as fast"], rows))
    if overload:
        text += (f"\nAsked {overload['asked']:.0f} times a second for {args.overload_seconds:g} s, {SLOW} slow clients "
                 f"beside: {overload['good']:.0f} good answers a second ({100 * overload['share_of_peak']:.0f} % of "
                 f"the peak), statuses {overload['statuses']}, p99 {overload['p99_ms']:.0f} ms, memory "
                 f"{overload['mb_a_minute']:+.2f} MB a minute.\n")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{args.output}.md").write_text(text)
    Path(f"{args.output}.json").write_text(json.dumps({"machine": machine, "found": found, "overload": overload},
                                                      indent=1))
    print(text)


if __name__ == "__main__":
    main()
