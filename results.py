"""Result files of recall: what of the input limits them, and how they are written. `metrics.read_result` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cli import notice
from corpus import Corpus
from files import whole_file


def report_inputs(args, pairs: list[tuple[str, str]], corpus: Corpus) -> None:
    """Say what of the input limits the result: before the long work, not after it."""
    lines, texts = len(corpus.is_first), len(corpus)
    if lines > texts:
        notice(f"{args.corpus_file}: {lines - texts} of {lines} lines repeat an earlier text; folded")
    absent = [line for line, (_, target) in enumerate(pairs, 1) if target not in corpus.found]
    if absent:
        shown = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
        notice(f"{args.pair_file}: {len(absent)} of {len(pairs)} targets are not in the corpus (line {shown}); they "
               f"can't be recalled")
    if texts < args.recall_num:
        notice(f"{args.corpus_file}: {texts} different texts, so fewer than --recall_num {args.recall_num} rows "
               f"a source")


def write_result(result: Path, pairs, sources: dict[str, int], texts, ids: np.ndarray, scores: np.ndarray,
                 args, above: float = -np.inf) -> int:
    """Write a block of rows for each pair line, of the scores that are above this; returns the number of rows."""
    count = 0
    text_of = {i: texts[i] for i in np.unique(ids).tolist()}
    with whole_file(result) as file:
        for source, _ in pairs:
            row = sources[source]
            recalled = [(text_of[i], score) for i, score in zip(ids[row].tolist(), scores[row].tolist())
                        if score > above and (args.keep_self or text_of[i] != source)][: args.recall_num]
            file.write("".join(f"{source}\t{text}\t{score:.6f}\n" for text, score in recalled).encode())
            count += len(recalled)
    return count
