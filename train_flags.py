"""Flags that the training scripts have in common."""

from __future__ import annotations

import argparse
from typing import Any

from cli import (
    Parser,
    add_device_flag,
    checkpoint_path,
    descending_ints,
    existing_file,
    fraction,
    natural,
    non_negative,
    positive,
    positive_int,
    seed,
)

# Where a script has no use for one of these flags it does not know it, and its value is None.
NOT_EVERYWHERE = ("output_emb_size", "pooling", "matryoshka_dims", "cross_batch_negatives", "grad_cache_chunk_size",
                  "eval_pair_file", "eval_corpus_file", "eval_corpus_size", "eval_steps", "early_stop_patience",
                  "all_pairs")


def add_training_flags(parser: Parser, vectors: bool = True, pairs: bool = True) -> None:
    """Declare them, in the order in which --help shows them.

    Args:
        vectors: whether the script trains vectors of texts; without, there is nothing to pool, project or evaluate.
        pairs: whether it learns from pairs and negatives.
    """
    parser.set_defaults(**dict.fromkeys(NOT_EVERYWHERE))
    _add_data_flags(parser.add_argument_group("data"))
    model = parser.add_argument_group("model")
    _add_encoder_flags(model)
    optimization = parser.add_argument_group("optimization")
    _add_optimization_flags(optimization)
    if vectors:
        _add_vector_flags(model)
    if pairs:
        _add_pair_flags(model, optimization)
    if vectors:
        _add_cache_flag(optimization)
        _add_evaluation_flags(parser.add_argument_group("evaluation while training"))
    _add_runtime_flags(parser.add_argument_group("runtime and output"))


def add_prefix_flag(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--text_prefix", default="",
                        help='put before every text, here and wherever the checkpoint is used ("query: " for e5)')


def add_pooling_flag(parser: argparse._ActionsContainer, **settings: Any) -> None:
    parser.add_argument("--pooling", choices=["cls", "first", "mean"], **settings,
                        help="text vector: the pooler over [CLS], the last hidden state of [CLS] (bge), or the mean of "
                             "all (e5)")


def check_training_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse flags that don't go together; settle the defaults that hang on others."""
    for name in ("eval_corpus_file", "eval_steps", "early_stop_patience"):
        if getattr(args, name) and not args.eval_pair_file:
            parser.error(f"--{name} {getattr(args, name)} needs --eval_pair_file, the pairs to evaluate on")
    if args.amp and args.device == "cpu":
        parser.error(f"--amp {args.amp} goes with --device gpu: Paddle has no mixed precision on a CPU; leave --amp "
                     f"(or --use_amp) out")
    args.eval_steps = args.eval_steps or (args.save_steps if args.eval_pair_file else None)


def _add_data_flags(data: argparse._ArgumentGroup) -> None:
    data.add_argument("--train_set_file", required=True, type=existing_file, metavar="FILE",
                      help="training pairs, `source TAB target [TAB mined negative ...]` a line; or, in a file named "
                           ".jsonl, .ndjson or .json, objects with query, pos and neg; or texts alone, one a line "
                           "without a TAB, each its own positive")
    data.add_argument("--max_seq_length", type=positive_int, default=64, help="tokens kept of a text")
    data.add_argument("--batch_size", type=positive_int, default=64, help="pairs a step on each rank")
    data.add_argument("--no_length_bucketing", action="store_true",
                      help="batches of pairs of any length, not of similar length")


def _add_encoder_flags(model: argparse._ArgumentGroup) -> None:
    model.add_argument("--model_name_or_path", default="ernie-1.0",
                       help="encoder: a hub name, a folder with weights (PaddleNLP's, or Hugging Face's "
                            "model.safetensors), or a folder with only config.json and vocab.txt (or tokenizer.json), "
                            "which starts from random weights")
    model.add_argument("--init_from_ckpt", type=checkpoint_path, metavar="FILE",
                       help="start from all weights of this checkpoint, those behind the encoder too")
    add_prefix_flag(model)
    model.add_argument("--dropout", type=fraction,
                       help="every dropout of encoder and projection (default: the encoder's own)")


def _add_vector_flags(model: argparse._ArgumentGroup) -> None:
    model.add_argument("--output_emb_size", type=natural, default=256,
                       help="dimension of the vectors; 0 keeps the encoder's own, without a projection")
    add_pooling_flag(model, default="cls")


