"""The page in a browser, for its tests: of a stand-in server, or of the one that SEARCH_PAGE_URL names.

Tests that need the stand-in's switches skip with the latter. CHROMIUM names the browser, where it has another name than
those below.
"""

from __future__ import annotations

import json
import os
import shutil
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SERVER_URL = os.environ.get("SEARCH_PAGE_URL", "").rstrip("/")
QUERY = "借呗怎么提前还款"


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium: install it, or name it by CHROMIUM")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser):
    """The stand-in; None if there is a real one."""
    if SERVER_URL:
        yield None
        return
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"{package} is missing: pip install {package}")
    from page_server import PageServer

    server = PageServer()
    yield server
    server.stop()


@pytest.fixture
def standin(server):
    if server is None:
        pytest.skip("a real server has no switches")
    return server


@pytest.fixture
def site(server) -> str:
    if server is not None:
        server.reset()
    return SERVER_URL or server.url


@pytest.fixture
def info(site) -> dict:
    with urlopen(f"{site}/info") as answer:
        return json.load(answer)


@pytest.fixture
def open_page(browser, site):
    """`open_page(path, **of the browser context)`; what no page may do is looked for after every test."""
    contexts, troubles = [], []

    def opened(path: str | None = "/", init: str = "", **options):
        context = browser.new_context(**{"locale": "zh-CN", "viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.sent = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: troubles.append(message.text) if is_trouble(message) else None)
        page.on("request", lambda request: heard(page, request))
        if init:
            page.add_init_script(init)
        if path is not None:
            page.goto(site + path)
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    def heard(page, request):
        if not request.url.startswith((f"{site}/", "data:")):
            troubles.append(f"request to {request.url}")
        if urlsplit(request.url).path == "/search":
            page.sent.append(request.post_data_json)

    def is_trouble(message) -> bool:
        # the browser itself reports each answer that is an error; the page's own files must all be there
        reported = message.text.startswith("Failed to load resource") and urlsplit(
            message.location["url"]).path in ("/search", "/info", "/healthz")
        return message.type in ("error", "warning") and not reported

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


def settled(page) -> None:
    page.wait_for_selector("#view[aria-busy=false]", state="attached")


def wait_until(page, expression: str, arg=None) -> None:
    for _ in range(500):  # Playwright's own wait_for_function would need eval, which the page's policy forbids
        if page.evaluate(expression, arg):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never came: {expression}")


def search(page, text: str, key: str = "Enter") -> None:
    page.fill("#query", text)
    page.press("#query", key)
    settled(page)


def texts(page, column: int = 0) -> list[str]:
    return page.locator(".column").nth(column).locator(".text").all_text_contents()


def focused(page) -> list:
    """Column and place of the result that has the focus, or the id of another element."""
    return page.evaluate("""() => {
      const lists = [...document.querySelectorAll('.results')];
      const at = document.activeElement;
      const column = lists.findIndex((list) => list.contains(at));
      return column < 0 ? [at.id] : [column, [...lists[column].children].indexOf(at)];
    }""")


def hold(page) -> list:
    """Searches are held back until they are let go."""
    held: list = []
    page.route("**/search", lambda route: held.append(route))
    return held


def held_one(page, held: list, count: int = 1):
    while len(held) < count:
        page.wait_for_timeout(10)
    return held[count - 1]
