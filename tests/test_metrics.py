import json
import math

import numpy as np
import pytest
from conftest import write
from scipy.stats import spearmanr

import evaluate
import metrics


def run(tmp_path, pairs: str, result: str, *flags: str) -> int:
    return evaluate.main(["--similar_pair_file", write(tmp_path / "pair.tsv", pairs), "--recall_result_file",
                          write(tmp_path / "result.txt", result), *flags])


def figures(tmp_path, pairs: str, result: str, *flags: str) -> dict[str, float]:
    path = tmp_path / "out.json"
    assert run(tmp_path, pairs, result, "--output_json", str(path), *flags) == 0
    (system,) = json.loads(path.read_text())["systems"].values()
    return {name: system[name]["value"] for name in metrics.METRICS}


def rows(*texts: str, source: str = "q") -> str:
    return "".join(f"{source}\t{text}\t{0.9 - 0.01 * i}\n" for i, text in enumerate(texts))


LOG3 = 1 / math.log2(3)


@pytest.mark.parametrize("pairs, result, flags, r1, r10, mrr, ndcg", [
    # The source is the last, the first, or between: it takes no place.
    ("q\ta\n", rows("a", "b", "q"), [], 1, 1, 1, 1),
    ("q\ta\n", rows("q", "a", "b"), [], 1, 1, 1, 1),
    ("q\ta\n", rows("b", "q", "a"), [], 0, 1, 1 / 2, LOG3),
    ("q\ta\n", rows("q", "a", "b"), ["--keep_self"], 0, 1, 1 / 2, LOG3),
    ("q\ta\nr\tb\n", rows("a", "q") + rows("b", "r", source="r"), [], 1, 1, 1, 1),
    # A text that the corpus holds twice counts once and takes one place.
    ("q\ta\n", rows("a", "a", "a"), [], 1, 1, 1, 1),
    ("q\ta\n", rows("b", "b", "a"), [], 0, 1, 1 / 2, LOG3),
    # Several targets: ranks 1 and 3.
    ("q\ta\nq\tb\n", rows("a", "x", "b"), [], 1 / 2, 1, (1 + 1 / 3) / 2, (1 + 1 / 2) / 2),
    ("q\ta\nq\tb\n", rows("a", "x", "b") * 2, [], 1 / 2, 1, (1 + 1 / 3) / 2, (1 + 1 / 2) / 2),
    # No rows is a miss.
    ("q\ta\nr\ta\n", rows("a"), [], 1 / 2, 1 / 2, 1 / 2, 1 / 2),
    # Equal cosines keep the file's order.
    ("q\ta\n", "q\tb\t0.5\nq\ta\t0.5\n", [], 0, 1, 1 / 2, LOG3),
    # Rank 11 is beyond MRR@10 and R@10; a smaller --recall_num cuts.
    ("q\ta\n", rows(*"bcdefghijk", "a"), [], 0, 0, 0, 0),
    ("q\ta\n", rows("b", "c", "a"), ["--recall_num", "2"], 0, 0, 0, 0),
])
def test_figures_worked_out_by_hand(tmp_path, pairs, result, flags, r1, r10, mrr, ndcg):
    got = figures(tmp_path, pairs, result, *flags)
    assert [got["R@1"], got["R@10"], got["MRR@10"], got["nDCG@10"]] == pytest.approx([r1, r10, mrr, ndcg])


def test_the_first_line_is_the_reference_s(tmp_path, capsys):
    assert run(tmp_path, "q\ta\nq\tb\nr\tc\n", rows("a", "b")) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "66.667\t66.667"
    assert "no rows for 1 of 3 cases" in err


@pytest.mark.parametrize("result, words", [
    ("q\ta\n", ["line 1", "2 columns"]), ("q\ta\t0.5\nq\tb\tabc\n", ["line 2", "'abc'"]),
    ("q\ta\tnan\n", ["line 1", "'nan'"]), ("q\ta\t0.5\n\n", ["line 2", "empty"]), ("", ["empty"]),
])
def test_bad_result_rows(tmp_path, failure, result, words):
    flags = ["--similar_pair_file", write(tmp_path / "p", "q\ta\n"), "--recall_result_file",
             write(tmp_path / "r.txt", result)]
    line = failure(evaluate.main, flags)
    assert all(word in line for word in ["r.txt", *words])


