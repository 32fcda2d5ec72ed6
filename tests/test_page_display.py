"""What the page shows: hostile texts as they are, its states from start to errors, languages, themes, small screens."""

import itertools
import re

import pytest
from page_browser import QUERY, focused, held_one, hold, search, settled, texts, wait_until

# ---- Hostile texts

PAYLOADS = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "javascript:alert(1)",
            "<a href=javascript:alert(1)>x</a>", "<iframe src=//evil.example></iframe>", "</li></ol><script src=//evil.example>",
            "<link rel=stylesheet href=//evil.example/x.css>", "\u202eevil\u202c", "\u2066a\u2069\u200b\ufeffb", "长" * 10_000,
            "a" * 10_000, "null", "undefined", "[object Object]", "{{7*7}}${7*7}<%= 7*7 %>#{7*7}", "__proto__",
            "$& $1 $` {0} {1}", "\x00\x07\x1b[31m", "a\nb\tc\r\nd"]
WRAPS = ["{}", "怎么还款 {}", "\"'><b>{}", "{} &lt;&amp;", "--><!--{}//"]
HOSTILE = [wrap.replace("{}", payload) for payload, wrap in itertools.product(PAYLOADS, WRAPS)]
LIMIT = 512  # characters of a text, by the server's /info
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
        if len(text) > LIMIT:
            assert f"最多 {LIMIT} 个" in page.text_content("[role=alert]")
            continue
        assert page.sent[-1]["text"] == text
        assert page.locator(".text").first.text_content() == as_shown(text)
    check_elements(page)
    assert len(page.sent) == sum(len(text) <= LIMIT for text in HOSTILE) == 90


@pytest.mark.parametrize(("place", "said"), [
    (f"/?q={'长' * 513}", "513 个字符，最多 512 个"), ("/?q=x&index=nobody", "没有名为 nobody 的索引"),
    ("/?q=x&compare=<b>", "没有名为 <b> 的索引"), ("/?q=%E2%80%8B%E2%80%8D", "没有可以检索的文字")])
def test_what_the_server_would_refuse_is_said_and_not_sent(open_page, place, said):
    """Sent all the same it would leave an error in the console, for which `open_page` looks."""
    page = open_page(place)
    settled(page)
    assert said in page.text_content("[role=alert]") and not page.sent
    assert page.locator("[role=alert] .primary").count() == 0
    page.click("#language")
    assert said not in page.text_content("[role=alert]")


def test_an_address_of_blanks_is_that_of_the_start(open_page):
    page = open_page("/?q=%20%20")
    settled(page)
    assert page.locator(".example").count() and not page.sent


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
    assert "没有名为 gone 的索引" in page.text_content(".notice p") and not page.sent


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
    for wrong, left in (("密钥", "密钥"), ("other", "")):  # the first cannot be sent; after the second the form is a new one
        page.fill("#key", wrong)
        page.press("#key", "Enter")
        wait_until(page, "(left) => document.querySelector('#key')?.value === left && "
                         "document.querySelector('.wrong').textContent === '服务器不接受这个密钥。'", left)
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