def _add_optimization_flags(optimization: argparse._ArgumentGroup) -> None:
    optimization.add_argument("--learning_rate", type=positive, default=5e-5, help="highest rate of the schedule")
    optimization.add_argument("--weight_decay", type=non_negative, default=0.0, help="AdamW decay, not on bias or norm")
    optimization.add_argument("--warmup_proportion", type=fraction, default=0.0,
                              help="share of the steps over which the rate rises; then it falls linearly to 0")
    optimization.add_argument("--max_grad_norm", type=positive, default=1.0, help="gradients are clipped to this norm")
    optimization.add_argument("--epochs", type=positive_int, default=3, help="passes over the training pairs")
    optimization.add_argument("--max_steps", type=positive_int, help="end after so many steps")
    optimization.add_argument("--seed", type=seed, default=1000, help="of weights, order and dropout")


def _add_pair_flags(model: argparse._ArgumentGroup, optimization: argparse._ArgumentGroup) -> None:
    model.add_argument("--matryoshka_dims", type=descending_ints, default=[], metavar="D,D,...",
                       help="sizes to which the vectors may be cut by --output_dim: the loss is the mean of theirs")
    across = optimization.add_mutually_exclusive_group()
    across.add_argument("--cross_batch_negatives", action="store_true", default=True,
                        help="with several ranks: every row meets the targets of all ranks (this is the default)")
    across.add_argument("--no_cross_batch_negatives", action="store_false", dest="cross_batch_negatives",
                        help="every row meets the targets of its own rank alone")


def add_all_pairs_flag(parser: Parser) -> None:
    parser.add_argument("--all_pairs", action="store_true",
                        help="targets are queries as well, and sources negatives as well as targets: every text meets "
                             "all others of the batch")


def _add_cache_flag(optimization: argparse._ArgumentGroup) -> None:
    optimization.add_argument("--grad_cache_chunk_size", type=positive_int, metavar="PAIRS",
                              help="encode so many pairs at once and again for their gradients, so that a batch of any "
                                   "size needs the memory of these")


def _add_evaluation_flags(evaluation: argparse._ArgumentGroup) -> None:
    evaluation.add_argument("--eval_pair_file", "--similar_text_pair", "--similar_text_pair_file",
                            "--similar_pair_file", type=existing_file, metavar="FILE",
                            help="evaluation pairs, `source TAB target` a line; the best checkpoint by Recall@10 is "
                                 "kept as `best`")
    evaluation.add_argument("--eval_corpus_file", "--corpus_file", type=existing_file, metavar="FILE",
                            help="texts to recall from, one a line (default: those of the pairs)")
    evaluation.add_argument("--eval_corpus_size", type=natural, default=10_000,
                            help="texts drawn of that corpus, beside all targets; 0 takes all")
    evaluation.add_argument("--eval_steps", type=positive_int, metavar="STEPS",
                            help="steps between evaluations (default: --save_steps); also before the first step and "
                                 "after the last")
    evaluation.add_argument("--early_stop_patience", type=positive_int, metavar="EVALUATIONS",
                            help="end after so many evaluations without a better one")


def _add_runtime_flags(runtime: argparse._ArgumentGroup) -> None:
    add_device_flag(runtime)  # type: ignore[arg-type]
    runtime.add_argument("--amp", choices=["bf16", "fp16"], help="mixed precision (GPU only)")
    runtime.add_argument("--use_amp", action="store_const", const="fp16", dest="amp", help="the same as --amp fp16")
    runtime.add_argument("--amp_loss_scale", type=positive, default=32768.0, help="first loss scale of --amp fp16")
    runtime.add_argument("--recompute", action="store_true",
                         help="keep of each layer its input alone, and compute the rest again for the gradient: less "
                              "memory, a third more time")
    runtime.add_argument("--save_dir", default="./checkpoints",
                         help="model_STEP folders, `latest`, `best`, train_log.jsonl, training_curve.png")
    runtime.add_argument("--save_steps", type=positive_int, default=1000,
                         help="steps between checkpoints; the last step is always saved")
    runtime.add_argument("--keep_checkpoints", type=positive_int, metavar="N",
                         help="keep the newest N, and the best (default: all)")
    runtime.add_argument("--resume", action="store_true",
                         help="go on from the newest whole checkpoint in --save_dir; the same flags, data and number "
                              "of ranks end in the same weights as without a stop")
    runtime.add_argument("--logging_steps", type=positive_int, default=10,
                         help="steps between log lines; the first ten and the last are always logged")
    runtime.add_argument("--visualdl_dir", metavar="DIR", help="write VisualDL scalars there")
