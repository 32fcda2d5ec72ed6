"""Exports: a model in the form that a runtime loads within a second, with its tokenizer, checked against the original.

An export folder holds

    model.xml, model.bin            for OpenVINO, or
    model.json, model.pdiparams     for paddle.inference
    vocab.txt, ...                  the tokenizer's files
    export.json                     what it was made from, how near its vectors are, size and SHA-256 of the files

It needs neither paddlenlp nor, for OpenVINO, paddle. `open_export` makes one beside the checkpoint on first use.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checkpoint import fingerprint_of, load_checkpoint
from cli import notice
from data import pad_batch
from files import (
    UserError,
    check_file,
    describe_file,
    made_by,
    make_folder,
    read_json,
    read_manifest,
    whole_file,
    write_failure,
    write_manifest,
)
from inference import RUNTIMES, Batch, DygraphRunner, Runner, choose_precision, default_runtime
from runtime import silent_stdout, start_paddle, threads_of_rank
from tokenizer import Tokenizer

MANIFEST, FORMAT = "export.json", 1
CHECK_TEXTS, CALIBRATION_TEXTS = 256, 500
MIN_COSINE = {"fp32": 0.9999, "bf16": 0.99, "int8": 0.95}  # of any checked text; means are far nearer to 1


@dataclass
class Export:
    """An export as it was opened.

    Attributes:
        fingerprint: of the checkpoint that it was made from.
        matryoshka_dims: sizes to which its vectors may be cut.
    """

    runner: Runner
    tokenizer: Tokenizer
    precision: str
    runtime: str
    fingerprint: str
    matryoshka_dims: Sequence[int]


def open_export(params_path: str, max_seq_length: int, precision: str, threads: int | None, sample: Sequence[str],
                model_name_or_path: str | None = None, output_emb_size: int | None = None) -> Export:
    """Open the export of a checkpoint, or one that `params_path` names itself; make it where there is none yet.

    Args:
        precision: "auto", "fp32", "bf16" or "int8".
        threads: to compute with; None takes all cores.
        sample: texts like those to be encoded: they check a new export, and set the ranges of int8.

    Raises:
        UserError: the checkpoint or the export is damaged or contradicts a flag, or a new export's vectors are too far
            from the model's own.
    """
    folder = Path(params_path)
    if folder.is_dir() and (folder / MANIFEST).is_file():
        return _load(folder, read_export(folder), max_seq_length, precision, threads, output_emb_size)
    runtime = default_runtime()
    chosen = choose_precision(precision, runtime)
    fingerprint = fingerprint_of(params_path, model_name_or_path)
    folder = Path(params_path).parent / "export" / f"{runtime}-{chosen}"
    facts = _usable(folder, fingerprint)
    if facts is not None and _set_by_few(facts, sample):
        notice(f"{folder} was made with {facts.get('calibrated_on', 'few')} text(s); it is made again with more")
        shutil.rmtree(folder, ignore_errors=True)
        facts = None
    with contextlib.ExitStack() as temporary:
        if facts is None:
            if not _can_write(folder):
                folder = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="export_"))) / folder.name
                notice(f"{params_path}: its folder is not writable, so this run's export of the model is not kept")
            make_export(folder, params_path, model_name_or_path, runtime, chosen, sample)
            facts = read_export(folder)
        return _load(folder, facts, max_seq_length, precision, threads, output_emb_size)


def _usable(folder: Path, fingerprint: str) -> dict | None:
    """What the export in `folder` says of itself, or None where it is absent, damaged or another checkpoint's."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        facts = read_export(folder)
    except UserError as error:
        notice(f"{error}\nit is made again")
        return None
    return facts if facts["checkpoint"] == fingerprint else None


