"""Masked-language-model training of an encoder on texts without labels (Devlin et al. 2019, arXiv:1810.04805).

Some tokens of a text are hidden, and the encoder learns to name them from the others. Only hidden tokens go through the
output layer, which has a column for every word: with all of them it would cost more than a small encoder.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from batches import deal_chunks
from cli import rank, world_size
from cpu_ops import add_gradients, remembering_lookups, seed_noise, sum_gradients
from data import pad_batch
from files import UserError
from trainer import CPU_CHUNK_TOKENS, Trainer


class MaskedLanguageModel(nn.Layer):
    """An encoder and BERT's output layer, whose table is that of the encoder's word embeddings.

    Its weights are saved under `ptm.*` and `lm_head.*`, so that training starts from the checkpoint's encoder.
    """

    pooling, output_emb_size, matryoshka_dims = "mean", 0, ()

    def __init__(self, encoder: nn.Layer) -> None:
        super().__init__()
        self.ptm = encoder
        size = encoder.config.hidden_size
        self.lm_head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
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
        hidden = [hide(self.token_ids[text], self.args.mask_probability, np.random.default_rng(
            [self.args.seed, step, int(text)]), self.tokenizer) for text in texts]
        total = sum(len(places) for _, places in hidden) or 1
        mine = [(self.token_ids[text], *hidden[i]) for i, text in enumerate(texts)][rank() :: world_size()]
        mine = mine or [(ids := self.tokenizer([""])[0], ids, [])]
        lengths = np.array([len(ids) for ids, _, _ in mine])
        chunks, shares = deal_chunks(lengths, len(self.replicas.models), None,
                                     CPU_CHUNK_TOKENS if self.on_cpu else None)
        word_embeddings = self.model.ptm.embeddings.word_embeddings.weight

        def learn(model, number: int) -> tuple[float, list, paddle.Tensor | None]:
            chunk = [mine[i] for i in chunks[number]]
            seed_noise(self.args.seed, step, rank(), number)
            ids, mask = pad_batch([replaced for _, replaced, _ in chunk], self.tokenizer.pad_id)
            places = [row * ids.shape[1] + place for row, (_, _, own) in enumerate(chunk) for place in own]
            words = [original[place] for original, _, own in chunk for place in own]
            # A leaf of its own, since the copies of the model that work side by side share the embeddings themselves.
            table = word_embeddings.detach()
            table.stop_gradient = False
            with remembering_lookups() as lookups:
                loss = model.loss(paddle.to_tensor(ids), paddle.to_tensor(mask), paddle.to_tensor(places, "int64"),
                                  paddle.to_tensor(words, "int64"), table) / total
            loss.backward()
            return float(loss), sum_gradients(lookups), table.grad

        loss = 0.0
        for found, summed, gradient in self.replicas.run(learn, shares):
            loss += found
            add_gradients(summed)
            if gradient is not None:
                with paddle.no_grad():
                    word_embeddings.grad.add_(gradient)
        self.replicas.sum_gradients()
        return loss, {"pairs": len(rows), "tokens": int(self.lengths[texts].sum()), "own": int(lengths.sum()),
                      "computed": int(sum(lengths[chunk].max() * len(chunk) for chunk in chunks))}


def hide(ids: list[int], probability: float, rng: np.random.Generator, tokenizer) -> tuple[list[int], list[int]]:
    """Hide tokens of a text, but not the special ones at its ends: of each ten, eight become [MASK], one any other
    token, one stays.

    Returns:
        The ids with hidden tokens replaced, and the places of these; at least one where the text has a token.
    """
    inner = len(ids) - 2
    count = min(inner, max(1, int(rng.binomial(inner, probability)))) if inner > 0 else 0
    places = sorted(1 + rng.choice(inner, count, replace=False)) if count else []
    replaced = list(ids)
    for place, draw in zip(places, rng.random(count)):
        if draw < 0.9:
            replaced[place] = tokenizer.mask_id if draw < 0.8 else int(rng.integers(tokenizer.size))
    return replaced, [int(place) for place in places]
