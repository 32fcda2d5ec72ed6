"""Candidates from Milvus: of a server, or of milvus-lite in a folder of this machine.

Milvus holds ids (places in the corpus) and vectors alone; texts stay outside. The vectors are counted after every write
and before every use, so a half-filled collection never answers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from files import UserError, make_folder
from parts import Vectors

REQUEST_BYTES = 8 << 20  # of vectors; a server takes 64 MB, but has to answer in time over a slow line too
REQUEST_QUERIES, REQUEST_HITS = 1024, 1 << 15  # a server takes 16,384 queries; milvus-lite makes a dict of every hit
MAX_K, MAX_EF = 16384, 32768  # a server's limits
CONNECT_WITHIN, ANSWER_WITHIN, BUILD_WITHIN = 5, 25, 6 * 3600  # seconds; gRPC itself notices a lost server within 75

SERVE = """
import sys
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, database, port = start_server_in_thread(data_dir=sys.argv[1], host="127.0.0.1", port=0)
print(port, flush=True)
sys.stdin.read()
server.stop(grace=0)
database.close()
"""


class MilvusIndex(contextlib.AbstractContextManager):
    """A collection of Milvus with an HNSW graph by inner product.

    milvus-lite 3 makes a folder at its path, which stays, with a LOCK file in it. It is served on a free port of
    127.0.0.1, without a password, and others are locked out until `close` or the end of this process.

    Args:
        uri: `/folder/name.db` for milvus-lite, or `http://host:port` (https, tcp) of a server, whose token
            (`user:password` or an API key) is in the environment variable MILVUS_TOKEN.
        m: links a node keeps.
        ef: size of the candidate list while building and searching; searches raise it to k.

    Raises:
        UserError: from every method, when Milvus is not there, refuses, breaks off or doesn't answer in time.
    """

    def __init__(self, uri: str, collection: str, dimension: int, m: int, ef: int) -> None:
        self.uri, self.collection, self.dimension, self.m, self.ef = uri, collection, dimension, m, ef
        self.local = uri.endswith(".db") and "://" not in uri
        self.within = BUILD_WITHIN if self.local else ANSWER_WITHIN  # milvus-lite is slow, but can't be lost
        self._client: Any = None
        self._server: subprocess.Popen[str] | None = None
        if not self.local and not re.fullmatch(r"(https?|tcp)://[\w.-]+(:\d{1,5})?(/\w*)?", uri):
            shown = re.sub("//.*@", "//...@", uri)  # without a password
            raise UserError(f"{shown}: no address of Milvus; write /folder/name.db for milvus-lite or http://host:"
                            f"19530 of a server, and its token into the environment variable MILVUS_TOKEN")

    def build(self, vectors: Vectors) -> MilvusIndex:
        """Make the collection anew of all vectors; one of the same name is dropped."""
        self._check_dimension("the vectors have", vectors.dimension)
        with self._client_to("make the collection") as client:
            from pymilvus import DataType

            schema = client.create_schema(enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
            client.drop_collection(self.collection, timeout=self.within)
            client.create_collection(self.collection, schema=schema, timeout=self.within)
        self._write("insert", vectors, 0)
        with self._client_to("build the graph") as client:
            graph = client.prepare_index_params()
            # pymilvus unpacks `params`, but milvus-lite 3.2 passes over values that are not in one: hence two of them.
            graph.add_index("vector", index_type="HNSW", metric_type="IP",
                            params={"params": {"M": self.m, "efConstruction": self.ef}})
            client.create_index(self.collection, graph, timeout=BUILD_WITHIN)
        return self._ready(len(vectors), len(vectors), "build it again")

    def add(self, vectors: Vectors, start: int) -> MilvusIndex:
        """Write the vectors from id `start` on, over those that are there already: repeating it does no harm."""
        self._check_dimension("the vectors have", vectors.dimension)
        self._check_collection()
        self._write("upsert", vectors, start)
        return self._ready(len(vectors), len(vectors), "build it again")

    def save(self, folder: Path) -> dict:
        """Nothing is left to be kept: Milvus has written it all."""
        return {}

    def load(self, folder: Path, facts: dict, vectors: Vectors, remedy: str) -> MilvusIndex:
        """Make the collection ready; it holds the first `facts["texts"]` vectors, or more after a killed `add`."""
        return self._ready(facts["texts"], len(vectors), remedy)

    def _ready(self, least: int, most: int, remedy: str) -> MilvusIndex:
        """Load the collection, and make sure that it holds from `least` to `most` vectors."""
        self._check_collection()
        with self._client_to("load the collection", "build it again if that was broken off") as client:
            client.load_collection(self.collection, timeout=BUILD_WITHIN)
        found = self.count()
        if not least <= found <= most:
            raise UserError(f"{self.uri}: the collection {self.collection!r} holds {found} vectors where {least} "
                            f"belong; {remedy}")
        return self

    def count(self) -> int:
        """Vectors of the loaded collection, really counted: Milvus's statistics include those that were replaced."""
        with self._client_to("count the vectors") as client:
            rows = client.query(self.collection, output_fields=["count(*)"], consistency_level="Strong",
                                timeout=self.within)
        return int(rows[0]["count(*)"])

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids [Q, k] of the k best vectors for each query, float32 [Q, D]; k is at most their number."""
        if k > MAX_K:
            raise UserError(f"{self.uri}: Milvus finds at most {MAX_K} neighbours of a query and {k} are wanted; ask "
                            f"for fewer or use another engine")
        self._check_dimension("the queries have", queries.shape[1])
        rows = max(1, min(REQUEST_QUERIES, REQUEST_BYTES // (4 * self.dimension), REQUEST_HITS // max(k, 1)))
        blocks = [self._search_block(queries[i : i + rows], k) for i in range(0, len(queries), rows)]
        return np.concatenate(blocks) if blocks else np.zeros((0, k), dtype=np.int64)

    def _search_block(self, queries: np.ndarray, k: int) -> np.ndarray:
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        short = np.arange(len(queries))
        for ef in (max(self.ef, k), MAX_EF):  # a walk through the graph can end with less than k: widen it once
            with self._client_to("search") as client:
                found = client.search(self.collection, list(queries[short]), limit=k, anns_field="vector",
                                      search_params={"metric_type": "IP", "params": {"ef": min(ef, MAX_EF)}},
                                      consistency_level="Strong", timeout=self.within)
            for row, hits in zip(short, found):
                different = list(dict.fromkeys(hit["id"] for hit in hits))
                if len(different) == k:
                    ids[row] = different
            short = np.flatnonzero((ids < 0).any(axis=1))
            if not len(short):
                return ids
        raise UserError(f"{self.uri}: the graph of {self.collection!r} reaches less than {k} neighbours of some query; "
                        f"build it again with more links than {self.m} a node")

    def close(self) -> None:
        """Leave the server; end milvus-lite, so that other processes can use its folder."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._server is not None:
            self._server.communicate()  # closes its standard input and waits
            self._server = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, verb: str, vectors: Vectors, start: int) -> None:
        rows = REQUEST_BYTES // (4 * self.dimension + 8)
        with tqdm(total=len(vectors) - start, desc="milvus", unit=" vectors", leave=False, disable=None) as bar:
            for first, block in vectors.blocks(start):
                for i in range(0, len(block), rows):
                    part = [{"id": first + i + j, "vector": vector} for j, vector in enumerate(block[i : i + rows])]
                    with self._client_to(f"{verb} the vectors from {first + i} on") as client:
                        getattr(client, verb)(self.collection, part, timeout=self.within)
                    bar.update(len(part))
        with self._client_to("flush the vectors") as client:
            client.flush(self.collection, timeout=BUILD_WITHIN)

    def _check_collection(self) -> None:
        missing = f"{self.uri}: there is no collection {self.collection!r}; build it first"
        if self.local and not os.path.exists(self.uri):  # connecting would make the folder
            raise UserError(missing)
        with self._client_to("look up the collection") as client:
            if not client.has_collection(self.collection, timeout=self.within):
                raise UserError(missing)
            fields = client.describe_collection(self.collection, timeout=self.within)["fields"]
        dimensions = {field["name"]: field["params"].get("dim") for field in fields}
        self._check_dimension(f"the collection {self.collection!r} has", dimensions.get("vector"))

    def _check_dimension(self, whose: str, dimension: int | None) -> None:
        if dimension != self.dimension:
            raise UserError(f"{self.uri}: {whose} dimension {dimension} where {self.dimension} belongs; use vectors of "
                            f"one checkpoint, and build the collection again")

    @contextlib.contextmanager
    def _client_to(self, act: str, remedy: str = "") -> Iterator[Any]:
        """The connected client; an error of Milvus becomes one that says what it stopped."""
        client = self._connect()
        from grpc import FutureTimeoutError, RpcError
        from pymilvus import MilvusException

        try:
            yield client
        except (MilvusException, RpcError, FutureTimeoutError) as error:
            place = "the folder and the free space" if self.local else "the server and its log"
            remedy = remedy or f"check {place}, then run again"
            raise UserError(f"{self.uri}: can't {act}: {_reason(error)}; {remedy}") from error

    def _connect(self) -> Any:
        if self._client is not None:
            return self._client
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported
        try:
            from pymilvus import MilvusClient, MilvusException

            if self.local and importlib.util.find_spec("milvus_lite.db") is None:  # 3.0 has it; older ones have no HNSW
                raise ImportError("No module named 'milvus_lite' 3")
        except ImportError as error:
            lite = ' "milvus-lite>=3" (Python 3.10 or newer)' if self.local else ""
            raise UserError(f"{self.uri}: {error}; pip install pymilvus{lite}") from error
        _silence_logs()
        address = self._serve() if self.local else self.uri
        try:  # milvus-lite is reached at 127.0.0.1, where no proxy of the environment leads
            self._client = MilvusClient(address, token=os.environ.get("MILVUS_TOKEN", ""), timeout=CONNECT_WITHIN,
                                        dedicated=True, grpc_options={"grpc.enable_http_proxy": int(not self.local)})
        except (MilvusException, ValueError) as error:  # ValueError: a port above 65535
            raise UserError(f"{self.uri}: can't connect: {_reason(error)}; check that a Milvus server runs there and "
                            f"that MILVUS_TOKEN fits") from error
        return self._client

    def _serve(self) -> str:
        """Start milvus-lite and return its address; it ends when this process ends or closes its standard input.

        It gets a process of its own: in one that has used Paddle, whose OpenMP is another, its graphs come out broken.
        """
        make_folder(Path(self.uri).parent)
        with tempfile.TemporaryFile("w+") as errors:
            self._server = subprocess.Popen([sys.executable, "-c", SERVE, self.uri], stdin=subprocess.PIPE, text=True,
                                            stdout=subprocess.PIPE, stderr=errors)
            assert self._server.stdout
            port = self._server.stdout.readline().strip()
            if not port:
                self.close()
                errors.seek(0)
                reason = (errors.read().strip().splitlines() or ["it ended"])[-1]
                raise UserError(f"{self.uri}: can't start milvus-lite: {reason}; end the process that uses it or name "
                                f"another path")
        return f"http://127.0.0.1:{port}"


def _silence_logs() -> None:
    """Keep the logs of these packages off stderr: what counts is raised, or found in what is returned."""
    for name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False


def _reason(error: Any) -> str:
    """What an error says, on one line; where pymilvus hides one of gRPC behind its own, gRPC's."""
    error = error.__cause__ if hasattr(error.__cause__, "details") else error
    text = str(getattr(error, "message", error))
    if hasattr(error, "details"):
        text = f"{error.code().name}: {error.details()}"
    return " ".join(text.split())[:300]
