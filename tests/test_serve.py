"""The service through HTTP: answers, errors, limits, keys, deadlines, reloads and its end."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, pair_lines, write
from running_service import Service

pytest.importorskip("httpx")


def build_index(folder: Path, params: str, texts: list[str], *flags: str) -> Path:
    import recall

    corpus = write(folder.with_suffix(".txt"), "".join(f"{text}\n" for text in texts))
    pairs = write(folder.with_suffix(".tsv"), pair_lines(2))
    assert recall.main(["--device", "cpu", "--params_path", params, "--similar_text_pair", pairs, "--corpus_file", corpus,
                        "--recall_result_dir", str(folder.with_suffix(".result")), "--index_dir", str(folder),
                        "--hnsw_m", "16", "--precision", "fp32", "--max_seq_length", "32", *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, trained, encoder_folder):
    """Two indexes of different corpora by one checkpoint, and a third one, of a model that can be cut."""
    import train_batch_neg

    root = tmp_path_factory.mktemp("served")
    pairs = write(root / "train.tsv", pair_lines())
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs,
                                 "--save_dir", str(root / "cut"), "--batch_size", "8", "--max_steps", "4",
                                 "--matryoshka_dims", "256,64", "--pooling", "mean"]) == 0
    return {"root": root, "params": trained, "cut_params": str(root / "cut" / "latest" / "model_state.pdparams"),
            "bank": build_index(root / "bank", trained, TARGETS + SOURCES[8:]),
            "small": build_index(root / "small", trained, SOURCES, "--ann_engine", "flat"),
            "cut": build_index(root / "cut_index", str(root / "cut" / "latest"), TARGETS, "--output_dim", "64")}


def flags_of(folders, *names: str) -> list[str]:
    flags = [flag for name in names for flag in ("--index", f"{name}={folders[name]}")]
    return [*flags, "--params_path", folders["params"], "--params_path", folders["cut_params"]]


@pytest.fixture(scope="module")
def service(folders):
    with Service(*flags_of(folders, "bank", "small", "cut")) as running:
        yield running


@pytest.fixture(scope="module")
def encoder(folders):
    """The encoder of the indexes, asked directly."""
    import argparse

    from encoder import open_encoder

    args = argparse.Namespace(device="cpu", params_path=folders["params"], max_seq_length=32, precision="fp32",
                              num_threads=None, model_name_or_path=None, output_emb_size=None, output_dim=None,
                              batch_size=64)
    return open_encoder(args, TARGETS)[0]


def error_of(answer, status: int) -> str:
    """The code of an error, whose form is checked."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert answer.headers["content-type"] == "application/json" and set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    return error["code"]


def test_search_finds_what_exact_search_of_the_vectors_finds(service, encoder):
    corpus = TARGETS + SOURCES[8:]
    vectors, queries = encoder.encode(corpus), encoder.encode(SOURCES[:5])
    for exact in (False, True):
        found = service.search(SOURCES[:5], k=7, exact=exact)
        assert (found["index"], found["engine"], found["exact"], found["k"]) == ("bank", ["hnsw", "flat"][exact], exact, 7)
        assert set(found["milliseconds"]) == {"encode", "search"} and min(found["milliseconds"].values()) > 0
        for text, query, answer in zip(SOURCES, queries, found["answers"]):
            assert answer["text"] == text and [row["rank"] for row in answer["results"]] == list(range(1, 8))
            cosines = vectors @ query
            right = np.argsort(-cosines, kind="stable")[:7]
            assert [row["id"] for row in answer["results"]] == right.tolist()
            assert [row["text"] for row in answer["results"]] == [corpus[i] for i in right]
            assert np.allclose([row["score"] for row in answer["results"]], cosines[right], atol=2e-6)


def test_get_is_post(service):
    post = service.search([SOURCES[0], "密码 & 100%?"], k=3, index="small", exact=True)
    get = service.http.get("/search", params={"text": [SOURCES[0], "密码 & 100%?"], "k": 3, "index": "small",
                                              "exact": "true"}).json()
    assert get["answers"] == post["answers"] and get["index"] == "small" and get["answers"][0]["results"][0]["id"] == 0


