"""Batching of concurrent calls: order, sizes, errors, and calls that were given up."""

import asyncio
import threading
import time

import pytest

from micro_batch import Batcher, Cache


class Squares:
    """Squares, slowly, with a record of the batches."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds, self.batches, self.at_once = seconds, [], 0

    def __call__(self, items):
        self.at_once += 1
        assert self.at_once == 1 and threading.current_thread() is not threading.main_thread()
        self.batches.append(list(items))
        time.sleep(self.seconds)
        self.at_once -= 1
        if 13 in items:
            raise ValueError("thirteen")
        return [item * item for item in items]


def test_a_lone_call_does_not_wait_and_calls_meanwhile_make_the_next_batch():
    squares = Squares()

    async def work():
        batcher = Batcher(squares, 64, wait=0)
        first = asyncio.create_task(batcher.run([1]))
        await asyncio.sleep(0.005)
        rest = [asyncio.create_task(batcher.run([i, i + 100])) for i in range(2, 10)]
        return await first, await asyncio.gather(*rest)

    first, rest = asyncio.run(work())
    assert first == [1] and rest == [[i * i, (i + 100) ** 2] for i in range(2, 10)]
    assert [len(batch) for batch in squares.batches] == [1, 16]


def test_a_batch_holds_so_many_items_and_large_calls_are_split():
    squares = Squares(0.001)

    async def work():
        batcher = Batcher(squares, 4, wait=0)
        return await asyncio.gather(batcher.run(list(range(20, 30))), batcher.run([1, 2]), batcher.run([3]))

    assert asyncio.run(work()) == [[i * i for i in range(20, 30)], [1, 4], [9]]
    assert [len(batch) for batch in squares.batches] == [4, 4, 4, 1]


def test_one_by_one_without_batching():
    squares = Squares(0.001)

    async def work():
        batcher = Batcher(squares, 1, wait=0.01)
        return await asyncio.gather(*(batcher.run([i]) for i in range(5)))

    assert asyncio.run(work()) == [[i * i] for i in range(5)]
    assert [len(batch) for batch in squares.batches] == [1] * 5


def test_under_load_a_batch_waits_for_company():
    squares = Squares(0.001)

    async def client(batcher, i):
        for _ in range(3):
            assert await batcher.run([i]) == [i * i]
            await asyncio.sleep(0.002 * i)  # back at different times, all within the wait

    async def work():
        batcher = Batcher(squares, 64, wait=0.05)
        await asyncio.gather(*(client(batcher, i) for i in range(4)))

    asyncio.run(work())
    assert [len(batch) for batch in squares.batches] == [4, 4, 4]


def test_an_error_reaches_those_of_its_batch_alone():
    squares = Squares(0.01)

    async def work():
        batcher = Batcher(squares, 2, wait=0)
        calls = [batcher.run([13, 1, 2]), batcher.run([4]), batcher.run([5, 6])]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return found, await batcher.run([7])

    (bad, four, rest), later = asyncio.run(work())
    assert isinstance(bad, ValueError) and four == [16] and rest == [25, 36] and later == [49]


def test_what_nobody_waits_for_any_more_is_not_computed():
    squares = Squares(0.03)

    async def work():
        batcher = Batcher(squares, 64, wait=0)
        first = asyncio.create_task(batcher.run([1]))
        await asyncio.sleep(0.005)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(batcher.run([2]), 0.005)
        last = batcher.run([3])
        assert await asyncio.gather(first, last) == [[1], [9]]
        assert batcher.waiting == 0

    asyncio.run(work())
    assert squares.batches == [[1], [3]]


def test_cache_keeps_what_was_asked_for_last():
    there = []
    cache = Cache(2, there.append)
    cache.put("a", 1), cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert there == [True, True, False, True]
    nothing = Cache(0)
    nothing.put("a", 1)
    assert nothing.get("a") is None


def test_a_served_encoder_has_met_all_shapes_of_a_few_texts():
    from served import Batching, ServedEncoder

    class Model:
        dimension, matryoshka_dims, few_at_once, met = 2, (), False, False

        def warm_up(self):
            self.met = self.few_at_once

    model = Model()
    ServedEncoder(model, Batching(True, 0.002, 10, lambda *_: None, lambda _: None))
    assert model.met
