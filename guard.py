"""What stands before every request: key, size, deadline, a bounded number at work, counts; and one form of all errors.

`Guard` is ASGI middleware. `Protocol` is uvicorn's, with a deadline for what comes before there is a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import time
from collections.abc import Awaitable, MutableMapping
from dataclasses import dataclass
from typing import Any, Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAD_BYTES = 1 << 16  # of a request line with its headers
# Seconds for which what a refused client still sends is thrown away: closing a connection at once, with input unread,
# would take the answer from it as well.
LINGER = 2
WORKING = ("/search", "/v1/embeddings")  # paths that compute, of which only so many at a time are let in
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Limits:
    """What a request may ask for: bytes of its body, texts, characters of a text, k, seconds, and requests at work."""

    body_bytes: int
    texts: int
    characters: int
    k: int
    timeout: float
    queue: int


class ApiError(Exception):
    """A fault of a request.

    Args:
        status: of HTTP.
        code: a word for programs.
        message: a sentence for people.
    """

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """The one form that all errors have, which is OpenAI's."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=True).encode()


class Metrics:
    """The counts that /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"registry": self.registry, "namespace": "semantic_index"}
        self.requests = Counter("requests", "answered requests", ["path", "status"], **where)
        self.seconds = Histogram("request_seconds", "time from the whole request to its answer", ["path"],
                                 buckets=(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10), **where)
        self.batches = Histogram("batch_items", "items computed together", ["what"],
                                 buckets=(1, 2, 4, 8, 16, 32, 64), **where)
        self.at_work = Gauge("requests_at_work", "requests being computed or waiting for it", **where)
        self.cached = Counter("cache", "texts looked up in the cache of vectors", ["result"], **where)
        self.texts = Gauge("index_texts", "texts of an index", ["index"], **where)


class Guard:
    """Lets a request through to `app` when it is whole, small and known, and answers in its place if it is not.

    Args:
        paths: those that `app` answers, for the counts; others are counted as one.
        key: that a request has to bring as `Authorization: Bearer KEY`; None asks for none.
        open_paths: those that need no key.
    """

    def __init__(self, app: App, paths: frozenset[str], limits: Limits, key: str | None, metrics: Metrics,
                 open_paths: frozenset[str]) -> None:
        self.app, self.paths, self.limits, self.key, self.metrics = app, paths, limits, key, metrics
        self.open_paths = open_paths
        self.at_work = 0
        self.seconds = 0.05  # that a working request takes, lately

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        body: bytes | None = None

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            async with Deadline(self.limits.timeout):
                body = await self._admit(scope, receive)
                start = time.perf_counter()
                await self._answer(scope, body, receive, counted)
        except (ApiError, asyncio.TimeoutError) as error:
            if not status:  # else it is too late: uvicorn closes the connection of an answer that does not end
                await _send_error(counted, error if isinstance(error, ApiError) else self._late(body))
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _late(self, body: bytes | None) -> ApiError:
        seconds = f"within {self.limits.timeout:g} seconds"
        if body is None:
            return ApiError(408, "request_timeout", f"the request did not arrive {seconds}", connection="close")
        return ApiError(504, "deadline_exceeded", f"no answer {seconds}", connection="close")

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that may be answered; ApiError for any other."""
        headers = dict(scope["headers"])
        if self.key is not None and scope["path"] not in self.open_paths:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.key.encode()):
                raise ApiError(401, "invalid_api_key", "send the key of this service: Authorization: Bearer KEY",
                               www_authenticate="Bearer")
        length = headers.get(b"content-length", b"0")
        small = not length.isdigit() or int(length) <= self.limits.body_bytes
        body = await self._read_body(receive) if small else None
        if body is None:
            with contextlib.suppress(asyncio.TimeoutError):
                async with Deadline(LINGER):
                    while (await receive()).get("more_body", False):
                        pass
            raise ApiError(413, "body_too_large", f"the body has more than {self.limits.body_bytes} bytes",
                           connection="close")
        return body

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The whole body, or None where it is too large."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "incomplete_request", "the request ended before its body", connection="close")
            body += message.get("body", b"")
            if len(body) > self.limits.body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the app, if there is room for one more."""
        replayed = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        if scope["path"] not in WORKING:
            await self.app(scope, replay, send)
            return
        if self.at_work >= self.limits.queue:
            wait = math.ceil(self.seconds)
            raise ApiError(429, "overloaded", f"{self.at_work} requests are at work, as many as are let in; try again "
                           f"in {wait} s", retry_after=str(wait))
        start = time.perf_counter()
        self._count(+1)
        try:
            await self.app(scope, replay, send)
        finally:
            self._count(-1)
            self.seconds += 0.1 * (time.perf_counter() - start - self.seconds)

    def _count(self, change: int) -> None:
        self.at_work += change
        self.metrics.at_work.set(self.at_work)


class Deadline:
    """`async with Deadline(seconds):` raises asyncio.TimeoutError in what takes longer.

    Like asyncio.timeout, which Python 3.9 and 3.10 lack; asyncio.wait_for makes a task for each request.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passed = seconds, False

    async def __aenter__(self) -> None:
        self.task = asyncio.current_task()
        self.timer = asyncio.get_running_loop().call_later(self.seconds, self._pass)

    def _pass(self) -> None:
        self.passed = True
        if self.task is not None:
            self.task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_) -> None:
        self.timer.cancel()
        if self.passed and kind is asyncio.CancelledError:
            if self.task is not None and hasattr(self.task, "uncancel"):
                self.task.uncancel()
            raise asyncio.TimeoutError


async def _send_error(send: Send, error: ApiError) -> None:
    body = error.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    await send({"type": "http.response.start", "status": error.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})


class Protocol(HttpToolsProtocol):
    """HTTP with a deadline and a size for what comes before a request's body, and one for an answer to be taken.

    uvicorn alone waits for ever for the rest of a request line or header, and for a client to read its answer.
    `Protocol.timeout` are the seconds of both.
    """

    timeout: float
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _refused = False

    def connection_made(self, transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start(self._head_is_late)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(431, "header_too_large", f"the request line and headers have more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._start(self._head_is_late)

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.timeout, self._abort_if_unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(400, "invalid_http", msg)

    def _head_is_late(self) -> None:
        self._refuse(408, "request_timeout", f"the request did not arrive within {self.timeout:g} seconds")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._stop()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        body = ApiError(status, code, message).body()
        self.transport.write(b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                             b"connection: close\r\n\r\n" % (status, len(body)) + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    def _abort_if_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _start(self, then: Callable[[], None]) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.timeout, then)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
