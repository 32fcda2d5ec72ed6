"""Predict: score text pairs by the cosine of their vectors, or extract the vectors of texts.

    python -u -m paddle.distributed.launch --gpus "0" predict.py --device gpu \\
        --params_path checkpoints/latest/model_state.pdparams --batch_size 128 --max_seq_length 64 \\
        --text_pair_file pairs.tsv
    python predict.py --device cpu --params_path checkpoints/latest/model_state.pdparams \\
        --text_file texts.txt --output_embeddings vectors.npy

In:  `text TAB text` a line, with 0/1 labels in a third column if there are some; or one text a line.
Out: one cosine a line on stdout, in the order of the file (--output_file writes `text TAB text TAB cosine` instead);
     with labels also Spearman's correlation, AUC and the best accuracy over all thresholds; or a .npy file of float32
     unit vectors, N x D.
"""

from __future__ import annotations

import sys

import numpy as np

import cli
from cli import notice
from data import read_text_pairs, read_texts
from encoder import open_encoder
from files import whole_file


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--text_pair_file", type=cli.existing_file, help="pairs to score")
    parser.add_argument("--output_file", type=cli.output_file,
                        help="write the scored pairs there instead of printing cosines")
    parser.add_argument("--text_file", type=cli.existing_file, help="texts to embed, one a line")
    parser.add_argument("--output_embeddings", type=cli.output_file,
                        help="the .npy file for the vectors of --text_file")
    args = parser.parse_args(argv)
    if bool(args.text_pair_file) == bool(args.text_file):
        parser.error("give one of --text_pair_file (to score) and --text_file (to embed)")
    if bool(args.text_file) != bool(args.output_embeddings):
        parser.error("--text_file and --output_embeddings go together")
    if args.output_file and not args.text_pair_file:
        parser.error("--output_file goes with --text_pair_file; for --text_file it is --output_embeddings")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    if args.text_pair_file:
        pairs, labels = read_text_pairs(args.text_pair_file)
        score(args, pairs, labels)
    else:
        embed(args, read_texts(args.text_file))


def score(args, pairs: list[tuple[str, str]], labels: list[int] | None) -> None:
    """Print or write the cosine of each pair, and the agreement with its label where there is one."""
    texts = [text for pair in pairs for text in pair]
    vectors = open_encoder(args, texts)[0].encode(texts, progress="pairs", shared=True)
    if cli.rank():
        return
    cosines = np.einsum("nd,nd->n", vectors[0::2], vectors[1::2]).clip(-1, 1)
    if args.output_file:
        with whole_file(args.output_file) as file:
            file.write("".join(f"{a}\t{b}\t{cosine:.6f}\n" for (a, b), cosine in zip(pairs, cosines)).encode())
    else:
        print("\n".join(f"{cosine:.6f}" for cosine in cosines))
    if labels is not None:
        from metrics import label_agreement

        notice("; ".join(f"{name} {value:.4f}" for name, value in label_agreement(cosines, np.array(labels)).items()))


def embed(args, texts: list[str]) -> None:
    """Write the vectors of `texts`."""
    vectors = open_encoder(args, texts)[0].encode(texts, progress="texts", shared=True)
    if cli.rank():
        return
    with whole_file(args.output_embeddings) as file:
        np.save(file, vectors)
    notice(f"{args.output_embeddings}: {vectors.shape[0]} x {vectors.shape[1]} float32")


if __name__ == "__main__":
    sys.exit(main())
