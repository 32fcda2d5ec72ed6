"""Calls that come at the same time, computed together: what makes a model on a CPU serve many clients."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable


class Batcher:
    """Gathers the items of concurrent calls and computes them at once, in a thread of its own.

    While a batch is computed, the items that come meanwhile make the next one. A lone call is computed without delay;
    after a batch of several calls the next one waits a moment, since those callers are likely to be back at once.

    Args:
        compute: results of a list of items, in their order; it is never called twice at the same time.
        most: items of a batch, at most; 1 computes each by itself.
        wait: seconds that a batch waits for company under load.

    Attributes:
        waiting: items that are not being computed yet.
    """

    def __init__(self, compute: Callable[[list], Sequence], most: int, wait: float,
                 observe: Callable[[int], Any] = lambda size: None) -> None:
        self.compute, self.most, self.wait, self.observe = compute, most, wait, observe
        self.waiting = 0
        self._calls: deque[tuple[list, list, asyncio.Future]] = deque()  # items, results so far, who waits for them
        self._thread = ThreadPoolExecutor(1)
        self._worker: asyncio.Task | None = None
        self._company = False  # whether the last batch was of several calls

    async def run(self, items: list) -> list:
        """The results of `items`; raises what `compute` raises for a batch that holds one of them."""
        if not items:
            return []
        done: asyncio.Future = asyncio.get_running_loop().create_future()
        self._calls.append((list(items), [], done))
        self.waiting += len(items)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        """Compute until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._calls:
            if self._company and self.wait and self.waiting < self.most:
                await asyncio.sleep(self.wait)
            batch = self._take()
            items = [item for part, _, _ in batch for item in part]
            self._company = len(batch) > 1
            if not items:
                continue
            self.observe(len(items))
            try:
                results = iter(await loop.run_in_executor(self._thread, self.compute, items))
            except Exception as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for part, found, done in batch:
                found += [next(results) for _ in part]
                if not done.done() and not any(call[2] is done for call in self._calls):
                    done.set_result(found)
        self._worker = None

    def _take(self) -> list[tuple[list, list, asyncio.Future]]:
        """Whole calls up to `most` items, and the beginning of one that is larger than all the room there is left."""
        batch: list[tuple[list, list, asyncio.Future]] = []
        room = self.most
        while self._calls and room:
            items, found, done = self._calls.popleft()
            self.waiting -= len(items)
            if done.done():  # who asked has gone
                continue
            batch.append((items[:room], found, done))
            if len(items) > room:
                self._calls.appendleft((items[room:], found, done))
                self.waiting += len(items) - room
            room -= len(batch[-1][0])
        return batch

    def close(self) -> None:
        """Let the thread end with what it is computing."""
        self._thread.shutdown(wait=False)


class Cache:
    """The results of the `size` keys that were asked for last; `observe` is told of each key whether it was there."""

    def __init__(self, size: int, observe: Callable[[bool], Any] = lambda there: None) -> None:
        self.size, self.observe = size, observe
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value of a key, or None."""
        value = self._values.get(key)
        self.observe(value is not None)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Any) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.size:
            self._values.popitem(last=False)
