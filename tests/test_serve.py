"""The service through HTTP: answers of search, embeddings and what an operator asks."""

from __future__ import annotations

import base64
import concurrent.futures

import numpy as np
import pytest
from conftest import SOURCES, TARGETS
from served_indexes import (  # noqa: F401 - fixtures
    encoder_fixture,
    error_of,
    flags_of,
    folders_fixture,
    service_fixture,
)


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
