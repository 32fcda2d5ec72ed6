"""encode.py's contestants in the peers' interpreter (benchmarks/requirements.txt): the same weights elsewhere.

Imports of a peer stand in its functions: a contestant's process loads that peer alone.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from encode_worker import BATCH_SIZE, DIMENSION, MAX_SEQ_LENGTH, Model, Workload, cores, serve

OPENVINO_INT8 = "openvino_model_qint8_quantized.xml"
# PaddleNLP's names of a layer's parts -> those of transformers' BERT
PARTS = {"self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key",
         "self_attn.v_proj": "attention.self.value", "self_attn.out_proj": "attention.output.dense",
         "norm1": "attention.output.LayerNorm", "linear1": "intermediate.dense", "linear2": "output.dense",
         "norm2": "output.LayerNorm"}


def quantize_onnx(folder: Path) -> None:
    """Dynamic quantization with ONNX Runtime's defaults, weights as signed int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = folder / "model_folded.onnx"  # the export's weights are constants, of which quantize_dynamic takes none
    quant_pre_process(folder / "model.onnx", folded, skip_symbolic_shape=True)
    quantize_dynamic(folded, folder / "model_int8.onnx", weight_type=QuantType.QInt8)


def onnx_runtime(folder: Path, name: str) -> Model:
    """ONNX Runtime alone: batches in, vectors out."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    ids_name, mask_name = (node.name for node in session.get_inputs())
    return Model(lambda work: work.in_order(
        session.run(None, {ids_name: ids, mask_name: mask})[0] for _, ids, mask in work.batches), cores())


def make_sentence_transformer(folder: Path) -> None:
    """The checkpoint as a sentence-transformers model: BERT, mean pooling, projection, unit length."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel, BertTokenizerFast

    checkpoint = folder / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_text())
    with open(checkpoint / "model_state.pdparams", "rb") as file:
        state = pickle.load(file)  # written by encode_paddle.make_checkpoint a moment ago
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "hidden_act", "max_position_embeddings", "type_vocab_size", "pad_token_id")
    bert = BertModel(BertConfig(**{name: config[name] for name in names}))
    bert.load_state_dict({name: torch.from_numpy(value) for name, value in _bert_state(state).items()})
    bert.save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(checkpoint / "vocab.txt"), do_lower_case=True).save_pretrained(folder / "bert")

    transformer = parts.Transformer(str(folder / "bert"), max_seq_length=MAX_SEQ_LENGTH)
    projection = parts.Dense(
        config["hidden_size"], DIMENSION, activation_function=torch.nn.Identity(),
        init_weight=torch.from_numpy(np.ascontiguousarray(state["emb_reduce_linear.weight"].T)),
        init_bias=torch.from_numpy(state["emb_reduce_linear.bias"]))
    modules = [transformer, parts.Pooling(config["hidden_size"], "mean"), projection, parts.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "sentence_transformer"))


def _bert_state(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters under BERT's names; matrices of linear layers lie transposed there."""
    renamed = {}
    for name, value in state.items():
        scope, _, rest = name.partition(".")
        if scope != "ptm" or rest.startswith("embeddings.task_type_embeddings"):
            continue
        rest = rest.replace(".layer_norm.", ".LayerNorm.").replace("encoder.layers.", "encoder.layer.")
        for own, bert in PARTS.items():
            rest = rest.replace(f".{own}.", f".{bert}.")
        linear = value.ndim == 2 and not rest.startswith("embeddings.")
        renamed[rest] = np.ascontiguousarray(value.T if linear else value)
    # All texts are of ERNIE's task 0; BERT has no tasks, so their vector goes where all tokens get the same one anyway.
    renamed["embeddings.token_type_embeddings.weight"] += state["ptm.embeddings.task_type_embeddings.weight"][0]
    return renamed


def quantize_openvino(folder: Path) -> None:
    """Static int8 of the OpenVINO backend.

    What sentence-transformers' `export_static_quantized_openvino_model` does, without its calibration set from the
    hub, padded to 384 tokens: the calibration texts are of the corpus, in their own lengths.
    """
    import nncf
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer
    from sentence_transformers import SentenceTransformer

    path = folder / "sentence_transformer"
    model = SentenceTransformer(str(path), backend="openvino", device="cpu")
    texts = Workload.read(folder)[2]
    encoded = [dict(model.tokenizer(text, truncation=True, max_length=MAX_SEQ_LENGTH, return_tensors="np"))
               for text in texts]
    quantizer = OVQuantizer.from_pretrained(model[0].auto_model)
    quantizer.quantize(nncf.Dataset(encoded), save_directory=folder / "openvino_int8",
                       ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(texts))))
    (path / "openvino").mkdir(exist_ok=True)
    for suffix in (".xml", ".bin"):
        saved = folder / "openvino_int8" / "openvino" / f"openvino_model{suffix}"
        saved.replace((path / "openvino" / OPENVINO_INT8).with_suffix(suffix))


def sentence_transformer(folder: Path, form: str) -> Model:
    """sentence-transformers, texts in, vectors out; form: fp32, bf16 or openvino_int8."""
    import torch
    from sentence_transformers import SentenceTransformer

    path, backend = str(folder / "sentence_transformer"), {}
    if form == "openvino_int8":
        backend = {"backend": "openvino", "model_kwargs": {"file_name": f"openvino/{OPENVINO_INT8}"}}
    model = SentenceTransformer(path, device="cpu", **backend)
    if form == "bf16":
        model.bfloat16()
    return Model(
        lambda work: model.encode(work.texts, batch_size=BATCH_SIZE, show_progress_bar=False),
        torch.get_num_threads() if form != "openvino_int8" else cores(),
        lambda texts: model.tokenizer(list(texts), truncation=True, max_length=MAX_SEQ_LENGTH)["input_ids"])


if __name__ == "__main__":
    serve(quantize_onnx, onnx_runtime, make_sentence_transformer, quantize_openvino, sentence_transformer)
