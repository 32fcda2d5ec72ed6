import itertools

import numpy as np
import pytest
from conftest import PROJECT, run_process, write

import evaluate
import fuse
import metrics

A = "q\ta\t0.9\nq\tb\t0.5\nq\tc\t0.1\n"
B = "q\tc\t20\nq\td\t10\n"


def run(tmp_path, files: list[str], *flags: str) -> list[tuple[str, str, float]]:
    """Join files of these contents."""
    assert fuse.main(flags_of(tmp_path, files, *flags)) == 0
    rows = [line.split("\t") for line in (tmp_path / "fused.txt").read_text().splitlines()]
    return [(source, text, float(score)) for source, text, score in rows]


def flags_of(tmp_path, files: list[str], *flags: str) -> list[str]:
    paths = [write(tmp_path / f"{i}.txt", content) for i, content in enumerate(files)]
    return ["--recall_result_file", *paths, "--output_file", str(tmp_path / "fused.txt"), *flags]


def ranking(texts: str, source: str = "q") -> str:
    return "".join(f"{source}\t{text}\t{0.9 - 0.01 * i:.6f}\n" for i, text in enumerate(texts))


@pytest.mark.parametrize("files, flags, expected", [
    # 1/63 + 1/61; 1/61; 1/62 twice, where the first file's goes first.
    ([A, B], [], [("c", 0.032266), ("a", 0.016393), ("b", 0.016129), ("d", 0.016129)]),
    ([A, B], ["--rrf_k", "0"], [("c", 1.333333), ("a", 1), ("b", 0.5), ("d", 0.5)]),
    ([A, B], ["--rrf_k", "1", "--weights", "1", "3"], [("c", 1.75), ("d", 1), ("a", 0.5), ("b", 0.333333)]),
    ([B, A], ["--rrf_k", "0"], [("c", 1.333333), ("a", 1), ("d", 0.5), ("b", 0.5)]),
    ([A, B], ["--weights", "0.7", "0.3"], [("c", 0.016029), ("a", 0.011475), ("b", 0.011290), ("d", 0.004839)]),
    # a 1, b 1/2, c 0; c 1, d 0.
    ([A, B], ["--method", "scores"], [("a", 1), ("c", 1), ("b", 0.5), ("d", 0)]),
    ([B, A], ["--method", "scores"], [("c", 1), ("a", 1), ("b", 0.5), ("d", 0)]),
    ([A, B], ["--method", "scores", "--weights", "0.7", "0.3"], [("a", 0.7), ("b", 0.35), ("c", 0.3), ("d", 0)]),
    ([A, B], ["--method", "scores", "--weights", "0", "2"], [("c", 2), ("a", 0), ("b", 0), ("d", 0)]),
    ([A, B, B], ["--method", "scores"], [("c", 2), ("a", 1), ("b", 0.5), ("d", 0)]),
    # Negative scores; rows in any order, repeated ones, a block for each of two pair lines.
    (["q\tb\t-3\nq\ta\t-1\n" * 2, B], ["--method", "scores"], [("a", 1), ("c", 1), ("b", 0), ("d", 0)]),
    (["q\tb\t-3\nq\ta\t-1\n" * 2, B], ["--rrf_k", "0"], [("a", 1), ("c", 1), ("b", 0.5), ("d", 0.5)]),
    # Equal scores all count as the highest; the difference of the largest numbers is beyond float64.
    (["q\tx\t0.3\n", "q\ty\t5\nq\tz\t5\n"], ["--method", "scores"], [("x", 1), ("y", 1), ("z", 1)]),
    (["q\tx\t1.7e308\nq\ty\t0\nq\tz\t-1.7e308\n", B], ["--method", "scores"], [("x", 1), ("c", 1), ("y", 0.5), ("z", 0), ("d", 0)]),
    ([A, B], ["--recall_num", "2"], [("c", 0.032266), ("a", 0.016393)]),
])
def test_scores_worked_out_by_hand(tmp_path, files, flags, expected):
    assert run(tmp_path, files, *flags) == [("q", text, pytest.approx(score, abs=6e-7)) for text, score in expected]


@pytest.mark.parametrize("method, name", itertools.product(["rrf", "scores"], ["0.txt", "1.txt"]))
def test_one_file_twice_keeps_its_ranking(tmp_path, method, name):
    rng = np.random.default_rng(0)
    # Few different scores: ties, which keep their order.
    content = "".join(f"q{i}\tt{j}\t{score:.6f}\n" for i in range(20)
                      for j, score in enumerate(rng.integers(0, 12, 40) / 7 - 0.4))
    weights = ["--weights", "0.1", "0.7"] if name == "1.txt" else []
    rows = run(tmp_path, [content, content], "--method", method, "--recall_num", "40", *weights)
    before, after = metrics.read_result(str(tmp_path / name)), metrics.read_result(str(tmp_path / "fused.txt"))
    assert list(before) == list(after) and len(rows) == 800
    assert all([text for text, _ in before[q]] == [text for text, _ in after[q]] for q in before)


def test_ties_of_three_files_go_by_the_first(tmp_path):
    """Each text has the ranks 1, 2 and 3, met in another order: sums rounded on the way would differ."""
    for k in range(60, 80):
        rows = run(tmp_path, [ranking("xyz"), ranking("yzx"), ranking("zxy")], "--rrf_k", str(k), "--weights", *["0.1"] * 3)
        assert [text for _, text, _ in rows] == ["x", "y", "z"]


