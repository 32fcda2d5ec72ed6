"""evaluate.py --report: what the page says, against computations of its own; what hostile texts can't do to it."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, run_process, write

import evaluate
import metrics
import report

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = ["<script>alert(1)</script>", "</style><b onclick=x()>", '" onmouseover="alert(1)" x="', "' onfocus='y'",
           "</bdi></table><img src=http://other.example/a.png>", "<!-- ]]> <svg/onload=z()>", "&lt;b&gt; &#60; &amp", "长" * 10_000, "x" * 10_000,
           "\u202eoverridden\u2067\u2069\u2069\u202c", "\u2069\u2069 loose \u2066", "مرحبا (abc) 123", "url(//other.example/b) @import"]


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


def table(element: Element) -> list[list[str]]:
    return [[cell.text() for cell in row.all("th", "td")] for row in element.all("tr")]


def rows_of(result: dict[str, list[tuple[str, float]]]) -> str:
    return "".join(f"{source}\t{text}\t{score!r}\n" for source, rows in result.items() for text, score in rows)


def random_run(seed: int, pairs: list[tuple[str, str]], recalled: int = 25) -> dict[str, list[tuple[str, float]]]:
    """Rankings with equal scores, sources among their own texts, and sources without rows."""
    rng = np.random.default_rng(seed)
    texts = sorted({text for pair in pairs for text in pair})
    run = {}
    for i, source in enumerate(dict.fromkeys(source for source, _ in pairs)):
        scores = np.sort(rng.integers(0, 12, recalled) / 12)[::-1].tolist()
        wanted = [target for query, target in pairs if query == source]
        chosen = [texts[j] for j in rng.permutation(len(texts))[:recalled]]
        if rng.random() < 0.6 and wanted[0] not in chosen:
            chosen[int(rng.integers(recalled))] = wanted[0]
        if (i + seed) % 9:
            run[source] = list(zip(chosen, scores))
    return run


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A run with parts and two other files: folder, pairs, the three rankings, the JSON, stdout and the page."""
    folder = tmp_path_factory.mktemp("report")
    pairs = [(f"q{i % 110}", f"t{i * 7 % 90}") for i in range(160)] + [("q1", "t7"), ("q1", "t7")]  # two are repeats
    runs = {name: random_run(seed, pairs) for seed, name in enumerate(["first", "second", "third"])}
    files = [write(folder / f"{name}.txt", rows_of(run)) for name, run in runs.items()]
    flags = ["--similar_pair_file", write(folder / "pairs", "".join(f"{s}\t{t}\n" for s, t in pairs)), "--part_file",
             write(folder / "part", "".join(f"part {i % 3}\n" for i in range(len(pairs)))), "--recall_result_file", files[0],
             "--compare_with", *files[1:], "--recall_num", "20"]
    done = run_process("python", "evaluate.py", *flags, "--report", str(folder / "a" / "out"), "--output_json",
                       str(folder / "o.json"), PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    value = json.loads((folder / "o.json").read_text())
    return folder, pairs, runs, value, done.stdout, Page(folder / "a" / "out" / "report.html"), flags


def in_words(name: str, value: float) -> str:
    return f"{100 * value:.2f}" if name.startswith("R@") else f"{value:.4f}"


def interval(name: str, figure: dict) -> str:
    return f"[{in_words(name, figure['low'])}, {in_words(name, figure['high'])}]"


def printed(stdout: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("|")]


def test_the_figures_are_those_of_the_json_and_of_the_terminal(case):
    *_, value, stdout, page, _ = case
    header, *rows = table(page.section("figures"))
    assert header == ["Result file", *metrics.METRICS] and [row[0] for row in rows] == list(value["systems"])
    for row, system in zip(rows, value["systems"].values()):
        assert row[1:] == [in_words(m, system[m]["value"]) + interval(m, system[m]) for m in metrics.METRICS]
        lines = printed(stdout)
        at = next(i for i, line in enumerate(lines) if line[0] == row[0])
        assert row[1:] == [figure + limits for figure, limits in zip(lines[at][1:], lines[at + 1][1:])]
    note = page.root.all("header")[0].text()
    assert f"{value['cases']} cases" in note and "The best 20 texts" in note


def test_the_figures_by_part_and_the_tests_are_those_of_the_json_and_of_the_terminal(case):
    *_, value, stdout, page, _ = case
    lines = printed(stdout)
    header, *rows = table(page.section("parts"))
    assert header == ["Part", "Result file", "Cases", *metrics.METRICS]
    assert rows == [[part, label, str(size), *(in_words(m, system["parts"][part][m]) for m in metrics.METRICS)]
                    for part, size in value["part_sizes"].items() for label, system in value["systems"].items()]
    assert all([part, size, label, *figures] in lines for part, label, size, *figures in rows)
    tests = [box for box in page.section("changes").all("div") if box.attributes["aria-label"] == "Paired test"]
    assert [heading.text() for heading in page.section("changes").all("h3")] == ["second against first", "third against first"]
    assert len(tests) == 2 == len(value["compared_with_first"])
    for box, comparison in zip(tests, value["compared_with_first"].values()):
        rows = table(box)[1:]
        assert rows == [[m, in_words(m, c["difference"]), interval(m, c), f"{c['p']:.4f}", str(c["better"]), str(c["worse"])]
                        for m, c in comparison.items()]
        assert all(row in lines for row in rows)


def naive_rank(run: dict, pair: tuple[str, str], recall_num: int = 20) -> int:
    """Rank of a target as a loop finds it; 0 for none."""
    texts = naive_ranking(run, pair[0], recall_num)
    return next((place for place, (text, _) in enumerate(texts, 1) if text == pair[1]), 0)


def naive_ranking(run: dict, source: str, recall_num: int = 20) -> list[tuple[str, float]]:
    kept: list[tuple[str, float]] = []
    for text, score in run.get(source, []):  # written best first, so the first of equal texts is the best one
        if text != source and text not in [other for other, _ in kept]:
            kept.append((text, score))
    return kept[:recall_num]


def test_the_curves_are_recall_at_every_k(case):
    _, pairs, runs, value, _, page, _ = case
    figure = page.section("curves")
    texts = [text for text in figure.all("text")]
    levels = [(float(t.text()), float(t.attributes["y"][:-1])) for t in texts if t.attributes["text-anchor"] == "end"]
    marks = [(float(t.text()), float(t.attributes["x"][:-1])) for t in texts if t.attributes["text-anchor"] == "middle"]
    assert {place for _, place in levels} >= {0, 100}
    assert [k for k, _ in marks] == [1, 5, 10, 15, 20] and marks[0][1] == 0 and marks[-1][1] == 100
    lines = {line.attributes["class"]: np.array([point.split(",") for point in line.attributes["points"].split()], float) / 10
             for line in figure.all("polyline")}
    for i, (name, run) in enumerate(runs.items()):
        ranks = [naive_rank(run, pair) for pair in pairs]
        right = [100 * sum(0 < rank <= k for rank in ranks) / len(pairs) for k in range(1, 21)]
        x = np.interp(range(1, 21), *zip(*marks))
        y = np.interp(x, *lines[f"s{i}"].T)
        got = np.interp(y, *zip(*[(place, level) for level, place in sorted(levels, reverse=True)]))
        assert got == pytest.approx(right, abs=0.1)
        dots = [dot.text() for dot in figure.all("circle", css=f"s{i}")]
        assert dots == [f"{name}: R@{k} {100 * value['systems'][name][f'R@{k}']['value']:.2f}" for k in (1, 5, 10)]
        (label,) = [item for item in figure.all("li") if item.all("bdi")[0].text() == name]
        assert label.all("span", css="n")[0].text() == f"{right[-1]:.2f}"


def worst_on(page: Page) -> list[tuple]:
    """(source, target, fate, [(rank, text, score)]) of each entry."""
    entries = []
    for item in [item for rows in page.section("worst").all("ol", css="worst") for item in rows.all("li")]:
        source, target = (bdi.text() for bdi in item.all("dl")[0].all("bdi"))
        found = [(int(row.all("th")[0].text()), row.all("bdi")[0].text(), row.all("td", css="n")[0].text())
                 for row in item.all("tbody")[0].all("tr")] if item.all("tbody") else []
        entries.append((source, target, item.all("p", css="fate")[0].text(), found))
    return entries


def naive_worst(pairs: list[tuple[str, str]], run: dict, recall_num: int = 20) -> list[tuple]:
    """By selection: take the worst that is left, the first of equally bad ones, until there are 50."""
    left, entries = list(dict.fromkeys(pairs)), []
    while left and len(entries) < 50:
        worst = left[0]
        for pair in left[1:]:
            if is_worse(run, pair, worst, recall_num):
                worst = pair
        left.remove(worst)
        rank, found = naive_rank(run, worst, recall_num), naive_ranking(run, worst[0], recall_num)
        if rank == 1:
            continue
        fate = f"rank {rank}, score {found[rank - 1][1]:.4f}" if rank else f"not in the best {recall_num}"
        entries.append((*worst, fate, [(i, text, f"{score:.4f}") for i, (text, score) in enumerate(found[:5], 1)]))
    return entries


def is_worse(run: dict, pair, other, recall_num: int) -> bool:
    rank, than = naive_rank(run, pair, recall_num), naive_rank(run, other, recall_num)
    if rank and than:
        return rank > than
    if rank or than:
        return not rank
    best, its_best = ([score for _, score in naive_ranking(run, p[0], recall_num)][:1] for p in (pair, other))
    return bool(best) and (not its_best or best > its_best)


def test_the_worst_queries_are_those_of_a_plain_selection(case):
    _, pairs, runs, _, _, page, _ = case
    got = worst_on(page)
    assert got == naive_worst(pairs, runs["first"]) and len(got) == 50
    assert len({entry[:2] for entry in got}) == 50


def test_the_worst_queries_end_with_ranks_by_depth(tmp_path):
    """Few pairs: ranks and scores of those found, equal ones in file order, a source without rows, none of rank 1."""
    pairs = [("a", "t"), ("b", "t"), ("c", "t"), ("d", "t"), ("e", "t"), ("f", "t"), ("b", "t"), ("g", "t"), ("h", "t")]
    ranking = {"a": "xyt", "b": "xt", "c": "xyzt", "d": "xyt", "e": "t", "f": "xyz", "h": "hyx"}
    run = {source: [(text, 0.75 - 0.25 * i) for i, text in enumerate(texts)] for source, texts in ranking.items()}
    page = one_file(tmp_path, pairs, rows_of(run))
    got = worst_on(page)
    assert [entry[0] for entry in got] == ["f", "h", "g", "c", "a", "d", "b"]
    assert got == naive_worst(pairs, run, 50)
    assert [entry[2] for entry in got[2:5]] == ["not in the best 50", "rank 4, score 0.0000", "rank 3, score 0.2500"]
    assert got[1][3] == [(1, "y", "0.5000"), (2, "x", "0.2500")]  # h itself takes no place


def one_file(tmp_path, pairs: list[tuple[str, str]], result: str, *flags: str) -> Page:
    files = ["--similar_pair_file", write(tmp_path / "pairs", "".join(f"{s}\t{t}\n" for s, t in pairs)),
             "--recall_result_file", write(tmp_path / "r.txt", result)]
    assert evaluate.main([*files, "--report", str(tmp_path / "out"), *flags]) == 0
    assert os.listdir(tmp_path / "out") == ["report.html"]
    return Page(tmp_path / "out" / "report.html")


def case_lists(page: Page) -> list[tuple[str, int, list[list[str]]]]:
    return [(*details.all("summary")[0].text().split(" "), table(details)[1:])
            for details in page.section("changes").all("details")]


def test_what_a_run_fixed_and_broke_is_what_a_loop_finds(case):
    _, pairs, runs, value, _, page, _ = case
    lists = case_lists(page)
    assert [name for name, *_ in lists] == ["Fixed", "Broken"] * 2
    before = [naive_rank(runs["first"], pair) for pair in pairs]
    for other, (_, fixed_count, fixed), (_, broken_count, broken) in zip(["second", "third"], lists[::2], lists[1::2]):
        after = [naive_rank(runs[other], pair) for pair in pairs]
        right_fixed, right_broken = set(), set()
        for line, (pair, old, new) in enumerate(zip(pairs, before, after), 1):
            row = (*pair, str(old or ">\N{NO-BREAK SPACE}20"), str(new or ">\N{NO-BREAK SPACE}20"), str(line))
            if 1 <= new <= 10 and not 1 <= old <= 10:
                right_fixed.add(row)
            if 1 <= old <= 10 and not 1 <= new <= 10:
                right_broken.add(row)
        assert set(map(tuple, fixed)) == right_fixed and len(fixed) == len(right_fixed) == int(fixed_count) > 10
        assert set(map(tuple, broken)) == right_broken and len(broken) == len(right_broken) == int(broken_count) > 10
        comparison = value["compared_with_first"][other]["R@10"]
        assert (len(broken), len(fixed)) == (comparison["better"], comparison["worse"])
        deep = [int(row[2]) if row[2].isdigit() else 99 for row in fixed]
        assert deep == sorted(deep, reverse=True)  # what came from farthest is in front


def test_long_lists_are_cut_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LISTED", 3)
    pairs = [(f"q{i}", "t") for i in range(5)]
    other = write(tmp_path / "other.txt", "".join(f"q{i}\tt\t0.5\n" for i in range(5)))
    page = one_file(tmp_path, pairs, "q0\tx\t0.5\n", "--compare_with", other)
    (_, count, rows), (_, none, no_rows) = case_lists(page)
    assert (count, len(rows), none, no_rows) == ("5", 3, "0", [])
    assert "The first 3 of them" in page.section("changes").text()


def test_other_targets_of_the_query_are_marked(tmp_path):
    page = one_file(tmp_path, [("q", "a"), ("q", "b"), ("r", "x")], "q\tx\t0.9\nq\ta\t0.8\nq\tb\t0.7\n")
    marks = [[mark.text() for mark in item.all("em")] for item in page.section("worst").all("li")]
    assert marks == [[], ["another target", "the target"], ["the target", "another target"]]


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


def test_equal_runs_give_equal_bytes_and_the_next_one_replaces(case):
    folder, *_, flags = case
    page = folder / "a" / "out" / "report.html"
    before = page.read_bytes()
    other = folder / "b"
    assert run_process("python", "evaluate.py", *flags, "--report", str(other), PYTHONHASHSEED="2").returncode == 0
    assert (other / "report.html").read_bytes() == before
    write(other / "of the user", "x")
    for changed, equal in ((["--recall_num", "19"], False), ([], True)):
        assert evaluate.main([*flags, *changed, "--report", str(other)]) == 0
        assert ((other / "report.html").read_bytes() == before) is equal
        assert sorted(os.listdir(other)) == ["of the user", "report.html"]


@pytest.mark.parametrize("flags, words", [
    (["--report", "{tmp}/r.txt"], ["cannot make the folder", "r.txt"]),
    (["--report", "/proc/no"], ["cannot make the folder /proc/no"]), (["--report", ""], ["cannot make the folder"]),
    (["--report", "{tmp}/in"], ["--report would overwrite", "in/report.html", "--compare_with"]),
    (["--report", "{tmp}/link"], ["--report would overwrite", "--recall_result_file"]),
    (["--report", "{tmp}/in/../out", "--output_json", "{tmp}/out/report.html"], ["would overwrite", "--output_json"]),
    (["--report", "{tmp}/taken"], ["argument --report", "taken/report.html", "is a folder"]),
])
def test_places_that_are_refused_before_any_work(tmp_path, failure, monkeypatch, flags, words):
    monkeypatch.setattr(evaluate, "read_pairs", lambda path: pytest.fail("work has begun"))
    for name in ("in", "out", "link", "taken/report.html"):
        (tmp_path / name).mkdir(parents=True)
    result, other = write(tmp_path / "r.txt", "q\ta\t0.5\n"), write(tmp_path / "in" / "report.html", "q\ta\t0.4\n")
    (tmp_path / "link" / "report.html").symlink_to(result)
    line = failure(evaluate.main, ["--similar_pair_file", write(tmp_path / "p", "q\ta\n"), "--recall_result_file", result,
                                   "--compare_with", other, *(flag.format(tmp=tmp_path) for flag in flags)])
    assert all(word in line for word in words)
    assert Path(result).read_text() == "q\ta\t0.5\n" and Path(other).read_text() == "q\ta\t0.4\n"
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_refused(tmp_path, failure):
    (tmp_path / "out").mkdir(mode=0o500)
    line = failure(evaluate.main, ["--similar_pair_file", write(tmp_path / "p", "q\ta\n"), "--recall_result_file",
                                   write(tmp_path / "r", "q\ta\t0.5\n"), "--report", str(tmp_path / "out")])
    assert "out is not writable" in line


def test_a_failed_run_leaves_no_folder_and_no_half_a_page(tmp_path, failure, capsys, file_size_limit):
    pairs, bad = write(tmp_path / "p", "q\ta\n"), write(tmp_path / "bad.txt", "q\ta\n")
    flags = ["--similar_pair_file", pairs, "--report", str(tmp_path / "out"), "--recall_result_file"]
    assert "bad.txt" in failure(evaluate.main, [*flags, bad])
    assert not (tmp_path / "out").exists()
    good = write(tmp_path / "r.txt", "q\ta\t0.5\n")
    with file_size_limit(1000):
        assert evaluate.main([*flags, good]) == 2
    assert "cannot write" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert evaluate.main([*flags, good]) == 0
    before = (tmp_path / "out" / "report.html").read_bytes()
    with file_size_limit(1000):
        assert evaluate.main([*flags, good, "--recall_num", "3"]) == 2
    assert os.listdir(tmp_path / "out") == ["report.html"] and (tmp_path / "out" / "report.html").read_bytes() == before


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
