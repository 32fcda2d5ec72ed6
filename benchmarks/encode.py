"""Texts a second of embedding a corpus: this project, PaddleNLP's example, sentence-transformers and ONNX Runtime.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/encode.py --corpus_file quickstart/data/corpus_file --work_dir /tmp/encode \\
        --peers_python .venv-peers/bin/python --output_md encode.md --output_json encode.json

All embed the same texts with the same random weights in the sizes of ERNIE 3.0 (mean pooling, projection to 256, unit
length), each in a process of its own and in its default environment: variables that set threads or kernels are taken
out. Models are loaded and warmed up first, then a round has one pass of each contestant, one after the other.

Out: a Markdown table on stdout (and --output_md) and all figures as JSON. `work_dir` keeps models and logs.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from encode_contestants import CONTESTANTS, Run, prepare
from encode_worker import BATCH_SIZE, CHECKED, MAX_SEQ_LENGTH
from machine import describe_machine

import cli
from data import read_texts
from files import UserError, whole_file, write_json

CALIBRATION = 300  # texts, as many as sentence-transformers takes by default
LEAST_COSINE = {"fp32": 0.999, "bf16": 0.98, "int8": 0.98}


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = _parse(argv)
    texts = read_texts(args.corpus_file)
    if len(texts) < args.texts:
        cli.notice(f"{args.corpus_file} has {len(texts)} texts, fewer than --texts {args.texts}: all of them are used")
    folder = Path(args.work_dir).resolve()
    (folder / "vectors").mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    settings = {"encoder": args.encoder, "seed": args.seed, "vocab_file": args.vocab_file,
                "batch_size": BATCH_SIZE, "max_seq_length": MAX_SEQ_LENGTH, "rounds": args.rounds}
    start = args.texts if len(texts) >= args.texts + CALIBRATION else 0
    write_json(folder / "settings.json", {**settings, "texts": texts[: args.texts],
                                          "calibration": texts[start : start + CALIBRATION]})

    chosen = [contestant for contestant in CONTESTANTS if not args.contestants or contestant.name in args.contestants]
    if not args.peers_python:
        cli.notice("without --peers_python sentence-transformers and ONNX Runtime are left out")
        chosen = [contestant for contestant in chosen if not contestant.of_peers]
    pythons = {False: sys.executable, True: args.peers_python}
    machine = {**describe_machine(), "load_before": os.getloadavg()[0]}
    broken = prepare(chosen, folder, pythons)
    runs = [Run(contestant, folder, pythons[contestant.of_peers], args.time_limit) for contestant in chosen]
    _race(runs, broken, len(texts[: args.texts]), args.rounds)
    if not any(run.seconds for run in runs):
        raise UserError(f"no contestant could be measured; see the notices above and the logs in {folder / 'logs'}")
    workload = _describe_workload(folder)
    report = {"machine": machine, "settings": settings, "workload": workload,
              "contestants": _figures(runs, folder, workload["texts"])}
    table = _markdown(report)
    print(table)
    if args.output_md:
        with whole_file(args.output_md) as file:
            file.write(f"{table}\n".encode())
    if args.output_json:
        write_json(args.output_json, report)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument("--corpus_file", required=True, type=cli.existing_file, help="one text a line")
    parser.add_argument("--work_dir", required=True, help="folder for models and logs; what is there is made anew")
    parser.add_argument("--texts", type=cli.positive_int, default=6000, help="so many lines of the corpus")
    parser.add_argument("--encoder", choices=["nano", "medium"], default="nano", help="sizes of ERNIE 3.0 to take")
    parser.add_argument("--vocab_file", type=cli.existing_file,
                        help="a vocab.txt, configs/ernie_tiny/vocab.txt for example (default: the corpus' characters)")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="passes of each contestant")
    parser.add_argument("--seed", type=cli.seed, default=1000, help="of the weights")
    parser.add_argument("--time_limit", type=cli.positive, default=300.0,
                        help="seconds; a contestant whose pass would take longer is not measured")
    parser.add_argument("--contestants", nargs="+", choices=[contestant.name for contestant in CONTESTANTS],
                        metavar="NAME", help="these alone, of " + ", ".join(c.name for c in CONTESTANTS))
    parser.add_argument("--peers_python", type=cli.existing_file, metavar="FILE",
                        help="interpreter of an environment with benchmarks/requirements.txt; without it the peers "
                             "are left out")
    parser.add_argument("--output_md", type=cli.output_file, help="write the table there, too")
    parser.add_argument("--output_json", type=cli.output_file, help="write all figures there")
    return parser.parse_args(argv)


def _race(runs: list[Run], broken: dict[str, str], texts: int, rounds: int) -> None:
    """Load all, warm up all, then the rounds: a pass of each in turn. Who fails drops out, the others go on."""
    try:
        for run in runs:
            run.attempt(run.load, broken, texts)
        for number in range(rounds + 1):
            for run in runs:
                run.attempt(run.round, number)
    finally:
        for run in runs:
            run.end()


def _figures(runs: list[Run], folder: Path, texts: int) -> list[dict[str, Any]]:
    """What the report says of each contestant."""
    speed = {run.contestant.name: texts / statistics.median(run.seconds) for run in runs if run.seconds}
    figures = []
    for run in runs:
        contestant, own = run.contestant, speed.get(run.contestant.name)
        ours = speed.get(f"ours_{contestant.precision}{'' if contestant.whole else '_runtime'}")
        base = speed.get("reference") if contestant.whole else None
        figures.append({
            "name": contestant.name, "label": contestant.label, "precision": contestant.precision,
            "measured": "texts to vectors" if contestant.whole else "runtime alone",
            "seconds": run.seconds,
            "texts_per_second": own and {"median": own, "min": texts / max(run.seconds),
                                         "max": texts / min(run.seconds)},
            "ratio_to_reference": own / base if own and base else None,
            "ratio_to_ours": own / ours if own and ours else None,
            "busy_cores": statistics.median(run.busy_cores) if run.busy_cores else None,
            "failure": run.failure, **run.facts, "cosine": _cosine(run, folder)})
    return figures


def _cosine(run: Run, folder: Path) -> dict[str, Any] | None:
    """Cosines of the first texts' vectors with those of ours in fp32; texts tokenized otherwise are left out."""
    paths = [folder / "vectors" / f"{name}.npy" for name in (run.contestant.name, "ours_fp32")]
    if not run.facts or not all(path.is_file() for path in paths):
        return None
    own, ours = (np.load(path).astype(np.float64) for path in paths)
    same = np.setdiff1d(np.arange(len(ours)), run.facts["not_comparable"]).astype(int)
    if not len(same):
        return None
    own, ours = own[same], ours[same]
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(ours, axis=1)
    cosines = (own * ours).sum(axis=1) / norms
    # A quantization errs more on some texts than on others by itself, so there the mean counts.
    judged = cosines.min() if run.contestant.precision == "fp32" else cosines.mean()
    least = LEAST_COSINE[run.contestant.precision]
    if not judged >= least:
        cli.notice(f"{run.contestant.name}: cosine {judged:.4f} with ours in fp32 is below {least}")
    return {"mean": float(cosines.mean()), "min": float(cosines.min()), "texts": len(same),
            "enough": bool(judged >= least)}


