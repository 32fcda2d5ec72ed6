"""What the benchmarks share: the machine they ran on, medians and tables."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics

from encode_worker import cores

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
PACKAGES = ("paddlepaddle", "paddlenlp", "openvino", "nncf", "hnswlib", "faiss-cpu", "pymilvus", "milvus-lite", "numpy")

median = statistics.median


def describe_machine() -> dict:
    """Processor, its instruction sets, cores, versions; `summary` says it in a line."""
    with open("/proc/cpuinfo") as file:
        lines = [line.partition(":") for line in file]
    facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = [flag for flag in FLAGS if flag in facts.get("flags", "").split()]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": facts.get("model name", platform.processor()), "flags": flags, "cores": cores(),
            "python": platform.python_version(), "versions": versions,
            "summary": "; ".join([f"{facts.get('model name')}, {cores()} cores, {' '.join(flags)}",
                                  f"Python {platform.python_version()}",
                                  ", ".join(f"{name} {version}" for name, version in versions.items())])}


def markdown_table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
