"""The page in a browser: against a stand-in server, or against the one that SEARCH_PAGE_URL names (what it can be asked for).

CHROMIUM names the browser, where it has another name than those below.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from urllib.parse import parse_qs, urlsplit
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


# ---- Searching

def test_enter_and_button_search_once_each(open_page, info):
    page = open_page()
    settled(page)
    first, second = info["indexes"][0]["examples"][:2]
    search(page, first)
    assert page.locator(".result").count() == 10
    assert page.locator(".rank").all_text_contents() == [str(n) for n in range(1, 11)]
    assert all(re.fullmatch(r"-?\d\.\d{3}", score) for score in page.locator(".score").all_text_contents())
    assert "10 条结果" in page.text_content("#status")
    page.fill("#query", second)
    page.click("button[type=submit]")
    page.wait_for_url(f"**q={'*'}")
    settled(page)
    index = info["indexes"][0]["name"]
    assert page.sent == [{"text": text, "k": 10, "index": index, "exact": False} for text in (first, second)]


def test_scores_bars_times_and_marks(open_page, standin):
    page = open_page(f"/?q={QUERY}")
    page.wait_for_selector(".result")
    assert texts(page)[0] == "借呗怎么还款"
    bars = page.evaluate("[...document.querySelectorAll('.meter i')].map((bar) => bar.style.width)")
    scores = page.locator(".score").all_text_contents()
    assert [float(bar[:-1]) for bar in bars] == pytest.approx([float(score) * 100 for score in scores], abs=0.1)
    times = page.locator(".time").all_text_contents()
    assert times[0] == "编码 2.31 毫秒" and times[1] == "检索 0.84 毫秒" and re.fullmatch(r"往返 [\d.]+ 毫秒", times[2])
    grown = page.evaluate("[...document.querySelectorAll('.stack i')].map((piece) => Number(piece.style.flexGrow))")
    assert grown[:2] == [2.31, 0.84] and sum(grown) == pytest.approx(float(times[2].split()[1]), rel=0.02)

    def marked(text: str) -> list[list[str]]:
        return page.locator(".text", has_text=text).first.evaluate(
            "(node) => [...node.querySelectorAll('mark')].map((mark) => [mark.className, mark.textContent])")

    assert marked("借呗提前还款要手续费吗") == [["run", "借呗提前还款"]]
    assert marked("花呗逾期了怎么办") == [["single", "呗"], ["run", "怎么"]]
    assert marked("还款失败是什么原因") == [["run", "还款"]]  # 么 alone says nothing
    assert marked("信用卡怎么提额") == [["run", "怎么提"]]


def test_words_of_latin_letters_are_marked_whole(open_page, standin):
    standin.texts["bank"] = ["ATM吞卡", "ATMs", "atm 机", "at"]
    page = open_page("/?q=atm")
    page.wait_for_selector(".result")
    assert page.locator("mark").all_text_contents() == ["ATM", "atm"]


def test_an_empty_query_does_not_search(open_page):
    page = open_page()
    settled(page)
    search(page, "   ")
    page.click("button[type=submit]")
    assert page.sent == [] and urlsplit(page.url).query == ""


def test_a_new_search_aborts_the_earlier_one(open_page, standin):
    standin.echo, standin.delays = True, {"慢的": 2}
    page = open_page()
    settled(page)
    failed = []
    page.on("requestfailed", lambda request: failed.append((request.post_data_json["text"], request.failure)))
    page.fill("#query", "慢的")
    page.press("#query", "Enter")
    search(page, "快的")
    assert texts(page)[0] == "快的"
    assert failed == [("慢的", "net::ERR_ABORTED")]


@pytest.mark.parametrize("status", [200, 500])
def test_an_older_answer_never_overwrites_a_newer_one(open_page, standin, status):
    standin.echo = True
    page = open_page(init="AbortController.prototype.abort = () => {};")  # as if it came too late
    settled(page)
    held = hold(page)
    for text in ("慢的", "快的"):
        page.fill("#query", text)
        page.press("#query", "Enter")
    held_one(page, held, 2).continue_()
    page.wait_for_selector(".result")
    with page.expect_response("**/search"):
        if status == 200:
            held[0].continue_()
        else:
            held[0].fulfill(status=status, json={"error": {"message": "late"}})
    page.wait_for_timeout(100)
    assert texts(page)[0] == "快的" and page.input_value("#query") == "快的"


# ---- Comparison

def test_comparison_joins_equal_texts(open_page, standin):
    page = open_page()
    settled(page)
    search(page, QUERY)
    page.select_option("#compare", "news")
    page.wait_for_selector(".overlap")
    left, right = texts(page, 0), texts(page, 1)
    shared = set(left) & set(right)
    assert page.text_content(".overlap") == f"前 10 条中 {len(shared)} 条相同" and 0 < len(shared) < 10
    words = page.locator(".column").nth(1).locator(".move").all_text_contents()
    for i, (text, move) in enumerate(zip(right, words)):
        up = left.index(text) - i if text in left else None
        arrow = "=" if up == 0 else f"↑{up}" if up and up > 0 else f"↓{-up}" if up else ""
        assert move == ("新" if up is None else f"{arrow}#{left.index(text) + 1}")
    own = page.locator(".column").nth(0).locator(".move").all_text_contents()
    assert own == [f"#{right.index(text) + 1}" if text in right else "仅此列" for text in left]
    tints = page.evaluate("""() => [...document.querySelectorAll('.results')].map((list) => Object.fromEntries(
      [...list.children].map((node) => [node.querySelector('.text').textContent, node.classList[1] ?? null])))""")
    assert all(tints[0][text] == tints[1][text] is not None for text in shared)
    assert all(tints[0][text] is None for text in left if text not in shared)
    # each line begins at the right edge of a result, and ends at the left edge of its equal
    ends = page.evaluate("""() => {
      const frame = document.querySelector('.lines').getBoundingClientRect();
      const lists = [...document.querySelectorAll('.results')].map((list) => [...list.children]);
      const at = (x, y, side) => lists.flat().find((node) => { const r = node.getBoundingClientRect();
        return Math.abs(x - r[side]) < 2 && y > r.top && y < r.bottom; })?.querySelector('.text').textContent;
      return [...document.querySelectorAll('.lines path')].map((path) => ['right', 'left'].map((side) => {
        const point = path.getPointAtLength(side === 'right' ? 0 : path.getTotalLength());
        return at(point.x + frame.left, point.y + frame.top, side); }));
    }""")
    assert sorted(ends) == sorted([text, text] for text in shared)


@pytest.mark.parametrize("left,right,moves", [(["同", "同", "甲"], ["同", "乙", "丙"], ["=#1", "新", "新"]),
                                              (["甲", "同", "乙"], ["同", "同", "丙"], ["↑1#2", "新", "新"]),
                                              (["同", "甲", "同"], ["同", "同", "丙"], ["=#1", "↑1#3", "新"])])
def test_the_same_text_twice_is_joined_once_each(open_page, standin, left, right, moves):
    standin.texts = {"bank": left, "news": right, "small": []}
    page = open_page("/?q=x&index=bank&compare=news")
    page.wait_for_selector(".overlap")
    joined = sum(move != "新" for move in moves)
    assert page.locator(".column").nth(1).locator(".move").all_text_contents() == moves
    assert page.text_content(".overlap") == f"前 3 条中 {joined} 条相同"
    assert page.locator(".lines path").count() == joined


def test_overlap_is_at_10_whatever_k(open_page, standin):
    page = open_page(f"/?q={QUERY}&index=bank&compare=news&k=20")
    page.wait_for_selector(".overlap")
    left, right = texts(page, 0), texts(page, 1)
    top, everywhere = len(set(left[:10]) & set(right[:10])), len(set(left) & set(right))
    assert page.text_content(".overlap") == f"前 10 条中 {top} 条相同，全部 {len(right)} 条中 {everywhere} 条"


def test_exact_search_beside_the_index_marks_what_was_missed(open_page, standin):
    page = open_page()
    settled(page)
    search(page, QUERY)
    page.select_option("#compare", label="同一索引的精确检索")
    page.wait_for_selector(".overlap")
    assert [body["exact"] for body in page.sent] == [False, False, True]
    assert page.text_content(".overlap") == "前 10 条中 9 条相同，HNSW 漏掉 1 条"
    missed = page.locator(".result", has=page.locator(".missed")).locator(".text").all_text_contents()
    assert missed == list(standin.missed)
    assert page.locator("#exact").is_disabled()
    assert page.locator(".engine").all_text_contents() == ["HNSW", "精确"]


def test_exact_switch(open_page, standin):
    page = open_page()
    settled(page)
    search(page, QUERY)
    missed = next(iter(standin.missed))
    assert missed not in texts(page)
    page.locator(".switch").click()
    page.wait_for_url("**exact=1**")
    settled(page)
    assert page.sent[-1]["exact"] is True and missed in texts(page)
    page.select_option("#index", "small")  # which is exact anyway
    page.wait_for_url("**index=small**")
    settled(page)
    assert page.locator("#exact").is_disabled()
    assert page.locator("#compare option:disabled").all_text_contents() == ["同一索引的精确检索"]


def test_an_index_never_stands_beside_itself(open_page, standin):
    page = open_page(f"/?q={QUERY}&index=bank&compare=news")
    page.wait_for_selector(".overlap")
    page.select_option("#index", "news")
    page.wait_for_url("**index=news**")
    settled(page)
    assert page.input_value("#compare") == "bank"
    assert [body["index"] for body in page.sent[-2:]] == ["news", "bank"]


# ---- Keyboard

def test_keys_walk_through_results(open_page, info):
    names = [index["name"] for index in info["indexes"]]
    if len(names) < 2:
        pytest.skip("one index only")
    page = open_page(f"/?q={info['indexes'][0]['examples'][0]}&index={names[0]}&compare={names[1]}&k=5")
    page.wait_for_selector(".result")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert focused(page) == ["query"]
    walk = [("ArrowDown", [0, 0]), ("ArrowDown", [0, 1]), ("ArrowRight", [1, 1]), ("ArrowRight", [1, 1]),
            ("ArrowDown", [1, 2]), ("ArrowUp", [1, 1]), ("ArrowLeft", [0, 1]), ("ArrowUp", [0, 0]), ("ArrowUp", ["query"]),
            ("ArrowDown", [0, 0]), *[("ArrowDown", [0, n]) for n in (1, 2, 3, 4, 4)], ("Escape", ["query"])]
    for key, place in walk:
        page.keyboard.press(key)
        assert focused(page) == place, key
        assert page.locator(".result[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert page.input_value("#query") == "" and focused(page) == ["query"]
    page.keyboard.press("Escape")
    assert focused(page) == [""]
    page.fill("#query", "a")
    page.keyboard.press("/")
    assert page.input_value("#query") == "a/"  # within the box it is a character


def test_enter_on_a_result_searches_for_it(open_page, info):
    page = open_page(f"/?q={info['indexes'][0]['examples'][0]}")
    page.wait_for_selector(".result")
    wanted = texts(page)[2]
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key) if key != "ArrowDown" or focused(page) != [""] else page.press("#query", key)
    wait_until(page, "(text) => new URLSearchParams(location.search).get('q') === text", arg=wanted)
    settled(page)
    assert [body["text"] for body in page.sent][1:] == [wanted]
    assert page.input_value("#query") == wanted and focused(page) == [0, 0]


def test_a_long_text_is_cut_to_what_the_server_takes(open_page, standin):
    standin.texts["bank"] = ["长" * 600]
    page = open_page("/?q=x")
    page.locator(".like").click(force=True)
    page.wait_for_url("**q=%E9**")
    settled(page)
    assert page.sent[-1]["text"] == "长" * 512
    assert "512" in page.locator(".facts").first.text_content()


def test_c_copies(open_page, info):
    page = open_page(f"/?q={info['indexes'][0]['examples'][0]}", permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".result")
    page.press("#query", "ArrowDown")
    page.keyboard.press("c")
    wait_until(page, "document.querySelector('#status').textContent === '已复制'")
    assert page.evaluate("navigator.clipboard.readText()") == texts(page)[0]


def test_focus_can_be_seen(open_page, info):
    page = open_page(f"/?q={info['indexes'][0]['examples'][0]}")
    page.wait_for_selector(".result")
    page.press("#query", "ArrowDown")
    width, style = page.evaluate("(({outlineWidth, outlineStyle}) => [outlineWidth, outlineStyle])"
                                 "(getComputedStyle(document.activeElement))")
    assert (width, style) == ("2px", "solid")


# ---- Input methods: (events, searches they cause by themselves); one real Enter follows and has to search once

def down(key: str, code: int = 229, composing: bool = True, **more) -> list:
    return ["keydown", {"key": key, "keyCode": code, "isComposing": composing, **more}]


def up(key: str, code: int, composing: bool = False) -> list:
    return ["keyup", {"key": key, "keyCode": code, "isComposing": composing}]


BEGIN = [down("j", composing=False), ["compositionstart", {"data": ""}], ["compositionupdate", {"data": "j"}],
         ["value", "借呗"], ["input", {"data": "借呗", "isComposing": True}], up("j", 74, True)]
END = ["compositionend", {"data": "借呗"}]
REAL = [down("Enter", 13, False), up("Enter", 13)]
SYNTHETIC = {
    "Chrome on Windows: keydown Process, then the end":
        ([*BEGIN, down("Process"), END, up("Enter", 13)], 0),
    "Chrome on macOS: keydown Enter 229, then the end":
        ([*BEGIN, down("Enter"), END, up("Enter", 13)], 0),
    "Firefox: keydown Enter 229, the end, then input":
        ([*BEGIN, down("Enter"), END, ["input", {"data": "借呗", "isComposing": False}], up("Enter", 13)], 0),
    "Firefox before 65: no keydown within a composition":
        ([*BEGIN, END, ["input", {"data": "借呗"}], up("Enter", 13)], 0),
    "Safari, busy: the end, and some time later keydown Enter 229 outside of the composition":
        ([*BEGIN, END, ["wait", 60], down("Enter", 229, False), up("Enter", 13)], 0),
    "Safari with keyCode 13: the end, then at once keydown Enter 13":
        ([*BEGIN, END, down("Enter", 13, False), up("Enter", 13)], 0),
    "a space confirms (Safari's order), and a quick Enter is real":
        ([*BEGIN, END, down(" ", 229, False), up(" ", 32), *REAL], 1),
    "a digit takes a candidate, and a quick Enter is real":
        ([*BEGIN, down("2"), END, up("2", 50), *REAL], 1),
    "Escape gives the composition up, and clears nothing":
        ([*BEGIN, down("Escape", 229), ["compositionend", {"data": ""}], up("Escape", 27)], 0),
    "two compositions, each confirmed by Enter":
        ([*BEGIN, down("Enter"), END, up("Enter", 13), *BEGIN, END, down("Enter", 229, False), up("Enter", 13)], 0),
    "a candidate is clicked, and an Enter after it is real":
        ([*BEGIN, END, ["wait", 80], *REAL], 1),
    "the confirming Enter is held down and repeats":
        ([*BEGIN, down("Enter"), END, ["wait", 60], *[down("Enter", 13, False, repeat=True)] * 3, up("Enter", 13)], 0),
}
DISPATCH = """async (steps) => {
  const box = document.querySelector('#query');
  for (const [type, init] of steps) {
    const Kind = type.startsWith('key') ? KeyboardEvent : type === 'input' ? InputEvent : CompositionEvent;
    if (type === 'wait') await new Promise((done) => setTimeout(done, init));
    else if (type === 'value') box.value = init;
    else box.dispatchEvent(new Kind(type, { bubbles: true, cancelable: true, ...init }));
  }
}"""


@pytest.mark.parametrize("name", SYNTHETIC)
def test_composition(open_page, name):
    page = open_page()
    settled(page)
    page.focus("#query")
    steps, searches = SYNTHETIC[name]
    page.evaluate(DISPATCH, steps)
    assert page.input_value("#query") == "借呗"
    page.wait_for_timeout(40)  # a real Enter is another keystroke
    page.keyboard.press("Enter")
    page.wait_for_url("**q=**")
    settled(page)
    assert [body["text"] for body in page.sent] == ["借呗"] * (searches + 1)


@pytest.mark.parametrize("key,code", [("Process", 229), ("Enter", 229), ("Enter", 13)])
def test_composition_of_the_browser_itself(open_page, key, code):
    page = open_page()
    settled(page)
    page.focus("#query")
    client = page.context.new_cdp_session(page)
    for text in ("j", "jie", "借"):
        client.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
    pressed = {"key": key, "code": "Enter", "windowsVirtualKeyCode": code}
    client.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": "\r" if code == 13 else "", **pressed})
    client.send("Input.insertText", {"text": "借呗"})
    client.send("Input.dispatchKeyEvent", {"type": "keyUp", **pressed, "key": "Enter", "windowsVirtualKeyCode": 13})
    assert page.input_value("#query") == "借呗"
    page.wait_for_timeout(40)
    page.keyboard.press("Enter")
    page.wait_for_url("**q=**")
    settled(page)
    assert [body["text"] for body in page.sent] == ["借呗"]
    page.keyboard.press("Enter")
    settled(page)
    assert [body["text"] for body in page.sent] == ["借呗"] * 2


def test_go_key_of_a_touch_keyboard_within_a_composition(open_page):
    page = open_page(init="const real = matchMedia; window.matchMedia = (query) => "
                          "query === '(pointer: coarse)' ? { matches: true } : real(query);")
    settled(page)
    page.focus("#query")
    client = page.context.new_cdp_session(page)
    client.send("Input.imeSetComposition", {"text": "hello", "selectionStart": 5, "selectionEnd": 5})
    client.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Enter", "code": "Enter",
                                           "windowsVirtualKeyCode": 13, "text": "\r"})
    page.wait_for_url("**q=hello**")
    settled(page)
    assert [body["text"] for body in page.sent] == ["hello"]


# ---- Hostile texts

PAYLOADS = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "javascript:alert(1)",
            "<a href=javascript:alert(1)>x</a>", "<iframe src=//evil.example></iframe>", "</li></ol><script src=//evil.example>",
            "<link rel=stylesheet href=//evil.example/x.css>", "\u202eevil\u202c", "\u2066a\u2069\u200b\ufeffb", "长" * 10_000,
            "a" * 10_000, "null", "undefined", "[object Object]", "{{7*7}}${7*7}<%= 7*7 %>#{7*7}", "__proto__",
            "$& $1 $` {0} {1}", "\x00\x07\x1b[31m", "a\nb\tc\r\nd"]
WRAPS = ["{}", "怎么还款 {}", "\"'><b>{}", "{} &lt;&amp;", "--><!--{}//"]
HOSTILE = [wrap.replace("{}", payload) for payload, wrap in itertools.product(PAYLOADS, WRAPS)]
SEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069\ufeff]")


def as_shown(text: str) -> str:
    return SEEN.sub(lambda found: f"U+{ord(found[0]):04X}", text)


ELEMENTS = {"SECTION", "DIV", "H2", "BDI", "SPAN", "P", "I", "B", "OL", "UL", "LI", "MARK", "BUTTON", "svg", "path", "circle"}


def check_elements(page) -> None:
    nodes = page.evaluate("""() => [...document.querySelectorAll('#view *')].map((node) => [node.tagName,
      node.getAttributeNames().filter((name) => /^(on|href|src)/.test(name)).length])""")
    assert {tag for tag, _ in nodes} <= ELEMENTS and not any(count for _, count in nodes)
    assert page.evaluate("document.scripts.length") == 1


def test_hostile_texts_as_results(open_page, standin):
    assert len(set(HOSTILE)) == 100
    standin.texts = {"bank": HOSTILE, "news": HOSTILE[::-1], "small": HOSTILE}
    standin.examples = HOSTILE[:60:8]
    page = open_page("/")
    settled(page)
    assert page.locator(".example").all_text_contents() == [as_shown(text) for text in standin.examples]
    check_elements(page)
    page.goto(f"{standin.url}/?q={QUERY}&k=100&index=bank&compare=news")
    page.wait_for_selector(".result")
    assert texts(page, 0) == [as_shown(text) for text in HOSTILE] == texts(page, 1)[::-1]
    check_elements(page)
    isolated = page.evaluate("[...document.querySelectorAll('.text')].every("
                             "(node) => node.localName === 'bdi' && getComputedStyle(node).unicodeBidi === 'isolate')")
    assert isolated and page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_hostile_texts_as_queries(open_page, standin):
    standin.echo = True
    page = open_page()
    settled(page)
    for text in HOSTILE:  # by the address, since a box takes no line breaks
        page.evaluate("""(q) => {
          history.pushState(null, '', `/?${new URLSearchParams({ q })}`);
          dispatchEvent(new PopStateEvent('popstate'));
        }""", text)
        settled(page)
        assert page.sent[-1]["text"] == text
        assert page.locator(".text").first.text_content() == as_shown(text)
    check_elements(page)
    assert len(page.sent) == 100


def test_long_texts_are_clamped_and_can_be_opened(open_page, standin):
    standin.texts["bank"] = ["长" * 10_000, "短"]
    page = open_page("/?q=长")
    text = page.locator(".text").first
    assert text.evaluate("(node) => node.clientHeight") < 130
    assert page.locator(".opener:visible").all_text_contents() == ["展开全文（10,000 字）"]
    page.locator(".opener").first.click()
    assert text.evaluate("(node) => node.clientHeight") > 1000
    page.locator(".opener").first.click()
    assert text.evaluate("(node) => node.clientHeight") < 130


# ---- Address

def test_address_holds_the_search(open_page, info):
    names = [index["name"] for index in info["indexes"]]
    if len(names) < 2:
        pytest.skip("one index only")
    page = open_page()
    settled(page)
    page.select_option("#k", "5")
    page.select_option("#compare", names[1])
    search(page, "a&b=c #1 还款")
    assert {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()} == {
        "q": "a&b=c #1 还款", "k": "5", "index": names[0], "compare": names[1]}
    other = open_page(page.url.removeprefix(SERVER_URL or page.evaluate("location.origin")))
    other.wait_for_selector(".result")
    assert other.sent == page.sent and len(other.sent) == 2
    assert [texts(other, 0), texts(other, 1)] == [texts(page, 0), texts(page, 1)]
    assert other.input_value("#query") == "a&b=c #1 还款"


def test_back_and_forward(open_page):
    page = open_page()
    settled(page)
    for text in ("第一", "第二", "第二"):
        search(page, text)
    page.go_back()
    wait_until(page, "document.querySelector('#query').value === '第一'")
    settled(page)
    assert page.title().startswith("第一")
    page.go_back()
    page.wait_for_selector(".example")
    assert page.input_value("#query") == ""
    page.go_forward()
    page.wait_for_selector(".result")
    assert [body["text"] for body in page.sent] == ["第一", "第二", "第二", "第一", "第一"]


@pytest.mark.parametrize("k,asked", [("7", 7), ("0", 10), ("-3", 10), ("x", 10), ("99999", 1000)])
def test_k_of_the_address(open_page, standin, k, asked):
    page = open_page(f"/?q=x&k={k}")
    page.wait_for_selector(".result")
    assert page.sent[0]["k"] == asked and page.input_value("#k") == str(asked)


# ---- States

def test_start_offers_examples(open_page, info):
    page = open_page()
    settled(page)
    examples = info["indexes"][0]["examples"]
    assert focused(page) == ["query"]
    assert page.locator(".example").all_text_contents() == examples
    page.locator(".example").nth(1).click()
    page.wait_for_selector(".result")
    assert [body["text"] for body in page.sent] == [examples[1]]
    assert page.input_value("#query") == examples[1]


def test_no_results(open_page, standin):
    standin.texts["bank"] = []
    page = open_page("/?q=x")
    settled(page)
    assert page.text_content(".notice h2") == "没有结果" == page.text_content("#status")


def test_skeleton_does_not_flicker_and_slowness_is_said(open_page, site):
    page = open_page(path=None, reduced_motion="reduce")
    page.clock.install(time=0)
    page.goto(site)
    settled(page)
    page.clock.pause_at(1_000_000)
    held = hold(page)
    page.fill("#query", "x")
    page.press("#query", "Enter")
    held_one(page, held)
    assert page.get_attribute("#view", "aria-busy") == "true"
    page.clock.run_for(140)
    assert page.locator(".bone").count() == 0
    page.clock.run_for(20)
    assert page.locator(".bone").count() > 0 and page.text_content(".slow") == ""
    assert page.evaluate("getComputedStyle(document.querySelector('.bone'), '::before').animationDuration") == "0s"
    page.clock.run_for(2900)
    assert "仍在等" in page.text_content(".slow") and "仍在等" in page.text_content("#status")
    held[0].continue_()
    page.wait_for_selector(".result")
    page.clock.run_for(5000)
    assert page.locator(".bone").count() == 0


def test_error_shows_the_servers_message_and_can_be_tried_again(open_page, standin):
    standin.statuses = [500]
    page = open_page("/?q=x")
    page.wait_for_selector("[role=alert]")
    assert page.text_content(".notice p") == "something <b>broke</b>"
    page.click(".notice .primary")
    page.wait_for_selector(".result")
    assert len(page.sent) == 2


def test_an_answer_that_is_no_json(open_page, standin):
    page = open_page()
    settled(page)
    page.route("**/search", lambda route: route.fulfill(status=502, body="<html>bad gateway"))
    search(page, "x")
    assert page.text_content(".notice p") == "服务器的回答无法读取（HTTP 502）。"


def test_unknown_index_is_an_error_and_not_another_index(open_page, standin):
    page = open_page("/?q=x&index=gone")
    page.wait_for_selector("[role=alert]")
    assert page.text_content(".notice p") == "there is no such index" and page.sent[0]["index"] == "gone"


def paused_page(open_page, site):
    """The page with a clock that only the test moves on."""
    page = open_page(path=None)
    page.clock.install(time=0)
    page.goto(site)
    settled(page)
    page.clock.pause_at(1_000_000)
    return page


def test_overloaded_tries_once_more_when_the_server_says(open_page, standin, site):
    standin.statuses, standin.retry_after = [429, 429], "7"
    page = paused_page(open_page, site)
    search(page, "x")
    assert page.text_content(".countdown") == "7 秒后自动再试一次。"
    page.clock.run_for(5500)
    assert page.text_content(".countdown") == "2 秒后自动再试一次。" and len(page.sent) == 1
    page.clock.run_for(1600)
    page.wait_for_selector("[role=alert]")
    assert len(page.sent) == 2 and page.text_content(".notice p") == "too many searches wait already"
    page.clock.run_for(60_000)
    page.wait_for_timeout(50)
    assert len(page.sent) == 2  # it tried once
    page.click(".notice .primary")
    page.wait_for_selector(".result")


def test_a_new_search_ends_the_countdown(open_page, standin, site):
    standin.statuses = [429]
    page = paused_page(open_page, site)
    search(page, "x")
    search(page, "y")
    page.clock.run_for(10_000)
    page.wait_for_timeout(50)
    assert [body["text"] for body in page.sent] == ["x", "y"] and page.locator(".result").count() == 10


def test_offline_tries_again_when_back(open_page):
    page = open_page()
    settled(page)
    page.context.set_offline(True)
    search(page, "x")
    assert page.text_content(".notice h2") == "没有网络"
    page.context.set_offline(False)
    page.wait_for_selector(".result")


def test_an_unreachable_server_is_asked_until_it_is_back(open_page):
    page = open_page()
    settled(page)
    page.route("**/search", lambda route: route.abort("connectionrefused"))
    search(page, "x")
    assert page.text_content(".notice h2") == "连不上服务器"
    page.unroute("**/search")
    page.wait_for_selector(".result")


def test_key_is_asked_for_and_kept_in_the_tab(open_page, standin):
    standin.key = "secret"
    page = open_page("/?q=x")
    page.wait_for_selector("#key")
    assert page.locator(".wrong").text_content() == ""
    for wrong in ("密钥", "other"):  # the first cannot be sent at all
        page.fill("#key", wrong)
        page.press("#key", "Enter")
        wait_until(page, "document.querySelector('.wrong')?.textContent === '服务器不接受这个密钥。'")
    page.fill("#key", "secret")
    page.press("#key", "Enter")
    page.wait_for_selector(".result")
    assert page.evaluate("[sessionStorage.getItem('key'), localStorage.length]") == ["secret", 0]
    page.reload()
    page.wait_for_selector(".result")


# ---- Appearance

def test_language(open_page):
    page = open_page(locale="en-GB")
    settled(page)
    assert page.get_attribute("html", "lang") == "en" and page.text_content("button[type=submit]") == "Search"
    search(page, "x")
    assert page.text_content(".found") == "10 results"
    page.click("#language")
    assert page.get_attribute("html", "lang") == "zh-CN" and page.text_content(".found") == "10 条结果"
    page.reload()
    page.wait_for_selector(".result")
    assert page.get_attribute("html", "lang") == "zh-CN" and page.get_attribute("#query", "aria-label") == "要检索的文本"
    assert len(page.sent) == 2  # other words are no new search


def test_every_word_is_there_in_both_languages(open_page):
    page = open_page()
    words = page.evaluate("[...document.querySelector('#words').content.children].map((word) => ({ ...word.dataset }))")
    assert len({word["key"] for word in words}) == len(words)
    for word in words:
        assert word["zh"] and word["en"], word
        assert sorted(re.findall(r"\{\d\}", word["zh"])) == sorted(re.findall(r"\{\d\}", word["en"])), word
    used = set(re.findall(r'say\("(\w+)"', page.evaluate("fetch('/app.js').then((answer) => answer.text())")))
    assert used <= {word["key"] for word in words}


def test_theme(open_page):
    page = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.evaluate(ground) == dark


@pytest.mark.parametrize("path", ["/", f"/?q={QUERY}", f"/?q={QUERY}&index=bank&compare=bank", "/?q=x&index=gone"])
@pytest.mark.parametrize("locale", ["zh-CN", "en-US"])
def test_telephone(open_page, standin, path, locale):
    standin.texts["bank"] = ["a" * 400, *standin.texts["bank"], "مرحبا " * 40, "\u202e" * 60]
    page = open_page(path, locale=locale, viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True)
    settled(page)
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    small = page.evaluate("""() => [...document.querySelectorAll('a, button, select, input:not([type=checkbox]), .switch')]
      .filter((node) => node.checkVisibility()).map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
      .filter(([, { width, height }]) => height < 44 || width < 44).map(([html]) => html)""")
    assert small == []
    assert page.evaluate("[...document.querySelectorAll('.text')].every((node) => node.scrollWidth <= node.clientWidth)")
    assert not page.locator(".lines").is_visible()


def test_roles_and_labels(open_page, info):
    page = open_page(f"/?q={info['indexes'][0]['examples'][0]}")
    page.wait_for_selector(".result")
    assert page.get_by_role("search").count() == 1 and page.get_by_role("status").count() == 1
    assert page.get_by_role("listitem").count() == 10
    for role, name in (("textbox", "要检索的文本"), ("combobox", "索引"), ("combobox", "对比"), ("combobox", "条数"),
                       ("switch", "精确检索"), ("button", "清空"), ("button", "切换深色或浅色")):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name


def test_policy_of_the_server(open_page, site):
    """The page works under the policy of the contract: the other tests would see its violations in the console."""
    page = open_page(path=None)
    answer = page.goto(site)
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
    settled(page)
