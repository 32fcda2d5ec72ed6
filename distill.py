"""Distil a big model into a small one: the small encoder learns to give texts the vectors of the big one.

    python predict.py --params_path big/latest --text_file corpus_file --output_embeddings teacher.npy
    python -u distill.py --device cpu --model_name_or_path configs/ernie_tiny --pooling mean \\
        --train_set_file corpus_file --teacher_vectors teacher.npy --save_dir small --epochs 3 --batch_size 256 \\
        --learning_rate 1E-3

No labels are needed: any texts like those of the task will do, and many help. The small model's vectors lie in the big
one's space, so that an index of the one can be asked with the other.

In:  texts, one a line, and the teacher's vectors of these lines.
Out: in --save_dir checkpoints like those of the other training scripts.
"""

from __future__ import annotations

import sys

import cli
from train_flags import add_training_flags, check_training_flags
from training import run_training


@cli.entry_point
def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(__doc__)
    add_training_flags(parser, pairs=False)
    parser.add_argument("--teacher_vectors", required=True, type=cli.existing_file, metavar="FILE",
                        help=".npy of a vector for each line of --train_set_file, as predict.py --output_embeddings "
                             "writes it")
    parser.add_argument("--scale", type=cli.positive, default=20.0, help="factor on the cosines before the softmax")
    args = parser.parse_args(argv)
    check_training_flags(parser, args)
    return run_training(args, "distilled", scale=args.scale)


if __name__ == "__main__":
    sys.exit(main())
