"""What each technique adds to recall: a ladder of recipes, trained with several seeds and compared step by step.

    python benchmarks/recipes.py --data_dir DATA --work_dir DIR --ladder strategies --seeds 3

DATA holds semantic_pair_train.tsv, semantic_similar_pair.tsv, semantic_similar_pair.part and corpus_file. Every step is
a list of this project's own commands; its checkpoint is evaluated by recall.py with exact search in plain ranking
(--keep_self). A step that is finished is not run again, so that a stopped ladder goes on.

Prints Markdown: R@1, R@10 and R@50 (mean, and least to most of the seeds), the difference to the step it builds on with
its 95 % interval (bootstrap over evaluation sources, of the mean over seeds), and figures by part.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from machine import describe_machine, markdown_table

import metrics
from data import read_pairs
from files import whole_file

PROJECT = Path(__file__).resolve().parents[1]
SHOWN = ("R@1", "R@10", "R@50")


@dataclass
class Step:
    """A recipe: commands whose last one leaves `{out}/latest`.

    Attributes:
        commands: with {data}, {seed}, {encoder}, {out} (this step's folder) and {work} (that of all, in which a step's
            is NAME_SEED).
        base: the step that it is compared with, or where --steps leaves that out, the nearest one below.
    """

    name: str
    commands: list[str]
    base: str | None = None


def training(script: str, flags: str) -> str:
    """A training command; flags that come later win."""
    return (f"{script} --device cpu --model_name_or_path {{encoder}} --pooling mean --max_seq_length 48 "
            f"--seed {{seed}} --train_set_file {{data}}/semantic_pair_train.tsv --save_dir {{out}} "
            f"--save_steps 1000000 --resume --batch_size 256 --learning_rate 2e-3 --warmup_proportion 0.06 --epochs 1 "
            f"{flags}")


THREE_EPOCHS = "--init_from_ckpt {work}/three_epochs_{seed}/latest --learning_rate 1e-3"
MINING = ("mine_hard_negatives.py --device cpu --params_path {work}/three_epochs_{seed}/latest --max_seq_length 48 "
          "--train_set_file {data}/semantic_pair_train.tsv --corpus_file {data}/corpus_file --index_dir {out}/index "
          "--output_file {out}/mined.tsv --range_min 5 --max_similarity_ratio 0.95 --seed {seed}")
WARM = ("pretrain_embeddings.py --model_name_or_path {encoder} --train_set_file {data}/corpus_file --seed {seed} "
        "--save_dir {out}/warm")
FROM_WARM = "--epochs 3 --all_pairs --dropout 0 --model_name_or_path {out}/warm"
LADDERS = {
    "strategies": [
        Step("Baseline", [training("train_pairwise.py", "")]),
        Step("HardestNeg", [training("train_hardest_neg.py", "")], "Baseline"),
        Step("BatchNeg", [training("train_batch_neg.py", "")], "HardestNeg"),
    ],
    "recipe": [  # of scripts/run_best.sh
        Step("three epochs", [training("train_batch_neg.py", "--epochs 3")]),
        Step("all pairs", [training("train_batch_neg.py", "--epochs 3 --all_pairs")], "three epochs"),
        Step("no dropout", [training("train_batch_neg.py", "--epochs 3 --all_pairs --dropout 0")], "all pairs"),
        Step("warm embeddings", [WARM, training("train_batch_neg.py", FROM_WARM)], "no dropout"),
        Step("any length", [WARM, training("train_batch_neg.py", f"{FROM_WARM} --no_length_bucketing")],
             "warm embeddings"),
        Step("scale 20", [WARM, training("train_batch_neg.py", f"{FROM_WARM} --no_length_bucketing --scale 20")],
             "any length"),
    ],
    "techniques": [
        Step("batch 64", [training("train_batch_neg.py", "--batch_size 64 --learning_rate 1e-3")]),
        Step("batch 256", [training("train_batch_neg.py", "")], "batch 64"),
        Step("three epochs", [training("train_batch_neg.py", "--epochs 3")], "batch 256"),
        Step("one more", [training("train_batch_neg.py", THREE_EPOCHS)], "three epochs"),
        Step("one mined", [MINING, training("train_batch_neg.py", THREE_EPOCHS + " --train_set_file {out}/mined.tsv")],
             "one more"),
    ],
}


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--work_dir", required=True)
    parser.add_argument("--ladder", required=True, choices=list(LADDERS))
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="of the ladder (default: all)")
    parser.add_argument("--encoder", default=str(PROJECT / "configs" / "ernie_tiny"), help="to start from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="recipes", help="path of the JSON file without its ending")
    args = parser.parse_args()
    unknown = set(args.steps or ()) - {step.name for step in LADDERS[args.ladder]}
    if unknown:
        parser.error(f"--steps: {args.ladder} has no {', '.join(sorted(unknown))}")
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds} leaves nothing to run")
    return args


def main() -> None:
    args = parse_flags()
    pairs = read_pairs(f"{args.data_dir}/semantic_similar_pair.tsv")
    parts = np.array(metrics.read_parts(f"{args.data_dir}/semantic_similar_pair.part", len(pairs)))
    steps = [step for step in LADDERS[args.ladder] if not args.steps or step.name in args.steps]
    found: dict[str, dict] = {}
    for step in steps:
        runs = [run_step(args, step, seed, pairs) for seed in range(1000, 1000 + args.seeds)]
        found[step.name] = {"values": np.stack([values for values, _ in runs]), "seconds": [s for _, s in runs]}
        print(f"{step.name}: done", file=sys.stderr)
    sources = [source for source, _ in pairs]
    bases = {step.name: step.base for step in LADDERS[args.ladder]}
    print(f"{describe_machine()['summary']}; {args.seeds} seeds; encoder {args.encoder}\n")
    print(markdown_table(["step", "seconds", *SHOWN, "against", "R@10", "R@50"],
                         [summary(step, bases, found, sources) for step in steps]))
    print(markdown_table(["part", "cases", *(f"{step.name}, R@10 / R@50" for step in steps)],
                         [[part, int(rows.sum()), *(by_part(found[step.name], rows) for step in steps)]
                          for part in dict.fromkeys(parts.tolist()) for rows in [parts == part]]))
    Path(f"{args.output}.json").write_text(json.dumps({
        "machine": describe_machine(), "flags": vars(args), "commands": {step.name: step.commands for step in steps},
        "steps": {name: {"seconds": run["seconds"], "metrics": metrics.METRICS,
                         "seeds": run["values"].mean(axis=1).tolist()} for name, run in found.items()}}, indent=1))


def run_step(args: argparse.Namespace, step: Step, seed: int, pairs: list) -> tuple[np.ndarray, float]:
    """Train and evaluate, unless that was done; `metrics.case_values` and the seconds of the training."""
    work, data = Path(args.work_dir).resolve(), Path(args.data_dir).resolve()
    out = work / f"{step.name}_{seed}".replace(" ", "_")
    names = {"data": data, "seed": seed, "encoder": Path(args.encoder).resolve(), "out": out, "work": work}
    commands = [command.format(**{name: shlex.quote(f"{value}") for name, value in names.items()})
                for command in step.commands]
    done, result = out / "done.json", out / "result" / "recall_result.txt"
    if not done.exists():
        shutil.rmtree(out, ignore_errors=True)  # of a stopped one the time would be that of its end
        started = time.perf_counter()
        for command in commands:
            run(out, command)
        with whole_file(done) as file:
            file.write(json.dumps({"commands": commands, "seconds": round(time.perf_counter() - started)}).encode())
    facts = json.loads(done.read_text())
    if facts["commands"] != commands:
        sys.exit(f"{done} is of other commands; name another --work_dir, or remove {out}")
    if not result.exists():
        run(out, "recall.py --device cpu --params_path {out}/latest --max_seq_length 48 --ann_engine flat --keep_self "
                 "--similar_text_pair {data}/semantic_similar_pair.tsv --corpus_file {data}/corpus_file "
                 "--recall_result_dir {out}/result".format(out=shlex.quote(f"{out}"), data=shlex.quote(f"{data}")))
        for index in (out / "index", result.parent / "index"):
            shutil.rmtree(index, ignore_errors=True)
    ranks = metrics.rank_cases(pairs, metrics.read_result(str(result)), 50, keep_self=True)
    return metrics.case_values(ranks), facts["seconds"]


def run(out: Path, command: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    script, *flags = shlex.split(command)
    argv = [sys.executable, "-u", str(PROJECT / script), *flags]
    with open(out / "log.txt", "a") as log:
        if subprocess.run(argv, stdout=log, stderr=log, check=False).returncode:
            sys.exit(f"failed, see {log.name}: {shlex.join(argv)}")


def summary(step: Step, bases: dict[str, str | None], found: dict[str, dict], sources: list[str]) -> list[str]:
    values = found[step.name]["values"]  # [seeds, cases, metrics]
    row = [step.name, f"{np.mean(found[step.name]['seconds']):.0f}"]
    for name in SHOWN:
        of_seeds = 100 * values[:, :, metrics.METRICS.index(name)].mean(axis=1)
        row.append(f"{of_seeds.mean():.2f} ({of_seeds.min():.2f} to {of_seeds.max():.2f})")
    base = step.base
    while base and base not in found:
        base = bases[base]
    if not base:
        return [*row, "", "", ""]
    test = metrics.paired_test(values.mean(axis=0), found[base]["values"].mean(axis=0), sources)
    differences = [f"{100 * test['difference'][i]:+.2f} [{100 * low:.2f}, {100 * high:.2f}]"
                   for i, low, high in ((i, *test["interval"][:, i]) for i in map(metrics.METRICS.index, SHOWN[1:]))]
    return [*row, base, *differences]


def by_part(run: dict, of_part: np.ndarray) -> str:
    means = 100 * run["values"][:, of_part].mean(axis=(0, 1))
    return " / ".join(f"{means[metrics.METRICS.index(name)]:.2f}" for name in SHOWN[1:])


if __name__ == "__main__":
    main()