def test_k_beyond_the_corpus_gives_all_of_it(service):
    assert len(service.search(SOURCES[0], k=1000, index="small")["answers"][0]["results"]) == len(SOURCES)


def test_concurrent_requests_get_the_answers_of_single_ones(service, encoder):
    """Vectors to 1e-5, and results that are equal, whatever they were computed together with."""
    texts = [a + b for a in TARGETS[:8] for b in SOURCES[:8]]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda text: (service.search(text, k=3), embed(service, text)), texts))
    right = encoder.encode(texts)
    for text, vector, (found, embedding) in zip(texts, right, together):
        assert found["answers"][0]["text"] == text
        assert np.abs(embedding - vector).max() < 1e-5
    metrics = service.http.get("/metrics").text
    assert 'semantic_index_batch_items_bucket{le="1.0",what="encode"}' in metrics
    few = float(metrics.split('semantic_index_batch_items_bucket{le="1.0",what="encode"} ')[1].split()[0])
    count = float(metrics.split('semantic_index_batch_items_count{what="encode"} ')[1].split()[0])
    assert few < count, "nothing was computed together"


def embed(service, text, **more) -> np.ndarray:
    answer = service.http.post("/v1/embeddings", json={"model": "bank", "input": text, **more})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def test_embeddings_in_both_formats(service, encoder):
    floats = embed(service, SOURCES)
    assert np.abs(floats - encoder.encode(SOURCES)).max() < 1e-6
    answer = service.http.post("/v1/embeddings", json={"model": "bank", "input": SOURCES, "encoding_format": "base64"}).json()
    packed = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    assert np.array_equal(np.array(packed), floats.astype("<f4"))
    assert [row["index"] for row in answer["data"]] == list(range(16)) and answer["model"] == "bank"
    tokens = sum(len(ids) for ids in encoder.tokenizer(SOURCES))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_the_official_client_of_openai(service, encoder):
    openai = pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused")
    assert [model.id for model in client.models.list()] == ["bank", "small", "cut"]
    assert client.models.retrieve("cut").id == "cut"
    given = client.embeddings.create(model="bank", input=SOURCES[:3])  # asks for base64 by itself
    assert np.abs(np.array([row.embedding for row in given.data]) - encoder.encode(SOURCES[:3])).max() < 1e-6
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model="no", input="x")
    assert error.value.code == "model_not_found" and "bank, small, cut" in error.value.message
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(model="bank", input=[1, 2, 3])


def test_dimensions_are_those_of_the_training(service):
    whole, cut = (embed(service, SOURCES[:2], model="cut", dimensions=size) for size in (256, 64))
    expected = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    assert whole.shape == (2, 256) and np.abs(cut - expected).max() < 1e-6
    assert embed(service, SOURCES[:2], model="cut").shape == (2, 64)  # as the index has them
    answer = service.http.post("/v1/embeddings", json={"model": "cut", "input": "x", "dimensions": 100})
    assert error_of(answer, 422) == "invalid_dimensions" and "256, 64" in answer.text
    assert error_of(service.http.post("/v1/embeddings", json={"model": "bank", "input": "x", "dimensions": 64}),
                    422) == "invalid_dimensions"


def test_what_an_operator_asks(service):
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ready", "indexes": ["bank", "small", "cut"]}
    info = service.http.get("/info").json()
    bank, _, cut = info["indexes"]
    assert (bank["name"], bank["texts"], bank["dimension"], bank["engine"]) == ("bank", 24, 256, "hnsw")
    assert cut["dimension"] == 64 and cut["dimensions"] == [256, 64]
    assert set(bank["examples"]) <= set(TARGETS + SOURCES) and bank["examples"]
    assert bank["manifest"]["corpus"] and "made_by" not in bank["manifest"]
    assert info["limits"] == {"texts": 256, "characters": 512, "k": 1000, "body_bytes": 1 << 20}
    before = service.http.get("/metrics").text
    service.search("x")
    name = 'semantic_index_requests_total{path="/search",status="200"} '
    counts = [float(text.split(name)[1].split()[0]) for text in (before, service.http.get("/metrics").text)]
    assert counts[1] == counts[0] + 1


