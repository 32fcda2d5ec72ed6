"""Evaluate: Recall@K, MRR and nDCG of result files, with intervals, by part, and compared with each other.

    python -u evaluate.py --similar_pair_file semantic_similar_pair.tsv \\
        --recall_result_file ./recall_result_dir/recall_result.txt --recall_num 50
    python evaluate.py --similar_pair_file semantic_similar_pair.tsv --part_file semantic_similar_pair.part \\
        --recall_result_file batch_neg.txt --compare_with baseline.txt hardest_neg.txt --plot recall.png

In:  the pairs, `source TAB target` a line, each a case; result files, `source TAB recalled text TAB score` a row, as
     recall.py, lexical_recall.py, fuse.py or the reference wrote them; a score is any finite number.
Out: first line `Recall@10 TAB Recall@50` in percent; then tables. A hit is the target text among the K best different
     texts. A recalled text that equals the source neither counts nor uses up a place; --keep_self counts it. JSON, a
     picture, a page to read (report.html) and TREC files on demand.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path

import numpy as np

import cli
import metrics
from cli import notice
from data import read_pairs
from files import own_folder, whole_file, write_json
from report import PAGE, Evaluation, show, write_report


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_pair_file_flag(parser)
    parser.add_argument("--recall_result_file", required=True, type=cli.existing_file, help="result file to evaluate")
    parser.add_argument("--recall_num", type=cli.positive_int, default=50, help="best texts of a source that count")
    parser.add_argument("--keep_self", action="store_true", help="plain ranking: the source itself keeps its place")
    parser.add_argument("--part_file", type=cli.existing_file, help="label of each pair line, for figures by part")
    parser.add_argument("--compare_with", nargs="+", default=[], type=cli.existing_file, metavar="FILE",
                        help="other result files: a row for each, and a paired test of the difference")
    parser.add_argument("--output_json", type=cli.output_file, metavar="FILE",
                        help="write all figures there")
    parser.add_argument("--plot", type=cli.output_file, metavar="FILE",
                        help="draw Recall@K against K there (.png, .pdf, .svg)")
    parser.add_argument("--trec_run", type=cli.output_file, metavar="FILE",
                        help="write the result file as a TREC run")
    parser.add_argument("--trec_qrels", type=cli.output_file, metavar="FILE",
                        help="write the pairs as TREC relevance judgements")
    parser.add_argument("--report", metavar="DIR",
                        help=f"write a page to read there, {PAGE}: figures, curves, the worst queries, and what the "
                             f"other files fix and break")
    args = parser.parse_args(argv)
    if args.report is not None:
        page = Path(args.report, PAGE)
        if page.is_dir():
            parser.error(f"argument --report: {str(page)!r} is a folder; name another folder for the page")
        parser.keep_apart("--report", page, args)
    if args.plot and Path(args.plot).suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"argument --plot: {args.plot!r} does not end in .png, .pdf or .svg")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    # Owned from the start: a place that can't be written to is told before the work, and a failed run leaves no folder.
    with own_folder(args.report) if args.report is not None else contextlib.nullcontext():
        evaluate(args)


def evaluate(args) -> None:
    """Read, compute, print, and write what was asked for."""
    pairs = read_pairs(args.pair_file)
    parts = metrics.read_parts(args.part_file, len(pairs)) if args.part_file else None
    paths = [args.recall_result_file, *args.compare_with]
    labels = label_files(paths)
    results = {label: metrics.read_result(path) for label, path in zip(labels, paths)}
    for path, result in zip(paths, results.values()):
        report_gaps(path, pairs, result)

    ranks = {label: metrics.rank_cases(pairs, result, args.recall_num, args.keep_self)
             for label, result in results.items()}
    figures = summarize(pairs, parts, ranks)
    print_figures(figures, args.recall_num)
    print_other_ranking(args, pairs, results[labels[0]])

    if args.output_json:
        write_json(args.output_json, {"recall_num": args.recall_num, "keep_self": args.keep_self, **figures})
    if args.plot:
        from plots import plot_recall

        plot_recall(args.plot, {label: [100 * metrics.recall_at(r, k) for k in range(1, args.recall_num + 1)]
                                for label, r in ranks.items()}, len(pairs))
    if args.trec_run:
        write_trec_run(args.trec_run, pairs, results[labels[0]], args)
    if args.trec_qrels:
        write_trec_qrels(args.trec_qrels, pairs)
    if args.report is not None:
        write_report(args.report,
                     Evaluation(pairs, figures, ranks, results[labels[0]], args.recall_num, args.keep_self))


def label_files(paths: list[str]) -> list[str]:
    """A short name for each result file: its stem, or its path where stems are not all different."""
    stems = [Path(path).stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [f"{path} ({i})" if paths.count(path) > 1 else path
                                                        for i, path in enumerate(paths, 1)]


def report_gaps(path: str, pairs: list[tuple[str, str]], result: dict) -> None:
    """Name what does not fit between a result file and the pairs; it decides the figures without being seen in them."""
    bare = sum(source not in result for source, _ in pairs)
    if bare:
        notice(f"{path}: no rows for {bare} of {len(pairs)} cases; each counts as a miss")
    strangers = len(result.keys() - {source for source, _ in pairs})
    if strangers:
        notice(f"{path}: {strangers} sources are not in the pair file; their rows are left out")


def summarize(pairs: list[tuple[str, str]], parts: list[str] | None, ranks: dict[str, np.ndarray]) -> dict:
    """All figures of the run, as they go into the JSON file: by system, and of the first against each other one."""
    sources = [source for source, _ in pairs]
    values = {label: metrics.case_values(r) for label, r in ranks.items()}
    first, *others = values
    systems = {}
    for label, v in values.items():
        low, high = metrics.bootstrap_interval(v, sources)
        systems[label] = {name: {"value": v[:, i].mean(), "low": low[i], "high": high[i]}
                          for i, name in enumerate(metrics.METRICS)}
        if parts:
            systems[label]["parts"] = {part: dict(zip(metrics.METRICS, v[np.array(parts) == part].mean(axis=0)))
                                       for part in dict.fromkeys(parts)}
    comparisons = {}
    for other in others:
        test = metrics.paired_test(values[first], values[other], sources)
        comparisons[other] = {
            name: {"difference": test["difference"][i], "low": test["interval"][0][i], "high": test["interval"][1][i],
                   "p": test["p"][i], "better": int((values[first] > values[other])[:, i].sum()),
                   "worse": int((values[first] < values[other])[:, i].sum())}
            for i, name in enumerate(metrics.METRICS)}
    return {"cases": len(pairs), "part_sizes": {p: parts.count(p) for p in dict.fromkeys(parts)} if parts else {},
            "systems": systems, "compared_with_first": comparisons}


def print_figures(figures: dict, recall_num: int) -> None:
    """The reference's line, then the tables."""
    systems = figures["systems"]
    first = next(iter(systems))
    print("\t".join(str(round(100 * systems[first][name]["value"], 3)) for name in ("R@10", "R@50")))
    print(f"\n{figures['cases']} cases, the best {recall_num} texts of a source count; [95 % bootstrap interval]\n")
    rows = []
    for label, system in systems.items():
        rows.append([label] + [show(name, system[name]["value"]) for name in metrics.METRICS])
        rows.append([""] + [f"[{show(n, system[n]['low'])}, {show(n, system[n]['high'])}]" for n in metrics.METRICS])
    print_table(["result file", *metrics.METRICS], rows)
    if figures["part_sizes"]:
        print()
        print_table(["part", "cases", "result file", *metrics.METRICS],
                    [[part, str(size), label] + [show(n, system["parts"][part][n]) for n in metrics.METRICS]
                     for part, size in figures["part_sizes"].items() for label, system in systems.items()])
    for other, comparison in figures["compared_with_first"].items():
        print(f"\n{first} minus {other}; p of a paired randomisation test\n")
        print_table(["metric", "difference", "95 % interval", "p", "cases better", "cases worse"],
                    [[n, show(n, c["difference"]), f"[{show(n, c['low'])}, {show(n, c['high'])}]", f"{c['p']:.4f}",
                      str(c["better"]), str(c["worse"])] for n, c in comparison.items()])


