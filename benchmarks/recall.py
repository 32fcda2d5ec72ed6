"""Time of a whole recall run: this project's recall.py with several engines against the form of PaddleNLP's example.

    python benchmarks/recall.py --corpus_file corpus_file --pair_file semantic_similar_pair.tsv --work_dir /tmp/recall

Both sides are whole processes, from start to result file, with the same random weights in the sizes of ERNIE 3.0 nano,
in turn. Our first run starts from nothing (export of the model included); a second one uses its vectors and index.
The example runs at a few hundred texts a second: --corpus_lines takes the first lines of the corpus only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from encode_contestants import SCRUBBED
from machine import describe_machine, markdown_table, median

PROJECT = Path(__file__).resolve().parents[1]
ENGINES = {"hnsw M=100 ef=100": ["--ann_engine", "hnsw", "--hnsw_m", "100", "--hnsw_ef", "100"],
           "flat": ["--ann_engine", "flat"]}


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus_file", required=True)
    parser.add_argument("--pair_file", required=True)
    parser.add_argument("--corpus_lines", type=int, help="take so many lines of the corpus (default: all)")
    parser.add_argument("--work_dir", required=True)
    parser.add_argument("--encoder", choices=["nano", "medium"], default="nano")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--without_reference", action="store_true")
    parser.add_argument("--output", default="recall_benchmark", help="path without its ending")
    parser.add_argument("--reference", nargs=4, help=argparse.SUPPRESS)  # how the example's process is started
    return parser.parse_args()


def main() -> None:
    args = parse_flags()
    if args.reference:
        run_reference(*args.reference)
        return
    folder = Path(args.work_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.txt"
    lines = Path(args.corpus_file).read_bytes().split(b"\n")[: args.corpus_lines]
    corpus.write_bytes(b"\n".join(line for line in lines if line) + b"\n")
    make_checkpoint(folder, args, corpus)

    seconds: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, flags in ENGINES.items():
            shutil.rmtree(folder / "checkpoint" / "export", ignore_errors=True)
            shutil.rmtree(folder / "ours", ignore_errors=True)
            for kind in ("", ", again on the saved index"):
                seconds.setdefault(f"{name}{kind}", []).append(timed(
                    [sys.executable, str(PROJECT / "recall.py"), "--device", "cpu", "--params_path",
                     str(folder / "checkpoint"), "--recall_result_dir", str(folder / "ours"), "--max_seq_length", "60",
                     "--similar_text_pair", args.pair_file, "--corpus_file", str(corpus), "--precision", args.precision,
                     *flags], folder))
        if not args.without_reference:
            seconds.setdefault("reference form", []).append(timed(
                [sys.executable, __file__, "--corpus_file", "", "--pair_file", "", "--work_dir", "", "--reference",
                 str(folder), args.pair_file, str(corpus), str(folder / "reference.txt")], folder))
    report(args, seconds, corpus.read_bytes().count(b"\n"))


def make_checkpoint(folder: Path, args, corpus: Path) -> None:
    """The checkpoint of benchmarks/encode.py: random weights, the vocabulary from the corpus' characters."""
    if (folder / "checkpoint").is_dir():
        return
    texts = corpus.read_text(encoding="utf-8").split("\n")[:4000]
    (folder / "settings.json").write_text(json.dumps(
        {"encoder": args.encoder, "seed": 1, "vocab_file": None, "texts": texts[:300], "calibration": texts}))
    code = f"from pathlib import Path; import encode_paddle; encode_paddle.make_checkpoint(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT / "benchmarks", check=True)


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a process in its default environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
    started = time.perf_counter()
    with open(folder / "log.txt", "ab") as log:
        subprocess.run(command, check=True, env=environment, stdout=log, stderr=log)
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s  {' '.join(command[1:])[:150]}", file=sys.stderr, flush=True)
    return seconds


def run_reference(folder: str, pair_file: str, corpus_file: str, output: str) -> None:
    """The example's recall.py, written anew: encode in file order, hnswlib with M=100, ef=100, 50 neighbours, write."""
    import hnswlib
    from encode_paddle import reference
    from encode_worker import Workload

    model = reference(Path(folder))
    corpus = Path(corpus_file).read_text(encoding="utf-8").split("\n")[:-1]
    pairs = [line.split("\t") for line in Path(pair_file).read_text(encoding="utf-8").split("\n") if line]
    index = hnswlib.Index(space="ip", dim=256)
    index.init_index(max_elements=1_000_000, ef_construction=100, M=100)
    index.set_ef(100)
    index.set_num_threads(16)
    index.add_items(model.embed(Workload(corpus, [], [])))
    found, distances = index.knn_query(model.embed(Workload([source for source, _ in pairs], [], [])), k=50)
    with open(output, "w", encoding="utf-8") as file:
        for (source, _), ids, row in zip(pairs, found, distances):
            file.writelines(f"{source}\t{corpus[i]}\t{1 - distance}\n" for i, distance in zip(ids, row))


def report(args, seconds: dict[str, list[float]], lines: int) -> None:
    reference = median(seconds["reference form"]) if "reference form" in seconds else None
    rows = [[name, f"{median(values):.0f}", f"{reference / median(values):.1f}" if reference else ""]
            for name, values in seconds.items()]
    machine = describe_machine()
    text = (f"Whole recall.py, ERNIE {args.encoder}, {lines} corpus lines, --precision {args.precision}, medians of "
            f"{args.rounds} round(s).\n\n{machine['summary']}\n\n"
            + markdown_table(["run", "seconds", "times the reference form's speed"], rows))
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{args.output}.md").write_text(text)
    facts = {"machine": machine, "lines": lines, "seconds": seconds}
    Path(f"{args.output}.json").write_text(json.dumps(facts, indent=1))
    print(text)


if __name__ == "__main__":
    main()
