"""Pairs a second and memory of training: this project, PaddleNLP's example and sentence-transformers, on a CPU.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/train.py --train_set_file quickstart/data/semantic_pair_train.tsv --work_dir /tmp/train \\
        --peers_python .venv-peers/bin/python --output_md train.md --output_json train.json

All train from the same random weights in the sizes of ERNIE 3.0 (mean pooling, projection to 256) on the same pairs,
64 a step, with in-batch negatives. Each pass is a fresh process in its default environment: variables that set threads
or kernels are taken out. A round has one pass of each contestant, one after the other; a pass has some steps to warm
up, then as many as an epoch has. A second table is of this project alone: batches that are encoded in chunks
(--grad_cache_chunk_size), from small to large, against plain ones.

Out: Markdown tables on stdout (and --output_md) and all figures as JSON. `work_dir` keeps models and logs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from encode_contestants import prepare
from encode_worker import BATCH_SIZE, MAX_SEQ_LENGTH
from machine import describe_machine, markdown_table
from train_contestants import CONTESTANTS, Contestant, Run, of_batch_sizes
from train_loops import SEED

import cli
from files import UserError, whole_file, write_json
from tokenizer import Tokenizer
from train_data import read_train_set

CALIBRATION = 300  # texts from whose vectors the random weights get their spread


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = _parse(argv)
    folder = Path(args.work_dir).resolve()
    for name in ("vectors", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pairs = _choose_pairs(args)
    texts = [text for pair in pairs for text in pair]
    settings = {"encoder": args.encoder, "seed": SEED, "vocab_file": args.vocab_file, "batch_size": BATCH_SIZE,
                "max_seq_length": MAX_SEQ_LENGTH, "rounds": args.rounds}
    write_json(folder / "settings.json", {**settings, "texts": texts, "calibration": texts[:CALIBRATION]})

    chosen = _choose_contestants(args)
    of_sizes = of_batch_sizes(args.batch_sizes, args.plain_up_to) if args.batch_sizes else []
    pythons = {False: sys.executable, True: args.peers_python}
    machine = {**describe_machine(), "load_before": os.getloadavg()[0]}
    broken = prepare(chosen + of_sizes, folder, pythons)
    if "make_checkpoint" in broken:
        raise UserError(f"there is no model to train: {broken['make_checkpoint']}; see the logs in {folder / 'logs'}")

    tokenizer, started = Tokenizer(folder / "checkpoint", MAX_SEQ_LENGTH), time.perf_counter()
    lengths = np.array([len(ids) for ids in tokenizer(texts)]).reshape(-1, 2)
    settings["tokenizing_seconds_a_pair"] = (time.perf_counter() - started) / len(pairs)

    def make_run(contestant: Contestant, rows: int) -> Run:
        path = folder / f"pairs_{rows}.jsonl"
        path.write_text("".join(json.dumps({"query": source, "pos": target}) + "\n" for source, target in pairs[:rows]))
        return Run(contestant, folder, pythons[contestant.of_peers], path, lengths[:rows])

    runs = [make_run(contestant, min(args.pairs, args.reference_pairs) if contestant.name == "reference"
                     else args.pairs) for contestant in chosen]
    runs_of_sizes = [make_run(contestant, max(args.batch_sizes)) for contestant in of_sizes]
    for table in (runs, runs_of_sizes):
        for number in range(1, args.rounds + 1):
            for run in table:
                run.attempt(number, broken)
    if not any(run.passes for run in runs + runs_of_sizes):
        raise UserError(f"no contestant could be measured; see the notices above and the logs in {folder / 'logs'}")
    report = {"machine": machine, "settings": settings, "contestants": _figures(runs),
              "batch_sizes": _figures(runs_of_sizes)}
    text = _markdown(report)
    print(text, end="")
    if args.output_md:
        with whole_file(args.output_md) as file:
            file.write(text.encode())
    if args.output_json:
        write_json(args.output_json, report)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("--train_set_file", required=True, type=cli.existing_file,
                        help="training pairs, `source TAB target` a line")
    parser.add_argument("--work_dir", required=True, help="folder for models and logs; what is there is made anew")
    parser.add_argument("--pairs", type=cli.positive_int, default=3840, help="so many, drawn at random from the file")
    parser.add_argument("--reference_pairs", type=cli.positive_int, default=640,
                        help="so many of them for the slow reference")
    parser.add_argument("--batch_sizes", nargs="*", type=cli.positive_int, metavar="PAIRS",
                        default=[64, 128, 256, 512, 1024, 2048, 4096],
                        help="of the second table, whose data are as many pairs as the largest; none leaves it out")
    parser.add_argument("--plain_up_to", type=cli.positive_int, default=256, metavar="PAIRS",
                        help="largest batch to measure plain, too: the memory it takes grows with it")
    parser.add_argument("--encoder", choices=["nano", "medium"], default="nano", help="sizes of ERNIE 3.0 to take")
    parser.add_argument("--vocab_file", type=cli.existing_file,
                        help="a vocab.txt, configs/ernie_tiny/vocab.txt for example (default: the pairs' characters)")
    parser.add_argument("--rounds", type=cli.positive_int, default=3, help="passes of each contestant")
    parser.add_argument("--contestants", nargs="*", choices=[contestant.name for contestant in CONTESTANTS],
                        metavar="NAME", help="these alone in the first table, of "
                                             + ", ".join(c.name for c in CONTESTANTS) + "; none leaves it out")
    parser.add_argument("--peers_python", type=cli.existing_file, metavar="FILE",
                        help="interpreter of an environment with benchmarks/requirements.txt; without it "
                             "sentence-transformers is left out")
    parser.add_argument("--output_md", type=cli.output_file, help="write the tables there, too")
    parser.add_argument("--output_json", type=cli.output_file, help="write all figures there")
    return parser.parse_args(argv)


def _choose_pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Rows of the file in random order, as many as a table needs.

    Raises:
        UserError: the file is bad, or has fewer than the largest batch.
    """
    data = read_train_set(args.train_set_file)
    if max(args.batch_sizes, default=0) > len(data):
        raise UserError(f"--batch_sizes {max(args.batch_sizes)} is more than the {len(data)} pairs of "
                        f"{args.train_set_file}; leave it out")
    if args.pairs > len(data):
        cli.notice(f"{args.train_set_file} has {len(data)} pairs, fewer than --pairs {args.pairs}: all of them are "
                   f"used")
    rows = np.random.default_rng(SEED).permutation(len(data))[: max(args.pairs, *args.batch_sizes, 0)]
    return [(data.texts[data.sources[row]], data.texts[data.targets[row]]) for row in rows]


