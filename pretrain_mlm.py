"""Warm an encoder up on texts without labels: some tokens are hidden, and it learns to name them.

    python -u pretrain_mlm.py --device cpu --model_name_or_path configs/ernie_tiny --train_set_file corpus_file \\
        --save_dir warm --epochs 1 --batch_size 256 --learning_rate 1E-3 --warmup_proportion 0.06
    python -u train_batch_neg.py --model_name_or_path warm/latest ...

For an encoder that starts from random weights, and for pretrained ones that meet texts of another kind than they know.

In:  texts, one a line; of a file of pairs, the texts of both columns.
Out: in --save_dir checkpoints like those of the other training scripts; `--model_name_or_path CHECKPOINT` starts from
     their encoder.
"""

from __future__ import annotations

import sys

import cli
from train_flags import add_training_flags, check_training_flags
from training import run_training


@cli.entry_point
def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    add_training_flags(parser, vectors=False, pairs=False)
    parser.add_argument("--mask_probability", type=cli.fraction, default=0.15, help="share of the tokens to hide")
    args = parser.parse_args(argv)
    check_training_flags(parser, args)
    return run_training(args, "masked_lm")


if __name__ == "__main__":
    sys.exit(main())
