"""How the page of evaluate.py --report shows things: what hostile texts can't do to it, short numbers, plain curves."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, write
from report_page import Element, Page, one_file, worst_on

import evaluate
import report

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = ["<script>alert(1)</script>", "</style><b onclick=x()>", '" onmouseover="alert(1)" x="', "' onfocus='y'",
           "</bdi></table><img src=http://other.example/a.png>", "<!-- ]]> <svg/onload=z()>", "&lt;b&gt; &#60; &amp", "长" * 10_000, "x" * 10_000,
           "\u202eoverridden\u2067\u2069\u2069\u202c", "\u2069\u2069 loose \u2066", "مرحبا (abc) 123", "url(//other.example/b) @import"]


TAGS = {"html", "head", "meta", "link", "title", "style", "body", "header", "nav", "a", "main", "section", "h1", "h2", "h3", "p",
        "div", "table", "thead", "tbody", "tr", "th", "td", "small", "span", "bdi", "em", "b", "figure", "svg", "g", "line",
        "text", "polyline", "circle", "ul", "ol", "li", "dl", "dt", "dd", "details", "summary"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "rel", "href", "id", "class", "role", "aria-label", "tabindex",
              "scope", "style", "start", "viewbox", "preserveaspectratio", "points", "x", "y", "x2", "y1", "y2", "dx", "dy",
              "cx", "cy", "r", "text-anchor"}


def everything(element: Element):
    for child in element.children:
        if isinstance(child, Element):
            yield child
            yield from everything(child)


def hostile_run(tmp_path) -> Page:
    """Every text, part and file name is hostile; the targets are missed, or found by one file alone."""
    pairs = [(text, f"{text} wanted") for text in HOSTILE]
    found = "".join(f"{text}\t{other}\t{0.9 - i / 100}\n" for text in HOSTILE for i, other in enumerate(HOSTILE[::-1]))
    part = write(tmp_path / "part", "".join(f"{text[:60]}\n" for text in HOSTILE))
    files = [tmp_path / "<" / "title><i onx=1>.txt", tmp_path / "\u202e<i onx=1>'\"" / "title><i onx=1>.txt"]
    for file, content in zip(files, (found, "".join(f"{s}\t{t}\t0.5\n" for s, t in pairs))):
        file.parent.mkdir()
        write(file, content)  # of one name: so they are called by their paths, "</title>" among them
    return one_file(tmp_path, pairs, found, "--recall_result_file", str(files[0]), "--compare_with", str(files[1]),
                    "--part_file", part)


def test_hostile_texts_are_inert(tmp_path):
    page = hostile_run(tmp_path)
    elements = list(everything(page.root))
    assert {element.tag for element in elements} <= TAGS
    assert {name for element in elements for name in element.attributes} <= ATTRIBUTES
    assert not any(name.startswith("on") for element in elements for name in element.attributes)
    assert "</title><i onx=1>" in page.root.all("title")[0].text()
    assert not set("<>\"'") & set(report.escape("<>\"'"))
    (style,) = page.root.all("style")
    assert style.text().strip() == (PROJECT / "web" / "report.css").read_text().strip()
    assert not re.search(r"url\(|@import|//|</", style.text())
    links = [element.attributes["href"] for element in elements if "href" in element.attributes]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "".join(e.attributes.get("style", "") for e in elements).replace("--y:", "").strip("0123456789.%") == ""


def test_hostile_texts_are_shown_as_they_are_and_each_apart(tmp_path):
    page = hostile_run(tmp_path)
    shown = {bdi.text() for bdi in page.root.all("bdi")}
    assert shown >= {*HOSTILE, *(f"{text} wanted" for text in HOSTILE), *(text[:60] for text in HOSTILE)}
    for element in everything(page.root):
        own = "".join(child for child in element.children if isinstance(child, str))
        assert element.tag in ("bdi", "title") or not re.search("[\u202a-\u202e\u2066-\u2069]", own), element.tag


def test_control_characters_are_shown_as_pictures(tmp_path):
    page = one_file(tmp_path, [("q\x00\x1b", "t\ra")], "q\x00\x1b\tx\x7f\t0.5\n")
    (entry,) = worst_on(page)
    assert entry == ("q\u2400\u241b", "t\u240da", "not in the best 50", [(1, "x\u2421", "0.5000")])


def test_a_file_s_name_may_be_no_utf_8(tmp_path):
    result = os.fsdecode(bytes(tmp_path) + b"/r\xff.txt")
    Path(result).write_text("q\ta\t0.5\n")
    pairs = write(tmp_path / "p", "q\ta\n")
    flags = ["--similar_pair_file", pairs, "--recall_result_file", result, "--report", str(tmp_path / "out")]
    assert evaluate.main(flags) == 0
    assert Page(tmp_path / "out" / "report.html").root.all("h1")[0].text() == "r\\udcff"


@pytest.mark.parametrize("flags, words, not_there", [
    ([], "does not count", "keeps its place"), (["--keep_self"], "keeps its place (--keep_self)", "does not count")])
def test_one_file_alone_without_parts(tmp_path, flags, words, not_there):
    page = one_file(tmp_path, [("q", "a")], "q\tq\t0.9\nq\ta\t0.8\nq\tb\t0.7\n", *flags)
    names = [section.attributes["id"] for section in page.root.all("section")]
    assert names == ["figures", "curves", "worst"]
    assert [link.attributes["href"] for link in page.root.all("nav")[0].all("a")] == [f"#{name}" for name in names]
    text = page.root.text("style")
    assert words in text and not_there not in text and "against" not in text
    if flags:
        assert worst_on(page) == [("q", "a", "rank 2, score 0.8000", [(1, "q", "0.9000"), (2, "a", "0.8000"), (3, "b", "0.7000")])]
    else:
        assert "Each target is the first text" in text and not page.root.all("ol", "details")


def test_a_list_of_few_is_not_folded_and_the_rest_of_a_longer_one_is(tmp_path):
    for count in (10, 11):
        page = one_file(tmp_path, [(f"q{i}", "t") for i in range(count)], "q1\tx\t0.5\n")
        folded = page.section("worst").all("details")
        assert [details.all("summary")[0].text() for details in folded] == ["1 more"] * (count - 10)
        assert len(worst_on(page)) == count and "No rows for this query" in page.section("worst").text()


@pytest.mark.parametrize("score, shown", [("0", "0.0000"), ("-0.25", "-0.2500"), ("1e-9", "1e-09"), ("1e300", "1e+300"),
                                          ("-123456.7", "-1.235e+05"), ("12345.67891", "12345.6789")])
def test_scores_of_any_size_are_short(tmp_path, score, shown):
    assert worst_on(one_file(tmp_path, [("q", "a")], f"q\tb\t{score}\n"))[0][3] == [(1, "b", shown)]


@pytest.mark.parametrize("recall_num, marks", [(1, "1"), (2, "1 2"), (7, "1 4 7"), (50, "1 10 20 30 40 50"), (10**9, "")])
def test_level_curves_have_a_scale_of_few_round_numbers(tmp_path, recall_num, marks):
    for target, level in (("a", 100), ("x", 0)):
        page = one_file(tmp_path, [("q", target)], "q\ta\t0.9\n", "--recall_num", str(recall_num))
        texts = page.section("curves").all("text")
        values = [float(t.text()) for t in texts if t.attributes["text-anchor"] == "end"]
        assert level in values and 2 <= len(values) <= 7 and all(0 <= value <= 100 for value in values)
        if marks:
            assert " ".join(t.text() for t in texts if t.attributes["text-anchor"] == "middle") == marks
    assert (tmp_path / "out" / "report.html").stat().st_size < 20_000  # however many K there are


def test_the_curves_names_do_not_cover_each_other(tmp_path):
    others = [write(tmp_path / f"o{i}.txt", "q\ta\t0.9\n") for i in range(9)]
    page = one_file(tmp_path, [("q", "a")], "q\ta\t0.9\n", "--compare_with", *others)
    names = page.section("curves").all("li")
    places = [float(re.fullmatch(r"--y:([\d.]+)%", name.attributes["style"])[1]) for name in names]
    assert len(places) == 10 and min(np.diff(sorted(places))) >= 6.9 and min(places) == 0
    classes = [name.all("span", css="key")[0].attributes["class"] for name in names]
    assert len(set(classes)) == 10  # colours that come a second time are dashed
    style = (PROJECT / "web" / "report.css").read_text()
    assert all(style.count(f"--s{i}: #") == 2 for i in range(report.COLOURS))  # one for each theme


def test_a_browser_shows_it_without_errors_and_requests(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not installed")
    hostile_run(tmp_path)
    address = (tmp_path / "out" / "report.html").as_uri()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for scheme, width in (("light", 1280), ("dark", 390)):
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
            told: list[str] = []
            page.on("console", lambda message, told=told: told.append(message.text))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("request", lambda request, told=told: told.append(request.url))
            page.goto(address)
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert told == [address]
            assert page.evaluate("document.documentElement.scrollWidth") == width  # the page itself never scrolls aside
            # Blocks and inline blocks alone keep unpaired direction marks in: an inline <bdi> can be closed from inside.
            assert page.evaluate("[...document.querySelectorAll('bdi')].every(e => "
                                 "['block', 'inline-block'].includes(getComputedStyle(e).display))")
            assert page.evaluate("[...document.querySelectorAll('#worst bdi, #changes tbody bdi, #parts bdi, #figures bdi')]"
                                 ".every(e => e.scrollWidth <= e.clientWidth)")  # long words are broken
            red = int(re.match(r"rgb\((\d+)", page.evaluate("getComputedStyle(document.body).backgroundColor"))[1])
            assert red > 200 if scheme == "light" else red < 50
            page.close()
        browser.close()
