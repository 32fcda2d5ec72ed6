"""Make a checkpoint of an encoder as it is, without any training: to measure it, or to use it where it is good enough.

    python import_encoder.py --model_name_or_path multilingual-e5-small --pooling mean --text_prefix "query: " \\
        --save_dir checkpoints/e5
    python recall.py --params_path checkpoints/e5 ...

In:  an encoder's folder (Hugging Face's or PaddleNLP's) or hub name, with weights.
Out: a checkpoint folder, as the training scripts write it; its vectors have the encoder's own size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cli
from checkpoint import check_replaceable, save_checkpoint
from files import make_folder
from runtime import start_paddle
from train_flags import add_pooling_flag, add_prefix_flag


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--model_name_or_path", required=True, help="the encoder")
    add_pooling_flag(parser, required=True)
    add_prefix_flag(parser)
    parser.add_argument("--save_dir", required=True, help="the checkpoint folder to write; an earlier one is replaced")
    args = parser.parse_args(argv)
    folder = Path(args.save_dir)
    check_replaceable(folder, None)
    start_paddle("cpu")
    from model import SemanticIndexBase
    from pretrained import start_encoder

    encoder, tokenizer = start_encoder(args.model_name_or_path, None, text_prefix=args.text_prefix,
                                       pooler_needed=args.pooling == "cls", weights_needed=True)
    model = SemanticIndexBase(encoder, output_emb_size=0, pooling=args.pooling)
    make_folder(folder.parent)
    save_checkpoint(folder, model, tokenizer, {"strategy": None, "step": 0, "training": vars(args)})
    cli.notice(f"{folder}: vectors of {model.dimension} dimensions, {args.pooling} pooling")


if __name__ == "__main__":
    sys.exit(main())
