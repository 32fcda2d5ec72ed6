"""Learning the vectors of a bigger model, and how near it puts texts to each other."""

from __future__ import annotations

from typing import Callable

import numpy as np
import paddle

from cli import world_size
from files import UserError
from model import MASKED, SemanticIndexBase
from trainer import Trainer


class SemanticIndexDistilled(SemanticIndexBase):
    """A student of the same dimension as its teacher.

    With unit vectors S of the student and T of the teacher, both [N, D], the loss is

        mean(1 - s_i . t_i) + mean_i KL(softmax_j(scale * t_i . t_j) || softmax_j(scale * s_i . s_j)),  j != i

    The first part puts each text where the teacher has it (Reimers and Gurevych 2020, arXiv:2004.09813), the second
    keeps the order of its neighbours, which is what recall hangs on.
    """

    def __init__(self, encoder, scale: float = 20.0, **base) -> None:
        super().__init__(encoder, **base)
        self.scale = scale

    def loss(self, vectors: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:  # type: ignore[override]
        wanted, found = self._neighbours(teacher), self._neighbours(vectors)
        order = (wanted.exp() * (wanted - found)).sum(axis=1).mean()
        return (1 - (vectors * teacher).sum(axis=1)).mean() + order

    def _neighbours(self, vectors: paddle.Tensor) -> paddle.Tensor:
        """Logarithm of the softmax; Paddle's own ends at -64, which a --scale above 32 passes."""
        similarity = self.scale * (vectors @ vectors.T) + MASKED * paddle.eye(len(vectors))
        return similarity - similarity.logsumexp(axis=1, keepdim=True)


class DistillationTrainer(Trainer):
    """The training loop with texts and the teacher's vectors (`data.teacher`) in place of pairs.

    Raises:
        UserError: the vectors have another dimension than the model's.
    """

    def __init__(self, args, data, model, *others, **settings) -> None:
        self.teacher: np.ndarray = data.teacher
        dimension = self.teacher.shape[1]
        if dimension != model.dimension:
            raise UserError(f"{args.teacher_vectors} has vectors of {dimension} dimensions, the model "
                            f"{model.dimension}; use --output_emb_size {dimension}")
        super().__init__(args, data, model, *others, **settings)

    def batch_of(self, rows: np.ndarray, step: int) -> tuple[list[list[int]], Callable]:
        """As `Trainer.batch_of`."""
        shares = [rows[number :: world_size()] for number in range(world_size())]
        wanted = self.teacher[np.concatenate(shares)].astype(np.float64)  # where no square overflows
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        teacher = paddle.to_tensor(wanted.astype(np.float32))
        return ([self.data.sources[share].tolist() for share in shares],
                lambda vectors: self.model.loss(vectors, teacher))
