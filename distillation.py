"""Learning the vectors of a bigger model, and how near it puts texts to each other."""

from __future__ import annotations

from typing import Callable

import numpy as np
import paddle
from paddle.nn import functional as F

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
        own = paddle.eye(len(vectors)) * MASKED
        wanted = F.softmax(self.scale * (teacher @ teacher.T) + own)
        found = F.log_softmax(self.scale * (vectors @ vectors.T) + own)
        order = (wanted * ((wanted + 1e-12).log() - found)).sum(axis=1).mean()
        return (1 - (vectors * teacher).sum(axis=1)).mean() + order


class DistillationTrainer(Trainer):
    """The training loop with texts and the teacher's vectors in place of pairs.

    Raises:
        UserError: the vectors are not those of the texts, by number or dimension.
    """

    def __init__(self, args, data, model, *others, **settings) -> None:
        self.teacher = read_vectors(args.teacher_vectors)
        lines = len(data)
        if not data.unlabelled:
            raise UserError(f"{args.train_set_file}: pairs where texts belong, one a line without a TAB")
        if len(self.teacher) != lines:
            raise UserError(f"{args.teacher_vectors} has {len(self.teacher)} vectors, {args.train_set_file} {lines} "
                            f"lines; encode this very file with predict.py --text_file")
        if self.teacher.shape[1] != model.dimension:
            raise UserError(f"{args.teacher_vectors} has vectors of {self.teacher.shape[1]} dimensions, the model "
                            f"{model.dimension}; use --output_emb_size {self.teacher.shape[1]}")
        super().__init__(args, data, model, *others, **settings)

    def batch_of(self, rows: np.ndarray, step: int) -> tuple[list[list[int]], Callable]:
        """As `Trainer.batch_of`."""
        shares = [rows[number :: world_size()] for number in range(world_size())]
        teacher = self.teacher[np.concatenate(shares)].astype(np.float32)
        teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
        return ([self.data.sources[share].tolist() for share in shares],
                lambda vectors: self.model.loss(vectors, paddle.to_tensor(teacher)))


def read_vectors(path: str) -> np.ndarray:
    """A .npy array [N, D] of finite numbers, mapped from its file.

    Raises:
        UserError: it is no such file.
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: no .npy file of an array ({error}); write it with predict.py "
                        f"--output_embeddings") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UserError(f"{path}: holds no array of vectors [N, D]; write it with predict.py --output_embeddings")
    for start in range(0, len(vectors), 65_536):
        block = vectors[start : start + 65_536]
        bad = np.flatnonzero(~(np.isfinite(block).all(axis=1) & block.any(axis=1)))
        if len(bad):
            raise UserError(f"{path}: vector {start + int(bad[0]) + 1} is zero or not finite; encode the texts again")
    return vectors