def test_parts_and_comparison(tmp_path, capsys):
    pairs = "".join(f"q{i}\tt{i}\n" for i in range(6))
    first = "".join(rows(f"t{i}", "x", source=f"q{i}") for i in range(6))
    second = "".join(rows("x", f"t{i}" if i else "y", source=f"q{i}") for i in range(6))
    other, out = write(tmp_path / "other.txt", second), tmp_path / "o.json"
    part = write(tmp_path / "part", "a\na\nb\nb\nb\nb\n")
    assert run(tmp_path, pairs, first, "--compare_with", other, "--part_file", part, "--output_json", str(out),
               "--plot", str(tmp_path / "p.png")) == 0
    value = json.loads(out.read_text())
    assert value["systems"]["other"]["parts"]["a"]["R@10"] == 0.5
    comparison = value["compared_with_first"]["other"]
    assert comparison["R@1"]["difference"] == 1 and comparison["R@1"]["better"] == 6
    assert comparison["R@10"]["better"] == 1 and comparison["R@10"]["worse"] == 0
    assert comparison["R@1"]["p"] == pytest.approx(2 / 64, abs=0.01)  # 2 of the 64 ways to swap are as extreme
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    write(tmp_path / "part", "a\n")
    assert run(tmp_path, pairs, first, "--part_file", part) == 2
    assert "1 labels for 6 pairs" in capsys.readouterr().err


def test_equal_systems_do_not_differ():
    values = metrics.case_values(np.array([1, 0, 3, 60]))
    test = metrics.paired_test(values, values, list("abcd"))
    assert (test["p"] == 1).all() and (test["difference"] == 0).all()


def test_bootstrap_against_a_loop():
    rng = np.random.default_rng(1)
    values, sources = rng.random((300, 1)), [f"s{i}" for i in rng.integers(0, 80, 300)]
    low, high = metrics.bootstrap_interval(values, sources)[:, 0]
    groups = {s: values[[i for i, x in enumerate(sources) if x == s], 0] for s in set(sources)}
    names, means = list(groups), []
    for _ in range(2000):
        means.append(np.concatenate([groups[names[i]] for i in rng.integers(0, len(names), len(names))]).mean())
    assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.01)
    assert low < values.mean() < high


def test_trec_files_hold_the_same_ranking(tmp_path):
    pairs, result = "q\ta\nq\tb\nr\tc\n", rows("q", "x", "a", "b") + rows("y", source="r")
    run_file, qrels = tmp_path / "run", tmp_path / "qrels"
    assert run(tmp_path, pairs, result, "--trec_run", str(run_file), "--trec_qrels", str(qrels)) == 0
    judged = {tuple(line.split()[::2]) for line in qrels.read_text().splitlines()}
    assert judged == {(evaluate.trec_id(s), evaluate.trec_id(t)) for s, t in ("qa", "qb", "rc")}
    table = [line.split() for line in run_file.read_text().splitlines()]
    assert [(row[0], row[2], row[3]) for row in table] == [
        (evaluate.trec_id(s), evaluate.trec_id(t), str(i)) for s, t, i in (("q", "x", 1), ("q", "a", 2), ("q", "b", 3),
                                                                           ("r", "y", 1))]
    assert all(row[1] == "Q0" and len(row) == 6 for row in table)


def test_label_agreement():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), np.round(rng.random(200), 1)
    got = metrics.label_agreement(scores, labels)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    best = max(((scores >= cut) == labels).mean() for cut in [*scores, 2])
    assert got["Spearman"] == pytest.approx(spearmanr(scores, labels).statistic)
    assert got["AUC"] == pytest.approx(np.mean(pairs))
    assert got["best-threshold accuracy"] == pytest.approx(best)


def test_the_first_line_has_recall_at_10_before_recall_at_50(tmp_path, capsys):
    assert run(tmp_path, "q\ta\n", rows(*"bcdefghijk", "a")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0.0\t100.0"


def test_a_repeated_text_keeps_its_best_cosine(tmp_path):
    got = figures(tmp_path, "q\tb\n", "q\tb\t0.9\nq\ta\t0.7\nq\tb\t0.5\n")
    assert got["R@1"] == 1


def test_the_interval_of_many_independent_cases_is_the_normal_one():
    values = np.random.default_rng(0).random((2000, 1))
    low, high = metrics.bootstrap_interval(values, [str(i) for i in range(2000)])[:, 0]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.08)


