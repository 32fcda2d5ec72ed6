"""Clients for benchmarks/serve.py, cheap enough to leave the processors to the service: raw HTTP over open sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import quote

Address = tuple[str, int]


class Load:
    """What the clients saw: seconds of the good answers, and how many answers had which status."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.took = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.seconds) / self.took

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the good answers came."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def searches(texts: Sequence[str], k: int = 10) -> Iterator[bytes]:
    """Requests for one text each, round and round."""
    for text in itertools.cycle(texts):
        yield f"GET /search?k={k}&text={quote(text)} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


class Client:
    """One connection, kept alive."""

    def __init__(self, address: Address, load: Load) -> None:
        self.address, self.load = address, load
        self.reader: asyncio.StreamReader | None = None

    async def ask(self, request: bytes) -> None:
        """Send a request, wait for its answer, and count it."""
        if self.reader is not None and self.reader.at_eof():  # the service closes what was idle for long
            self.close()
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        start = time.perf_counter()
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0])
        await self.reader.readexactly(length)
        status = int(head[9:12])
        self.load.statuses[status] += 1
        if status == 200:
            self.load.seconds.append(time.perf_counter() - start)
        if b"connection: close" in lowered:
            self.close()

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.reader = None


async def closed_loop(address: Address, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
    """So many clients, each asking again as soon as it is answered."""
    load, start = Load(), time.perf_counter()

    async def work() -> None:
        client = Client(address, load)
        while time.perf_counter() < start + seconds:
            await client.ask(next(requests))
        client.close()

    await asyncio.gather(*(work() for _ in range(clients)))
    load.took = time.perf_counter() - start
    return load


async def open_loop(address: Address, requests: Iterator[bytes], rate: float, seconds: float) -> Load:
    """So many requests a second, whether the service keeps up or not, over as many connections as that takes."""
    load, idle, running = Load(), [], set()
    start = time.perf_counter()

    async def one(client: Client) -> None:
        try:
            await client.ask(next(requests))
        except (OSError, asyncio.IncompleteReadError):
            load.statuses[0] += 1
            client.close()
        idle.append(client)

    for number in itertools.count():
        due = start + number / rate
        if due > start + seconds:
            break
        await asyncio.sleep(max(0, due - time.perf_counter()))
        task = asyncio.create_task(one(idle.pop() if idle else Client(address, load)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    load.took = time.perf_counter() - start
    return load


async def slow_clients(address: Address, count: int, seconds: float) -> None:
    """Clients that send a byte of a request each second, and come again when they are sent away."""
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
    end = time.perf_counter() + seconds

    async def one(in_body: bool) -> None:
        while time.perf_counter() < end:
            try:
                _, writer = await asyncio.open_connection(*address)
                if in_body:
                    writer.write(head)
                for byte in itertools.cycle(head if not in_body else b" "):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)
                    if writer.is_closing() or time.perf_counter() > end:
                        break
                writer.close()
            except OSError:
                await asyncio.sleep(1)

    await asyncio.gather(*(one(number % 2 == 0) for number in range(count)))
