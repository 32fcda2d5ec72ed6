"""The page by keyboard: moving through results, and what input methods send while a text is composed."""

import pytest
from page_browser import focused, settled, texts, wait_until

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
