"""Evaluation -> one HTML page that stands alone: no script, and nothing asked of any host.

`render` is a pure function of what was evaluated: equal evaluations give equal bytes. Each text of the user's files
goes through `escape` into an element of its own (<bdi>): no markup and no direction mark in it reaches other text.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import metrics
from files import make_folder, whole_file

PAGE = "report.html"
STYLE = Path(__file__).with_name("web") / "report.css"
WORST, OPEN, SHOWN = 50, 10, 5  # queries listed; those not folded; texts found for each
LISTED = 2000  # cases that a run fixed, or broke, at most: more of them make a page that opens slowly
COLOURS, LABEL_GAP = 5, 7.0  # of the style sheet: more curves are dashed; per cent of the plot's height to a label
PICTURES = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}  # of control characters


@dataclass(frozen=True)
class Evaluation:
    """What the page tells of. `figures` is evaluate.py's JSON, `ranks` has those of each result file's cases."""

    pairs: list[tuple[str, str]]
    figures: dict
    ranks: dict[str, np.ndarray]
    result: dict[str, list[tuple[str, float]]]  # of the first file: the worst queries are its own
    recall_num: int
    keep_self: bool

    @property
    def first(self) -> str:
        return next(iter(self.ranks))

    def found(self, source: str) -> list[tuple[str, float]]:
        """The texts that count of those recalled for a source, best first."""
        rows = self.result.get(source, ())
        return [row for row in rows if self.keep_self or row[0] != source][: self.recall_num]


def write_report(folder: str, evaluation: Evaluation) -> None:
    page = render(evaluation, STYLE.read_text(encoding="utf-8"))
    with whole_file(make_folder(folder) / PAGE) as file:
        file.write(page.encode(errors="backslashreplace"))  # a file's name may be no UTF-8


def worst_cases(evaluation: Evaluation) -> list[int]:
    """The first case of each pair that has not rank 1, worst missed first; equal ones in the order of the file."""
    ranks = evaluation.ranks[evaluation.first].tolist()

    def order(case: int) -> tuple[int, float]:
        if ranks[case]:
            return 1, -ranks[case]  # deep ranks, after those that were not found: a sure answer is the worst of these
        found = evaluation.found(evaluation.pairs[case][0])
        return 0, -found[0][1] if found else math.inf

    cases: dict[tuple[str, str], int] = {}
    for case, pair in enumerate(evaluation.pairs):
        cases.setdefault(pair, case)
    return sorted((case for case in cases.values() if ranks[case] != 1), key=order)[:WORST]


def gained_cases(ranks: np.ndarray, before: np.ndarray) -> list[int]:
    """Cases that are hits at 10 by `ranks` and were none `before`, those that came from farthest in front."""
    hit, was_hit = ((r > 0) & (r <= 10) for r in (ranks, before))
    return sorted(np.flatnonzero(hit & ~was_hit).tolist(),
                  key=lambda case: (-(float(before[case]) or math.inf), ranks[case]))


def show(metric: str, value: float) -> str:
    """Recall in percent, the others as they are, the way they are published."""
    return f"{100 * value:.2f}" if metric.startswith("R@") else f"{value:.4f}"


def interval(metric: str, figure: dict) -> str:
    return f"[{show(metric, figure['low'])}, {show(metric, figure['high'])}]"


def show_score(score: float) -> str:
    """Four decimals line up; what they can't show, or not shortly, has four digits."""
    return f"{score:.4f}" if score == 0 or 1e-3 <= abs(score) < 1e5 else f"{score:.4g}"


def escape(text: str) -> str:
    """Text for an element or a quoted attribute; control characters, which HTML forbids, as their pictures."""
    return html.escape(text.translate(PICTURES))


def isolated(text: str) -> str:
    return f"<bdi>{escape(text)}</bdi>"


def series(index: int) -> str:
    return f"s{index % COLOURS}" + " dashed" * (index >= COLOURS)


def keyed(index: int, label: str) -> str:
    return f'<span class="key {series(index)}"></span>{isolated(label)}'


