"""A saved index: vectors and graph of a corpus in a folder, with a manifest that says what they were made from.

vectors.npy        float32 [different texts, D], unit length
text_of_line.npy   int32 [lines of the corpus], position of each line's text among the different ones
hnsw.bin           the graph, where the engine has one; it can always be built again from the vectors
manifest.json      what all of it was made from, with size and SHA-256 of every file; written last
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ann_util import Engine, FlatIndex, HnswIndex, TextIndex
from cli import notice
from data import Corpus
from files import UserError, check_file, describe_file, read_manifest, whole_file, write_manifest

FORMAT = 2
LABELS = {"checkpoint": "checkpoint", "corpus": "corpus", "max_seq_length": "--max_seq_length",
          "dimension": "dimension", "metric": "metric", "hnsw_m": "--hnsw_m", "hnsw_ef": "--hnsw_ef"}


class IndexStore:
    """The index folder of a run.

    Args:
        folder: where the index is, or is to be.
        strict: refuse what doesn't match this run. False, for a folder that the user did not name, replaces it with a
            notice.
    """

    def __init__(self, folder: Path, strict: bool) -> None:
        self.folder, self.strict = folder, strict
        self.manifest = folder / "manifest.json"
        self.remedy = f"delete {folder} to build it again"

    def load_vectors(self, made_from: dict) -> np.ndarray | None:
        """The saved vectors [N, D], or None where there are none that this run can use.

        Args:
            made_from: what this run would make them from: hashes of checkpoint and corpus, lengths, dimension.

        Raises:
            UserError: they were made from something else (all values are named) or are damaged; only if strict.
        """
        if not self.manifest.is_file():
            return None
        try:
            saved = self._read()
            self._compare(saved["vectors"], made_from)
            for name in ("vectors.npy", "text_of_line.npy"):
                check_file(self.folder / name, saved["files"][name], self.remedy)
        except UserError as error:
            self._replace(error, "the index")
            return None
        return np.load(self.folder / "vectors.npy")

    def save_vectors(self, vectors: np.ndarray, corpus: Corpus, made_from: dict) -> None:
        """Keep the vectors of a corpus; whatever graph the folder has belongs to others and goes."""
        self.manifest.unlink(missing_ok=True)
        (self.folder / "hnsw.bin").unlink(missing_ok=True)
        for name, array in (("vectors.npy", vectors), ("text_of_line.npy", corpus.text_of_line)):
            with whole_file(self.folder / name) as file:
                np.save(file, array)
        files = {name: describe_file(self.folder / name) for name in ("vectors.npy", "text_of_line.npy")}
        write_manifest(self.manifest, {"format": FORMAT, "vectors": made_from, "texts": len(vectors),
                                       "lines": len(corpus.text_of_line), "graph": None, "files": files})

    def open_engine(self, name: str, index: TextIndex, m: int, ef: int) -> Engine:
        """The engine `name` over the folder's vectors: loaded where it was saved with these settings, or built.

        Raises:
            UserError: the saved graph has other settings or is damaged; only if strict.
        """
        if name == "flat":
            return FlatIndex(index.different)
        graph = HnswIndex(index.different.shape[1], m, ef)
        settings, path = {"engine": name, "hnsw_m": m, "hnsw_ef": ef}, self.folder / "hnsw.bin"
        saved = self._read()
        if saved["graph"]:
            try:
                self._compare(saved["graph"], settings)
                check_file(path, saved["files"]["hnsw.bin"], self.remedy)
                notice(f"hnsw graph: {path}, used again")
                return graph.load(path, len(index.different))
            except UserError as error:
                self._replace(error, "the graph")
        notice(f"building the hnsw graph of {len(index.different)} vectors (M {m}, ef {ef})")
        graph.build(index.different).save(path)
        saved["graph"], saved["files"]["hnsw.bin"] = settings, describe_file(path)
        write_manifest(self.manifest, saved)
        return graph

    def _read(self) -> dict:
        return read_manifest(self.manifest, FORMAT, self.remedy)

    def _compare(self, saved: dict, wanted: dict) -> None:
        differences = [f"{LABELS.get(key, key)} {_short(saved.get(key))} there, {_short(value)} in this run"
                       for key, value in wanted.items() if saved.get(key) != value]
        if differences:
            raise UserError(f"the index in {self.folder} was made from other things: {'; '.join(differences)}; name "
                            f"another --index_dir, or delete this one to build it again")

    def _replace(self, error: UserError, what: str) -> None:
        if self.strict:
            raise error
        notice(f"{error}\nno --index_dir was named: {what} is built again in its place")


def _short(value: object) -> str:
    """Hashes by their first 12 digits."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
