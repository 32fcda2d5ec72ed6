"""What stands before every request: key, size, deadline, a bounded number at work, counts; and one form of all errors.

`Guard` is ASGI middleware. What comes before there is a request is in http_protocol.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import math
import time
from collections.abc import Awaitable, MutableMapping
from dataclasses import dataclass
from typing import Any, Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

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
        param: the part of the request that is meant.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """The one form that all errors have, which is OpenAI's."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
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
        key: that a request has to bring as `Authorization: Bearer KEY`. None asks for none, and answers only to the
            names of this machine: a page that points a name of its own at it (DNS rebinding) is refused.
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
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            raise ApiError(400, "invalid_http", f"{len(hosts)} Host headers; send one")
        if self.key is None and not all(map(is_loopback, hosts)):
            raise ApiError(403, "foreign_host", "without a key this service answers to localhost and 127.0.0.1 alone; "
                                                "ask for it by one of these, or start it with --api_key")
        if self.key is not None and scope["path"] not in self.open_paths:
            scheme, _, given = headers.get(b"authorization", b"").strip().partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key.encode()):
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


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, names this machine alone."""
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    else:
        name = host if host.count(":") > 1 else host.partition(":")[0]
    try:
        return name.lower().rstrip(".") == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _send_error(send: Send, error: ApiError) -> None:
    body = error.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    await send({"type": "http.response.start", "status": error.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})
