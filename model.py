"""The dual encoder (one tower for both sides) and the three training strategies.

A text's vector is the encoder's pooled output through a linear projection, scaled to length 1, so that the inner
product of two vectors is their cosine. The strategies differ in their loss alone; they share one signature:

    loss(queries [B, D], columns [C, D], not_negative [B, C]) -> scalar

Column i < B is the positive of row i. The other columns are its candidates for negatives, but for those that
`not_negative` takes out: texts that are paired with the same query, and its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

MASKED = -1e4  # far below any cosine, yet finite: a row without any negative keeps a finite loss


class SemanticIndexBase(nn.Layer):
    """Encoder, pooling, projection, unit length.

    Args:
        encoder: a BERT-like PaddleNLP model (ERNIE, BERT, RoBERTa, ...); its output is (tokens, pooled [CLS]).
        output_emb_size: dimension D of the vectors; 0 keeps the encoder's hidden size, without a projection.
        pooling: "cls" (the encoder's pooler over the [CLS] token), "first" (the [CLS] token's last hidden state, as in
            bge) or "mean" (over the tokens that are not padding, as in e5).
        dropout: of the projection's output; None takes the encoder's own `hidden_dropout_prob`.
        matryoshka_dims: sizes to which vectors may be cut; () for their whole size alone.
    """

    def __init__(self, encoder: nn.Layer, output_emb_size: int = 256, pooling: str = "cls",
                 dropout: float | None = None, matryoshka_dims: Sequence[int] = ()) -> None:
        super().__init__()
        self.ptm = encoder  # the name that published checkpoints have
        self.pooling = pooling
        self.dropout = nn.Dropout(encoder.config.hidden_dropout_prob if dropout is None else dropout)
        self.output_emb_size, self.matryoshka_dims = output_emb_size, matryoshka_dims
        if output_emb_size:
            self.emb_reduce_linear = nn.Linear(
                encoder.config.hidden_size, output_emb_size,
                weight_attr=paddle.ParamAttr(initializer=nn.initializer.TruncatedNormal(std=0.02)))

    @property
    def dimension(self) -> int:
        """Size of a vector."""
        return self.output_emb_size or self.ptm.config.hidden_size

    def forward(self, input_ids: paddle.Tensor, attention_mask: paddle.Tensor) -> paddle.Tensor:
        """Token ids [N, L] and their mask [N, L] (1 token, 0 padding) -> unit vectors [N, D]."""
        tokens, pooled = self.ptm(input_ids, attention_mask=attention_mask)[:2]
        if self.pooling == "first":
            pooled = tokens[:, 0]
        elif self.pooling == "mean":
            weights = (attention_mask / attention_mask.sum(axis=1, keepdim=True)).unsqueeze(-1)
            pooled = (tokens * weights.astype(tokens.dtype)).sum(axis=1)
        if self.output_emb_size:
            pooled = self.emb_reduce_linear(pooled)
        return F.normalize(self.dropout(pooled).astype("float32"), axis=-1)

    def loss(self, queries: paddle.Tensor, columns: paddle.Tensor, not_negative: paddle.Tensor) -> paddle.Tensor:
        """The strategy's loss, see the head of this module."""
        raise NotImplementedError

    def matryoshka_loss(self, queries: paddle.Tensor, columns: paddle.Tensor,
                        not_negative: paddle.Tensor) -> paddle.Tensor:
        """Mean of the loss over the first d dimensions of the vectors for each d of `matryoshka_dims`.

        The first dimensions so learn to serve alone (Kusupati et al. 2022, arXiv:2205.13147).
        """
        if not self.matryoshka_dims:
            return self.loss(queries, columns, not_negative)
        losses = [self.loss(F.normalize(queries[:, :size]), F.normalize(columns[:, :size]), not_negative)
                  for size in self.matryoshka_dims]
        return paddle.stack(losses).mean()


class SemanticIndexBatchNeg(SemanticIndexBase):
    """All other targets of the batch are negatives.

    Softmax cross entropy over the rows of scale * (Q T^t - margin * I), the diagonal is the right class: the
    in-batch loss of DPR (Karpukhin et al. 2020) with the additive margin of Yang et al. 2019, arXiv:1902.08564.
    """

    def __init__(self, encoder: nn.Layer, margin: float = 0.2, scale: float = 30.0, **base) -> None:
        super().__init__(encoder, **base)
        self.margin, self.scale = margin, scale

    def loss(self, queries: paddle.Tensor, columns: paddle.Tensor, not_negative: paddle.Tensor) -> paddle.Tensor:
        similarity = paddle.where(not_negative, paddle.full([], MASKED), queries @ columns.T)
        logits = self.scale * (similarity - self.margin * paddle.eye(*similarity.shape))
        return F.cross_entropy(logits, paddle.arange(len(queries)))


class SemanticIndexHardestNeg(SemanticIndexBase):
    """Only the hardest negative of the batch counts.

    mean(max(0, margin - S_ii + max_{j != i} S_ij)) with S = Q T^t, the batch-hard loss of Hermans et al. 2017
    (arXiv:1703.07737) on cosines. The positive is the diagonal, always: taking the row's maximum for it would leave
    just those rows without a gradient in which a negative outranks the positive.
    """

    def __init__(self, encoder: nn.Layer, margin: float = 0.2, **base) -> None:
        super().__init__(encoder, **base)
        self.margin = margin

    def loss(self, queries: paddle.Tensor, columns: paddle.Tensor, not_negative: paddle.Tensor) -> paddle.Tensor:
        similarity = queries @ columns.T
        own = paddle.eye(*similarity.shape).astype("bool")
        candidates = paddle.where(own | not_negative, paddle.full([], MASKED), similarity)
        hardest = candidates.topk(1, axis=1)[0].squeeze(1)  # the gradient of max takes 20 s for 2,048 rows
        return F.relu(self.margin - similarity.diagonal() + hardest).mean()


class SemanticIndexPairwise(SemanticIndexBase):
    """The baseline: each row has one negative of its own, column B + i, drawn at random from all targets.

    mean(max(0, margin - cos(q_i, t_i) + cos(q_i, n_i))), the pair-wise ranking loss.
    """

    def __init__(self, encoder: nn.Layer, margin: float = 0.2, **base) -> None:
        super().__init__(encoder, **base)
        self.margin = margin

    def loss(self, queries: paddle.Tensor, columns: paddle.Tensor, not_negative: paddle.Tensor) -> paddle.Tensor:
        targets, negatives = columns.split(2)
        positive, negative = (queries * targets).sum(axis=1), (queries * negatives).sum(axis=1)
        keep = ~not_negative[:, len(queries):].diagonal()
        return (F.relu(self.margin - positive + negative) * keep.astype("float32")).mean()
