"""A stand-in for the search server: it answers by the contract from a handful of texts, and does what a test wants.

    python tests/page_server.py      # on http://127.0.0.1:8000, to look at the page
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

WEB = Path(__file__).resolve().parents[1] / "web"
FILES = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TEXTS = ["借呗怎么还款", "借呗提前还款要手续费吗", "花呗逾期了怎么办", "怎么把借呗一次还清", "借呗还款日可以改吗", "信用卡怎么提额",
         "花呗账单在哪里看", "借呗利息怎么算", "还款失败是什么原因", "借呗额度突然没有了", "银行卡换了怎么还借呗", "如何关闭花呗自动还款"]
# the second index: two texts of its own, the rest of the first in another order
OTHER = [TEXTS[2], TEXTS[0], "支付宝借呗还款步骤", *TEXTS[3:7], TEXTS[1], "网商贷怎么还", *TEXTS[7:]]
ERRORS = {401: ("authentication_error", "invalid_api_key", "give a valid key"),
          404: ("invalid_request_error", "index_not_found", "there is no such index"),
          422: ("invalid_request_error", "text_too_long", "the text has more than 512 characters"),
          429: ("rate_limit_error", "overloaded", "too many searches wait already"),
          500: ("server_error", "internal", "something <b>broke</b>"), 503: ("server_error", "stopping", "shutting down")}


def index(name: str, engine: str, examples: list[str]) -> dict:
    return {"name": name, "texts": 312537, "dimension": 256, "engine": engine, "precision": "int8", "max_seq_length": 48,
            "dimensions": [256], "examples": examples, "manifest": {}}


class PageServer:
    """Switches: delays, statuses, key, texts; and `log`, all requests as (method, path, body)."""

    def __init__(self, port: int = 0):
        self.reset()
        config = uvicorn.Config(self.application(), port=port, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def reset(self) -> None:
        self.log: list[tuple] = []
        self.delays: dict[str, float] = {}  # seconds by query; "" is for all others
        self.statuses: list[int] = []  # of the next searches; 200 is none
        self.retry_after = "1"
        self.key: str | None = None
        self.echo = False  # the query itself comes first
        self.examples = TEXTS[:8]
        self.texts = {"bank": TEXTS, "news": OTHER, "small": TEXTS}
        self.missed = {TEXTS[3]}  # what the graph of "bank" does not find

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    def searches(self) -> list[dict]:
        return [body for _, path, body in self.log if path == "/search"]

    def error(self, status: int) -> JSONResponse:
        kind, code, message = ERRORS[status]
        return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status,
                            {"Retry-After": self.retry_after} if status == 429 else {})

    def answer(self, body: dict) -> dict:
        name, exact, k = body["index"], body["exact"], body["k"]
        engine = "flat" if exact or name == "small" else "hnsw"
        texts = [(i, text) for i, text in enumerate(self.texts[name])
                 if not (name == "bank" and engine == "hnsw" and text in self.missed)]
        if self.echo:
            texts.insert(0, (1000, body["text"]))
        results = [{"rank": rank, "id": i, "score": round(0.98 - 0.031 * rank, 4), "text": text}
                   for rank, (i, text) in enumerate(texts[:k], 1)]
        return {"index": name, "engine": engine, "exact": exact, "k": k,
                "milliseconds": {"encode": 2.31, "search": 5.2 if exact else 0.84},
                "answers": [{"text": body["text"], "results": results}]}

    def application(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/{path:path}")
        @app.post("/{path:path}")
        async def any_request(request: Request) -> Response:
            path = request.url.path
            body = await request.json() if request.method == "POST" else {}
            self.log.append((request.method, path, body))
            if path in FILES:
                return FileResponse(WEB / FILES[path], headers={"Content-Security-Policy": POLICY,
                                                                "Cache-Control": "no-store"})
            if path in ("/healthz", "/readyz"):
                return JSONResponse({"status": "ok"})
            if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
                return self.error(401)
            if path == "/info":
                limits = {"texts": 256, "characters": 512, "k": 1000, "body_bytes": 1048576}
                indexes = [index(name, "flat" if name == "small" else "hnsw", self.examples) for name in self.texts]
                return JSONResponse({"version": "0.5.0", "limits": limits, "indexes": indexes})
            if path != "/search" or body["index"] not in self.texts:
                return self.error(404)
            await asyncio.sleep(self.delays.get(body["text"], self.delays.get("", 0)))
            status = self.statuses.pop(0) if self.statuses else 200
            return JSONResponse(self.answer(body)) if status == 200 else self.error(status)

        return app


if __name__ == "__main__":
    PageServer(8000).thread.join()
