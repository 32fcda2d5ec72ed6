"""The page that evaluate.py --report writes, as a tree of elements."""

import os
from html.parser import HTMLParser
from pathlib import Path

from conftest import write

import evaluate


class Element:
    def __init__(self, tag: str, attributes: dict, parent=None):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def all(self, *tags: str, css: str = "") -> list["Element"]:
        """Elements inside, in their order, with one of these tags and this class."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag in tags and (not css or css in (child.attributes.get("class") or "").split()):
                    found.append(child)
                found += child.all(*tags, css=css)
        return found

    def text(self, *without: str) -> str:
        return "".join(child if isinstance(child, str) else child.text(*without) for child in self.children
                       if isinstance(child, str) or child.tag not in without)


class Page(HTMLParser):
    """The tree of a page; anything that is not properly nested is an error."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.root = self.at = Element("", {})
        self.feed(path.read_bytes().decode())
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), "an attribute twice"
        element = Element(tag, dict(attributes), self.at)
        self.at.children.append(element)
        if tag not in ("meta", "link"):
            self.at = element

    def handle_startendtag(self, tag, attributes):
        self.at.children.append(Element(tag, dict(attributes), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> in <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def section(self, name: str):
        return next((s for s in self.root.all("section") if s.attributes["id"] == name), None)


def one_file(tmp_path, pairs: list[tuple[str, str]], result: str, *flags: str) -> Page:
    files = ["--similar_pair_file", write(tmp_path / "pairs", "".join(f"{s}\t{t}\n" for s, t in pairs)),
             "--recall_result_file", write(tmp_path / "r.txt", result)]
    assert evaluate.main([*files, "--report", str(tmp_path / "out"), *flags]) == 0
    assert os.listdir(tmp_path / "out") == ["report.html"]
    return Page(tmp_path / "out" / "report.html")


def worst_on(page: Page) -> list[tuple]:
    """(source, target, fate, [(rank, text, score)]) of each entry."""
    entries = []
    for item in [item for rows in page.section("worst").all("ol", css="worst") for item in rows.all("li")]:
        source, target = (bdi.text() for bdi in item.all("dl")[0].all("bdi"))
        found = [(int(row.all("th")[0].text()), row.all("bdi")[0].text(), row.all("td", css="n")[0].text())
                 for row in item.all("tbody")[0].all("tr")] if item.all("tbody") else []
        entries.append((source, target, item.all("p", css="fate")[0].text(), found))
    return entries
