"""The HTTP interface of the saved indexes: search, embeddings in OpenAI's form, and what an operator needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from cli import notice
from data import is_whole
from guard import ApiError, Limits, Metrics
from served import Catalog, ServedIndex

WEB = Path(__file__).parent / "web"
PAGE = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js"}
OPEN_PATHS = frozenset([*PAGE, "/healthz", "/readyz"])  # they tell nothing, and so need no key
# The page takes nothing from elsewhere, runs no script but its own, and stands in no other page.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                               "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}
HIDDEN = ("made_by", "parts")  # of a manifest: user and host of who made it, and a list as long as the corpus


class Result(BaseModel):
    """A text of the corpus; `score` is its cosine with the query."""

    rank: int
    id: int
    score: float
    text: str


class Answer(BaseModel):
    """What was found for one text, best first."""

    text: str
    results: list[Result]


STRICT = ConfigDict(extra="forbid", strict=True)


class SearchRequest(BaseModel):
    """A text or several; `index` is a name that the service was started with, by default its first."""

    model_config = STRICT
    text: Union[str, list[str]]
    k: int = Field(10, ge=1)
    index: Optional[str] = None
    exact: bool = False


class SearchParameters(SearchRequest):
    """The same in an address, where everything is text."""

    model_config = ConfigDict(strict=False)
    text: list[str]


class SearchResponse(BaseModel):
    """Answers in the order of the texts, and the milliseconds of `encode` and `search`."""

    index: str
    engine: str
    exact: bool
    k: int
    milliseconds: dict[str, float]
    answers: list[Answer]


class EmbeddingsRequest(BaseModel):
    """OpenAI's, as far as it makes sense here; `model` is the name of an index, whose encoder is meant."""

    model_config = STRICT
    input: Union[str, list[str]]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Optional[int] = None
    user: Optional[str] = None  # OpenAI's name for who asks, of no use here


class ReloadRequest(BaseModel):
    """The index to load again; all of them where none is named."""

    model_config = STRICT
    index: Optional[str] = None


class Fault(BaseModel):
    """The form of every error."""

    class Error(BaseModel):
        message: str
        type: str
        param: Optional[str]
        code: str

    error: Error


ERRORS: dict[Union[int, str], dict[str, Any]] = {status: {"model": Fault} for status in
                                                 (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 504)}


def make_app(catalog: Catalog, limits: Limits, metrics: Metrics, version: str) -> FastAPI:
    """The application; Guard stands before it."""
    app = FastAPI(title="Semantic index", version=version, responses=ERRORS, docs_url=None, redoc_url=None,
                  redirect_slashes=False)
    add_error_handlers(app)
    add_search(app, catalog, limits)
    add_embeddings(app, catalog, limits)
    add_operation(app, catalog, limits, metrics, version)
    for path, name in PAGE.items():
        add_file(app, path, WEB / name)
    return app


