"""Warm the embeddings of a new encoder up on texts without labels, in seconds: tokens of like neighbours get like ones.

    python pretrain_embeddings.py --model_name_or_path configs/ernie_tiny --train_set_file corpus_file --save_dir warm
    python -u train_batch_neg.py --model_name_or_path warm ...

For an encoder that starts from random weights. Training on pairs then begins with embeddings in which 猫 is near 狗 and
退 near 还, and has the rest of the encoder to learn. No gradient is computed: the embeddings are the first singular
vectors of the tokens' positive pointwise mutual information (Levy, Goldberg and Dagan 2015, "Improving distributional
similarity with lessons learned from word embeddings").

In:  texts, one a line; of a file of pairs, the texts of all columns.
Out: a checkpoint folder; `--model_name_or_path FOLDER` starts from its encoder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import cli
from checkpoint import check_replaceable, save_checkpoint
from files import UserError, make_folder
from runtime import start_paddle
from train_data import read_train_set

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SMOOTHING = 0.75  # power of the counts of neighbours: without it rare ones weigh too much
BLOCK = 65_536  # texts that are counted at once


def folder_of_encoder(path: str) -> str:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path!r} is no folder; name one with config.json and a vocabulary")
    return path


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True, type=folder_of_encoder, metavar="FOLDER",
                        help="holds config.json and a vocabulary")
    parser.add_argument("--train_set_file", required=True, type=cli.existing_file, metavar="FILE", help="the texts")
    parser.add_argument("--save_dir", required=True, help="the checkpoint folder to write; an earlier one is replaced")
    parser.add_argument("--window", type=cli.positive_int, default=3,
                        help="tokens to either side that are neighbours; one at distance d counts 1/d")
    parser.add_argument("--seed", type=cli.seed, default=1000, help="of the other weights")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    folder = Path(args.save_dir)
    check_replaceable(folder, "embeddings")
    texts = read_train_set(args.train_set_file).texts
    paddle = start_paddle("cpu", args.seed)
    from model import SemanticIndexBase
    from pretrained import has_weights, open_encoder

    if has_weights(args.model_name_or_path):
        raise UserError(f"--model_name_or_path {args.model_name_or_path} has weights, whose embeddings know more than "
                        f"these would; name a folder with config.json and a vocabulary alone")
    encoder, tokenizer = open_encoder(args.model_name_or_path, None)
    table = encoder.get_input_embeddings().weight
    with cli.progress_bar(len(texts), "texts") as bar:
        counts = count_neighbours(blocks_of(texts, tokenizer, bar), len(table), args.window)
    known = np.flatnonzero(counts.getnnz(axis=1))
    if len(known) < 3:
        raise UserError(f"{args.train_set_file}: {len(known)} different tokens have neighbours, which is too few to "
                        f"learn from; give more texts")
    values = table.numpy()
    values[known] = embeddings(counts[known][:, known], table.shape[1]) * np.linalg.norm(values[known], axis=1).mean()
    table.set_value(paddle.to_tensor(values))
    make_folder(folder.parent)
    save_checkpoint(folder, SemanticIndexBase(encoder, output_emb_size=0, pooling="mean"), tokenizer,
                    {"strategy": "embeddings", "step": 0, "training": vars(args)})
    cli.notice(f"{folder}: embeddings of {len(known)} of {len(table)} tokens, from {len(texts)} different texts")


def blocks_of(texts: list[str], tokenizer, bar) -> Iterable[list[list[int]]]:
    """Token ids of the texts, block by block, without the special tokens at their ends."""
    for start in range(0, len(texts), BLOCK):
        some = texts[start : start + BLOCK]
        yield [ids[1:-1] for ids in tokenizer(some)]
        bar.update(len(some))


def count_neighbours(blocks: Iterable[list[list[int]]], tokens: int, window: int) -> csr_matrix:
    """How often each token stands beside each other one, [tokens, tokens], symmetric; at distance d it counts 1/d."""
    from scipy.sparse import coo_matrix, csr_matrix

    counts = csr_matrix((tokens, tokens))
    for block in blocks:
        gap = [-1] * window  # so that nobody has neighbours in another text
        row = np.array([token for ids in block for token in (*ids, *gap)], dtype=np.int64)
        for distance in range(1, window + 1):
            left, right = row[:-distance], row[distance:]
            both = (left >= 0) & (right >= 0)
            found = coo_matrix((np.full(both.sum(), 1 / distance), (left[both], right[both])), counts.shape).tocsr()
            counts = counts + found + found.T
    return counts


def embeddings(counts: csr_matrix, dimension: int) -> np.ndarray:
    """Vectors of length 1 for the tokens of a symmetric matrix of counts, [tokens, dimension]; three tokens or more.

    With P = max(0, log(p(a, b) / (p(a) p(b)^0.75))), normalised, and its singular value decomposition U S V^t, a
    token's vector is its row of U sqrt(S), turned at random: the first dimensions would else be larger than the last.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    total = counts.sum()
    share = np.asarray(counts.sum(axis=1)).ravel() / total
    smoothed = share**SMOOTHING / (share**SMOOTHING).sum()
    counts = counts.tocoo()
    information = np.log(counts.data / total / (share[counts.row] * smoothed[counts.col]))
    kept = information > 0
    positive = coo_matrix((information[kept], (counts.row[kept], counts.col[kept])), counts.shape).tocsr()
    rng = np.random.default_rng(0)
    rank = min(dimension, len(share) - 1)
    left, values, _ = svds(positive, k=rank, v0=rng.standard_normal(len(share)))  # a start of its own is random
    vectors = left * np.sqrt(values) @ np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:rank]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)


if __name__ == "__main__":
    sys.exit(main())
