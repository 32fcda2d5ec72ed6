"""Masked-language-model training of an encoder on texts without labels (Devlin et al. 2019, arXiv:1810.04805).

Some tokens of a text are hidden, and the encoder learns to name them from the others. Only hidden tokens go through the
output layer, which has a column for every word: with all of them it would cost more than a small encoder.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from batches import deal_chunks
from cli import rank, world_size
from cpu_ops import add_gradients, remembering_lookups, seed_noise, sum_gradients
from data import pad_batch
from files import UserError
from tokenizer import Tokenizer
from trainer import CPU_CHUNK_TOKENS, Trainer


class MaskedLanguageModel(nn.Layer):
    """An encoder and BERT's output layer, whose table is that of the encoder's word embeddings.

    Its weights are saved under `ptm.*`, `lm_head.*` and `lm_bias`: training starts from the checkpoint's encoder.

    Raises:
        UserError: the encoder has no such table.
    """

    pooling, output_emb_size, matryoshka_dims = "mean", 0, ()

    def __init__(self, encoder: nn.Layer, **of_vectors) -> None:  # what other models make of tokens; not given here
        super().__init__()
        size = encoder.config.hidden_size
        words = getattr(getattr(encoder, "embeddings", None), "word_embeddings", None)
        if words is None or words.weight.shape[1] != size:
            raise UserError(f"{type(encoder).__name__} has no word embeddings of its hidden size {size}, which the "
                            f"output layer shares; name an encoder such as ernie, bert or roberta")
        self.ptm = encoder
        self.lm_head = nn.Sequential(
            ("dense", nn.Linear(size, size)), ("gelu", nn.GELU()), ("norm", nn.LayerNorm(size)))
        self.lm_bias = self.create_parameter([encoder.config.vocab_size], is_bias=True)

    @property
    def dimension(self) -> int:
        return self.ptm.config.hidden_size

    def loss(self, ids: paddle.Tensor, mask: paddle.Tensor, hidden: paddle.Tensor, words: paddle.Tensor,
             table: paddle.Tensor) -> paddle.Tensor:
        """Sum of the cross entropies of the hidden tokens.

        Args:
            ids, mask: [N, L], with hidden tokens replaced.
            hidden: int64 [H], their places in the flattened [N * L].
            words: int64 [H], the right tokens.
            table: [V, hidden size], the word embeddings.
        """
        tokens = self.ptm(ids, attention_mask=mask)[0]
        found = self.lm_head(tokens.reshape([-1, tokens.shape[-1]]).index_select(hidden))
        return F.cross_entropy(found @ table.T + self.lm_bias, words, reduction="sum")


class MaskedLmTrainer(Trainer):
    """The training loop with another step: texts in place of pairs, hidden tokens in place of similarities.

    Raises:
        UserError: the vocabulary has no token that hides others.
    """

    def __init__(self, args, data, model, tokenizer, *others, **settings) -> None:
        if tokenizer.mask_id is None:
            raise UserError(f"{args.model_name_or_path}: its vocabulary has no [MASK] (or <mask>); add one, or start "
                            f"from another encoder")
        super().__init__(args, data.texts_alone(), model, tokenizer, *others, **settings)

    def gradients(self, rows: np.ndarray, step: int) -> tuple[float, dict[str, int]]:
        """As `Trainer.gradients`: of the mean loss over the hidden tokens of the rows of all ranks."""
        texts = self.data.sources[rows]
        hidden = [self._hidden(int(text), step) for text in texts]
        total = sum(len(text.places) for text in hidden) or 1
        # A rank without rows computes an empty text, so that its gradients exist: they are zero.
        mine = hidden[rank() :: world_size()] or [HiddenText(ids := self.tokenizer([""])[0], ids, [])]
        lengths = np.array([len(text.ids) for text in mine])
        chunks, shares = deal_chunks(lengths, len(self.replicas.models), None,
                                     CPU_CHUNK_TOKENS if self.on_cpu else None)
        word_embeddings = self.model.ptm.embeddings.word_embeddings.weight
        # Leaves of the output layer: one for each copy of the model, since they work side by side and share the table,
        # and not one for each chunk, whose gradients of the whole vocabulary would fill memory.
        tables = {model: word_embeddings.detach() for model in self.replicas.models}
        for table in tables.values():
            table.stop_gradient = False

        def learn(model, number: int) -> tuple[float, list]:
            seed_noise(self.args.seed, step, rank(), number)
            with self.mixed_precision(), remembering_lookups() as lookups:
                loss = self._loss(model, [mine[i] for i in chunks[number]], tables[model]) / total
            self.scaler.scale(loss).backward()
            return float(loss), sum_gradients(lookups)

        loss = paddle.zeros([], "float64")
        for found, summed in self.replicas.run(learn, shares):
            loss += found
            add_gradients(summed)
        with paddle.no_grad():
            for table in tables.values():
                if table.grad is not None:
                    word_embeddings.grad.add_(table.grad)
        self.replicas.sum_gradients()
        if world_size() > 1:
            paddle.distributed.all_reduce(loss)
        return float(loss), {
            "pairs": len(rows), "tokens": int(self.lengths[texts].sum()), "own": int(lengths.sum()),
            "computed": int(sum(lengths[chunk].max() * len(chunk) for chunk in chunks))}

    def _hidden(self, text: int, step: int) -> HiddenText:
        """A text with tokens hidden; which ones hangs on seed, step and text alone."""
        rng = np.random.default_rng([self.args.seed, step, text])
        return hide(self.token_ids[text], self.args.mask_probability, rng, self.tokenizer)

    def _loss(self, model: MaskedLanguageModel, chunk: list[HiddenText], table: paddle.Tensor) -> paddle.Tensor:
        """Sum of the cross entropies of the hidden tokens of a chunk."""
        ids, mask = pad_batch([text.replaced for text in chunk], self.tokenizer.pad_id)
        places = [row * ids.shape[1] + place for row, text in enumerate(chunk) for place in text.places]
        words = [text.ids[place] for text in chunk for place in text.places]
        return model.loss(paddle.to_tensor(ids), paddle.to_tensor(mask), paddle.to_tensor(places, "int64"),
                          paddle.to_tensor(words, "int64"), table)


class HiddenText(NamedTuple):
    """Token ids of a text, the same with tokens hidden, and the places of these."""

    ids: list[int]
    replaced: list[int]
    places: list[int]


def hide(ids: list[int], probability: float, rng: np.random.Generator, tokenizer: Tokenizer) -> HiddenText:
    """Hide tokens of a text, but not the special ones at its ends: of each ten, eight become [MASK], one any token
    of the vocabulary, one stays. Where the text has a token, at least one is hidden.
    """
    inner = len(ids) - 2
    count = min(inner, max(1, int(rng.binomial(inner, probability)))) if inner > 0 else 0
    places = sorted(1 + rng.choice(inner, count, replace=False)) if count else []
    replaced = list(ids)
    for place, draw in zip(places, rng.random(count)):
        if draw < 0.9:
            replaced[place] = tokenizer.mask_id if draw < 0.8 else int(rng.integers(tokenizer.size))
    return HiddenText(ids, replaced, [int(place) for place in places])