def print_other_ranking(args, pairs: list[tuple[str, str]], result: dict) -> None:
    """Where the file lists sources themselves, the two rankings differ: give Recall by the one not chosen as well."""
    if any(text == source for source, texts in result.items() for text, _ in texts):
        ranks = metrics.rank_cases(pairs, result, args.recall_num, not args.keep_self)
        name = "without the source itself" if args.keep_self else "plain ranking (--keep_self)"
        print(f"\n{name}: R@10 {100 * metrics.recall_at(ranks, 10):.2f}, R@50 {100 * metrics.recall_at(ranks, 50):.2f}")


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table whose columns line up on a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


def trec_id(text: str) -> str:
    """TREC ids hold no blanks: name a text by its hash, which is the same in runs and judgements of any corpus."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_trec_run(path: str, pairs: list[tuple[str, str]], result: dict, args) -> None:
    """`qid Q0 docid rank score tag` rows. Tools sort by score alone, so equal scores are set apart by a hair."""
    with whole_file(path) as file:
        for source in dict.fromkeys(source for source, _ in pairs):
            rows = [row for row in result.get(source, ()) if args.keep_self or row[0] != source][: args.recall_num]
            score = float("inf")
            for rank, (text, cosine) in enumerate(rows, 1):
                score = min(cosine, score - 1e-6)
                file.write(f"{trec_id(source)} Q0 {trec_id(text)} {rank} {score:.6f} semantic_index\n".encode())


def write_trec_qrels(path: str, pairs: list[tuple[str, str]]) -> None:
    """`qid 0 docid 1` rows, one for each different pair."""
    with whole_file(path) as file:
        for source, target in dict.fromkeys(pairs):
            file.write(f"{trec_id(source)} 0 {trec_id(target)} 1\n".encode())


if __name__ == "__main__":
    sys.exit(main())