def test_the_cache_is_counted(service):
    def counts() -> list[float]:
        text = service.http.get("/metrics").text
        return [float(text.partition(f'semantic_index_cache_total{{result="{result}"}} ')[2].split()[0]) for result in ("hit", "miss")]

    service.search(["one text of this test", "another text of it"])
    service.search("one text of this test")
    before = counts()
    service.search(["one text of this test", "a third text of it"])
    assert counts() == [before[0] + 1, before[1] + 1]


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
    assert answer.status_code in (400, 422)
    error_of(answer, answer.status_code)
    assert service.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/web/app.js", "/../serve.py", "/%2e%2e/serve.py", "/..%2fserve.py", "//etc/passwd",
                                  "/app.js/../../serve.py", "/static/../pyproject.toml", "/%00", "/v1/models/..%2f..%2fx"])
def test_paths_lead_to_no_files(service, path):
    host, port = service.address
    with socket.create_connection((host, port), timeout=10) as connection:  # httpx would tidy the path up
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] in ("not_found", "model_not_found")


def test_other_faults_of_a_request(service):
    assert error_of(service.http.put("/search", json={}), 405) == "method_not_allowed"
    assert error_of(service.http.get("/search"), 422) == "invalid_value"
    assert error_of(service.http.get("/search?text=%ff&k=x"), 422) == "invalid_value"
    assert error_of(service.http.post("/search", content=b"x" * ((1 << 20) + 1)), 413) == "body_too_large"



@pytest.mark.parametrize("blocks", [1600, None])
def test_bodies_of_a_hundred_megabytes_and_without_end(service, blocks):
    import httpx

    before = service.memory()
    length = {"content-length": str(65536 * blocks)} if blocks else {}
    body = (b" " * 65536 for _ in (range(blocks) if blocks else itertools.count()))
    with contextlib.suppress(httpx.TransportError):  # the connection is closed while more arrives
        assert error_of(service.http.post("/search", content=body, headers=length), 413) == "body_too_large"
    assert service.http.get("/healthz").status_code == 200 and service.memory() - before < 20


