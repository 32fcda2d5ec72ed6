"""Searching on the page: queries and their results, one index beside another, and what the address holds."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from page_browser import QUERY, SERVER_URL, held_one, hold, search, settled, texts, wait_until

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
