"""Mine hard negatives: texts that are near a source, but not among its known positives, as further columns of its rows.

    python mine_hard_negatives.py --params_path checkpoints/latest --train_set_file semantic_pair_train.tsv \\
        --corpus_file corpus_file --output_file train_mined.tsv --num_negatives 1 --range_min 5 --range_max 50 \\
        --max_similarity_ratio 0.95
    python train_batch_neg.py --train_set_file train_mined.tsv --init_from_ckpt checkpoints/latest ...

Candidates are the best texts of the corpus by the checkpoint's own search or, with --recall_result_file, those that a
file of recall.py or lexical_recall.py lists for the source. The source and its known positives, in either direction of
a pair, are never taken; texts that differ in width, case, punctuation or blanks alone count as one. Of what is left in
the window of ranks, negatives are drawn at random. Unmarked positives are the danger: --max_similarity_ratio and
--absolute_margin leave out what is nearly as near as the row's own target (the positive-aware filters of NV-Retriever,
arXiv:2407.15831).

In:  pairs, `source TAB target` a line (columns of earlier negatives are replaced), and the corpus, one text a line.
Out: the same rows with up to --num_negatives columns more, or JSON lines if --output_file ends in .jsonl; statistics
     and a sample on stdout.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sys
import unicodedata
from pathlib import Path

import numpy as np

import cli
from cli import notice
from corpus import open_corpus
from data import known_targets
from encoder import CHUNK, open_encoder
from files import UserError, own_folder, whole_file
from metrics import read_result
from train_data import JSON_ENDINGS, TrainSet, read_train_set

SHOWN = 5  # rows of the sample
SPARE = 10  # texts looked for beyond the window at first: the source, its positives and their like are among the best
BLOCK = 16_384  # sources that are looked up at once
Candidates = dict[int, list[tuple[str, float]]]  # of a source's id: what may be its negative, with scores, best first


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser, required=False)
    parser.add_argument("--train_set_file", required=True, type=cli.existing_file, metavar="FILE", help="the pairs")
    parser.add_argument("--corpus_file", type=cli.existing_file, help="texts to mine from, one a line")
    parser.add_argument("--recall_result_file", type=cli.existing_file, metavar="FILE",
                        help="candidates of each source, `source TAB text TAB score` a row; without it --params_path "
                             "searches --corpus_file")
    parser.add_argument("--output_file", required=True, type=cli.output_file, metavar="FILE", help="the rows to write")
    parser.add_argument("--num_negatives", type=cli.positive_int, default=1, help="negatives of a row, at most")
    parser.add_argument("--range_min", type=cli.natural, default=0,
                        help="candidates passed over: the best ones are often unmarked positives")
    parser.add_argument("--range_max", type=cli.positive_int, default=50, help="candidates looked at")
    parser.add_argument("--max_similarity_ratio", type=cli.positive,
                        help="leave out what has more than this share of the target's cosine")
    parser.add_argument("--absolute_margin", type=cli.non_negative,
                        help="leave out what has more than the target's cosine less this")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the draw")
    cli.add_engine_flags(parser)
    parser.set_defaults(ann_engine="flat")
    parser.add_argument("--index_dir", help="folder of vectors and index, as recall.py keeps it "
                                            "(default: mining_index beside --output_file)")
    args = parser.parse_args(argv)
    cli.check_engine_flags(parser, args)
    if args.range_min >= args.range_max:
        parser.error(f"--range_min {args.range_min} leaves nothing of --range_max {args.range_max}")
    if not args.recall_result_file and not (args.params_path and args.corpus_file):
        parser.error("--params_path and --corpus_file are needed where no --recall_result_file has the candidates")
    if args.recall_result_file and args.corpus_file:
        parser.error("--recall_result_file has the candidates already; leave --corpus_file out")
    if args.recall_result_file and (args.index_dir or args.ann_engine != "flat"):
        parser.error("--recall_result_file has the candidates already; leave --index_dir and --ann_engine out")
    for name in ("max_similarity_ratio", "absolute_margin"):
        if getattr(args, name) is not None and not args.params_path:
            parser.error(f"--{name} compares cosines; name the checkpoint with --params_path")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    data = read_train_set(args.train_set_file)
    if data.unlabelled:
        raise UserError(f"{args.train_set_file}: texts alone have no targets to tell negatives from; give pairs")
    if any(data.negatives):
        notice(f"{args.train_set_file}: the mined negatives that it has are left out")
    is_json = args.output_file.lower().endswith(JSON_ENDINGS)
    if not is_json and (broken := [text for text in data.texts if "\t" in text or "\n" in text or text[-1] == "\r"]):
        raise UserError(f"{args.train_set_file}: the text {broken[0]!r} has a TAB or a line break, so columns can't "
                        f"hold it; name an --output_file that ends in .jsonl")
    found = read_candidates(args, data) if args.recall_result_file else search_candidates(args, data)
    miner = Miner(args, data, *found)
    negatives = [miner.negatives_of(row) for row in range(len(data))]
    with whole_file(args.output_file) as file:
        for source, target, drawn in zip(data.sources, data.targets, negatives):
            query, positive, texts = data.texts[source], data.texts[target], [text for text, _ in drawn]
            line = json.dumps({"query": query, "pos": positive, "neg": texts}, ensure_ascii=False) if is_json \
                else "\t".join([query, positive, *texts])
            file.write(f"{line}\n".encode())
    report(args, data, miner, negatives)


def search_candidates(args, data: TrainSet) -> tuple[Candidates, np.ndarray | None]:
    """The best corpus texts of each source with their cosines, and the cosine of each row's source and target."""
    from index_store import IndexStore
    from recall import embed

    index_dir = Path(args.index_dir or Path(args.output_file).with_name("mining_index"))
    with contextlib.ExitStack() as stack:
        corpus = stack.enter_context(open_corpus([args.corpus_file]))
        encoder, made_from = open_encoder(args, next(corpus.parts([(0, min(len(corpus), CHUNK))])))
        stack.enter_context(own_folder(index_dir))
        store = IndexStore(index_dir, strict=args.index_dir is not None)
        plan = store.plan(corpus, made_from)
        embed(encoder, store, corpus, plan.missing, made_from)
        saved = store.finish(plan, corpus, made_from)
        own = encoder.encode(data.texts, progress="pairs")
        engine = stack.enter_context(contextlib.closing(
            store.open_engine(args.ann_engine, saved, **cli.engine_settings(args))))
        candidates = nearest(saved, engine, own, no_negatives(data), args.range_max)
    return candidates, np.einsum("nd,nd->n", own[data.sources], own[data.targets])


