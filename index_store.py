"""A saved index: the vectors and texts of a corpus and what finds neighbours among them, in a folder with manifests.

parts/             vectors and texts, see parts.py
repeated-N.npy     int64 [E, 2], of N texts: ids of the vectors that an earlier text has too, and the first such text
hnsw-N.bin         the graph of the first N texts, where the engine is hnsw; it can always be built again
milvus.db          the collection, where the engine is milvus and no server was named
manifest.json      what all of it was made from, with size and SHA-256 of every file; written last
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ann_util import Engine, FlatIndex, HnswIndex, TextIndex, find_repeated, read_repeated
from cli import notice
from corpus import Corpus
from files import (
    UserError,
    check_file,
    describe_file,
    fits,
    made_by,
    make_folder,
    manifest_digest,
    read_manifest,
    whole_file,
    write_manifest,
)
from milvus_engine import MilvusIndex
from parts import (
    FILE,
    Range,
    Texts,
    Vectors,
    cut,
    find_parts,
    open_vectors,
    part_path,
    read_part,
    remove_part,
    text_bytes,
    write_part,
)

FORMAT = 3
PART = 65_536  # texts: 64 MB of vectors of 256 dimensions, some minutes of encoding on a CPU
FIELDS = {"vectors": {"checkpoint": str, "precision": str, "max_seq_length": int, "dimension": int, "metric": str},
          "corpus": str, "texts": int, "tokenless": int, "parts": [list], "repeated": {"file": str, **FILE},
          "engines": dict}
ENGINE_FIELDS = {"hnsw": {"settings": {"hnsw_m": int, "hnsw_ef": int}, "texts": int, "file": str, **FILE},
                 "milvus": {"settings": {"hnsw_m": int, "hnsw_ef": int}, "texts": int, "collection": str}}
LABELS = {"max_seq_length": "--max_seq_length", "precision": "--precision", "hnsw_m": "--hnsw_m",
          "hnsw_ef": "--hnsw_ef", "uri": "--milvus_uri"}


@dataclass
class Plan:
    """The parts of an index.

    Attributes:
        parts: all of them, in order; they cover the corpus.
        missing: those of this process's share that are not there yet.
    """

    parts: list[Range]
    missing: list[Range]


@dataclass
class SavedIndex:
    """A whole index, checked against its manifest."""

    facts: dict
    texts: Texts
    index: TextIndex


class IndexStore:
    """The index folder of a run.

    Args:
        folder: where the index is, or is to be.
        strict: refuse what doesn't match this run. False, for a folder that the user did not name, replaces it with a
            notice.
        read_only: replace nothing, only say so.
    """

    def __init__(self, folder: Path, strict: bool, read_only: bool = False) -> None:
        self.folder, self.strict, self.read_only = folder, strict, read_only
        self.parts_folder = folder / "parts"
        self.manifest = folder / "manifest.json"
        self.remedy = f"delete {folder} to build it again"
        self._digests: dict[Range, str] = {}  # of the manifests of a finished index's parts
        self._checked: dict[Range, dict] = {}  # manifests of the parts whose files were compared with them
        self._opened: dict[Range, np.ndarray] = {}  # vectors of the parts; opening one reads it through

    def plan(self, corpus: Corpus, made_from: dict, shards: int = 1, shard: int | None = None) -> Plan:
        """Which parts the index of this corpus has, and which of them are missing.

        The parts of a finished index of the corpus, or of its first files, stay as they are. The rest of the corpus is
        cut into parts of PART texts, or into smaller ones where there are not enough for all `shards`.

        Args:
            made_from: what this run's vectors are made from: checkpoint, precision, lengths, dimension.
            shards: how many processes share the work.
            shard: number of this process, which looks after each `shards`-th part only; None for all parts.

        Raises:
            UserError: the index or a part was made from something else (all values are named), is damaged, or overlaps
                another part; only if strict.
        """
        finished: list[Range] = []
        try:
            finished = self._finished_parts(corpus, made_from)
        except UserError as error:
            self._replace(error, "the index")
            self._clear()
        done = finished[-1][1] if finished else 0
        new = cut(done, len(corpus), min(PART, max(1, -(-(len(corpus) - done) // shards))))
        parts = finished + new
        mine = set(parts if shard is None else parts[shard::shards])
        strangers = [part for part in find_parts(self.parts_folder) if part not in parts]
        for part in strangers:
            with self._replacing(part):
                raise UserError(f"{part_path(self.parts_folder, part, 'json')} overlaps other parts of this corpus: it "
                                f"was cut for another number of shards, or for another corpus; delete it")
        there = [part for part in find_parts(self.parts_folder) if part in mine]
        for part, texts in zip(there, corpus.parts(there)):
            with self._replacing(part):
                self._check_part(part, made_from)
                if self._checked[part]["files"]["txt"]["sha256"] != hashlib.sha256(text_bytes(texts)).hexdigest():
                    raise UserError(f"{part_path(self.parts_folder, part, 'txt')} holds other texts than this corpus "
                                    f"has from {part[0]} to {part[1]}; {self.remedy}")
        missing = [part for part in parts if part in mine and part not in self._checked]
        for part in missing:  # what is made again need not be the same to the last bit
            self._digests.pop(part, None)
        return Plan(parts, missing)

    def _finished_parts(self, corpus: Corpus, made_from: dict) -> list[Range]:
        if not self.manifest.is_file():
            return []
        saved = self._read()
        self._compare(saved["vectors"], made_from, str(self.folder))
        if saved["corpus"] not in corpus.beginnings:
            raise UserError(f"the index in {self.folder} was made from another corpus: SHA-256 {saved['corpus'][:12]} "
                            f"there, {corpus.sha256[:12]} in this run; name another --index_dir, or, to add texts, the "
                            f"first corpus with --corpus_file and the new texts with --append_corpus")
        return self._parts_of(saved)

    def _parts_of(self, saved: dict) -> list[Range]:
        """The parts of a finished index, whose manifests the index's own manifest vouches for."""
        self._digests = {(first, end): digest for first, end, digest in saved["parts"]}
        return list(self._digests)

    def _check_part(self, part: Range, made_from: dict) -> None:
        path = part_path(self.parts_folder, part, "json")
        facts = read_part(self.parts_folder, part, self.remedy)
        self._compare(facts["made_from"], made_from, str(path))
        if self._digests.get(part, manifest_digest(facts)) != manifest_digest(facts):
            raise UserError(f"{path} is not the part that this index was made of; {self.remedy}")
        self._checked[part] = facts

    def write_part(self, part: Range, texts: list[str], vectors: np.ndarray, tokenless: int, made_from: dict) -> None:
        """Keep a part that was encoded."""
        make_folder(self.parts_folder)
        write_part(self.parts_folder, part, texts, vectors, tokenless, made_from)

    def has(self, parts: list[Range]) -> bool:
        """Whether all these parts have been written."""
        return set(parts) <= set(find_parts(self.parts_folder))

    def finish(self, plan: Plan, corpus: Corpus, made_from: dict) -> SavedIndex:
        """Check that all parts are there and whole, and make an index of them.

        Raises:
            UserError: a part is missing, damaged or was made from something else.
        """
        for number, part in enumerate(plan.parts):
            if part not in self._checked:
                if not part_path(self.parts_folder, part, "json").is_file():
                    raise UserError(f"{part_path(self.parts_folder, part, 'json')}, part {number} of "
                                    f"{len(plan.parts)}, is missing; run its shard again")
                self._check_part(part, made_from)
        saved = self._read() if self.manifest.is_file() else {"engines": {}}
        parts = [[*part, manifest_digest(self._checked[part])] for part in plan.parts]
        if (saved.get("corpus"), saved.get("parts")) != (corpus.sha256, parts):
            found = find_repeated(self._vectors(plan.parts, made_from))
            repeated = self.folder / f"repeated-{len(corpus)}.npy"
            with whole_file(repeated) as file:
                np.save(file, found)
            tokenless = sum(self._checked[part]["tokenless"] for part in plan.parts)
            write_manifest(self.manifest, {
                **saved, "format": FORMAT, "vectors": made_from, "corpus": corpus.sha256, "texts": len(corpus),
                "tokenless": tokenless, "parts": parts, "made_by": made_by(),
                "repeated": {"file": repeated.name, **describe_file(repeated)}})
        opened = self.open()
        self._tidy(opened.facts)
        return opened

    def _tidy(self, facts: dict) -> None:
        """Remove files that the manifest no longer names; a killed run has left them."""
        named = {facts["repeated"]["file"], *(known.get("file") for known in facts["engines"].values())}
        for path in self._extras():
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _extras(self) -> list[Path]:
        return [*self.folder.glob("repeated*.npy"), *self.folder.glob("hnsw-*.bin")]

    def open(self) -> SavedIndex:
        """Open a finished index.

        Raises:
            UserError: there is none, or a file of it is missing or damaged.
        """
        if not self.manifest.is_file():
            raise UserError(f"{self.folder} holds no finished index: {self.manifest} is missing; make it with "
                            f"recall.py")
        facts = self._read()
        parts = self._parts_of(facts)
        for part in parts:
            if part not in self._checked:
                self._check_part(part, facts["vectors"])
        repeated, vectors = self.folder / facts["repeated"]["file"], self._vectors(parts, facts["vectors"])
        check_file(repeated, facts["repeated"], self.remedy)
        index = TextIndex(vectors, read_repeated(repeated, len(vectors), self.remedy))
        return SavedIndex(facts, Texts(self.parts_folder, parts, self.remedy), index)

    def _vectors(self, parts: list[Range], made_from: dict) -> Vectors:
        for part in parts:
            if part not in self._opened:
                self._opened[part] = open_vectors(self.parts_folder, part, made_from["dimension"], self.remedy)
        return Vectors([self._opened[part] for part in parts])

    def open_engine(self, name: str, saved: SavedIndex, *, m: int = 16, ef: int = 100, deterministic: bool = False,
                    vector_dtype: str = "float32", uri: str | None = None, on_gpu: bool = False) -> Engine:
        """The engine `name` over the index: as it was saved with these settings, with new texts added, or built.

        Raises:
            UserError: the saved one has other settings or is damaged; only if strict.
        """
        index = saved.index
        if name == "flat":
            return FlatIndex(vector_dtype, on_gpu).build(index.vectors)
        settings = {"hnsw_m": m, "hnsw_ef": ef, **({"uri": uri} if name == "milvus" else {})}
        known, count = saved.facts["engines"].get(name), len(index.vectors)

        def make() -> Engine:
            if name == "hnsw":
                return HnswIndex(index.vectors.dimension, m, ef, index.repeated[:, 0], deterministic)
            where = uri or str(self.folder / "milvus.db")
            return MilvusIndex(where, known["collection"], index.vectors.dimension, m, ef)

        try:
            if known:
                self._compare(known["settings"], settings, f"the {name} index in {self.folder}")
                engine = make().load(self.folder, known, index.vectors, self.remedy)
                if known["texts"] == count:
                    notice(f"{name} index: {self.folder}, used again")
                    return engine
                notice(f"adding {count - known['texts']} texts to the {name} index")
                engine.add(index.vectors, known["texts"])
                self._keep_engine(name, engine, saved, {**known, "texts": count})
                return engine
        except UserError as error:
            self._replace(error, f"the {name} index")
        notice(f"building the {name} index of {count} vectors (M {m}, ef {ef})")
        known = {"settings": settings, "texts": count, "collection": f"semantic_index_{saved.facts['corpus'][:16]}"}
        engine = make().build(index.vectors)
        self._keep_engine(name, engine, saved, known)
        return engine

    def saved_engines(self, saved: SavedIndex) -> list[str]:
        """The engines that were saved of all texts; a graph may be of the first ones alone."""
        return [name for name, known in saved.facts["engines"].items() if known["texts"] == len(saved.texts)]

    def open_saved_engine(self, name: str, saved: SavedIndex) -> Engine:
        """An engine as it was saved, with its own settings; flat needs no saving.

        Raises:
            UserError: the index has no such engine, or it is damaged or of fewer texts than the index.
        """
        has = ["flat", *self.saved_engines(saved)]
        if name not in has:
            raise UserError(f"the index in {self.folder} has no {name} engine of all its texts (it has "
                            f"{', '.join(has)}); build it with recall.py --ann_engine {name}")
        settings = {} if name == "flat" else saved.facts["engines"][name]["settings"]
        return self.open_engine(name, saved, m=settings.get("hnsw_m", 16), ef=settings.get("hnsw_ef", 100),
                                uri=settings.get("uri"))

    def check_made_from(self, saved: SavedIndex, own: dict) -> None:
        """Raise UserError unless the index was made from what `encoder.open_encoder` says of this run's encoder."""
        self._compare(saved.facts["vectors"], own, f"the index in {self.folder}")

    def _keep_engine(self, name: str, engine: Engine, saved: SavedIndex, known: dict) -> None:
        """Save an engine under a new name, point the manifest to it, and only then remove the earlier one."""
        saved.facts["engines"][name] = {**known, **engine.save(self.folder)}
        write_manifest(self.manifest, saved.facts)
        self._tidy(saved.facts)

    def _read(self) -> dict:
        facts = read_manifest(self.manifest, FORMAT, self.remedy, FIELDS)
        end, right = 0, facts["texts"] > 0
        for part in facts["parts"]:
            right = right and [type(value) for value in part] == [int, int, str] and end == part[0] < part[1]
            end = part[1] if right else 0
        right = right and end == facts["texts"]
        for name, known in facts["engines"].items():
            right = right and fits(known, ENGINE_FIELDS.get(name, list)) and 0 < known["texts"] <= end
            right = right and 2 <= known["settings"]["hnsw_m"] <= 100 and known["settings"]["hnsw_ef"] > 0
        if not right:
            raise UserError(f"{self.manifest} contradicts itself: its parts or engines fit no {facts['texts']} texts; "
                            f"{self.remedy}")
        return facts

    def _compare(self, saved: dict, wanted: dict, where: str) -> None:
        differences = [f"{LABELS.get(key, key)} {_short(saved.get(key))} there, {_short(value)} in this run"
                       for key, value in wanted.items() if saved.get(key) != value]
        if differences:
            raise UserError(f"{where} was made from other things: {'; '.join(differences)}; name another --index_dir, "
                            f"or {self.remedy}")

    def _replace(self, error: UserError, what: str) -> None:
        if self.strict:
            raise error
        notice(f"{error}\nno --index_dir was named: {what} is built again in its place")

    @contextlib.contextmanager
    def _replacing(self, part: Range) -> Iterator[None]:
        """A fault of a part is an error, or, in a folder that the user did not name, the end of the part."""
        try:
            yield
        except UserError as error:
            self._replace(error, "the part")
            self._checked.pop(part, None)
            if not self.read_only:  # the manifest stays: other ranks read from it how the corpus is cut
                remove_part(self.parts_folder, part)

    def _clear(self) -> None:
        if self.read_only:
            return
        self.manifest.unlink(missing_ok=True)
        for part in find_parts(self.parts_folder):
            remove_part(self.parts_folder, part)
        for path in self._extras():
            path.unlink(missing_ok=True)


def _short(value: object) -> str:
    """Hashes by their first 12 digits."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
