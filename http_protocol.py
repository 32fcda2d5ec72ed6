"""uvicorn's HTTP protocol, with limits for what comes before there is a request, and errors in the service's form."""

from __future__ import annotations

import asyncio
from typing import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from guard import LINGER, ApiError

HEAD_BYTES = 1 << 16  # of a request line with its headers


class Protocol(HttpToolsProtocol):
    """HTTP with a deadline and a size for what comes before a request's body, and one for an answer to be taken.

    uvicorn alone waits for ever for the rest of a request line or header, and for a client to read its answer.
    `Protocol.timeout` are the seconds of both.
    """

    timeout: float
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _first_line = b""
    _unanswered = 0  # requests whose head was whole
    _refused = False  # nothing more is read
    _last_words: ApiError | None = None  # the refusal, once the requests before it are answered

    def connection_made(self, transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start(self._head_is_late)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._timer is not None:
            self._first_line = self._first_line if self._head_bytes else data.partition(b"\r\n")[0]
            self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(431, "header_too_large", f"the request line and headers have more than {HEAD_BYTES} bytes")

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends nothing more; it may still wait for an answer."""
        if not self._unanswered:
            return None
        if self.cycle.more_body:
            self._refuse(400, "incomplete_request", "the request ended before its body")
        else:
            self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._start(self._head_is_late)

    def on_headers_complete(self) -> None:
        self._stop()
        self._unanswered += 1
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unanswered -= 1
        self._say_last_words()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.timeout, self._abort_if_unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        if self._first_line.startswith((b"GET ", b"POST ")) and not self._first_line.isascii():
            msg = ("the address holds characters that are not ASCII; percent-encode them, as curl --get "
                   "--data-urlencode text=... does")
        self._refuse(400, "invalid_http", msg)

    def _head_is_late(self) -> None:
        self._refuse(408, "request_timeout", f"the request did not arrive within {self.timeout:g} seconds")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Read nothing more, and end the connection with this error when all requests before are answered."""
        self._stop()
        if self._refused:
            return
        self._refused = True
        self._last_words = ApiError(status, code, message)
        if self._unanswered and self.cycle.more_body and not self.cycle.response_complete:  # it will never be whole
            self._unanswered -= 1
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._say_last_words()

    def _say_last_words(self) -> None:
        if self._last_words is None or self._unanswered or self.transport.is_closing():
            return
        error, self._last_words = self._last_words, None
        body = error.body()
        self.transport.write(b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                             b"connection: close\r\n\r\n" % (error.status, len(body)) + body)
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