def table(name: str, header: list[str], rows: list[list[str]], words: int = 1, group: int = 1, css: str = "") -> str:
    """A table of HTML cells in a box of its own that scrolls: `words` columns of words, then numbers.

    Its `name` is for those who can't see it; `group` rows belong together.
    """
    kinds = ["" if i < words else ' class="n"' for i in range(len(header))]
    head = "".join(f'<th scope="col"{kind}>{cell}</th>' for kind, cell in zip(kinds, header))
    body = []
    for i, (first, *others) in enumerate(rows):
        start = ' class="start"' if i % group == 0 else ""
        cells = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others))
        body.append(f'<tr{start}><th scope="row">{first}</th>{cells}</tr>\n')
    return (f'<div class="box {css}" role="region" aria-label="{escape(name)}" tabindex="0"><table>\n'
            f'<thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(body)}</tbody></table></div>\n')


def render(evaluation: Evaluation, style: str) -> str:
    """The page."""
    first, *others = evaluation.ranks
    sections = {"figures": ("Figures", figures_table(evaluation)), "curves": ("Recall@K", curves(evaluation)),
                "parts": ("By part", parts_table(evaluation)), "worst": ("Worst queries", worst_list(evaluation)),
                "changes": ("Fixed and broken", "".join(changes(evaluation, i) for i in range(1, len(others) + 1)))}
    links = "".join(f'<a href="#{name}">{title}</a>\n' for name, (title, body) in sections.items() if body)
    main = "".join(f'<section id="{name}"><h2>{title}</h2>\n{body}</section>\n'
                   for name, (title, body) in sections.items() if body)
    against = f'<p class="against">against {", ".join(map(isolated, others))}</p>\n' if others else ""
    itself = "keeps its place (--keep_self)" if evaluation.keep_self else "does not count"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Recall report: {escape(first)}</title>
<style>
{style}</style></head>
<body><header><p class="eyebrow">Recall report</p>
<h1>{isolated(first)}</h1>
{against}<p class="note">{evaluation.figures["cases"]} cases. The best {evaluation.recall_num} texts
of a query count; a text that equals the query {itself}. In brackets: 95&nbsp;% bootstrap intervals.</p>
<nav aria-label="Contents">
{links}</nav></header>
<main>
{main}</main></body></html>
"""


def figures_table(evaluation: Evaluation) -> str:
    rows = [[keyed(i, label)] + [f"{show(name, system[name]['value'])}<small>{interval(name, system[name])}</small>"
                                 for name in metrics.METRICS]
            for i, (label, system) in enumerate(evaluation.figures["systems"].items())]
    return table("Figures", ["Result file", *metrics.METRICS], rows)


def parts_table(evaluation: Evaluation) -> str:
    """The figures of each part, one row for each result file; nothing without parts."""
    systems, rows = evaluation.figures["systems"], []
    for part, size in evaluation.figures["part_sizes"].items():
        for i, (label, system) in enumerate(systems.items()):
            name = isolated(part) if i == 0 else f'<span class="again">{isolated(part)}</span>'
            rows.append([name, keyed(i, label), str(size)]
                        + [show(metric, system["parts"][part][metric]) for metric in metrics.METRICS])
    header = ["Part", "Result file", "Cases", *metrics.METRICS]
    return table("Figures by part", header, rows, words=2, group=len(systems)) if rows else ""


@dataclass(frozen=True)
class Plot:
    """Places in a plot, in per cent of its width and height from the left and the top."""

    last: int  # the largest K
    ticks: list[float]  # of recall, in per cent

    def x(self, k: float) -> float:
        return 100 * (k - 1) / (self.last - 1) if self.last > 1 else 50.0

    def y(self, value: float) -> float:
        return 100 * (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])

    def grid(self) -> str:
        levels = "".join(f'<line x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/><text y="{y:.2f}%" dx="-10" dy="4" '
                         f'text-anchor="end">{t:g}</text>\n' for t, y in zip(self.ticks, map(self.y, self.ticks)))
        steps = ticks(0, self.last)
        gap = steps[1] / 2  # to the marks of both ends, which are there always
        marks = sorted({1, self.last} | {int(k) for k in steps if k % 1 == 0 and 1 + gap < k < self.last - gap})
        return levels + "".join(f'<text x="{self.x(k):.2f}%" y="100%" dy="24" text-anchor="middle">{k}</text>\n'
                                for k in marks)

    def line(self, index: int, curve: list[tuple[int, float]]) -> str:
        points = " ".join(f"{10 * self.x(k):.1f},{10 * self.y(value):.1f}" for k, value in curve)
        return f'<polyline class="{series(index)}" points="{points}"/>\n'

    def dots(self, index: int, label: str, ranks: np.ndarray) -> str:
        """The figures of the table on their curve; under a pointer they tell their values."""
        recalls = {k: 100 * metrics.recall_at(ranks, k) for k in metrics.RECALL_AT if k <= self.last}
        return "".join(f'<circle class="{series(index)}" cx="{self.x(k):.2f}%" cy="{self.y(value):.2f}%" r="3.5">'
                       f"<title>{escape(label)}: R@{k} {value:.2f}</title></circle>\n" for k, value in recalls.items())

    def names(self, labels: list[str], ends: list[float]) -> str:
        """The curves' names and last values: beside their ends, where there is room for that, else as a legend."""
        places, taken = [self.y(end) for end in ends], -math.inf
        for i in sorted(range(len(places)), key=places.__getitem__):  # moved down where they would cover each other
            places[i] = taken = max(places[i], taken + LABEL_GAP)
        items = "".join(f'<li style="--y:{places[i]:.2f}%">{keyed(i, label)}<span class="n">{ends[i]:.2f}</span></li>\n'
                        for i, label in enumerate(labels))
        return f'<ul class="names">\n{items}</ul>\n'


