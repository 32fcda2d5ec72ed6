"""Hostile texts in the corpus of a real service, and as queries to it, in a browser."""

import pytest
from conftest import SOURCES
from page_browser import settled, texts
from running_service import Service
from served_indexes import build_index
from test_page_display import HOSTILE, LIMIT, as_shown, check_elements

LINES = [text for text in HOSTILE if not set(text) & set("\t\r\n")]  # a corpus has a text a line


@pytest.fixture(name="site", scope="module")
def site_fixture(browser, tmp_path_factory, trained):
    index = build_index(tmp_path_factory.mktemp("hostile") / "index", trained, [*LINES, *SOURCES], "--ann_engine", "flat")
    with Service("--index", f"bank={index}", "--params_path", trained) as service:
        yield service.url


def test_a_hostile_corpus_is_shown_as_it_is(open_page):
    """No dialog, no foreign request, no error in the console: `open_page` looks for them."""
    page = open_page("/?q=怎么还款&k=200")
    settled(page)
    assert sorted(texts(page)) == sorted(map(as_shown, [*LINES, *SOURCES]))
    check_elements(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_hostile_queries_are_answered_or_refused_in_words(open_page):
    page = open_page()
    settled(page)
    for text in HOSTILE:
        page.evaluate("""(q) => {
          history.pushState(null, '', `/?${new URLSearchParams({ q })}`);
          dispatchEvent(new PopStateEvent('popstate'));
        }""", text)
        settled(page)
        assert page.locator("[role=alert]").count() == (len(text) > LIMIT)
        assert len(texts(page)) == (0 if len(text) > LIMIT else 10)
    check_elements(page)