def as_json(value: Any) -> Response:
    """JSON at once: FastAPI's own way through its models takes longer than a search."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return Response(body, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Bring every fault into the one form."""

    def answer(error: ApiError) -> Response:
        return Response(error.body(), error.status, error.headers, "application/json")

    @app.exception_handler(ApiError)
    async def own(request: Request, error: ApiError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(fault_of(error.errors(), request))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            methods = {method for route in app.routes if getattr(route, "path", None) == request.url.path
                       for method in getattr(route, "methods", ())}
            return answer(ApiError(405, "method_not_allowed", "this path takes another method",
                                   Allow=", ".join(sorted(methods))))
        if error.status_code == 404:
            return answer(ApiError(404, "not_found", "there is no such path"))
        if error.status_code == 400:  # FastAPI's, for a body that it can't decode
            return answer(ApiError(400, "invalid_json", "the body is no JSON in UTF-8, or nested too deeply"))
        return answer(ApiError(error.status_code, "invalid_request", str(error.detail), **(error.headers or {})))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return answer(ApiError(500, "internal_error", "the service failed on this request; its log says more"))


def fault_of(errors: Sequence[Any], request: Request) -> ApiError:
    """What is wrong with a request that does not have its form."""
    first = max(errors, key=lambda error: len(error["loc"]))  # of the forms that a value may have, the nearest
    kind, place = first["type"], [part for part in first["loc"][1:] if part not in ("str", "list[str]")]
    if kind == "json_invalid":
        return ApiError(400, "invalid_json", f"the body is no JSON: {first['ctx']['error']}, at character {place[0]}")
    json_type = request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"
    if not place and request.method == "POST" and not json_type:
        return ApiError(415, "unsupported_media_type", "send JSON, with the header content-type: application/json")
    if not place:
        return ApiError(422, "invalid_value", f"the body: {first['msg']}")
    where = f"{place[0]}"[:100] + (f", element {place[1] + 1}" if len(place) > 1 and isinstance(place[1], int) else "")
    said = "no such parameter" if kind == "extra_forbidden" else first["msg"]
    if place[0] in ("text", "input") and kind in ("string_type", "list_type"):
        said = "give a text, or a list of texts" + ("; token ids are not taken" if place[0] == "input" else "")
    return ApiError(422, "invalid_value", f"{where}: {said}", param=f"{place[0]}"[:100])


def index_of(catalog: Catalog, name: str | None, param: str = "index") -> ServedIndex:
    """The index of this name, or the first; ApiError if there is none."""
    served = next(iter(catalog.served.values())) if name is None else catalog.served.get(name)
    if served is None:
        raise ApiError(404, f"{param}_not_found", f"there is no {param} of this name; there are "
                                                  f"{', '.join(catalog.served)}")
    return served


def checked(texts: str | list[str], limits: Limits) -> list[str]:
    """The texts of a request as a list; ApiError where there are none, too many, or one is empty or too long."""
    texts = [texts] if isinstance(texts, str) else texts
    if not texts:
        raise ApiError(422, "no_text", "there is no text; give one or more")
    if len(texts) > limits.texts:
        raise ApiError(422, "too_many_texts", f"{len(texts)} texts; a request takes {limits.texts}")
    for number, text in enumerate(texts, 1):
        if not any(character.isprintable() and not character.isspace() for character in text):
            raise ApiError(422, "empty_text", f"text {number} is empty, or holds nothing that can be seen")
        if len(text) > limits.characters:
            raise ApiError(422, "text_too_long", f"text {number} has {len(text)} characters; a text may have "
                                                 f"{limits.characters}")
        if not is_whole(text):
            raise ApiError(422, "invalid_text", f"text {number} holds a half of a character (a lone surrogate); send "
                                                f"whole ones")
    return texts


def add_search(app: FastAPI, catalog: Catalog, limits: Limits) -> None:
    """/search, by GET or POST."""

    async def search(texts: str | list[str], k: int, name: str | None, exact: bool) -> Response:
        texts = checked(texts, limits)
        if k > limits.k:
            raise ApiError(422, "k_too_large", f"k {k}; a request may ask for {limits.k}")
        with index_of(catalog, name).in_use() as served:
            found, milliseconds = await served.search(texts, k, exact)
        return as_json({"index": served.name, "engine": "flat" if exact else served.engine, "exact": exact, "k": k,
                        "milliseconds": milliseconds,
                        "answers": [{"text": text, "results": results} for text, results in zip(texts, found)]})

    @app.get("/search", response_model=SearchResponse, summary="Texts nearest to a text, or to each of several")
    async def search_get(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        names = [name for name, _ in request.query_params.multi_items() if name != "text"]
        if len(set(names)) < len(names):
            raise ApiError(422, "invalid_value", "a parameter other than text stands there twice")
        if any("\ufffd" in text for text in asked.text):
            raise ApiError(422, "invalid_text", "text holds bytes that are no UTF-8; percent-encode its UTF-8", "text")
        return await search(asked.text, asked.k, asked.index, asked.exact)

    @app.post("/search", response_model=SearchResponse, summary="The same with a body")
    async def search_post(request: SearchRequest) -> Response:
        return await search(request.text, request.k, request.index, request.exact)


def add_embeddings(app: FastAPI, catalog: Catalog, limits: Limits) -> None:
    """/v1/embeddings and /v1/models, in OpenAI's form."""

    @app.post("/v1/embeddings", summary="Unit vectors of texts, in OpenAI's form")
    async def embeddings(request: EmbeddingsRequest) -> Response:
        texts = checked(request.input, limits)
        with index_of(catalog, request.model, "model").in_use() as served:
            dimensions = served.encoder.dimensions
            if request.dimensions not in (None, *dimensions):
                raise ApiError(422, "invalid_dimensions", f"dimensions {request.dimensions}; this model gives "
                                                          f"{', '.join(map(str, dimensions))}")
            vectors, tokens = await served.encoder.encode(texts, request.dimensions or served.dimension)
        if request.encoding_format == "base64":
            values: Sequence[Any] = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        else:
            values = vectors.tolist()
        return as_json({"object": "list", "model": served.name,
                        "data": [{"object": "embedding", "index": i, "embedding": value}
                                 for i, value in enumerate(values)],
                        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    @app.get("/v1/models", summary="The names that `model` takes")
    async def models() -> Response:
        return as_json({"object": "list", "data": [as_model(name) for name in catalog.served]})

    @app.get("/v1/models/{name}", summary="One of them")
    async def model(name: str) -> Response:
        return as_json(as_model(index_of(catalog, name, "model").name))


def as_model(name: str) -> dict:
    """What OpenAI's interface says of a model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "semantic-index"}


def add_operation(app: FastAPI, catalog: Catalog, limits: Limits, metrics: Metrics, version: str) -> None:
    """What an operator and the page ask for."""
    @app.get("/healthz", summary="Whether the process answers")
    @app.head("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return as_json({"status": "ok"})

    @app.get("/readyz", summary="Whether all indexes are loaded")
    @app.head("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        return as_json({"status": "ready", "indexes": list(catalog.served)})

    @app.get("/metrics", summary="Counts, in Prometheus's form")
    async def show_metrics() -> Response:
        for name, served in catalog.served.items():
            metrics.texts.labels(name).set(served.facts["texts"])
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/info", summary="The indexes with their manifests, and the limits")
    async def info() -> Response:
        asked = {name: getattr(limits, name) for name in ("texts", "characters", "k", "body_bytes")}
        return as_json({"version": version, "limits": asked,
                        "indexes": [describe(served) for served in catalog.served.values()]})

    @app.post("/admin/reload", summary="Load an index again, or all, while requests run")
    async def reload(request: Request, wanted: Optional[ReloadRequest] = None) -> Response:
        origin, host = request.headers.get("origin"), request.headers.get("host")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, "foreign_origin", "a page of another site may not do this")
        names = [index_of(catalog, wanted.index).name] if wanted and wanted.index is not None else list(catalog.served)
        report = await catalog.reload(names)
        failed = "; ".join(known["error"] for known in report if "error" in known)
        if failed:
            notice(f"reload: {failed}")
            new = ", ".join(known["name"] for known in report if known["changed"])
            raise ApiError(409, "reload_failed", failed + (f"; new is {new}" if new else ""))
        return as_json({"reloaded": report})


def describe(served: ServedIndex) -> dict:
    """What /info says of an index."""
    made_from = served.facts["vectors"]
    return {"name": served.name, "texts": served.facts["texts"], "dimension": served.dimension,
            "dimensions": served.encoder.dimensions, "engine": served.engine, "precision": made_from["precision"],
            "max_seq_length": made_from["max_seq_length"], "examples": served.examples,
            "manifest": {name: value for name, value in served.facts.items() if name not in HIDDEN}}


def add_file(app: FastAPI, path: str, file: Path) -> None:
    """A file of the page."""

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def show() -> FileResponse:
        return FileResponse(file, headers=PAGE_HEADERS)
