"""Candidates from Milvus: of a server, or of milvus-lite in a folder of this machine.

Milvus holds ids (places in the corpus) and vectors alone; texts stay outside. The number of vectors is checked after
every write and before every use, so a half-filled collection never answers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from files import UserError

REQUEST_BYTES = 32 << 20  # of vectors or hits; a server takes 64 MB a call
QUERY_BLOCK = 1024  # a server takes 16,384
MAX_K, MAX_EF = 16384, 32768  # a server's limits
CONNECT_WITHIN, ANSWER_WITHIN, BUILD_WITHIN = 5, 60, 6 * 3600  # seconds


class Vectors(Protocol):
    """Unit vectors in corpus order, read block by block."""

    dimension: int

    def __len__(self) -> int: ...

    def blocks(self, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(id of the block's first vector, float32 [n, D]) from the vector `start` on."""


class MilvusIndex:
    """A collection of Milvus with an HNSW graph by inner product.

    milvus-lite 3 makes a folder at its path. The process that uses it serves it on a free port of 127.0.0.1, without a
    password, and locks it against others until `close`; indexes of one process share it, and one `close` ends it for
    all. The folder and its LOCK file stay.

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
        # Credentials don't belong here: messages show the address.
        if not self.local and not re.fullmatch(r"(https?|tcp)://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/\w*)?", uri):
            raise UserError(f"{re.sub('//.*@', '//...@', uri)}: no address of Milvus; write /folder/name.db for "
                            f"milvus-lite or http://host:19530 for a server, and its token into MILVUS_TOKEN")
        self._client: Any = None

    def build(self, vectors: Vectors) -> MilvusIndex:
        """Make the collection anew, of all vectors; one of the same name is dropped."""
        self._check_dimension("the vectors have", vectors.dimension)
        with self._client_to("make the collection") as client:
            from pymilvus import DataType

            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
            client.drop_collection(self.collection, timeout=ANSWER_WITHIN)
            client.create_collection(self.collection, schema=schema, consistency_level="Strong", timeout=ANSWER_WITHIN)
        self._write("insert", vectors, 0)
        with self._client_to("build the graph") as client:
            graph = client.prepare_index_params()
            graph.add_index("vector", index_type="HNSW", metric_type="IP",
                            params={"M": self.m, "efConstruction": self.ef})
            client.create_index(self.collection, graph, timeout=BUILD_WITHIN)
        return self.load(len(vectors))

    def add(self, vectors: Vectors, start: int) -> MilvusIndex:
        """Write the vectors from id `start` on; those that are there already are replaced, so repeating does no harm."""
        self._check_dimension("the vectors have", vectors.dimension)
        self._check_collection()
        self._write("upsert", vectors, start)
        return self.load(len(vectors))

    def load(self, count: int) -> MilvusIndex:
        """Make the collection ready for searches; it has to hold exactly `count` vectors."""
        self._check_collection()
        with self._client_to("load the collection") as client:
            client.load_collection(self.collection, timeout=BUILD_WITHIN)
        found = self.count()
        if found != count:
            raise UserError(f"{self.uri}: the collection {self.collection!r} holds {found} vectors where {count} "
                            f"belong; build it again")
        return self

    def count(self) -> int:
        """Vectors of the loaded collection, really counted: Milvus's statistics include those that were replaced."""
        with self._client_to("count the vectors") as client:
            rows = client.query(self.collection, output_fields=["count(*)"], consistency_level="Strong",
                                timeout=ANSWER_WITHIN)
        return int(rows[0]["count(*)"])

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids [Q, k] of the k best vectors for each query, float32 [Q, D]; k is at most their number."""
        if k > MAX_K:
            raise UserError(f"{self.uri}: Milvus finds at most {MAX_K} neighbours of a query and {k} are wanted; ask for "
                            f"fewer or use another engine")
        rows = max(1, min(QUERY_BLOCK, REQUEST_BYTES // (4 * self.dimension), REQUEST_BYTES // (16 * max(k, 1))))
        blocks = [self._search_block(queries[i : i + rows], k) for i in range(0, len(queries), rows)]
        return np.concatenate(blocks) if blocks else np.zeros((0, k), dtype=np.int64)

    def _search_block(self, queries: np.ndarray, k: int) -> np.ndarray:
        for ef in (max(self.ef, k), MAX_EF):  # a walk through the graph can end with less than k: widen it once
            with self._client_to("search") as client:
                found = client.search(self.collection, list(queries), limit=k, anns_field="vector",
                                      search_params={"metric_type": "IP", "params": {"ef": min(ef, MAX_EF)}},
                                      consistency_level="Strong", timeout=ANSWER_WITHIN)
            ids = [list({hit["id"]: None for hit in hits}) for hits in found]
            if all(len(row) == k for row in ids):
                return np.array(ids, dtype=np.int64)
        raise UserError(f"{self.uri}: the graph of {self.collection!r} reaches less than {k} neighbours of some query; "
                        f"build it again with more links (m {self.m})")

    def close(self) -> None:
        """Leave the server; end milvus-lite, so that other processes can use its folder."""
        if self._client is not None:
            self._client.close()
            self._client = None
            if self.local:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self.uri)

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, verb: str, vectors: Vectors, start: int) -> None:
        rows = REQUEST_BYTES // (4 * self.dimension + 8)
        with tqdm(total=len(vectors) - start, desc="milvus", unit=" vectors", leave=False, disable=None) as bar:
            for first, block in vectors.blocks(start):
                for i in range(0, len(block), rows):
                    part = [{"id": first + j, "vector": block[j]} for j in range(i, min(i + rows, len(block)))]
                    with self._client_to(f"{verb} the vectors from {first + i} on") as client:
                        getattr(client, verb)(self.collection, part, timeout=ANSWER_WITHIN)
                    bar.update(len(part))
        with self._client_to("flush the vectors") as client:
            client.flush(self.collection, timeout=BUILD_WITHIN)

    def _check_collection(self) -> None:
        missing = f"{self.uri}: there is no collection {self.collection!r}; build it first"
        if self.local and not os.path.exists(self.uri):
            raise UserError(missing)  # connecting would make the folder
        with self._client_to("look up the collection") as client:
            if not client.has_collection(self.collection, timeout=ANSWER_WITHIN):
                raise UserError(missing)
            fields = client.describe_collection(self.collection, timeout=ANSWER_WITHIN)["fields"]
        of_field = {field["name"]: field["params"].get("dim") for field in fields}
        self._check_dimension(f"the collection {self.collection!r} has", of_field.get("vector"))

    def _check_dimension(self, whose: str, dimension: int | None) -> None:
        if dimension != self.dimension:
            raise UserError(f"{self.uri}: {whose} dimension {dimension} where {self.dimension} belongs; build it again "
                            f"or name another collection")

    @contextlib.contextmanager
    def _client_to(self, act: str) -> Iterator[Any]:
        """The connected client; an error of Milvus becomes one that says what it stopped."""
        client = self._connect()
        from grpc import FutureTimeoutError, RpcError
        from pymilvus import MilvusException

        try:
            yield client
        except (MilvusException, RpcError, FutureTimeoutError) as error:
            raise UserError(f"{self.uri}: can't {act}: {_reason(error)}; look after it, then run again") from error

    def _connect(self) -> Any:
        if self._client is not None:
            return self._client
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        package = "milvus-lite" if self.local else "pymilvus"
        try:
            from pymilvus import MilvusClient, MilvusException

            if self.local:
                import milvus_lite.server_manager  # noqa: F401
        except ImportError as error:
            raise UserError(f"{self.uri}: {error}; pip install {package}") from error
        log = _hush()
        try:
            self._client = MilvusClient(self.uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=CONNECT_WITHIN,
                                        dedicated=True)
        except MilvusException as error:
            raise UserError(f"{self.uri}: can't connect: {log.reason or _reason(error)}") from error
        return self._client


def _hush():
    handler = _LastError()
    for name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer", "milvus_lite"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    return handler


class _LastError(logging.Handler):
    """Takes the log, which would go to stderr, and keeps the reason that milvus-lite writes there alone."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.reason = str(record.exc_info[1])


def _reason(error: Exception) -> str:
    """The first line of an error, without the debugging details that gRPC adds."""
    text = getattr(error, "message", None) or str(error)
    return text.split("\n")[0].split(", debug=")[0][:300]
