"""What the service serves: saved indexes by name, each with the encoder that it was made with, and their exchange."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ann_util import FlatIndex, TextIndex
from checkpoint import fingerprint_of
from encoder import Encoder, open_encoder
from export import CALIBRATION_TEXTS, MANIFEST, read_export
from files import UserError, sha256_file
from index_store import IndexStore, SavedIndex
from micro_batch import Batcher, Cache
from parts import Texts

EXAMPLES = 8  # queries that the page proposes
TEXTS_AT_ONCE = 64  # of a batch; more than that gain nothing, and later ones wait longer
QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class Batching:
    """How calls are put together.

    Attributes:
        together: False computes every call by itself, for comparison.
        wait: seconds that a batch waits for company.
        cached: texts whose vectors are kept.
        observe: told ("encode" or "search", size) of each batch.
        looked_up: told of each text whether its vector was kept.
    """

    together: bool
    wait: float
    cached: int
    observe: Callable[[str, int], Any]
    looked_up: Callable[[bool], Any]

    def batcher(self, what: str, compute: Callable[[list], Sequence], most: int, wait: bool) -> Batcher:
        return Batcher(compute, most if self.together else 1, self.wait if wait else 0,
                       lambda size: self.observe(what, size))


class ServedEncoder:
    """Texts -> unit vectors for many clients: batched, and from a cache where a text was asked for before."""

    def __init__(self, encoder: Encoder, batching: Batching) -> None:
        self.encoder = encoder
        encoder.few_at_once = True
        encoder.warm_up()
        self.dimensions = sorted({encoder.dimension, *encoder.matryoshka_dims}, reverse=True)
        self.cache = Cache(batching.cached, batching.looked_up)
        self.batcher = batching.batcher("encode", self._encode, TEXTS_AT_ONCE, wait=True)

    def _encode(self, texts: list[str]) -> list[tuple[np.ndarray, int]]:
        token_ids = self.encoder.tokenizer(texts)
        return list(zip(self.encoder.encode_tokens(token_ids), map(len, token_ids)))

    async def encode(self, texts: Sequence[str], dimension: int | None = None) -> tuple[np.ndarray, int]:
        """Unit vectors float32 [N, D] of texts, cut to `dimension` of `dimensions`, and the number of their tokens."""
        known = {text: self.cache.get(text) for text in dict.fromkeys(texts)}
        missing = [text for text, value in known.items() if value is None]
        for text, value in zip(missing, await self.batcher.run(missing)):
            known[text] = value
            self.cache.put(text, value)
        vectors = np.stack([known[text][0] for text in texts])[:, :dimension]
        if dimension not in (None, self.encoder.dimension):
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.ascontiguousarray(vectors), sum(known[text][1] for text in texts)


class ServedIndex:
    """One state of an index: its texts, engines and encoder, which stay together for as long as a request uses them.

    Attributes:
        facts: the manifest of the index.
        digest: SHA-256 of the manifest's file.
        engine: name of the engine that answers.
        examples: short texts of the corpus.
    """

    def __init__(self, name: str, store: IndexStore, saved: SavedIndex, encoder: ServedEncoder, batching: Batching,
                 digest: str | None) -> None:
        self.name, self.facts, self.encoder, self.digest = name, saved.facts, encoder, digest
        self.dimension = saved.facts["vectors"]["dimension"]
        self.engine = next(iter(store.saved_engines(saved)), "flat")
        saved.texts.open_all()  # now: later another index may stand in the folder
        self.examples = choose_examples(saved.texts)
        flat = FlatIndex().build(saved.index.vectors)
        self._opened = store.open_saved_engine(self.engine, saved)

        def batcher_of(engine) -> Batcher:  # need not wait: those who were encoded together come together
            return batching.batcher("search", _Search(saved.index, engine, saved.texts), QUERIES_AT_ONCE, wait=False)

        self._exact = batcher_of(flat)
        self._engine = self._exact if self.engine == "flat" else batcher_of(self._opened)
        self._users, self._retired = 0, False

    async def search(self, texts: Sequence[str], k: int, exact: bool) -> tuple[list[list[dict]], dict[str, float]]:
        """For each text its k best {"rank", "id", "score", "text"}, and the milliseconds of "encode" and "search"."""
        start = time.perf_counter()
        vectors, _ = await self.encoder.encode(texts, self.dimension)
        encoded = time.perf_counter()
        batcher = self._exact if exact else self._engine
        found = await batcher.run([(vector, k) for vector in vectors])
        took = {"encode": encoded - start, "search": time.perf_counter() - encoded}
        return found, {name: round(1000 * seconds, 3) for name, seconds in took.items()}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[ServedIndex]:
        """Keep this state open until a request is done with it."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Close it when the last request is done with it."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._users:
            self._opened.close()
            self._engine.close()
            self._exact.close()


class _Search:
    """Vectors and numbers of wanted texts -> those texts, by one engine."""

    def __init__(self, index: TextIndex, engine, texts: Texts) -> None:
        self.index, self.engine, self.texts = index, engine, texts

    def __call__(self, queries: list[tuple[np.ndarray, int]]) -> list[list[dict]]:
        answers: list[list[dict]] = [[] for _ in queries]
        for k in {k for _, k in queries}:  # apart: with a larger k an approximate engine finds other texts
            rows = [row for row, (_, wanted) in enumerate(queries) if wanted == k]
            ids, cosines = self.index.search(self.engine, np.stack([queries[row][0] for row in rows]), k)
            for row, row_ids, row_cosines in zip(rows, ids.tolist(), cosines.tolist()):
                answers[row] = [{"rank": rank, "id": i, "score": round(cosine, 6), "text": self.texts[i]}
                                for rank, (i, cosine) in enumerate(zip(row_ids, row_cosines), 1)]
        return answers