def nearest(saved, engine, own: np.ndarray, excluded: dict[int, set[str]], count: int) -> Candidates:
    """The best `count` texts of each source that are not excluded; fewer only where the corpus has no more."""
    candidates: Candidates = {}
    waiting, most = list(excluded), count + SPARE
    while waiting:
        for start in range(0, len(waiting), BLOCK):
            some = waiting[start : start + BLOCK]
            ids, cosines = saved.index.search(engine, own[some], most)
            texts = {i: saved.texts[i] for i in np.unique(ids).tolist()}
            for source, near, scores in zip(some, ids.tolist(), cosines.tolist()):
                found = [(texts[i], score) for i, score in zip(near, scores)]
                candidates[source] = usable(found, excluded[source])[:count]
        waiting = [source for source in waiting if len(candidates[source]) < count and most < len(saved.texts)]
        most *= 2
    return candidates


def read_candidates(args, data: TrainSet) -> tuple[Candidates, np.ndarray | None]:
    """Like `search_candidates` from a result file; cosines are the checkpoint's, if one is named."""
    listed = read_result(args.recall_result_file)
    excluded = no_negatives(data)
    missing = sum(data.texts[source] not in listed for source in excluded)
    if missing == len(excluded):
        raise UserError(f"{args.recall_result_file}: has rows for none of the sources of {args.train_set_file}; recall "
                        f"with these pairs")
    if missing:
        notice(f"{args.recall_result_file}: no rows for {missing} of {len(excluded)} sources; they get no negatives")
    candidates = {source: usable(listed.get(data.texts[source], []), known)[: args.range_max]
                  for source, known in excluded.items()}
    if not args.params_path:
        return candidates, None
    texts = list(dict.fromkeys([*data.texts, *(text for rows in candidates.values() for text, _ in rows)]))
    encoder, _ = open_encoder(args, texts[:CHUNK])
    place = {text: i for i, text in enumerate(texts)}
    vectors = encoder.encode(texts, progress="candidates")
    candidates = {source: [(text, float(vectors[place[text]] @ vectors[source])) for text, _ in rows]
                  for source, rows in candidates.items()}
    return candidates, np.einsum("nd,nd->n", vectors[data.sources], vectors[data.targets])