def curves(evaluation: Evaluation) -> str:
    """Recall@K against K, K from 1 to recall_num: drawn as wide as there is room, with letters of one size."""
    last, labels, ranks = evaluation.recall_num, list(evaluation.ranks), list(evaluation.ranks.values())
    lines = [recall_curve(r, last) for r in ranks]
    plot = Plot(last, ticks(min(line[0][1] for line in lines), max(line[-1][1] for line in lines)))
    drawn = "".join(plot.line(i, lines[i]) for i in reversed(range(len(lines))))  # the first on top
    dots = "".join(plot.dots(i, labels[i], ranks[i]) for i in reversed(range(len(lines))))
    return (f'<figure class="chart"><p class="axis">Recall@K in per cent</p>\n<svg class="plot" role="img" '
            f'aria-label="Recall@K against K">\n<g class="grid">{plot.grid()}</g>\n<svg viewBox="0 0 1000 1000" '
            f'preserveAspectRatio="none">\n{drawn}</svg>\n{dots}</svg>\n'
            f'<p class="axis">K</p>\n{plot.names(labels, [line[-1][1] for line in lines])}</figure>\n')


def recall_curve(ranks: np.ndarray, last: int) -> list[tuple[int, float]]:
    """(K, Recall@K in per cent) where the recall changes, and just before: the curve is straight between them."""
    changes = np.unique(ranks[ranks > 0]).tolist()
    places = sorted({1, last, *changes, *(k - 1 for k in changes)} - {0})
    return [(k, 100 * metrics.recall_at(ranks, k)) for k in places]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers at one distance, from the last up to `low` to the first from `high` on."""
    span = max(high - low, 1.0)
    magnitude = 10.0 ** math.floor(math.log10(span / 5))
    step = next(step for step in (magnitude * m for m in (1, 2, 5, 10)) if span / step <= 5)
    first, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == end:  # a level curve lies at the edge of the plot, below 100 per cent or above 0
        first, end = (first - 1, end) if first > 0 else (first, end + 1)
    return [round(i * step, 6) for i in range(first, end + 1)]


def worst_list(evaluation: Evaluation) -> str:
    """The worst queries; all but the first are folded."""
    entries = [worst_entry(evaluation, case) for case in worst_cases(evaluation)]
    if not entries:
        return '<p class="note">Each target is the first text of its query.</p>\n'
    intro = (f'<p class="note">The {len(entries)} worst of {isolated(evaluation.first)}: targets that were not found, '
             f"those first whose query found another text with the highest score; then the deepest ranks.</p>\n")
    shown, rest = (f'<ol class="worst">\n{"".join(some)}</ol>\n' for some in (entries[:OPEN], entries[OPEN:]))
    more = f'<details class="more"><summary>{len(entries) - OPEN} more</summary>\n{rest}</details>\n'
    return intro + shown + more * (len(entries) > OPEN)


def worst_entry(evaluation: Evaluation, case: int) -> str:
    """One query: what was wanted, what became of it, and what was found instead."""
    source, target = evaluation.pairs[case]
    found, rank = evaluation.found(source), evaluation.ranks[evaluation.first][case]
    fate = f"not in the best {evaluation.recall_num}"
    if rank:
        fate = f"rank {rank}, score {show_score(found[rank - 1][1])}"
    marks = {other: "<em>another target</em>" for query, other in evaluation.pairs if query == source}
    marks[target] = "<em>the target</em>"
    rows = [[str(place), isolated(text) + marks.get(text, ""), show_score(score)]
            for place, (text, score) in enumerate(found[:SHOWN], 1)]
    instead = table("Found instead", ["Rank", "Found instead", "Score"], rows, words=2, css="found")
    if not rows:
        instead = '<p class="note">No rows for this query.</p>'
    return (f'<li><div class="asked"><p class="fate">{fate}</p><dl><dt>Query</dt><dd>{isolated(source)}</dd>'
            f"<dt>Target</dt><dd>{isolated(target)}</dd></dl></div>\n{instead}</li>\n")


def changes(evaluation: Evaluation, index: int) -> str:
    """What the run `index` made of the first one's hits at 10: the cases, and the paired test of all figures."""
    (first, ranks), (second, others) = list(evaluation.ranks.items())[0], list(evaluation.ranks.items())[index]
    rows = [[name, show(name, c["difference"]), interval(name, c), f"{c['p']:.4f}", str(c["better"]),
             str(c["worse"])] for name, c in evaluation.figures["compared_with_first"][second].items()]
    header = ["Metric", "Difference", "95&nbsp;% interval", "p", "Cases better", "Cases worse"]
    columns = ["Query", "Target", f"Rank in {isolated(first)}", f"Rank in {isolated(second)}", "Line"]
    lists = "".join(case_list(evaluation, word, columns, cases, (ranks, others)) for word, cases in (
        ("Fixed", gained_cases(others, ranks)), ("Broken", gained_cases(ranks, others))))
    return (f'<h3>{isolated(second)} against {isolated(first)}</h3>\n<p class="note">Fixed: targets among the best 10 '
            f'of {isolated(second)}, not of {isolated(first)}. Broken: the other way round.</p>\n{lists}'
            f'<p class="note">{isolated(first)} minus {isolated(second)}; p of a paired randomisation test.</p>\n'
            f"{table('Paired test', header, rows)}")


def case_list(evaluation: Evaluation, word: str, columns: list[str], cases: list[int], ranks) -> str:
    """Cases with their ranks in two result files, folded."""
    beyond = f"&gt;&nbsp;{evaluation.recall_num}"
    rows = [[*map(isolated, evaluation.pairs[case]), *(str(r[case] or beyond) for r in ranks), str(case + 1)]
            for case in cases[:LISTED]]
    cut = f'<p class="note">The first {LISTED} of them.</p>\n' if len(cases) > LISTED else ""
    return (f'<details class="cases"><summary>{word} <b>{len(cases)}</b></summary>\n'
            f"{cut}{table(word, columns, rows, words=2, css='tall')}</details>\n")