def _choose_contestants(args: argparse.Namespace) -> list[Contestant]:
    """Those of the first table."""
    chosen = [contestant for contestant in CONTESTANTS
              if args.contestants is None or contestant.name in args.contestants]
    if not args.peers_python and any(contestant.of_peers for contestant in chosen):
        cli.notice("without --peers_python sentence-transformers is left out")
    return [contestant for contestant in chosen if args.peers_python or not contestant.of_peers]


def _figures(runs: list[Run]) -> list[dict[str, Any]]:
    """What the report says of each contestant."""
    figures = []
    for run in runs:
        contestant, speeds = run.contestant, [found["pairs_per_second"] for found in run.passes]
        figures.append({
            "name": contestant.name, "label": contestant.label, "precision": contestant.precision,
            "batch_size": contestant.batch_size, "ranks": contestant.ranks, "data": len(run.lengths),
            "warm_up_steps": run.warm_up, "steps": run.steps - run.warm_up,
            "pairs_per_second": {"median": statistics.median(speeds), "min": min(speeds), "max": max(speeds)}
            if speeds else None,
            "peak_mb": statistics.median(found["peak_mb"] for found in run.passes) if speeds else None,
            "failure": run.failure, "versions": run.versions, "passes": run.passes})
    return figures


def _markdown(report: dict[str, Any]) -> str:
    settings, sections = report["settings"], []
    if report["contestants"]:
        sections.append(_main_table(report["contestants"], settings))
    if report["batch_sizes"]:
        sections.append(_table_of_batch_sizes(report["batch_sizes"]))
    peers = {package: version for figures in report["contestants"] if figures["name"].startswith("st_")
             for package, version in figures["versions"].items()}
    head = (f"ERNIE 3.0 {settings['encoder']} (random weights, seed {settings['seed']}), at most "
            f"{settings['max_seq_length']} tokens, {settings['rounds']} rounds, medians; "
            f"{report['machine']['summary']}")
    if peers:
        head += f"; of the peers: {', '.join(f'{package} {version}' for package, version in peers.items())}"
    return "\n".join([f"{head}.\n", *sections])


def _main_table(contestants: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    speed = {figures["name"]: figures["pairs_per_second"]["median"] for figures in contestants
             if figures["pairs_per_second"]}
    rows = []
    for figures in contestants:
        own, last = speed.get(figures["name"]), (figures["passes"] or [{}])[-1]
        rows.append([
            figures["label"], figures["precision"], *_speeds(figures), _ratio(own, speed.get("reference")),
            _ratio(speed.get("ours"), own), _number(figures["peak_mb"], ",.0f"),
            _number(last.get("padded_tokens_a_text"), ".1f"), _number(last.get("padding"), ".0%"), _remark(figures)])
    data = max(figures["data"] for figures in contestants)
    return markdown_table(["contestant", "precision", "pairs/s", "min", "max", "x reference", "ours / it", "peak MB",
                           "padded tokens a text", "padding", "remarks"], rows) + (
        f"\nBatches of {settings['batch_size']} from {data} pairs (the reference: the first of them). Peak MB of 2 "
        f"ranks is the sum of theirs. Ours tokenizes all texts before its first step, which is not in its figure: "
        f"{1e3 * settings['tokenizing_seconds_a_pair']:.2f} ms a pair; the others do it in their steps.\n")


def _table_of_batch_sizes(figures_of_sizes: list[dict[str, Any]]) -> str:
    base = figures_of_sizes[0]  # plain, the usual batch
    base_speed = base["pairs_per_second"] and base["pairs_per_second"]["median"]
    rows = [[figures["batch_size"], figures["label"], *_speeds(figures),
             _ratio(figures["pairs_per_second"] and figures["pairs_per_second"]["median"], base_speed),
             _number(figures["peak_mb"], ",.0f"), _ratio(figures["peak_mb"], base["peak_mb"]), _remark(figures)]
            for figures in figures_of_sizes]
    plain = f"plain {base['batch_size']}"
    return markdown_table(["batch", "encoded", "pairs/s", "min", "max", f"x {plain}", "peak MB",
                           f"x memory of {plain}", "remarks"], rows)


def _speeds(figures: dict[str, Any]) -> list[str]:
    speed = figures["pairs_per_second"] or {}
    return [_number(speed.get(name), ",.1f") for name in ("median", "min", "max")]


def _ratio(value: float | None, base: float | None) -> str:
    return _number(value / base if value and base else None, ".2f")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _remark(figures: dict[str, Any]) -> str:
    return (figures["failure"] or "").replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
