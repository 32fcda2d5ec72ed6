"""What an index will cost, said before the work: the cost model of docs/scaling.md."""

from __future__ import annotations

import math

from corpus import Corpus
from parts import Range

GRAPH_LINK = 4  # bytes


def describe_plan(corpus: Corpus, parts: list[Range], mine: list[Range], rate: float, shards: int, dimension: int,
                  args) -> str:
    """Texts, parts, time, memory and disk of a recall run.

    Args:
        mine: the parts that this process has to encode.
        rate: texts a second that it encodes.
        shards: processes that share the encoding.
    """
    total = len(corpus)
    missing = sum(end - first for first, end in mine)
    vectors = 4 * dimension * total
    graph = graph_bytes(total, dimension, args.hnsw_m) if args.ann_engine == "hnsw" else 0
    if args.ann_engine == "flat":
        memory = {"float32": 0, "float16": 2 * dimension * total, "int8": (dimension + 4) * total}[args.vector_dtype]
        kept = "the vectors stay on disk" if not memory else f"{human_bytes(memory)} of {args.vector_dtype} vectors"
    elif args.ann_engine == "hnsw":
        kept = f"{human_bytes(graph)} of graph"
    else:
        kept = "the vectors are Milvus's"
    time = (f"{human_time(missing / rate)} to encode at {rate:.0f} texts/s, as 1 of {shards} process(es)"
            if missing else "nothing to encode")
    return (f"plan: {total} texts of {dimension} dimensions in {len(parts)} part(s), {missing} in {len(mine)} "
            f"part(s) to encode here\n"
            f"  time    {time}\n"
            f"  memory  {kept}\n"
            f"  disk    {human_bytes(vectors)} of vectors, {human_bytes(graph)} of index, and a copy of the texts")


def graph_bytes(count: int, dimension: int, m: int) -> int:
    """Size of an HNSW graph: vector, label, 2 M links at the bottom, and M at each of 1 / (M - 1) upper levels."""
    bottom = 4 * dimension + 8 + GRAPH_LINK * (2 * m + 1)
    return round(count * (bottom + 4 + GRAPH_LINK * (m + 1) / (m - 1)))


def human_bytes(count: float) -> str:
    """1234567 -> 1.2 MB."""
    power = min(4, int(math.log(count, 1000))) if count >= 1 else 0
    return f"{count / 1000**power:.{1 if power else 0}f} {['bytes', 'kB', 'MB', 'GB', 'TB'][power]}"


def human_time(seconds: float) -> str:
    """5000 -> 1 h 23 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
