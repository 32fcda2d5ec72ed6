"""The story of a training script: check the input, build the model, train."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Callable

from checkpoint import WEIGHTS, check_continued, load_weights, read_state_dict, restore_replaced
from cli import rank, world_size
from files import UserError, make_folder, own_folder
from runtime import start_paddle, threads_of_rank, wait_for_ranks
from train_data import OF_TEXTS, TrainSet, read_teacher, read_train_set
from train_eval import Evaluation
from train_state import Resumed, clear_unfinished, find_checkpoint, sha256_of_data

if TYPE_CHECKING:
    from trainer import Trainer

# Model and training loop of each strategy: module and class.
STRATEGIES = {
    "batch_neg": (("model", "SemanticIndexBatchNeg"), ("trainer", "Trainer")),
    "hardest_neg": (("model", "SemanticIndexHardestNeg"), ("trainer", "Trainer")),
    "pairwise": (("model", "SemanticIndexPairwise"), ("trainer", "Trainer")),
    "distilled": (("distillation", "SemanticIndexDistilled"), ("distillation", "DistillationTrainer")),
    "masked_lm": (("masked_lm", "MaskedLanguageModel"), ("masked_lm", "MaskedLmTrainer"))}
MOST_COPIES = 4  # of the model in a process; each takes memory for a gradient of the whole model


def check_data(args, data: TrainSet, alone: bool) -> None:
    """Refuse what can't be trained on.

    Args:
        alone: whether a row can be learnt from without others beside it.

    Raises:
        UserError: there is no negative.
    """
    if not alone and args.batch_size * world_size() < 2:
        raise UserError(f"--batch_size {args.batch_size} on {world_size()} rank(s) leaves a pair without negatives; "
                        f"use 2 or more")
    if not alone and len(data) < 2:
        raise UserError(f"{args.train_set_file}: {len(data)} pair has no negatives beside it; give 2 pairs or more")


def run_training(args, strategy: str, **loss_settings: float) -> int:
    """The story of a training script: check the input, build the model, train.

    Args:
        strategy: a name of STRATEGIES.
        loss_settings: what its model takes beside the settings of SemanticIndexBase.

    Returns:
        The exit code.
    """
    data, pairwise = read_train_set(args.train_set_file), strategy == "pairwise"
    check_data(args, data, pairwise or strategy in OF_TEXTS)
    if strategy == "distilled":
        data.teacher = read_teacher(args.teacher_vectors, args.train_set_file, data)
    evaluation = Evaluation(args) if args.eval_pair_file else None
    if args.visualdl_dir:
        make_folder(args.visualdl_dir)
    with own_folder(args.save_dir) if rank() == 0 else contextlib.nullcontext():
        threads = threads_of_rank()
        # Recomputing replays the noise of Paddle's own dropout alone, so there Paddle's operators stay.
        copies = 1 if args.recompute or args.device == "gpu" else min(threads, MOST_COPIES)
        paddle = start_paddle(args.device, args.seed, threads // copies)
        if args.amp and paddle.get_device() == "cpu":
            raise UserError(f"--amp {args.amp} needs a GPU, and this PaddlePaddle sees none; leave --amp out")
        if rank() == 0:
            restore_replaced(args.save_dir)
            clear_unfinished(args.save_dir)
        wait_for_ranks()
        digests = sha256_of_data(args)
        resumed = find_checkpoint(args, strategy, digests) if args.resume else None
        from cpu_ops import replacing_paddles
        model_class, trainer = classes_of(strategy)

        fast = paddle.get_device() == "cpu" and not args.recompute
        copies = (resumed.copies if resumed else copies) if fast else 1  # a resumed run goes on with as many
        with replacing_paddles() if fast else contextlib.nullcontext():
            model, tokenizer = build_model(args, partial(model_class, **loss_settings),
                                           data.unlabelled and strategy not in OF_TEXTS, resumed)
            return trainer(args, data, model, tokenizer, strategy, pairwise, evaluation, resumed, digests,
                           copies).train()


def classes_of(strategy: str) -> tuple[Callable, type[Trainer]]:
    """The model and the training loop of a strategy; imported late, since they import paddle."""
    model, trainer = (getattr(import_module(module), name) for module, name in STRATEGIES[strategy])
    return model, trainer


def build_model(args, make_model: Callable, own_positives: bool, resumed: Resumed | None) -> tuple:
    """The model to train, with the weights to start from, and its tokenizer.

    Args:
        own_positives: whether each text is its own positive.

    Raises:
        UserError: the encoder can't be had, weights don't fit, or texts that are their own positives meet no dropout.
    """
    from pretrained import open_encoder, start_encoder

    if resumed:
        encoder, tokenizer = open_encoder(str(resumed.folder), args.max_seq_length, args.dropout, args.text_prefix)
    elif args.init_from_ckpt:  # holds the encoder's weights too
        encoder, tokenizer = open_encoder(args.model_name_or_path, args.max_seq_length, args.dropout,
                                          args.text_prefix)
    else:
        encoder, tokenizer = start_encoder(args.model_name_or_path, args.max_seq_length, args.dropout,
                                           args.text_prefix, pooler_needed=args.pooling == "cls")
    if own_positives and not (encoder.config.hidden_dropout_prob or encoder.config.attention_probs_dropout_prob):
        raise UserError(f"--dropout 0 (or an encoder without dropout) leaves nothing to learn from "
                        f"{args.train_set_file}, where each text is its own positive: give pairs, or a dropout above 0")
    if args.recompute:
        encoder.recompute_enable()
    model = make_model(encoder, output_emb_size=args.output_emb_size, pooling=args.pooling, dropout=args.dropout,
                       matryoshka_dims=args.matryoshka_dims or ())
    if args.matryoshka_dims and args.matryoshka_dims[0] != model.dimension:
        raise UserError(f"--matryoshka_dims {','.join(map(str, args.matryoshka_dims))} has to begin with "
                        f"{model.dimension}, the dimension of the vectors")
    if resumed:
        load_weights(model, read_state_dict(resumed.folder / WEIGHTS), resumed.folder / WEIGHTS,
                     "take another checkpoint")
    elif args.init_from_ckpt:
        check_continued(args.init_from_ckpt, args.pooling, args.text_prefix)
        load_weights(model, read_state_dict(args.init_from_ckpt), args.init_from_ckpt,
                     "--init_from_ckpt, --model_name_or_path and --output_emb_size have to fit each other")
    return model, tokenizer