def choose_examples(texts: Texts) -> list[str]:
    """Short texts from all over the corpus, the same each time."""
    spread = (texts[i] for i in dict.fromkeys(np.linspace(0, len(texts) - 1, 50 * EXAMPLES).astype(int).tolist()))
    fitting = [text for text in spread if 4 <= len(text) <= 16]
    return fitting[:: max(1, len(fitting) // EXAMPLES)][:EXAMPLES]


def _digest(manifest: Path) -> str | None:
    return sha256_file(manifest) if manifest.is_file() else None


class Catalog:
    """The indexes by name. `load` puts the state of a folder in the place of an earlier one.

    Args:
        folders: of the indexes, by name; the first is the default.
        args: flags of `cli.add_model_flags`, with a list of checkpoints or exports as `params_path`.
    """

    def __init__(self, folders: dict[str, str], args: argparse.Namespace, batching: Batching) -> None:
        self.folders, self.args, self.batching = folders, args, batching
        self.served: dict[str, ServedIndex] = {}
        self._encoders: dict[tuple, ServedEncoder] = {}
        self._loading = threading.Lock()

    def load(self, name: str) -> ServedIndex | None:
        """Open an index, or the newer one that stands in its folder now; returns the state that it has replaced.

        Raises:
            UserError: there is none, it is damaged or can't be read, or no checkpoint is the one that it was made with.
                What was served before is served on.
        """
        with self._loading:
            try:
                return self._load(name)
            except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
                reason = getattr(error, "strerror", None) or error
                raise UserError(f"the index {name!r} in {self.folders[name]}: {reason}; check its files and their "
                                f"rights") from error

    def _load(self, name: str) -> ServedIndex | None:
        folder = Path(self.folders[name]).resolve()  # of a link all files are read from where it points now
        store = IndexStore(folder, strict=True, read_only=True)
        before, digest = self.served.get(name), _digest(store.manifest)
        saved = store.open()
        if before is not None and digest == before.digest:
            return None
        served = ServedIndex(name, store, saved, self._encoder_of(name, saved), self.batching, digest)
        if _digest(store.manifest) != digest:
            raise UserError(f"{folder} was changed while it was being read; load it again when it is complete")
        self.served[name] = served
        used = {id(served.encoder) for served in self.served.values()}
        self._encoders = {key: known for key, known in self._encoders.items() if id(known) in used}
        return before

    async def reload(self, names: Sequence[str]) -> list[dict]:
        """Load these again while requests run, each whatever becomes of the others.

        Returns:
            For each {"name", "texts", "changed"}, and "error" where it could not be loaded and is served as before.
        """
        loop = asyncio.get_running_loop()
        report: list[dict[str, Any]] = []
        for name in names:
            found: dict[str, Any] = {"name": name, "changed": False}
            try:
                replaced = await loop.run_in_executor(None, self.load, name)
                if replaced is not None:
                    found["changed"] = True
                    replaced.retire()  # here, not in load's thread: a request that has it already says so in this one
            except UserError as error:
                found["error"] = f"{error}; what was served before is served on"
            report.append({**found, "texts": self.served[name].facts["texts"]})
        return report

    def _encoder_of(self, name: str, saved: SavedIndex) -> ServedEncoder:
        """The encoder that an index was made with: of all checkpoints the one with the fingerprint in its manifest."""
        wanted = saved.facts["vectors"]
        key = (wanted["checkpoint"], wanted["precision"], wanted["max_seq_length"])
        if key not in self._encoders:
            paths = {path: self._fingerprint(path) for path in self.args.params_path}
            path = next((path for path, found in paths.items() if found == wanted["checkpoint"]), None)
            if path is None:
                has = ", ".join(f"{path} is {found[:12]}" for path, found in paths.items())
                raise UserError(f"the index {name!r} in {self.folders[name]} was made with the checkpoint "
                                f"{wanted['checkpoint'][:12]}, and no --params_path is it ({has}); name its checkpoint "
                                f"with a further --params_path")
            sample = [saved.texts[i] for i in range(min(len(saved.texts), CALIBRATION_TEXTS))]
            flags = {"params_path": path, "max_seq_length": wanted["max_seq_length"], "precision": wanted["precision"]}
            opened, made_from = open_encoder(argparse.Namespace(**{**vars(self.args), **flags}), sample)
            if made_from["checkpoint"] != wanted["checkpoint"]:
                raise UserError(f"{path} was exchanged while it was being read; load the index again")
            self._encoders[key] = ServedEncoder(opened, self.batching)
        encoder = self._encoders[key]
        if wanted["dimension"] not in encoder.dimensions:
            has = ", ".join(map(str, encoder.dimensions))
            raise UserError(f"the index {name!r} in {self.folders[name]} has vectors of {wanted['dimension']} "
                            f"dimensions, and its checkpoint gives {has}; build it again")
        return encoder

    def _fingerprint(self, path: str) -> str:
        folder = Path(path)
        if (folder / MANIFEST).is_file():
            return read_export(folder)["checkpoint"]
        return fingerprint_of(path, self.args.model_name_or_path)