@pytest.mark.parametrize("start", ["GET / HTTP/9.9\r\n\r\n", "nonsense\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", "GET /é HTTP/1.1\r\nhost: x\r\n\r\n",
                                   "POST /search HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
                                   "POST /search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
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
        request = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n"
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


def test_reload_takes_what_is_new_and_keeps_what_runs(folders, tmp_path):
    live = tmp_path / "live"
    live.symlink_to(folders["bank"])
    with Service("--index", f"live={live}", "--params_path", folders["params"]) as service:
        assert service.http.post("/admin/reload").json() == {"reloaded": [{"name": "live", "texts": 24, "changed": False}]}
        live.unlink()
        live.symlink_to(folders["small"])
        assert service.http.post("/admin/reload", json={"index": "live"}).json() == {
            "reloaded": [{"name": "live", "texts": 16, "changed": True}]}
        assert service.search(SOURCES[0])["answers"][0]["results"][0]["text"] == SOURCES[0]

        broken = shutil.copytree(folders["bank"], tmp_path / "broken")
        next((broken / "parts").glob("*.npy")).write_bytes(b"no vectors")
        live.unlink()
        live.symlink_to(broken)
        answer = service.http.post("/admin/reload")
        assert error_of(answer, 409) == "reload_failed" and "incomplete" in answer.text
        (broken / "manifest.json").unlink()
        (broken / "manifest.json").mkdir()
        answer = service.http.post("/admin/reload")
        assert error_of(answer, 409) == "reload_failed"
        live.unlink()
        live.symlink_to(folders["cut"])  # of another checkpoint
        assert "no --params_path is it" in service.http.post("/admin/reload").text
        assert service.search(SOURCES[0])["answers"][0]["results"][0]["text"] == SOURCES[0]

        live.unlink()
        live.symlink_to(folders["bank"])
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while service.http.get("/info").json()["indexes"][0]["texts"] != 24:
            assert time.monotonic() < end
            time.sleep(0.05)
        foreign = service.http.post("/admin/reload", headers={"origin": "http://elsewhere.example"})
        assert error_of(foreign, 403) == "foreign_origin"


def test_twenty_swaps_under_load(folders, tmp_path):
    """No request fails, and no answer holds texts of both states."""
    live = tmp_path / "live"
    live.symlink_to(folders["bank"])
    states = {24: set(TARGETS + SOURCES[8:]), 16: set(SOURCES)}
    with Service("--index", f"live={live}", "--params_path", folders["params"]) as service:
        stop, faults, seen = threading.Event(), [], set()

        def client(number: int) -> None:
            while not stop.is_set():
                answer = service.http.post("/search", json={"text": [SOURCES[number], TARGETS[number]], "k": 24,
                                                            "exact": number % 2 == 0})
                lists = [[row["text"] for row in found["results"]] for found in answer.json().get("answers", [])]
                if answer.status_code != 200 or len(lists) != 2 or any(set(texts) != states.get(len(texts)) for texts in lists):
                    faults.append(answer.text[:500])
                seen.update(map(len, lists))

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(client, number) for number in range(6)]
            for swap in range(20):
                replacement = tmp_path / f"link{swap}"
                replacement.symlink_to(folders["small" if swap % 2 == 0 else "bank"])
                os.replace(replacement, live)
                assert service.http.post("/admin/reload").json()["reloaded"][0]["changed"]
            stop.set()
            for future in clients:
                future.result()
    assert not faults and seen == {16, 24}, faults[:2]


def test_sigterm_finishes_what_is_running(folders):
    with Service(*flags_of(folders, "bank"), "--cache_size", "0") as service:
        texts = [a + b for a in TARGETS for b in SOURCES]
        service.search(texts, k=24)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            running = [pool.submit(lambda: service.http.post("/search", json={"text": texts, "k": 24, "exact": True}))
                       for _ in range(4)]
            while "requests_at_work 4.0" not in service.http.get("/metrics").text and not any(f.done() for f in running):
                pass
            code = service.stop()
            assert [future.result().status_code for future in running] == [200] * 4
        assert code == 0
        with pytest.raises(OSError):
            socket.create_connection(service.address, timeout=2)


def test_control_c_ends_it_too(folders):
    with Service(*flags_of(folders, "bank")) as service:
        assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("flags", "words"), [
    (["--host", "0.0.0.0"], "--api_key"), (["--host", "example.org"], "--api_key"), (["--port", "70000"], "65535"),
    (["--index", "bank=elsewhere"], "given twice"), (["--index", "elsewhere"], "NAME=DIR"),
    (["--index", "a/b=elsewhere"], "NAME=DIR"), (["--index", "new=elsewhere"], "no finished index"),
    (["--api_key", "with blank"], "another key"), (["--max_queue", "0"], "above 0")])
def test_a_bad_start_ends_in_one_line(folders, failure, flags, words):
    import serve

    assert words in failure(serve.main, [*flags_of(folders, "bank"), *flags])


def test_a_port_that_is_taken(folders, failure):
    import serve

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        line = failure(serve.main, [*flags_of(folders, "bank"), "--port", str(other.getsockname()[1])])
    assert "choose another address or port" in line


def test_an_index_without_its_checkpoint(folders, failure):
    import serve

    line = failure(serve.main, ["--index", f"cut={folders['cut']}", "--params_path", folders["params"]])
    assert "'cut'" in line and folders["params"] in line and "--params_path" in line
