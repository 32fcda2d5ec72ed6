"""Texts -> unit vectors: the only place that knows how a model is run for inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from checkpoint import Checkpoint
from cli import notice, rank, world_size
from data import pad_batch
from files import UserError
from runtime import gather_rows
from tokenizer import Tokenizer


class Encoder:
    """Embeds texts with a trained model.

    Equal token sequences are encoded once, so texts that the tokenizer can't tell apart get the very same vector, and
    batches are made of texts of similar length, so little is spent on padding.

    Args:
        model: maps (ids, mask) to unit vectors; it is run as it is, so put it into evaluation mode before.
        batch_size: texts a batch.
    """

    def __init__(self, model, tokenizer: Tokenizer, batch_size: int = 64) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size

    @classmethod
    def of(cls, checkpoint: Checkpoint, batch_size: int) -> Encoder:
        return cls(checkpoint.model, checkpoint.tokenizer, batch_size)

    def encode(self, texts: Sequence[str], progress: str | None = None) -> np.ndarray:
        """Unit vectors of `texts`, float32 [N, D], in their order; the ranks of a launch share the work.

        Args:
            progress: label of a progress bar on a terminal; None shows none.

        Raises:
            UserError: the model gave a vector that is not finite.
        """
        token_ids = self.tokenizer(texts)
        tokenless = sum(len(ids) == 2 for ids in token_ids)
        if tokenless:
            notice(f"{tokenless} text(s) have no tokens (blank or unknown to the tokenizer); they are encoded as the "
                   f"bare [CLS] [SEP]")
        position: dict[tuple[int, ...], int] = {}
        place_of_text = [position.setdefault(tuple(ids), len(position)) for ids in token_ids]
        different = [list(ids) for ids in position]

        # Every rank cuts the same batches in order of length and takes each world_size()-th: equal shares of work.
        order = np.argsort([len(ids) for ids in different], kind="stable")
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        shares = [batches[r :: world_size()] for r in range(world_size())]
        mine = self._run([[different[i] for i in batch] for batch in shares[rank()]], progress)
        vectors = np.empty((len(different), mine.shape[1]), dtype=np.float32)
        rows = [np.concatenate([np.zeros(0, dtype=np.int64), *share]) for share in shares]
        vectors[np.concatenate(rows)] = gather_rows(mine, [len(share) for share in rows]).numpy()
        if not np.isfinite(vectors).all():
            raise UserError("the model gives vectors that are not finite (NaN); its training has diverged: take an "
                            "earlier checkpoint")
        return vectors[place_of_text]

    def _run(self, batches: list[list[list[int]]], progress: str | None):
        import paddle

        parts = [paddle.zeros([0, self.model.dimension])]
        bar = tqdm(total=sum(map(len, batches)), desc=progress, unit=" texts", leave=False,
                   disable=None if progress and rank() == 0 else True)
        with paddle.no_grad(), bar:
            for batch in batches:
                ids, mask = pad_batch(batch, self.tokenizer.pad_id)
                parts.append(self.model(paddle.to_tensor(ids), paddle.to_tensor(mask)))
                bar.update(len(batch))
            return paddle.concat(parts)