def _describe_workload(folder: Path) -> dict[str, Any]:
    with open(folder / "workload.pickle", "rb") as file:
        (texts, token_ids, batches), *_ = pickle.load(file)
    lengths = [len(ids) for ids in token_ids]
    in_order = [lengths[i : i + BATCH_SIZE] for i in range(0, len(lengths), BATCH_SIZE)]
    path = folder / "vectors" / "ours_fp32.npy"
    others = np.load(path) @ np.load(path).T if path.is_file() else np.ones((1, 1))
    return {"texts": len(texts), "different_texts": len(set(texts)),
            "different_token_sequences": len(set(map(tuple, token_ids))), "tokens": sum(lengths),
            "tokens_padded_in_file_order": sum(max(batch) * len(batch) for batch in in_order),
            "tokens_padded_sorted": sum(ids.size for _, ids, _ in batches),
            "cosine_of_different_texts": float(others[~np.eye(len(others), dtype=bool)].mean()) if path.is_file()
            else None}


def _markdown(report: dict[str, Any]) -> str:
    machine, work, settings = report["machine"], report["workload"], report["settings"]
    lines = [
        f"ERNIE 3.0 {settings['encoder']} (random weights, seed {settings['seed']}), {work['texts']} texts "
        f"({work['different_token_sequences']} different), {work['tokens']} tokens, batches of "
        f"{settings['batch_size']}, {settings['rounds']} rounds; {machine['processor']}, {machine['cores']} cores, "
        f"{', '.join(machine['flags'])}.", "",
        "| contestant | precision | measured | threads (busy) | texts/s | min | max | x reference | x ours | cosine "
        "(min) | remarks |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    lines += ["| " + " | ".join(_row(figures)) + " |" for figures in report["contestants"]]
    versions: dict[str, set[str]] = {}
    for figures in report["contestants"]:
        for package, version in figures.get("versions", {}).items():
            versions.setdefault(package, set()).add(version)
    lines += ["", f"texts/s: median of the rounds. x ours: against ours in the same precision and of the same "
              f"measure. Runtime alone: batches are tokenized, sorted by length and padded before. cosine: mean and "
              f"least of the first {CHECKED} texts with ours in fp32; of different texts it is "
              f"{_number(work['cosine_of_different_texts'], '.3f')} on average.", "",
              "Versions: " + ", ".join(f"{package} {' and '.join(sorted(numbers))}"
                                       for package, numbers in sorted(versions.items())) + "."]
    return "\n".join(lines)


def _row(figures: dict[str, Any]) -> list[str]:
    speed, cosine = figures["texts_per_second"] or {}, figures["cosine"] or {}
    remarks = [figures["failure"]] if figures["failure"] else []
    if cosine and not cosine["enough"]:
        remarks.append("cosine too low")
    if figures.get("tokenized_differently"):
        remarks.append(f"{figures['tokenized_differently']} texts tokenized differently")
    threads = f"{figures['threads']} ({_number(figures['busy_cores'], '.1f')})" if "threads" in figures else "-"
    return [figures["label"], figures["precision"], figures["measured"], threads,
            *(_number(speed.get(name), ",.1f") for name in ("median", "min", "max")),
            _number(figures["ratio_to_reference"], ".2f"), _number(figures["ratio_to_ours"], ".2f"),
            f"{cosine['mean']:.4f} ({cosine['min']:.4f})" if cosine else "-",
            "; ".join(remarks).replace("|", "/")]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