def no_negatives(data: TrainSet) -> dict[int, set[str]]:
    """For each source the keys of the texts that are no negatives of it: its own and those it is paired with.

    Texts of one key are taken for one text: a source with a question mark has the positives of the one without it too.
    """
    numbers: dict[str, int] = {}
    alike = np.array([numbers.setdefault(key_of(text), len(numbers)) for text in data.texts])
    known, keys = known_targets(alike[data.sources], alike[data.targets]), list(numbers)
    return {source: {keys[i] for i in {int(alike[source]), *known[int(alike[source])]}}
            for source in np.unique(data.sources).tolist()}


def usable(found: list[tuple[str, float]], excluded: set[str]) -> list[tuple[str, float]]:
    """What may be a negative, the first of each key alone; no blank text: training refuses a blank column."""
    first: dict[str, tuple[str, float]] = {}
    for text, score in found:
        if text.strip() and (key := key_of(text)) not in excluded:
            first.setdefault(key, (text, score))
    return list(first.values())


@functools.cache
def key_of(text: str) -> str:
    """Equal for texts that differ in width, case, punctuation or blanks alone; of signs alone it is the text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] not in "PZC") or text


class Miner:
    """Draws the negatives of one row after the other, and counts what it meets.

    Args:
        candidates: for each source the first --range_max texts that may be its negatives.
        positive: cosine of source and target of each row; None where there are no cosines.
    """

    def __init__(self, args, data: TrainSet, candidates: Candidates, positive: np.ndarray | None) -> None:
        self.args, self.data, self.candidates, self.positive = args, data, candidates, positive
        self.rng = np.random.default_rng(args.seed)
        self.too_near = 0

    def negatives_of(self, row: int) -> list[tuple[str, float]]:
        """Up to --num_negatives of (text, score), drawn at random from what may be one."""
        window = self.candidates[int(self.data.sources[row])][self.args.range_min :]
        limit = self._limit(row)
        allowed = [found for found in window if found[1] <= limit]
        self.too_near += len(window) - len(allowed)
        return [allowed[pick] for pick in self.rng.permutation(len(allowed))[: self.args.num_negatives]]

    def _limit(self, row: int) -> float:
        """The highest cosine that a negative of this row may have."""
        limit, ratio, margin = math.inf, self.args.max_similarity_ratio, self.args.absolute_margin
        if self.positive is not None and ratio is not None:
            limit = ratio * max(float(self.positive[row]), 0.0)  # a share of less than nothing would be more than it
        if self.positive is not None and margin is not None:
            limit = min(limit, float(self.positive[row]) - margin)
        return limit


def report(args, data: TrainSet, miner: Miner, negatives: list[list[tuple[str, float]]]) -> None:
    """Counts, means, and some rows to read: are these negatives any?"""
    scores = [score for row in negatives for _, score in row]
    full, none = (sum(len(row) == wanted for row in negatives) for wanted in (args.num_negatives, 0))
    print(f"{args.output_file}: {len(data)} rows, {len(scores)} negatives; {full} rows have all {args.num_negatives}, "
          f"{none} have none")
    print(f"candidates left out as too near: {miner.too_near}")
    if scores:
        print(f"mean score of the negatives: {np.mean(scores):.4f}")
    if miner.positive is not None:
        print(f"mean cosine of source and target: {miner.positive.mean():.4f}")
    for row in np.sort(np.random.default_rng(args.seed).choice(len(data), min(SHOWN, len(data)), replace=False)):
        own = "" if miner.positive is None else f"{miner.positive[row]:.3f}"
        print(f"\n{data.texts[data.sources[row]]}\n  +  {own}\t{data.texts[data.targets[row]]}")
        for text, score in negatives[row]:
            print(f"  -  {score:.3f}\t{text}")


if __name__ == "__main__":
    sys.exit(main())
