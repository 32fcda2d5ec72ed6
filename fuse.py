"""Fuse: join the result files of several systems, a model's and lexical_recall.py's for example, into one.

    python fuse.py --recall_result_file model.txt lexical.txt --method rrf --output_file fused.txt
    python fuse.py --recall_result_file model.txt lexical.txt --method scores --weights 0.7 0.3 --output_file fused.txt
    python evaluate.py --similar_pair_file semantic_similar_pair.tsv --recall_result_file fused.txt \\
        --compare_with model.txt lexical.txt --part_file semantic_similar_pair.part

In:  result files, `source TAB recalled text TAB score` a row, as recall.py and lexical_recall.py write them.
Out: one in the same form, a block for each source, best first, recall_num rows at most; sources in the order of the
     first file, then those that only the second has, and so on. The score of a text is the sum over the files of
       rrf     weight / (rrf_k + rank): reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)
       scores  weight * (score - lowest) / (highest - lowest), both of the source's rows in that file
     A file adds nothing to a text that it does not list for the source. Equal scores stand in the order of the first
     file, then of the second.
"""

from __future__ import annotations

import math
import sys

import cli
from cli import notice
from files import whole_file
from metrics import read_result

Ranking = list[tuple[str, float]]  # different texts with their scores, best first


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("--recall_result_file", nargs="+", required=True, type=cli.existing_file, metavar="FILE",
                        help="result files to join, two or more")
    parser.add_argument("--method", choices=["rrf", "scores"], default="rrf",
                        help="rrf goes by ranks alone, scores by how far apart the texts of a source are")
    parser.add_argument("--weights", nargs="+", type=cli.non_negative, metavar="WEIGHT",
                        help="one for each file, in their order (default: 1 for each)")
    parser.add_argument("--rrf_k", type=cli.non_negative, default=60,
                        help="the larger, the less the first ranks stand out")
    parser.add_argument("--recall_num", type=cli.positive_int, default=50, help="best texts of a source to write")
    parser.add_argument("--output_file", required=True, type=cli.output_file, metavar="FILE", help="file to write")
    args = parser.parse_args(argv)
    count = len(args.recall_result_file)
    if count < 2:
        parser.error("argument --recall_result_file: one file alone can't be joined; name two or more")
    args.weights = args.weights or [1.0] * count
    if len(args.weights) != count:
        parser.error(f"argument --weights: {len(args.weights)} for {count} result files; give one for each")
    if not 0 < sum(args.weights) < math.inf:
        parser.error(f"argument --weights: their sum is {sum(args.weights):g}; it must be a number above 0")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    results = [read_result(path) for path in args.recall_result_file]
    sources = list(dict.fromkeys(source for result in results for source in result))
    report_gaps(args.recall_result_file, results, len(sources))
    count = 0
    with whole_file(args.output_file) as file:
        for source in sources:
            rows = fuse([result.get(source, []) for result in results], args)[: args.recall_num]
            file.write("".join(f"{source}\t{text}\t{score:.9g}\n" for text, score in rows).encode())
            count += len(rows)
    notice(f"{args.output_file}: {count} rows for {len(sources)} sources")


def report_gaps(paths: list[str], results: list[dict[str, Ranking]], sources: int) -> None:
    """Name what does not fit between the files; it decides the ranking without being seen in it."""
    for path, result in zip(paths, results):
        if len(result) < sources:
            notice(f"{path}: no rows for {sources - len(result)} of {sources} sources; the other files alone rank them")
    with_self = [any(text == source for source, rows in result.items() for text, _ in rows) for result in results]
    if len(set(with_self)) > 1:
        one, other = paths[with_self.index(True)], paths[with_self.index(False)]
        notice(f"{one} lists sources among their own texts and {other} does not; join files that were all made with "
               f"--keep_self, or all without")


def fuse(rankings: list[Ranking], args) -> Ranking:
    """Join the rankings of one source, one of each file; an empty one where a file has not the source."""
    added: dict[str, list[float]] = {}  # texts in the order in which equal scores stand
    for ranking, weight in zip(rankings, args.weights):
        values = reciprocal_ranks(ranking, args.rrf_k) if args.method == "rrf" else normalized(ranking)
        for (text, _), value in zip(ranking, values):
            added.setdefault(text, []).append(weight * value)
    # fsum: the same numbers give the same sum in whatever order, so that ties are ties.
    return sorted(((text, math.fsum(values)) for text, values in added.items()), key=lambda row: -row[1])


def reciprocal_ranks(ranking: Ranking, k: float) -> list[float]:
    return [1 / (k + rank) for rank in range(1, len(ranking) + 1)]


def normalized(ranking: Ranking) -> list[float]:
    """Scores from 0, the lowest, to 1, the highest; 1 for all where they are all equal."""
    # Halves: the difference of two finite numbers may not be finite.
    halves = [score / 2 for _, score in ranking]
    lowest, highest = min(halves, default=0.0), max(halves, default=0.0)
    return [(half - lowest) / (highest - lowest) if highest > lowest else 1.0 for half in halves]


if __name__ == "__main__":
    sys.exit(main())
