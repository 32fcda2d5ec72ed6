"""What stands before the application, asked directly."""

import asyncio
import json

import guard
from guard import Guard, Metrics


def Limits(**changes):  # noqa: N802 - the limits, with those of no interest set wide
    return guard.Limits(**{"body_bytes": 1000, "texts": 9, "characters": 9, "k": 9, "timeout": 10, "queue": 9, **changes})


def ask(app, limits: Limits, messages, path: str = "/search", headers=(), key=None, metrics=None):
    """What a guarded application sends for a request, whose body comes in `messages`: (seconds before it, bytes)."""

    async def run():
        sent, waiting = [], list(messages)

        async def receive():
            if not waiting:
                await asyncio.sleep(60)
            seconds, body = waiting.pop(0)
            await asyncio.sleep(seconds)
            return {"type": "http.request", "body": body, "more_body": bool(waiting)}

        async def send(message):
            sent.append(message)

        guard = Guard(app, frozenset(["/search"]), limits, key, metrics or Metrics(), frozenset(["/healthz"]))
        await guard({"type": "http", "path": path, "headers": list(headers)}, receive, send)
        assert guard.at_work == 0
        return sent

    return asyncio.run(run())


async def echo(scope, receive, send):
    """Send the body back."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def slow(seconds: float):
    async def app(scope, receive, send):
        await asyncio.sleep(seconds)
        await echo(scope, receive, send)

    return app


def code_of(sent) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]


def test_a_body_in_pieces_arrives_whole():
    sent = ask(echo, Limits(body_bytes=6), [(0, b"ab"), (0.01, b"cd"), (0, b"ef")])
    assert sent[0]["status"] == 200 and sent[1]["body"] == b"abcdef"


def test_one_byte_more_is_too_much():
    assert code_of(ask(echo, Limits(body_bytes=5), [(0, b"ab"), (0, b"cd"), (0, b"ef")])) == (413, "body_too_large")
    assert code_of(ask(echo, Limits(body_bytes=5), [(0, b"")], headers=[(b"content-length", b"6")])) == (413, "body_too_large")


def test_the_deadline_is_for_the_whole_request():
    """A byte now and then keeps no request alive, and the time of its body is taken from that of its answer."""
    limits = Limits(timeout=0.3)
    assert code_of(ask(echo, limits, [(0.1, b" ")] * 9)) == (408, "request_timeout")
    assert code_of(ask(slow(2), limits, [(0, b"")])) == (504, "deadline_exceeded")
    assert code_of(ask(slow(0.2), limits, [(0.2, b"")])) == (504, "deadline_exceeded")
    assert ask(slow(0.05), limits, [(0.05, b"x")])[0]["status"] == 200


def test_so_many_at_work_and_others_are_told_when_to_come():
    async def run():
        answers = []

        async def one(path):
            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            sent = []

            async def send(message):
                sent.append(message)

            await guard({"type": "http", "path": path, "headers": []}, receive, send)
            answers.append((sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")))

        guard = Guard(slow(0.1), frozenset(), Limits(queue=3), None, Metrics(), frozenset())
        await asyncio.gather(*(one("/search") for _ in range(5)), one("/healthz"))
        assert guard.at_work == 0
        return sorted(answers)

    assert asyncio.run(run()) == sorted([(200, None)] * 4 + [(429, b"1")] * 2)


def test_counts():
    metrics = Metrics()
    ask(echo, Limits(), [(0, b"")], metrics=metrics)
    ask(echo, Limits(), [(0, b"")], path="/a/path/of/an/attacker", metrics=metrics)
    value = metrics.registry.get_sample_value
    assert value("semantic_index_requests_total", {"path": "/search", "status": "200"}) == 1
    assert value("semantic_index_requests_total", {"path": "other", "status": "200"}) == 1
    assert value("semantic_index_request_seconds_count", {"path": "/search"}) == 1


def test_a_key_is_needed_before_anything_is_read():
    def key(given: bytes):
        return ask(echo, Limits(), [(0, b"x")], headers=[(b"authorization", given)], key="k")[0]["status"]

    assert (key(b"Bearer k"), key(b"Bearer K"), key(b"k"), key(b"Bearer k\xff"), key(b"")) == (200, 401, 401, 401, 401)
    assert ask(echo, Limits(), [], headers=[], key="k")[0]["status"] == 401
    assert ask(echo, Limits(), [(0, b"")], path="/healthz", key="k")[0]["status"] == 200
