"""encode.py's contestants in the project's interpreter: this project, and the form of PaddleNLP's example."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from encode_worker import BATCH_SIZE, CHECKED, DIMENSION, MAX_SEQ_LENGTH, Model, Workload, cores, serve

SIZES = {"nano": {"hidden_size": 312, "intermediate_size": 1248, "num_hidden_layers": 4},
         "medium": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 6}}
COMMON = {"model_type": "ernie", "architectures": ["ErnieModel"], "vocab_size": 40000, "num_attention_heads": 12,
          "hidden_act": "gelu", "max_position_embeddings": 2048, "type_vocab_size": 4, "use_task_id": True,
          "task_type_vocab_size": 16, "pad_token_id": 0}
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]


def make_checkpoint(folder: Path) -> None:
    """A checkpoint of this project with the sizes of ERNIE 3.0 and random weights, and what is to embed."""
    settings = json.loads((folder / "settings.json").read_text())
    texts, calibration = settings["texts"], settings["calibration"]
    from runtime import start_paddle

    start_paddle("cpu", settings["seed"])
    from checkpoint import save_checkpoint
    from model import SemanticIndexBase
    from pretrained import open_encoder

    (folder / "sample.txt").write_text("".join(f"{text}\n" for text in calibration), encoding="utf-8")
    start = folder / "start"
    start.mkdir(exist_ok=True)
    given = settings["vocab_file"]
    (start / "vocab.txt").write_bytes(Path(given).read_bytes() if given else _vocabulary(texts + calibration).encode())
    (start / "tokenizer_config.json").write_text('{"tokenizer_class": "ErnieTokenizer", "do_lower_case": true}\n')
    size = SIZES[settings["encoder"]]
    # With the usual 0.02 attention would be all but even, and a mistake in the weights' names would hardly show.
    config = {**COMMON, **size, "initializer_range": size["hidden_size"] ** -0.5}
    (start / "config.json").write_text(json.dumps(config))
    encoder, tokenizer = open_encoder(str(start), MAX_SEQ_LENGTH)
    model = SemanticIndexBase(encoder, DIMENSION, pooling="mean")
    _spread(model, tokenizer(calibration))
    save_checkpoint(folder / "checkpoint", model, tokenizer, {"training": {"model_name_or_path": str(start)}})
    with open(folder / "workload.pickle", "wb") as file:  # plain: the peers have none of the project's modules
        pickle.dump((_workload(texts, tokenizer), _workload(texts[:CHECKED], tokenizer), calibration), file)


def _spread(model, token_ids: list[list[int]]) -> None:
    """Make cosines of a random model tell something: all of its parameters count, and texts differ.

    Biases of 0 and gains of 1 would hide mistakes, and a random encoder gives all texts nearly the same vector.
    """
    import paddle

    model.eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
        elif "embeddings" in name and "word" not in name:
            parameter.set_value(0.2 * parameter)
    linear, outputs = model.emb_reduce_linear, []
    hook = linear.register_forward_post_hook(lambda layer, inputs, output: outputs.append(output))
    with paddle.no_grad():
        for _, ids, mask in _batches(token_ids, pad_id=0):
            model(paddle.to_tensor(ids), paddle.to_tensor(mask))
    hook.remove()
    linear.bias.set_value(linear.bias - paddle.concat(outputs).mean(axis=0))


def _vocabulary(texts: list[str]) -> str:
    """The characters of the texts, as whole words and as pieces of longer ones."""
    characters = Counter("".join(texts).lower())
    kept = [c for c in characters if c.isprintable() and not c.isspace()]
    return "\n".join([*SPECIAL, *sorted(kept), *(f"##{c}" for c in sorted(kept))]) + "\n"


def _workload(texts: list[str], tokenizer) -> tuple:
    """What a Workload is made of."""
    token_ids = tokenizer(texts)
    return texts, token_ids, _batches(token_ids, tokenizer.pad_id)


def _batches(token_ids: list[list[int]], pad_id: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    from data import pad_batch

    order = np.argsort([len(ids) for ids in token_ids], kind="stable")
    rows_of_batch = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
    return [(rows, *pad_batch([token_ids[i] for i in rows], pad_id)) for rows in rows_of_batch]


def export_onnx(folder: Path) -> None:
    """The checkpoint as model.onnx, for the peers."""
    from runtime import start_paddle

    paddle = start_paddle("cpu")
    import paddle2onnx

    from checkpoint import load_checkpoint

    model = load_checkpoint(str(folder / "checkpoint" / "model_state.pdparams"), MAX_SEQ_LENGTH).model
    spec = [paddle.static.InputSpec([None, None], "int64", "ids"),
            paddle.static.InputSpec([None, None], "float32", "mask")]
    prefix = str(folder / "exported")
    paddle.jit.save(paddle.jit.to_static(model, input_spec=spec, full_graph=True), prefix)
    paddle2onnx.export(f"{prefix}.json", f"{prefix}.pdiparams", str(folder / "model.onnx"), opset_version=17)


def open_ours(params_path: str, precision: str) -> tuple[Any, Any]:
    """(texts -> vectors, [(ids, mask), ...] -> their vectors) of this project."""
    from data import read_texts
    from encoder import open_encoder

    sample = read_texts(str(Path(params_path).parents[1] / "sample.txt"))
    encoder, _ = open_encoder(SimpleNamespace(
        params_path=params_path, max_seq_length=MAX_SEQ_LENGTH, batch_size=BATCH_SIZE, device="cpu", num_threads=None,
        precision=precision, model_name_or_path=None, output_emb_size=None, output_dim=None), sample)
    return encoder.encode, lambda batches: encoder.runner.run(batches, lambda count: None)


def ours(folder: Path, precision: str) -> Model:
    """This project, texts in, vectors out."""
    encode, _ = open_ours(str(folder / "checkpoint" / "model_state.pdparams"), precision)
    return Model(lambda work: encode(work.texts), _omp_threads())


def ours_runtime(folder: Path, precision: str) -> Model:
    """This project's runtime alone: batches in, vectors out."""
    _, run = open_ours(str(folder / "checkpoint" / "model_state.pdparams"), precision)
    return Model(lambda work: work.in_order(run([(ids, mask) for _, ids, mask in work.batches])), _omp_threads())


