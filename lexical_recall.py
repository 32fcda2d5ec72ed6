"""Lexical recall: BM25 over characters and pairs of characters, to hold a model against and to join with one.

    python lexical_recall.py --similar_text_pair semantic_similar_pair.tsv --corpus_file corpus_file
    python evaluate.py --similar_pair_file semantic_similar_pair.tsv --part_file semantic_similar_pair.part \\
        --recall_result_file recall_result_dir/recall_result.txt --compare_with recall_result_dir/lexical_result.txt

In:  the corpus, one text a line; the pairs, `source TAB target` a line. No model, and no paddle.
Out: the result file in recall.py's form and order, `source TAB recalled text TAB score`, best first, recall_num rows
     for each line of the pair file, or as many as there are texts that share a character with the source. The search
     is exact. Equal scores stand in corpus order. A recalled text that equals the source is left out unless
     --keep_self is given. fuse.py joins the file with a model's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cli
from cli import notice
from corpus import open_corpus
from data import read_pairs
from files import own_folder
from results import report_inputs, write_result

LARGEST_K1 = 1e6  # far beyond what changes a ranking, and far from what overflows


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_recall_flags(parser, "lexical_result.txt")
    parser.add_argument("--k1", type=cli.non_negative, default=1.2,
                        help="how much a further occurrence of an n-gram in a text counts; with 0 the first alone")
    parser.add_argument("--b", type=cli.share, default=0.75, help="how much long texts are held back, from 0 to 1")
    args = parser.parse_args(argv)
    if args.k1 > LARGEST_K1:
        parser.error(f"argument --k1: {args.k1} is above {LARGEST_K1:g}; usual are 0.5 to 2")
    cli.check_result_file(parser, args)
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    pairs = read_pairs(args.pair_file)
    result = Path(args.recall_result_dir, args.recall_result_file)
    with open_corpus([args.corpus_file], {target for _, target in pairs}) as corpus:
        report_inputs(args, pairs, corpus)
        with own_folder(result.parent):
            run(args, pairs, next(corpus.parts([(0, len(corpus))])), result)


def run(args, pairs: list[tuple[str, str]], texts: list[str], result: Path) -> None:
    """Index the texts, search for each different source, and write."""
    from bm25 import Bm25

    sources = {source: i for i, source in enumerate(dict.fromkeys(source for source, _ in pairs))}
    # One more than wanted: the source itself may be among them, and must not use up a place.
    ids, scores = Bm25(texts, args.k1, args.b).search(list(sources), args.recall_num + (not args.keep_self))
    strange = np.count_nonzero(scores[:, 0] == 0)
    if strange:
        notice(f"{args.pair_file}: {strange} of {len(sources)} sources share no character with any text of the corpus; "
               f"they get no rows")
    rows = write_result(result, pairs, sources, texts, ids, scores, args, above=0)
    notice(f"{result}: {rows} rows")


if __name__ == "__main__":
    sys.exit(main())
