"""The service through HTTP: bad requests, limits, keys, slow clients."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import re
import socket
import time

import pytest
from conftest import SOURCES, TARGETS
from running_service import Service
from served_indexes import error_of, flags_of, folders_fixture, service_fixture  # noqa: F401 - fixtures

BAD = [
    ({}, "invalid_value"), ({"text": None}, "invalid_value"), ({"text": 3}, "invalid_value"),
    ({"text": {"a": 1}}, "invalid_value"), ({"text": ["a", 3]}, "invalid_value"), ({"text": []}, "no_text"),
    ({"text": ""}, "empty_text"), ({"text": ["a", " \t\n"]}, "empty_text"), ({"text": "x" * 513}, "text_too_long"),
    ({"text": ["x"] * 257}, "too_many_texts"), ({"text": "a", "k": 0}, "invalid_value"),
    ({"text": "a", "k": -1}, "invalid_value"), ({"text": "a", "k": 1001}, "k_too_large"),
    ({"text": "a", "k": 1.5}, "invalid_value"), ({"text": "a", "k": "many"}, "invalid_value"),
    ({"text": "a", "k": 10**30}, "k_too_large"), ({"text": "a", "exact": "perhaps"}, "invalid_value"),
    ({"text": "a", "idx": "bank"}, "invalid_value"), ({"text": "a", "index": 3}, "invalid_value")]


@pytest.mark.parametrize(("body", "code"), BAD, ids=[json.dumps(body)[:40] for body, _ in BAD])
def test_bad_values(service, body, code):
    assert error_of(service.http.post("/search", json=body), 422) == code


@pytest.mark.parametrize("name", ["nobody", "../bank", "/etc/passwd", "bank/../small", "", "BANK", "bank\0"])
def test_an_index_is_a_name_and_no_path(service, name):
    answer = service.http.post("/search", json={"text": "a", "index": name})
    assert error_of(answer, 404) == "index_not_found" and "root:" not in answer.text
    assert error_of(service.http.post("/v1/embeddings", json={"input": "a", "model": name}), 404) == "model_not_found"
    assert error_of(service.http.post("/admin/reload", json={"index": name}), 404) == "index_not_found"


RAW = [b"", b"{", b"[]", b"null", b'{"text": NaN}', b'{"text": "a", "k": NaN}', b'{"text": "a", "k": Infinity}',
       b'{"text": "\xff\xfe"}', b'{"text": "\\ud800"}', b'{"text": ["\\udfff", "a"]}', b'{"text": "\\ud83d"}',
       b"[" * 100_000, b'{"text":' * 20_000, b'{"text": "a"} trailing', b"\x00" * 100, b'{"text": "a", "k": 1e999}',
       b'{"text": "a", "k": ' + b"9" * 5000 + b"}", b'"text"', "{'text': 'a'}".encode("utf-16")]


@pytest.mark.parametrize("body", RAW, ids=[repr(body[:24]) for body in RAW])
def test_bodies_that_are_no_request(service, body):
    answer = service.http.post("/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)  # and never 5xx
    error_of(answer, answer.status_code)
    assert service.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/web/app.js", "/../serve.py", "/%2e%2e/serve.py", "/..%2fserve.py", "//etc/passwd",
                                  "/app.js/../../serve.py", "/static/../pyproject.toml", "/%00", "/v1/models/..%2f..%2fx"])
def test_paths_lead_to_no_files(service, path):
    host, port = service.address
    with socket.create_connection((host, port), timeout=10) as connection:  # httpx would tidy the path up
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] in ("not_found", "model_not_found")


def test_other_faults_of_a_request(service):
    assert error_of(service.http.put("/search", json={}), 405) == "method_not_allowed"
    assert error_of(service.http.get("/search"), 422) == "invalid_value"
    assert error_of(service.http.get("/search?text=%ff&k=x"), 422) == "invalid_value"
    assert error_of(service.http.post("/search", content=b"x" * ((1 << 20) + 1)), 413) == "body_too_large"


@pytest.mark.parametrize(("method", "path", "more", "status", "words"), [
    ("POST", "/search", {"data": {"text": "a"}}, 415, "content-type: application/json"),
    ("POST", "/search", {"content": b'{"text": "a"}'}, 415, "content-type: application/json"),
    ("POST", "/search", {"json": {"text": ["a", None]}}, 422, "text, element 2: give a text"),
    ("POST", "/search", {"json": {"text": 3}}, 422, "text: give a text, or a list"),
    ("POST", "/search", {"json": {"text": "a", "top_k": 5}}, 422, "top_k: no such parameter"),
    ("POST", "/search", {"json": {"text": "a", "k": True}}, 422, "k: "),
    ("POST", "/search", {"json": {"text": "a", "k": "10"}}, 422, "k: "),
    ("POST", "/search", {"json": {"text": "a", "exact": 1}}, 422, "exact: "),
    ("POST", "/search", {"json": {"text": "\u200b\u200d"}}, 422, "nothing that can be seen"),
    ("GET", "/search?text=a&top_k=5", {}, 422, "top_k: no such parameter"),
    ("GET", "/search?text=a&k=5&k=6", {}, 422, "twice"),
    ("GET", "/search?text=%FF%FE", {}, 422, "no UTF-8"),
    ("POST", "/v1/embeddings", {"json": {"model": "bank", "input": [1, 2]}}, 422, "token ids are not taken"),
    ("POST", "/v1/embeddings", {"json": {"model": "bank", "input": "a", "foo": 1}}, 422, "foo: no such parameter"),
    ("POST", "/v1/embeddings", {"json": {"model": "cut", "input": "a", "dimensions": "64"}}, 422, "dimensions: "),
    ("GET", "/search/?text=a", {}, 404, "no such path"), ("DELETE", "/search", {}, 405, "another method")])
def test_the_message_says_what_is_wrong(service, method, path, more, status, words):
    answer = service.http.request(method, path, **more)
    error_of(answer, status)
    assert words in answer.json()["error"]["message"]
    assert status != 405 or answer.headers["allow"] == "GET, POST"
    before, found, _ = words.partition(": ")
    assert answer.json()["error"]["param"] == (before.partition(",")[0] if found and status == 422 else
                                               "text" if "UTF-8" in words else None) or "token" in words


@pytest.mark.parametrize("body", [b"{", b'{"text": "\xff"}', b"[" * 100_000, b'{"text": "a"} trailing'])
def test_what_is_no_json_has_one_code(service, body):
    answer = service.http.post("/search", content=body, headers={"content-type": "application/json"})
    assert error_of(answer, 400) == "invalid_json"


def test_without_a_key_it_answers_to_the_names_of_this_machine(service, folders):
    """Else a page that points its own name at 127.0.0.1 could read the corpus (DNS rebinding)."""
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]:8000", "localhost."):
        assert service.http.get("/search?text=a", headers={"host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", ""):
        for path in ("/search?text=a", "/info", "/", "/healthz"):
            assert error_of(service.http.get(path, headers={"host": host}), 403) == "foreign_host"
        assert error_of(service.http.post("/admin/reload", headers={"host": host, "origin": f"http://{host}"}), 403)
    two = talk(service, b"GET /info HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
    assert two.startswith(b"HTTP/1.1 400")
    with Service(*flags_of(folders, "bank"), SEMANTIC_INDEX_API_KEY="s3cret") as other:
        assert other.http.get("/info", headers={"host": "bank.example", "authorization": "bearer  s3cret"}).status_code == 200


@pytest.fixture(scope="module")
def hasty(folders):
    with Service(*flags_of(folders, "bank"), "--timeout", "0.5") as running:
        yield running


@pytest.mark.parametrize(("request_", "statuses"), [
    (b"GET /nope HTTP/1.1\r\nhost: localhost\r\n\r\n", [404]), (b"GET /search?text=a HTTP/1.1\r\nhost: localhost\r\n\r\n", [200]),
    (b"GET /search?text=a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /info HTTP/1.1\r\nhost: localhost\r\n\r\n", [200, 200]),
    (b"POST /search HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", []),
    (b"GET /info HTTP/1.1\r\nhost: localhost\r\n\r\n"
     b"POST /search HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", [200])])
def test_what_stands_before_nonsense_is_answered(hasty, request_, statuses):
    """And the service's log stays without a traceback (running_service.py looks at it), when the deadline has passed too."""
    with socket.create_connection(hasty.address, timeout=10) as connection:
        connection.sendall(request_ + b"NONSENSE\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        time.sleep(0.6)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)] == [*statuses, 400]


def test_who_sends_nothing_more_still_gets_the_answer(service):
    for request, status in ((b"GET /search?text=a HTTP/1.1\r\nhost: localhost\r\n\r\n", b"200"),
                            (b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{", b"400")):
        with socket.create_connection(service.address, timeout=10) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 " + status), answer


def test_an_address_as_people_type_it(service):
    answer = talk(service, "GET /search?text=退款 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400") and b"percent-encode" in answer


def test_head(service):
    for path in ("/", "/app.js", "/healthz", "/readyz"):
        answer = service.http.head(path)
        assert answer.status_code == 200 and not answer.content and answer.headers["content-length"] != "0"


@pytest.mark.parametrize("blocks", [1600, None])
def test_bodies_of_a_hundred_megabytes_and_without_end(service, blocks):
    import httpx

    before = service.memory()
    length = {"content-length": str(65536 * blocks)} if blocks else {}
    body = (b" " * 65536 for _ in (range(blocks) if blocks else itertools.count()))
    with contextlib.suppress(httpx.TransportError):  # the connection is closed while more arrives
        assert error_of(service.http.post("/search", content=body, headers=length), 413) == "body_too_large"
    assert service.http.get("/healthz").status_code == 200 and service.memory() - before < 20


@pytest.mark.parametrize("start", ["GET / HTTP/9.9\r\n\r\n", "nonsense\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", "GET /é HTTP/1.1\r\nhost: localhost\r\n\r\n",
                                   "POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
                                   "POST /search HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
def test_what_is_no_http_gets_an_error_of_the_same_form(service, start):
    answer = talk(service, start.encode())
    status, body = int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]
    assert 400 <= status < 500 and set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def talk(service, data: bytes, pause: float = 0) -> bytes:
    """All that the service sends on a connection for `data`, of which a byte is sent each `pause` seconds."""
    with socket.create_connection(service.address, timeout=30) as connection:
        try:
            for piece in ([bytes([byte]) for byte in data] if pause else [data]):
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:  # the service has closed it
            pass
        try:
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionResetError:
            return b""


def test_a_header_without_end_is_refused(service):
    assert talk(service, b"GET /healthz HTTP/1.1\r\n" + b"x-long: " + b"y" * 200_000).startswith(b"HTTP/1.1 431")


def test_slow_clients_are_let_go_and_hold_nobody_up(folders):
    """A byte at a time in head or body, or nothing at all: others are answered meanwhile, and then it ends."""
    with Service(*flags_of(folders, "bank"), "--timeout", "3") as service:
        request = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n"
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            slow = [pool.submit(talk, service, request, 0.2) for _ in range(15)]
            slow += [pool.submit(talk, service, request + b"{" + b" " * 30) for _ in range(15)]
            slow += [pool.submit(talk, service, b"") for _ in range(5)]
            assert service.search(SOURCES) and not any(future.done() for future in slow)
            answers = [future.result(60) for future in slow]
        assert all(answer.startswith(b"HTTP/1.1 408") or not answer for answer in answers)
        assert sum(answer.startswith(b"HTTP/1.1 408") for answer in answers) >= 20
        assert service.search(SOURCES[0])["answers"]


def test_a_key(folders):
    with Service(*flags_of(folders, "bank"), SEMANTIC_INDEX_API_KEY="s3cret") as service:
        for path in ("/healthz", "/readyz", "/"):
            assert service.http.get(path).status_code == 200
        for path in ("/search?text=a", "/v1/models", "/info", "/metrics", "/openapi.json", "/nothing"):
            assert error_of(service.http.get(path), 401) == "invalid_api_key"
            for key in ("s3cret2", "s3cre", "S3CRET"):
                error_of(service.http.get(path, headers={"authorization": f"Bearer {key}"}), 401)
        error_of(service.http.post("/admin/reload"), 401)
        right = {"authorization": "Bearer s3cret"}
        assert service.http.get("/search?text=a", headers=right).status_code == 200
        assert service.http.get("/info", headers=right).status_code == 200
        assert "s3cret" not in "".join(service.log)


def test_more_than_the_queue_holds_is_turned_away(folders):
    """Exact search of many texts keeps the only place taken; whoever comes meanwhile is told when to come again."""
    with Service(*flags_of(folders, "bank"), "--max_queue", "1", "--cache_size", "0") as service:
        texts = [a + b for a in TARGETS for b in SOURCES]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: service.http.post("/search", json={"text": texts, "k": 24}), range(24)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and {answer.status_code for answer in answers} == {200, 429}
        for answer in refused:
            assert error_of(answer, 429) == "overloaded" and int(answer.headers["retry-after"]) >= 1
        assert service.search("a")  # and there is room again