def open_example(folder: Path) -> tuple[Any, Any, list[Any]]:
    """The form of PaddleNLP's examples/semantic_indexing, written anew as a baseline: its model and its tokenizer.

    Its dygraph model gets no mask: the encoder finds the padding by its id. But for the pooling (the example takes
    [CLS]) so that all contestants compute the same. Its tokenizer is the one in Python.

    Returns:
        The model; a function that maps one text to its ids and token types; the padding of each of these two.
    """
    import paddle
    from paddle.nn import functional as F
    from paddlenlp.data import Pad
    from paddlenlp.transformers import ErnieConfig, ErnieModel, ErnieTokenizer

    checkpoint = folder / "checkpoint"
    tokenizer = ErnieTokenizer(str(checkpoint / "vocab.txt"), do_lower_case=True)
    pad_id = tokenizer.pad_token_id

    class Example(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.ptm = ErnieModel(ErnieConfig.from_pretrained(str(checkpoint)))
            self.dropout = paddle.nn.Dropout(0.1)
            self.emb_reduce_linear = paddle.nn.Linear(self.ptm.config.hidden_size, DIMENSION)

        def forward(self, input_ids, token_type_ids):
            tokens = self.ptm(input_ids, token_type_ids)[0]
            mask = (input_ids != pad_id).astype("float32").unsqueeze(-1)
            pooled = (tokens * mask).sum(axis=1) / mask.sum(axis=1)
            return F.normalize(self.dropout(self.emb_reduce_linear(pooled)), p=2, axis=-1)

    def convert(text: str) -> list[list[int]]:
        encoded = tokenizer(text=text, max_seq_len=MAX_SEQ_LENGTH)
        return [encoded["input_ids"], encoded["token_type_ids"]]

    model = Example()
    model.set_state_dict(paddle.load(str(checkpoint / "model_state.pdparams")))
    return model, convert, [Pad(axis=0, pad_val=pad_id), Pad(axis=0, pad_val=tokenizer.pad_token_type_id)]


def reference(folder: Path) -> Model:
    """The example's recall.py: one text at a time, padded to the longest text of a batch in file order."""
    import paddle
    from paddlenlp.data import Tuple
    from paddlenlp.datasets import MapDataset

    model, convert, pads = open_example(folder)
    model.eval()

    def embed(work: Workload) -> np.ndarray:
        dataset, padding = MapDataset(work.texts).map(convert), Tuple(*pads)
        loader = paddle.io.DataLoader(
            dataset, batch_sampler=paddle.io.BatchSampler(dataset, shuffle=False, batch_size=BATCH_SIZE),
            collate_fn=lambda samples: list(padding(samples)), return_list=True)
        with paddle.no_grad():
            return np.concatenate([model(ids, types).numpy() for ids, types in loader])

    return Model(embed, _omp_threads(), lambda texts: [convert(text)[0] for text in texts])


def _omp_threads() -> int:
    """Paddle's threads: it sets OMP_NUM_THREADS to 1 at its import where it finds none."""
    return int(os.environ.get("OMP_NUM_THREADS", cores()))


if __name__ == "__main__":
    serve(make_checkpoint, export_onnx, ours, ours_runtime, reference)
