"""The checkpoints of a run: what a resumed run takes from one, which one it takes, and which are kept.

Beside the model a checkpoint holds AdamW's moments and powers (optimizer.pdopt) and, in its manifest, the step and what
else the run stands on. Schedule, order of the data and noise of dropout are functions of the flags and the step alone.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint import OPTIMIZER, check_checkpoint, point_at, read_state_dict
from cli import notice, world_size
from files import UserError, sha256_file

# A resumed run may have other values of these: none changes a weight.
FREE_FLAGS = {"resume", "save_dir", "save_steps", "keep_checkpoints", "logging_steps", "visualdl_dir", "device",
              "train_set_file", "teacher_vectors", "eval_pair_file", "eval_corpus_file", "eval_corpus_size",
              "eval_steps", "early_stop_patience"}
# The files that a run learns from, by their flags, and the names under which a manifest has their SHA-256.
LEARNT_FROM = {"train_set_file": "train_set_sha256", "teacher_vectors": "teacher_sha256"}
OF_PATHS = ("model_name_or_path", "init_from_ckpt")  # flags; two spellings of one path are one value
EVALUATED_ON = ("eval_pair_file", "eval_corpus_file", "eval_corpus_size")
ACCUMULATORS = ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0")  # AdamW's, of each parameter


@dataclass
class Resumed:
    """Where a run goes on.

    Attributes:
        folder: of the checkpoint.
        step: steps that were taken.
        evaluations: of these steps, as eval_log.jsonl has them.
        unlogged: tokens of the steps that train_log.jsonl does not tell of yet.
        copies: of the model that shared each step; they decide which texts meet which noise of dropout.
    """

    folder: Path
    step: int
    evaluations: list[dict]
    unlogged: tuple[int, int]
    copies: int


def sha256_of_data(args) -> dict[str, str | None]:
    """Of the files that are learnt from (see LEARNT_FROM); None where it is a pipe, which can be read only once."""
    return {name: sha256_file(path) if os.path.isfile(path) else None
            for flag, name in LEARNT_FROM.items() if (path := getattr(args, flag, None))}


def run_facts(digests: dict[str, str | None], evaluations: list[dict], unlogged: tuple[int, int],
              copies: int) -> dict[str, Any]:
    """What a manifest says of the run beside its flags."""
    return {"ranks": world_size(), "copies": copies, **digests, "evaluations": evaluations, "unlogged": unlogged}


def find_checkpoint(args, strategy: str, digests: dict[str, str | None]) -> Resumed | None:
    """The newest whole checkpoint in --save_dir; None, with a notice, where there is none at all.

    `latest` tells where the run stood: later steps are what an earlier run left in the folder.

    Raises:
        UserError: all checkpoints are damaged, or the whole one is of another run (the first flag that differs is
            named).
    """
    steps = steps_in(args.save_dir)
    latest = Path(args.save_dir, "latest")
    if latest.is_symlink():
        reached = _step_of(Path(os.readlink(latest)))
        for step in steps:
            if reached is not None and step > reached:
                notice(f"passing over {args.save_dir}/model_{step}: it lies beyond `latest`, model_{reached}")
        steps = [step for step in steps if reached is None or step <= reached]
    if not steps:
        if latest.is_symlink():
            raise UserError(f"--resume: {latest} points at {os.readlink(latest)}, which is not there, and there is no "
                            f"other checkpoint before it; bring it back, or start without --resume")
        notice(f"--resume: {args.save_dir} holds no checkpoint, so training begins at step 0")
        return None
    reasons = []
    for step in sorted(steps, reverse=True):
        folder = Path(args.save_dir, f"model_{step}")
        try:
            facts = check_checkpoint(folder, to_resume=True)
        except UserError as error:
            reasons.append(str(error))
            notice(f"passing over {folder}: {error}")
            continue
        _check_same_run(folder, facts, args, strategy, digests)
        notice(f"resuming from {folder}")
        return Resumed(folder, facts["step"], _evaluations(facts, args), tuple(facts.get("unlogged", (0, 0))),
                       facts.get("copies", 1))
    raise UserError(f"--resume: no checkpoint in {args.save_dir} is whole ({reasons[0]}); bring one back, or start "
                    f"without --resume in another folder")


def _check_same_run(folder: Path, facts: dict, args, strategy: str, digests: dict[str, str | None]) -> None:
    there, here = facts["training"], vars(args)
    remedy = "set it back, or start another run in another --save_dir"
    if facts["strategy"] != strategy:
        raise UserError(f"--resume: {folder} was trained with {facts['strategy']}, this is {strategy}; {remedy}")
    for name in sorted((there.keys() | here.keys()) - FREE_FLAGS):
        new_and_unused = name not in there and here[name] in (None, False, "", [])  # earlier versions lack it
        if not _is_same(name, there.get(name), here.get(name)) and not new_and_unused:
            raise UserError(f"--resume: {folder} was trained with --{name} {there.get(name)}, now it is "
                            f"{here.get(name)}; {remedy}")
    if facts["ranks"] != world_size():
        raise UserError(f"--resume: {folder} was trained on {facts['ranks']} rank(s), now there are {world_size()}; "
                        f"start as many again, or another run in another --save_dir")
    for flag, name in LEARNT_FROM.items():
        if None not in (facts.get(name), digests.get(name)) and facts[name] != digests[name]:
            raise UserError(f"--resume: --{flag} {getattr(args, flag)} is not the file that {folder} was trained on "
                            f"(its SHA-256 differs); {remedy}")


def _is_same(flag: str, there: object, here: object) -> bool:
    if flag in OF_PATHS and isinstance(there, str) and isinstance(here, str):
        return there == here or os.path.realpath(there) == os.path.realpath(here)
    return there == here


def _evaluations(facts: dict, args) -> list[dict]:
    changed = [name for name in EVALUATED_ON if facts["training"].get(name) != getattr(args, name)]
    if changed and facts["evaluations"]:
        notice(f"--{changed[0]} is another than before: the {len(facts['evaluations'])} earlier evaluation(s) don't "
               f"count")
    return [] if changed else facts["evaluations"]


def optimizer_state(model, optimizer, scaler) -> dict[str, np.ndarray]:
    """What optimizer and loss scale hold, under the parameters' own names: Paddle's differ between processes."""
    held = optimizer.state_dict()
    state = {f"{name}/{kind}": held[f"{parameter.name}_{kind}"].numpy()
             for name, parameter in model.named_parameters() for kind in ACCUMULATORS
             if f"{parameter.name}_{kind}" in held}
    return {**state, **{f"scaler/{name}": np.asarray(value) for name, value in scaler.state_dict().items()}}


def restore_optimizer(folder: Path, model, optimizer, scaler) -> None:
    """Give optimizer and loss scale what `optimizer_state` took."""
    import paddle

    state = read_state_dict(folder / OPTIMIZER)
    optimizer.set_state_dict({
        f"{parameter.name}_{kind}": paddle.to_tensor(state[f"{name}/{kind}"])
        for name, parameter in model.named_parameters() for kind in ACCUMULATORS if f"{name}/{kind}" in state})
    scaled = {name.removeprefix("scaler/"): value if value.ndim else value.item()
              for name, value in state.items() if name.startswith("scaler/")}
    if scaled:
        scaler.load_state_dict(scaled)


def steps_in(save_dir: str | os.PathLike) -> list[int]:
    """The steps of the model_STEP folders, ascending."""
    return sorted(step for path in Path(save_dir).glob("model_*")
                  if path.is_dir() and not path.is_symlink() and (step := _step_of(path)) is not None)


def _step_of(folder: Path) -> int | None:
    number = folder.name.removeprefix("model_")
    return int(number) if number.isdecimal() and folder.name != number else None


def settle(save_dir: str, step: int, best: dict | None, keep: int | None) -> None:
    """When the checkpoint of `step` is there: point `latest` and `best`, and remove what is not to be kept.

    A resumed run does it too: a kill may have come in between. Checkpoints of later steps are an earlier run's, and are
    left alone.
    """
    point_at(Path(save_dir, f"model_{step}"), "latest")
    best_step = best["step"] if best else None
    if best_step is not None and Path(save_dir, f"model_{best_step}").is_dir():
        point_at(Path(save_dir, f"model_{best_step}"), "best")
    link = Path(save_dir, "best")  # it may be of evaluations that don't count any more
    named = os.readlink(link) if link.is_symlink() else None
    past = [number for number in steps_in(save_dir) if number <= step]
    for number in past[: -keep] if keep else []:
        if f"model_{number}" != named:
            remove_checkpoint(Path(save_dir, f"model_{number}"))


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; killed in between, it leaves nothing that counts as one."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_unfinished(save_dir: str | os.PathLike) -> None:
    """Remove what a kill left of checkpoints that were being written or removed; the caller owns `save_dir`."""
    for left in (".model_*.tmp", ".model_*.old"):
        for path in Path(save_dir).glob(left):
            shutil.rmtree(path, ignore_errors=True)

