"""Train with HardestNeg: of the other targets in the batch only the hardest, the most similar, is a negative.

    python -u -m paddle.distributed.launch --gpus "0,1,2,3" train_hardest_neg.py --device gpu \\
        --save_dir ./checkpoints/ --batch_size 64 --learning_rate 5E-5 --epochs 3 --output_emb_size 256 \\
        --save_steps 500 --max_seq_length 64 --margin 0.2 --train_set_file semantic_pair_train.tsv

On a CPU: --device cpu, and --nproc_per_node N in place of --gpus; `python train_hardest_neg.py ...` runs one process.

In:  pairs of similar texts, `source TAB target` a line; further columns are mined negatives.
     Or JSON lines, or texts alone: see --train_set_file.
Out: in --save_dir a folder model_STEP for each checkpoint, `latest` pointing at the newest, `best`
     where there is an evaluation, train_log.jsonl, eval_log.jsonl and training_curve.png.
"""

from __future__ import annotations

import sys

import cli
from train_flags import add_all_pairs_flag, add_training_flags, check_training_flags
from training import run_training


@cli.entry_point
def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    add_training_flags(parser)
    parser.add_argument("--margin", type=cli.non_negative, default=0.2,
                        help="by which the positive's cosine has to exceed the hardest negative's")
    add_all_pairs_flag(parser)
    args = parser.parse_args(argv)
    check_training_flags(parser, args)
    return run_training(args, "hardest_neg", margin=args.margin)


if __name__ == "__main__":
    sys.exit(main())