def test_sources_stand_in_the_order_of_the_first_file_and_gaps_are_told(tmp_path, capsys):
    files = [ranking("ab", "r") + ranking("a", "p"), ranking("c", "s") + ranking("b", "p"), ranking("d", "p") + ranking("e", "o")]
    rows = run(tmp_path, files, "--rrf_k", "0", "--weights", "1", "1", "3")
    assert [row[:2] for row in rows] == [("r", "a"), ("r", "b"), ("p", "d"), ("p", "a"), ("p", "b"), ("s", "c"), ("o", "e")]
    err = capsys.readouterr().err
    for i in range(3):
        assert f"{i}.txt: no rows for 2 of 4 sources" in err
    assert "fused.txt: 7 rows for 4 sources" in err
    run(tmp_path, [A, B])
    assert "no rows" not in capsys.readouterr().err


def test_files_with_and_without_the_sources_themselves_are_told(tmp_path, capsys):
    run(tmp_path, [A, ranking("qa"), B])
    assert f"{tmp_path}/1.txt lists sources among their own texts and {tmp_path}/0.txt does not" in capsys.readouterr().err
    run(tmp_path, [ranking("aq"), ranking("qa")])
    assert "among their own" not in capsys.readouterr().err


@pytest.mark.parametrize("files, flags, words", [
    ([A], [], ["--recall_result_file", "two or more"]),
    ([A, B], ["--weights", "1"], ["--weights", "1 for 2"]), ([A, B], ["--weights", "1", "2", "3"], ["--weights", "3 for 2"]),
    ([A, B], ["--weights", "1", "-0.5"], ["--weights", "'-0.5'"]), ([A, B], ["--weights", "1", "x"], ["--weights", "'x'"]),
    ([A, B], ["--weights", "0", "0"], ["--weights", "sum is 0"]),
    ([A, B], ["--weights", "1e308", "1e308"], ["--weights", "sum is inf"]),
    ([A, B], ["--method", "mean"], ["--method", "'mean'"]), ([A, B], ["--rrf_k", "-1"], ["--rrf_k", "'-1'"]),
    ([A, B], ["--recall_num", "0"], ["--recall_num", "'0'"]),
    ([A, B], ["--output_file", "{tmp}/1.txt"], ["--output_file would overwrite", "--recall_result_file"]),
    ([A, B], ["--output_file", "{tmp}"], ["--output_file", "is a folder"]),
    ([A, B], ["--recall_result_file", "nope", "{tmp}/0.txt"], ["--recall_result_file", "'nope' does not exist"]),
    ([A, ""], [], ["1.txt", "empty"]), ([A, "q\ta\t0.5\nq\tb\n"], [], ["1.txt: line 2", "2 columns"]),
    ([A, "q\ta\tnan\n"], [], ["1.txt: line 1", "score 'nan'"]), (["q\ta\tx\n", B], [], ["0.txt: line 1", "score 'x'"]),
])
def test_bad_input(tmp_path, failure, files, flags, words):
    line = failure(fuse.main, flags_of(tmp_path, files, *(flag.format(tmp=tmp_path) for flag in flags)))
    assert all(word in line for word in words)
    assert not (tmp_path / "fused.txt").exists()
    assert [(tmp_path / f"{i}.txt").read_text() for i in range(len(files))] == files


def test_scores_that_differ_little_are_told_apart(tmp_path):
    rows = run(tmp_path, [ranking("abc"), ranking("abd")], "--rrf_k", "1000000")
    assert len({score for _, _, score in rows}) == 3  # those of c and d are equal


def test_a_run_from_the_command_line_needs_no_paddle(tmp_path):
    code = "import sys, fuse as s; c = s.main(sys.argv[1:]); sys.exit(c or ('paddle' in sys.modules) * 9)"
    done = run_process("python", "-c", code, *flags_of(tmp_path, [A, B], "--output_file", "/dev/stdout"))
    assert done.returncode == 0 and done.stdout.startswith("q\tc\t0.0322664585\nq\ta\t0.0163934426\n"), done.stderr
    bad = run_process("python", str(PROJECT / "fuse.py"), *flags_of(tmp_path, [A, ""]))
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and bad.stderr.startswith("error: ")


def test_what_is_joined_is_evaluated_beside_its_parts(tmp_path, capsys):
    """Either file finds one of the targets; both together find both."""
    run(tmp_path, [ranking("ax"), ranking("by")])
    flags = ["--similar_pair_file", write(tmp_path / "p", "q\ta\nq\tb\n"), "--recall_result_file", str(tmp_path / "fused.txt"),
             "--compare_with", str(tmp_path / "0.txt"), str(tmp_path / "1.txt"),
             "--part_file", write(tmp_path / "part", "one\ntwo\n")]
    capsys.readouterr()
    assert evaluate.main(flags) == 0
    out = capsys.readouterr().out
    assert out.startswith("100.0\t100.0\n") and "fused minus 0" in out and "fused minus 1" in out
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| two")]
    assert [row[2:5:2] for row in table] == [["fused", "100.00"], ["0", "0.00"], ["1", "100.00"]]
