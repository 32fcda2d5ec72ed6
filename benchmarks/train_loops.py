"""Training loops that train.py measures this project's own against, each in a process of its own.

    python train_loops.py FUNCTION FOLDER PAIRS_FILE STEPS RESULT_FILE [ARGUMENT ...]

FUNCTION trains so many steps from the checkpoint in FOLDER; `reference` is for the project's interpreter,
`sentence_transformer` for the peers'. RESULT_FILE gets JSON: versions, and of each step pairs, seconds, tokens, and
tokens with padding.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from encode_worker import BATCH_SIZE, MAX_SEQ_LENGTH, versions

LEARNING_RATE, WEIGHT_DECAY, MARGIN, SCALE, SEED = 5e-5, 0.0, 0.2, 30.0, 1000


class Steps:
    """What the steps of a loop took. A step lasts from the end of the one before: loading its batch is part of it."""

    def __init__(self) -> None:
        self.records: list[tuple[int, float, int, int]] = []
        self.texts = self.tokens = self.padded = 0
        self.ended = time.perf_counter()

    def add(self, mask) -> None:
        """Count a batch of texts by its mask, [texts, length], 1 where a token is."""
        self.texts += mask.shape[0]
        self.tokens += int(mask.sum())
        self.padded += mask.shape[0] * mask.shape[1]

    def end(self) -> int:
        """A step is done; returns how many are."""
        now = time.perf_counter()
        self.records.append((self.texts // 2, now - self.ended, self.tokens, self.padded))
        self.texts = self.tokens = self.padded = 0
        self.ended = now
        return len(self.records)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """What train.py has written: {"query": source, "pos": target} a line."""
    with open(path, encoding="utf-8") as file:
        return [(row["query"], row["pos"]) for row in map(json.loads, file)]


def reference(folder: Path, pairs_file: Path, steps: int) -> list[tuple[int, float, int, int]]:
    """The form of PaddleNLP's examples/semantic_indexing/train_batch_neg.py, written anew as a baseline.

    One forward for the sources and one for the targets, each padded to its own longest text; texts are tokenized when
    the loader asks for them. The file is in random order already, so the loader takes it as it is.
    """
    import paddle
    from encode_paddle import open_example
    from paddle.nn import functional as F
    from paddlenlp.data import Tuple
    from paddlenlp.datasets import MapDataset
    from paddlenlp.transformers import LinearDecayWithWarmup

    paddle.seed(SEED)
    model, convert, pads = open_example(folder)
    dataset = MapDataset(read_pairs(pairs_file)).map(lambda pair: convert(pair[0]) + convert(pair[1]))
    padding, pad_id = Tuple(*pads, *pads), model.ptm.config.pad_token_id
    loader = paddle.io.DataLoader(
        dataset, batch_sampler=paddle.io.BatchSampler(dataset, shuffle=False, batch_size=BATCH_SIZE),
        collate_fn=lambda samples: list(padding(samples)), return_list=True)
    schedule = LinearDecayWithWarmup(LEARNING_RATE, steps, 0.0)
    decayed = {parameter.name for name, parameter in model.named_parameters()
               if "bias" not in name and "norm" not in name}
    optimizer = paddle.optimizer.AdamW(schedule, parameters=model.parameters(), weight_decay=WEIGHT_DECAY,
                                       apply_decay_param_fun=decayed.__contains__)
    model.train()
    done = Steps()
    while True:
        for sources, source_types, targets, target_types in loader:
            cosines = paddle.matmul(model(sources, source_types), model(targets, target_types), transpose_y=True)
            cosines = cosines - paddle.diag(paddle.full([len(sources)], MARGIN))
            loss = F.cross_entropy(cosines * SCALE, paddle.arange(len(sources)).unsqueeze(-1))
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.clear_grad()
            for ids in (sources.numpy(), targets.numpy()):
                done.add(ids != pad_id)
            if done.end() == steps:
                return done.records


def sentence_transformer(folder: Path, pairs_file: Path, steps: int,
                         precision: str) -> list[tuple[int, float, int, int]]:
    """sentence-transformers' own trainer as its documentation has it.

    bf16 on a CPU: transformers' documentation (perf_train_cpu) asks for `bf16=True, use_cpu=True`.

    Raises:
        RuntimeError: linear layers were not computed in that precision.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    model = SentenceTransformer(str(folder / "sentence_transformer"), device="cpu")
    model.max_seq_length = MAX_SEQ_LENGTH
    done, computed_in = Steps(), set()
    model[0].register_forward_pre_hook(lambda module, inputs: done.add(inputs[0]["attention_mask"]))
    linear = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    linear.register_forward_hook(lambda module, inputs, output: computed_in.add(output.dtype))

    class Stamps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            done.end()

    sources, targets = zip(*read_pairs(pairs_file))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trained" / f"st_{precision}"), max_steps=steps, seed=SEED,
        per_device_train_batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
        use_cpu=True, bf16=precision == "bf16", save_strategy="no", report_to="none")
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict({"anchor": sources, "positive": targets}),
        loss=MultipleNegativesRankingLoss(model, scale=SCALE), callbacks=[Stamps()]).train()
    wanted = torch.bfloat16 if precision == "bf16" else torch.float32
    if computed_in != {wanted}:
        raise RuntimeError(f"computed in {', '.join(map(str, computed_in))} where {wanted} was asked for")
    return done.records


def main() -> None:
    function, folder, pairs_file, steps, result_file, *arguments = sys.argv[1:]
    train = {"reference": reference, "sentence_transformer": sentence_transformer}[function]
    records = train(Path(folder), Path(pairs_file), int(steps), *arguments)
    Path(result_file).write_text(json.dumps({"steps": records, "versions": versions()}))


if __name__ == "__main__":
    main()
