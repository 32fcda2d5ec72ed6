"""evaluate.py --report: what the page says, against computations of its own; where it may be written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import run_process, write
from report_page import Element, Page, one_file, worst_on

import evaluate
import metrics
import report


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