def _set_by_few(facts: dict, sample: Sequence[str]) -> bool:
    """Whether the ranges of an int8 export are those of few texts, as a first run had them, and there are far more now.

    Not for a few more: an index that grows keeps the export that its first vectors were made with.
    """
    enough = max(1, min(CALIBRATION_TEXTS, len(sample)) // 4)
    return facts["precision"] == "int8" and facts.get("calibrated_on", 0) < enough


def read_export(folder: Path) -> dict:
    """The manifest of an export, after its files were compared with it; UserError if one is missing or damaged."""
    remedy = "delete the folder, and it is made again from its checkpoint"
    facts = read_manifest(folder / MANIFEST, FORMAT, remedy)
    for name, expected in facts["files"].items():
        check_file(folder / name, expected, remedy)
    return facts


def _can_write(folder: Path) -> bool:
    existing = next(parent for parent in folder.parents if parent.is_dir())
    return os.access(existing, os.W_OK | os.X_OK)


def _load(folder: Path, facts: dict, max_seq_length: int, precision: str, threads: int | None,
          output_emb_size: int | None) -> Export:
    if precision not in ("auto", facts["precision"]):
        raise UserError(f"--precision {precision} contradicts {folder}, which was exported in {facts['precision']}; "
                        f"leave the flag out or name the checkpoint")
    if output_emb_size is not None and output_emb_size != facts["output_emb_size"]:
        raise UserError(f"--output_emb_size {output_emb_size} contradicts {folder}, which was trained with "
                        f"{facts['output_emb_size']}; leave the flag out or name another checkpoint")
    if max_seq_length > facts["max_positions"]:
        raise UserError(f"--max_seq_length {max_seq_length}: the encoder of {folder} takes {facts['max_positions']} "
                        f"tokens at most")
    if facts["runtime"] == "paddle":
        start_paddle("cpu", threads=threads)
    runner = RUNTIMES[facts["runtime"]](folder, facts["dimension"], facts["precision"], threads or threads_of_rank())
    tokenizer = Tokenizer(folder, max_seq_length, facts.get("text_prefix", ""))
    tokenizer.check_room()
    return Export(runner, tokenizer, facts["precision"], facts["runtime"], facts["checkpoint"],
                  facts.get("matryoshka_dims", ()))


def make_export(folder: Path, params_path: str, model_name_or_path: str | None, runtime: str, precision: str,
                sample: Sequence[str]) -> None:
    """Export a checkpoint into `folder`, whole or not at all, and check it on `sample` against the dygraph model.

    Raises:
        UserError: some vector's cosine with the model's own is below MIN_COSINE.
    """
    from pretrained import positions_of

    fingerprint = fingerprint_of(params_path, model_name_or_path)
    notice(f"exporting {params_path} to {folder} (once)")
    start_paddle("cpu")
    checkpoint = load_checkpoint(params_path, None, model_name_or_path)
    positions = positions_of(checkpoint.model.ptm.config)
    make_folder(folder.parent)
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a killed run, if it is old; a younger one may be at work
        if time.time() - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        try:
            _write_graph(temporary, checkpoint.model, runtime)
        except Exception as error:  # where the disk is full, Paddle and OpenVINO raise anything
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(write_failure(folder, OSError(reason[-1]))) from error
        for name, content in checkpoint.tokenizer.files.items():
            with whole_file(temporary / name) as file:
                file.write(content)
        tokenizer = Tokenizer(temporary, min(64, positions), checkpoint.tokenizer.prefix)
        # Spread over the whole sample, and sorted so that there is little padding to compute.
        chosen = sample[:: max(1, -(-len(sample) // CALIBRATION_TEXTS))]
        if precision == "int8":
            _quantize(temporary, _batches(sorted(tokenizer(chosen), key=len), tokenizer.pad_id))
        checked = sorted(tokenizer(chosen[:CHECK_TEXTS]), key=len)
        nearness = _compare(temporary, checkpoint.model, runtime, precision, checked, tokenizer.pad_id)
        files = {path.name: describe_file(path) for path in sorted(temporary.iterdir())}
        write_manifest(temporary / MANIFEST, {
            "format": FORMAT, "checkpoint": fingerprint, "runtime": runtime, "precision": precision,
            "dimension": checkpoint.model.dimension, "output_emb_size": checkpoint.model.output_emb_size,
            "max_positions": positions, "text_prefix": tokenizer.prefix,
            "matryoshka_dims": list(checkpoint.model.matryoshka_dims), "checked": nearness,
            "calibrated_on": len(chosen), "made_by": made_by(), "files": files})
        _put(temporary, folder, fingerprint)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, folder: Path, fingerprint: str) -> None:
    """Rename into place. Where another process was faster with the same export, its one stays."""
    for _ in range(2):
        try:
            os.replace(temporary, folder)
            return
        except OSError:  # there is one
            if _usable(folder, fingerprint) is not None:
                return
            shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def _write_graph(folder: Path, model, runtime: str) -> None:
    import paddle
    from paddle.static import InputSpec

    inputs = [InputSpec([None, None], "int64", "input_ids"), InputSpec([None, None], "float32", "attention_mask")]
    with silent_stdout():
        paddle.jit.save(paddle.jit.to_static(model, input_spec=inputs, full_graph=True), str(folder / "model"))
    if runtime == "openvino":
        import openvino
        import paddle2onnx

        paths = [str(folder / name) for name in ("model.json", "model.pdiparams", "model.onnx")]
        read_json(paths[0])  # of an incomplete one paddle2onnx ends the process without a word
        with silent_stdout(), contextlib.redirect_stdout(io.StringIO()):
            paddle2onnx.export(*paths, opset_version=17, enable_optimize=False)  # OpenVINO has its own optimizer
            openvino.save_model(openvino.Core().read_model(paths[2]), str(folder / "model.xml"), compress_to_fp16=False)
        for path in paths:
            os.remove(path)


def _quantize(folder: Path, batches) -> None:
    """Weights and activations to int8 (nncf's post-training quantization), ranges by the calibration batches."""
    os.environ.setdefault("NNCF_CI", "1")  # without it nncf reports its use to its makers
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(str(folder / "model.xml"))
    # The last product, the projection, stays as it is: it costs nothing, and in int8 OpenVINO 2026.4 on processors
    # with AVX2 alone computes it wrongly for all texts of a batch after the 128th.
    projection = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "MatMul"][-1]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantized = nncf.quantize(model, nncf.Dataset([dict(enumerate(batch)) for batch in batches]),
                                  subset_size=len(batches), model_type=nncf.ModelType.TRANSFORMER,
                                  ignored_scope=nncf.IgnoredScope(names=[projection]))
    openvino.save_model(quantized, str(folder / "quantized.xml"), compress_to_fp16=False)
    for kind in ("xml", "bin"):
        os.replace(folder / f"quantized.{kind}", folder / f"model.{kind}")


def _batches(token_ids: list[list[int]], pad_id: int) -> list[Batch]:
    return [pad_batch(token_ids[i : i + 16], pad_id) for i in range(0, len(token_ids), 16)]


def _compare(folder: Path, model, runtime: str, precision: str, token_ids: list[list[int]], pad_id: int) -> dict:
    """Cosines of the export's vectors with the model's own: their least and their mean."""
    runner = RUNTIMES[runtime](folder, model.dimension, precision, threads_of_rank())
    batches = _batches(token_ids, pad_id)
    right = np.concatenate(DygraphRunner(model).run(batches, lambda _: None))
    if not np.isfinite(right).all():
        raise UserError("the model gives vectors that are not finite (NaN); its training has diverged: take an "
                        "earlier checkpoint")
    # In one batch as well: kernels that are right for few rows have been seen to fail for many.
    cosines = np.concatenate([_cosines(np.concatenate(runner.run(cut, lambda _: None)), right)
                              for cut in (batches, [pad_batch(token_ids, pad_id)])])
    nearness = {"texts": len(token_ids), "least_cosine": round(float(cosines.min()), 6),
                "mean_cosine": round(float(cosines.mean()), 6)}
    if not nearness["least_cosine"] >= MIN_COSINE[precision]:
        raise UserError(f"the {runtime} export in {precision} differs from the model: a text has cosine "
                        f"{nearness['least_cosine']} to its right vector, where {MIN_COSINE[precision]} is the least "
                        f"allowed; use --precision fp32, or report it if that is what failed")
    notice(f"export checked on {len(token_ids)} texts: least cosine {nearness['least_cosine']}, mean "
           f"{nearness['mean_cosine']}")
    return nearness


def _cosines(vectors: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", vectors, unit) / np.linalg.norm(vectors, axis=1)
