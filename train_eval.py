"""Evaluation while training: Recall@10 and Recall@50 by exact search, shared among the ranks."""

from __future__ import annotations

import numpy as np

from cli import notice, rank, world_size
from corpus import open_corpus
from data import read_pairs
from encoder import CHUNK, Encoder
from flat_index import FlatIndex
from inference import DygraphRunner
from metrics import METRICS, bootstrap_interval, case_values, rank_cases
from parts import Vectors, cut
from runtime import gather_rows

KEPT = ("R@10", "R@50")
DEEPEST = 50


class Evaluation:
    """The data of an evaluation, read and checked once.

    Args:
        args: the training flags.

    Raises:
        UserError: a file is bad, as `data.read_pairs` and `corpus.open_corpus` say it.
    """

    def __init__(self, args) -> None:
        self.args = args
        self.pairs = read_pairs(args.eval_pair_file)
        self.sources = list(dict.fromkeys(source for source, _ in self.pairs))
        if args.eval_corpus_file:
            self.corpus = self._sample()
        else:
            self.corpus = list(dict.fromkeys(text for pair in self.pairs for text in pair))
            notice(f"evaluation: without --eval_corpus_file the {len(self.corpus)} texts of {args.eval_pair_file} are "
                   f"the corpus")

    def _sample(self) -> list[str]:
        """--eval_corpus_size texts of the corpus, or all of it; the targets that it holds are always among them."""
        targets = {target for _, target in self.pairs}
        with open_corpus([self.args.eval_corpus_file], targets) as corpus:
            count = len(corpus)
            size = min(self.args.eval_corpus_size or count, count)
            chosen = np.zeros(count, dtype=bool)
            chosen[np.random.default_rng(self.args.seed).permutation(count)[:size]] = True
            texts: list[str] = []
            ranges = cut(0, count, CHUNK)
            for (first, _), part in zip(ranges, corpus.parts(ranges)):
                texts += [text for i, text in enumerate(part, first) if chosen[i] or text in targets]
            missing = len(targets - corpus.found)
        sampled = f"; a sample makes recall look better than the whole corpus of {count}" if len(texts) < count else ""
        notice(f"evaluation: {len(self.pairs)} pairs against {len(texts)} texts{sampled}")
        if missing:
            notice(f"{missing} target(s) of {self.args.eval_pair_file} are not in {self.args.eval_corpus_file}: their "
                   f"pairs can't be hits")
        return texts

    def run(self, model, tokenizer, threads: int = 1) -> dict:
        """Evaluate the model as it is; it is left in training mode, and no random number is drawn.

        Args:
            threads: that encode side by side.

        Returns:
            Recall in percent under "R@10" and "R@50", the same on all ranks, their 95 % bootstrap intervals under
            "intervals", and the number of texts of the corpus under "texts".
        """
        model.eval()
        try:
            encoder = Encoder(DygraphRunner(model, self.args.amp or "fp32", threads), tokenizer,
                              self.args.batch_size, self.args.max_seq_length)
            vectors = encoder.encode(self.corpus + self.sources, progress="evaluation", shared=True)
        finally:
            model.train()
        ranks = self._ranks(vectors[: len(self.corpus)], vectors[len(self.corpus) :])
        values = case_values(ranks)[:, [METRICS.index(name) for name in KEPT]]
        intervals = 100 * bootstrap_interval(values, [source for source, _ in self.pairs])
        return {**{name: round(float(100 * values[:, i].mean()), 4) for i, name in enumerate(KEPT)},
                "texts": len(self.corpus),
                "intervals": {name: [round(float(x), 4) for x in intervals[:, i]] for i, name in enumerate(KEPT)}}

    def _ranks(self, corpus: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Rank of each pair's target, as `metrics.rank_cases` counts it; each rank of the launch searches its share."""
        mine = np.array_split(np.arange(len(self.sources)), world_size())[rank()]
        # One more than counts: the source itself may be among them.
        found = FlatIndex().build(Vectors([corpus])).search(queries[mine], min(DEEPEST + 1, len(corpus)))
        result = {self.sources[source]: [(self.corpus[i], 0.0) for i in row] for source, row in zip(mine, found)}
        return _sum_over_ranks(rank_cases(self.pairs, result, DEEPEST))


def _sum_over_ranks(numbers: np.ndarray) -> np.ndarray:
    if world_size() == 1:
        return numbers
    import paddle

    rows = gather_rows(paddle.to_tensor(numbers[None]), [1] * world_size())
    return rows.numpy().sum(axis=0)


def best_of(evaluations: list[dict]) -> dict | None:
    """The best evaluation of a checkpoint: by R@10, then R@50, the earliest of equals. None if there is none yet."""
    trained = [evaluation for evaluation in evaluations if evaluation["step"]]
    return max(trained, key=lambda evaluation: [evaluation[name] for name in KEPT], default=None)


def without_gain(evaluations: list[dict]) -> int:
    """How many evaluations have passed since the best one."""
    best = best_of(evaluations)
    return sum(evaluation["step"] > best["step"] for evaluation in evaluations) if best else 0
