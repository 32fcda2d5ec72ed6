"""Engines compared: build time, queries a second, share of the exact top k, memory.

    python benchmarks/index.py --index_dir recall_result_dir/index --queries 5000 --output benchmarks/results/index

Vectors are those of a saved index, or, without --index_dir, random ones around random centres. Queries are corpus
vectors with noise. Every engine builds and searches in a process of its own, `--rounds` times in turn; medians are
shown. Writes OUTPUT.md, OUTPUT.json and OUTPUT.png (queries a second against share of exact).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import describe_machine, markdown_table, median  # noqa: E402

CONTESTANTS = {
    "flat (ours)": {"engine": "flat"},
    "flat float16 (ours)": {"engine": "flat", "dtype": "float16"},
    "flat int8 (ours)": {"engine": "flat", "dtype": "int8"},
    "flat (faiss)": {"engine": "faiss"},
    "hnsw M=16": {"engine": "hnsw", "m": 16, "efs": [50, 100, 200, 400]},
    "hnsw M=32": {"engine": "hnsw", "m": 32, "efs": [50, 100, 200, 400]},
    "hnsw M=100": {"engine": "hnsw", "m": 100, "efs": [50, 100, 200]},
    "milvus-lite (HNSW M=16)": {"engine": "milvus", "m": 16, "efs": [100]},
}


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index_dir", help="take the vectors of this index")
    parser.add_argument("--count", type=int, default=100_000, help="random vectors, without --index_dir")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--top_k", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help=f"of: {', '.join(CONTESTANTS)}")
    parser.add_argument("--output", default="index_benchmark", help="path without its ending")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how the processes of the contestants are started
    return parser.parse_args()


def main() -> None:
    args = parse_flags()
    if args.one:
        print(json.dumps(measure(json.loads(args.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_data(args, folder)
        found: dict[str, list[dict]] = {name: [] for name in args.only or CONTESTANTS}
        for _ in range(args.rounds):
            for name, rounds in found.items():
                task = {**CONTESTANTS[name], "folder": folder, "k": args.top_k}
                command = [sys.executable, __file__, "--one", json.dumps(task)]
                run = subprocess.run(command, capture_output=True, text=True)
                rounds.append(json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else
                              {"error": (run.stderr.strip().splitlines() or ["no output"])[-1], "points": []})
                print(name, rounds[-1], file=sys.stderr, flush=True)
    report(args, found)


def make_data(args, folder: str) -> None:
    """Vectors, queries, and the exact answers in float64 for a sample of the queries."""
    rng = np.random.default_rng(0)
    if args.index_dir:
        parts = sorted(Path(args.index_dir, "parts").glob("*.npy"))
        vectors = np.concatenate([np.load(part) for part in parts])
    else:
        centres = rng.normal(size=(1000, args.dimension))
        vectors = centres[rng.integers(0, 1000, args.count)] + rng.normal(size=(args.count, args.dimension))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    args.count, args.dimension = vectors.shape
    queries = vectors[rng.choice(len(vectors), args.queries)]
    queries = queries + rng.normal(size=queries.shape) * 0.5 / np.sqrt(args.dimension)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    exact = np.argsort(-(queries[:200].astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, : args.top_k]
    for name, array in (("vectors", vectors), ("queries", queries), ("exact", exact)):
        np.save(Path(folder, f"{name}.npy"), array)


def measure(task: dict) -> dict:
    """Build one engine and search with it, at each ef."""
    vectors, queries, exact = (np.load(Path(task["folder"], f"{name}.npy")) for name in ("vectors", "queries", "exact"))
    before = kilobytes("VmRSS")
    started = time.perf_counter()
    search, set_ef = build(task, vectors)
    result = {"build_s": time.perf_counter() - started, "points": []}
    for ef in task.get("efs", [None]):
        set_ef(ef)
        search(queries[:64], task["k"])
        started = time.perf_counter()
        found = search(queries, task["k"])
        seconds = time.perf_counter() - started
        share = np.mean([np.isin(right, got).mean() for got, right in zip(found, exact)])
        result["points"].append({"ef": ef, "queries_per_second": len(queries) / seconds,
                                 "share_of_exact": float(share)})
    result["memory_mb"] = (kilobytes("VmHWM") - before) / 1024
    return result


def kilobytes(field: str) -> int:
    """A figure of this process; its peak is not ru_maxrss, which begins with that of the parent."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def build(task: dict, array: np.ndarray):
    """The engine's search function, and one that sets its ef."""
    if task["engine"] == "faiss":
        import faiss

        index = faiss.IndexFlatIP(array.shape[1])
        index.add(array)
        return (lambda queries, k: index.search(queries, k)[1]), (lambda ef: None)
    from ann_util import FlatIndex, HnswIndex, TextIndex, find_repeated
    from milvus_engine import MilvusIndex
    from parts import Vectors

    vectors = Vectors([array])
    index = TextIndex(vectors, find_repeated(vectors))
    if task["engine"] == "flat":
        engine = FlatIndex(task.get("dtype", "float32"))
    elif task["engine"] == "hnsw":
        engine = HnswIndex(array.shape[1], task["m"], 100, index.repeated[:, 0])
    else:
        engine = MilvusIndex(str(Path(task["folder"], "m.db")), "benchmark", array.shape[1], task["m"], 100)
    engine.build(vectors)
    return (lambda queries, k: index.search(engine, queries, k)[0]), (lambda ef: setattr(engine, "ef", ef))


def report(args, found: dict[str, list[dict]]) -> None:
    rows, points = [], {}
    for name, rounds in found.items():
        good = [r for r in rounds if r["points"]]
        if not good:
            rows.append([name, rounds[0]["error"], "", "", "", ""])
            continue
        points[name] = [{"ef": first["ef"], **{key: median([r["points"][i][key] for r in good])
                                               for key in ("queries_per_second", "share_of_exact")}}
                        for i, first in enumerate(good[0]["points"])]
        for point in points[name]:
            rows.append([name, point["ef"] or "", f"{median([r['build_s'] for r in good]):.1f}",
                         f"{point['queries_per_second']:.0f}", f"{100 * point['share_of_exact']:.2f}",
                         f"{median([r['memory_mb'] for r in good]):.0f}"])
    machine = describe_machine()
    header = ["engine", "ef", "build, s", "queries/s", f"% of exact top {args.top_k}", "memory, MB"]
    table = markdown_table(header, rows)
    head = (f"{args.count} x {args.dimension} vectors, {args.queries} queries, medians of {args.rounds} rounds in "
            f"turn. Memory is what the process grew by beyond the vectors.\n\n{machine['summary']}\n\n")
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{args.output}.md").write_text(head + table)
    facts = {"machine": machine, "count": args.count, "rounds": found}
    Path(f"{args.output}.json").write_text(json.dumps(facts, indent=1))
    print(head + table)
    plot(points, f"{args.output}.png")


def plot(points: dict, path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, line in points.items():
        axes.plot([100 * p["share_of_exact"] for p in line], [p["queries_per_second"] for p in line], "o-", label=name)
    axes.set(xlabel="share of the exact top k found, %", ylabel="queries a second", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