def test_cases_of_one_source_are_one_piece_of_evidence():
    better, worse = metrics.case_values(np.full(40, 1)), metrics.case_values(np.full(40, 2))
    assert metrics.paired_test(better, worse, ["q"] * 40)["p"][0] == 1  # both ways to swap are as extreme
    assert metrics.paired_test(better, worse, [str(i) for i in range(40)])["p"][0] == pytest.approx(1 / 10_001)
    assert metrics.paired_test(worse, better, [str(i) for i in range(40)])["p"][0] == pytest.approx(1 / 10_001)
    interval = metrics.bootstrap_interval(np.arange(40.0)[:, None], ["q"] * 40)
    assert interval.ravel().tolist() == [19.5, 19.5]


def test_scores_that_tell_nothing():
    got = metrics.label_agreement(np.full(4, 0.5), np.array([0, 1, 1, 1]))
    assert got == {"Spearman": 0, "AUC": 0.5, "best-threshold accuracy": 0.75}


def test_sources_that_nobody_asked_for_are_told(tmp_path, capsys):
    assert run(tmp_path, "q\ta\n", rows("a") + rows("a", source="other")) == 0
    assert "1 sources are not in the pair file" in capsys.readouterr().err


@pytest.mark.parametrize("flags, words", [([], "plain ranking (--keep_self): R@10 0.00, R@50 100.00"),
                                          (["--keep_self"], "without the source itself: R@10 100.00, R@50 100.00")])
def test_the_other_ranking_is_given_where_it_differs(tmp_path, capsys, flags, words):
    assert run(tmp_path, "q\ta\n", rows("q", *"bcdefghij", "a"), *flags) == 0
    assert words in capsys.readouterr().out
    assert run(tmp_path, "q\ta\n", rows("a"), *flags) == 0
    assert words.split(":")[0] not in capsys.readouterr().out


def test_the_table_is_in_percent_with_its_interval(tmp_path, capsys):
    pairs = "".join(f"q{i}\tt{i}\n" for i in range(40))
    result = "".join(rows(f"t{i}" if i % 4 else "x", source=f"q{i}") for i in range(40))
    assert run(tmp_path, pairs, result) == 0
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert table[0] == ["result file", *metrics.METRICS]
    assert table[2] == ["result", *["75.00"] * 4, "0.7500", "0.7500"]
    low, high = (float(number) for number in table[3][1].strip("[]").split(", "))
    assert 55 < low < 75 < high < 95


def test_files_of_one_name_are_told_apart():
    assert evaluate.label_files(["a/r.txt", "b/s.txt"]) == ["r", "s"]
    assert evaluate.label_files(["a/r.txt", "b/r.txt"]) == ["a/r.txt", "b/r.txt"]
    assert evaluate.label_files(["r.txt", "r.txt"]) == ["r.txt (1)", "r.txt (2)"]


def test_the_plot_has_recall_in_percent_over_k(tmp_path, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    assert run(tmp_path, "q\ta\nr\tb\n", rows("x", "a") + rows("b", source="r"), "--recall_num", "3", "--plot",
               str(tmp_path / "p.svg")) == 0
    (line,) = pyplot.gcf().axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == [50, 100, 100]
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


def test_a_plot_of_another_kind_is_refused(tmp_path, failure):
    flags = ["--similar_pair_file", write(tmp_path / "p", "q\ta\n"), "--recall_result_file", write(tmp_path / "r", rows("a"))]
    assert "p.gif' does not end in .png" in failure(evaluate.main, [*flags, "--plot", str(tmp_path / "p.gif")])


def test_trec_scores_fall_strictly_and_hold_the_counted_texts(tmp_path):
    pairs, result = "q\ta\nq\ta\n", "q\tx\t0.5\nq\ta\t0.5\nq\tb\t0.5\nq\tc\t0.1\n"
    run_file, qrels = tmp_path / "run", tmp_path / "qrels"
    assert run(tmp_path, pairs, result, "--trec_run", str(run_file), "--trec_qrels", str(qrels), "--recall_num", "3") == 0
    scores = [float(line.split()[4]) for line in run_file.read_text().splitlines()]
    assert scores == [0.5, 0.499999, 0.499998]
    assert len(qrels.read_text().splitlines()) == 1
