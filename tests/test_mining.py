"""Mined negatives against a brute-force oracle in plain NumPy, through the command line."""

import unicodedata

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, write
from mining_case import CORPUS, OTHERS, PAIRS, flags_of, lines, mine_fixture  # noqa: F401 - a fixture
from test_recall import run as recall_rows
from test_recall import vectors_of

import mine_hard_negatives
from train_data import read_train_set

pytestmark = pytest.mark.usefixtures("compiled_once")


def same(text: str) -> str:
    """Brute force: letters, numbers, symbols and marks alone, of one width and case."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNSM")


def excluded(source: str, pairs) -> set[str]:
    both = [*pairs, *(pair[::-1] for pair in pairs)]
    return {same(source)} | {same(target) for other, target in both if same(other) == same(source)}


@pytest.fixture
def oracle(trained, tmp_path):
    """What may be drawn for each row: texts in the window, left by exclusion and filters."""
    texts = list(dict.fromkeys([*CORPUS, *(text for pair in PAIRS for text in pair)]))
    vector = dict(zip(texts, vectors_of(trained, texts, tmp_path)))

    def allowed(low: int, high: int, ratio=None, margin=None, corpus=CORPUS, pairs=PAIRS,
                once=True) -> list[set[str]]:
        found = []
        for source, target in pairs:
            cosines = np.array([vector[text] @ vector[source] for text in corpus])
            order = [i for i in np.argsort(-cosines, kind="stable") if same(corpus[i]) not in excluded(source, pairs)]
            best_of_alike = {same(corpus[i]): i for i in reversed(order)}.values()
            order = sorted(best_of_alike, key=lambda i: (-cosines[i], i)) if once else order
            own = vector[source] @ vector[target]
            found.append({corpus[i] for i in order[low:high]
                          if (ratio is None or cosines[i] <= max(own, 0) * ratio)
                          and (margin is None or cosines[i] <= own - margin)})
        return found
    return allowed


def assert_drawn(rows, allowed, count: int) -> None:
    """The right number for each row, without repeats, and from what is allowed; all of it where no more is wanted."""
    assert [tuple(row[:2]) for row in rows] == PAIRS
    for row, right in zip(rows, allowed):
        assert len(set(row[2:])) == len(row) - 2 == min(count, len(right)) and set(row[2:]) <= right, row


WINDOWS = [(0, 5, {}), (3, 7, {}), (0, 12, {"ratio": 0.9}), (2, 12, {"margin": 0.1}), (0, 20, {"ratio": 0.8, "margin": 0.05}),
           (0, 100, {}), (30, 60, {})]


@pytest.mark.parametrize("low, high, filters", WINDOWS)
def test_all_that_may_be_drawn_is_what_a_plain_numpy_search_allows(mine, oracle, low, high, filters):
    flags = ["--range_min", str(low), "--range_max", str(high)]
    flags += ["--max_similarity_ratio", str(filters["ratio"])] if "ratio" in filters else []
    flags += ["--absolute_margin", str(filters["margin"])] if "margin" in filters else []
    right = oracle(low, high, **filters)
    sizes = {len(texts) for texts in right}
    assert len(sizes) > 1 or sizes == {high - low}, "the case has to tell something"
    assert_drawn(mine("--num_negatives", "100", *flags), right, 100)
    assert_drawn(mine("--num_negatives", "2", *flags), right, 2)


def test_rows_of_one_source_draw_each_for_itself_and_by_its_own_target(mine, oracle):
    right = oracle(0, 20, ratio=0.9)
    places = [0, 16, 20]  # rows of SOURCES[0]
    assert len({frozenset(right[i]) for i in places}) > 1
    assert_drawn(mine("--num_negatives", "50", "--range_max", "20", "--max_similarity_ratio", "0.9"), right, 50)


def test_a_window_is_full_however_many_positives_and_variants_stand_before_it(mine, trained, tmp_path):
    """The source's likes fill the first places: a search that stops at the window's size finds nothing else."""
    signs = "!?。，、；：“”（）【】《》…—·.,;:'\"()[]{}-_/\\&%#@*"
    likes = [SOURCES[0] + one + two for one in signs for two in signs[:3]]
    reverse = [(f"{SOURCES[0]}{i}号", SOURCES[0]) for i in range(30)]
    write(tmp_path / "many", lines([text] for text in [*likes, *(text for text, _ in reverse), *TARGETS]))
    write(tmp_path / "pairs.tsv", lines([(SOURCES[0], TARGETS[0]), *reverse]))
    row = mine("--range_max", "15", "--num_negatives", "15", corpus="many")[0]
    assert set(row[2:]) == set(TARGETS[1:]) and len(row) == 2 + 15


def test_what_differs_from_a_positive_in_signs_alone_is_never_taken(mine, tmp_path):
    positives = ["Ａｐｐ 登录密码", "怎么重置", "50%", "?!"]
    likes = ["app登录密码", "APP，登录密码！", "ａｐｐ\u3000登录密码。", "怎么\u200b重置？", "怎 么 重 置", "５０％", "50"]
    others = ["apq登录密码", "怎么重置吗", "500", "?", "+50", "怎么重置了"]
    write(tmp_path / "c", lines([text] for text in [*likes, *positives, *others, "   ", "\u3000"]))
    write(tmp_path / "p", lines(("宽带多久能装好", target) for target in positives))
    write(tmp_path / "back", lines((target, "宽带多久能装好") for target in positives[:3]) + lines([("宽带多久能装好", "?!")]))
    for pairs in ("p", "back"):
        row = mine("--num_negatives", "50", corpus="c", pairs=pairs)[-1]
        assert row[:2] == ["宽带多久能装好", "?!"] and sorted(row[2:]) == sorted(others)  # blank texts are none either
    write(tmp_path / "r", lines(("宽带多久能装好", text, "0.5") for text in [*likes, "", " ", *others, *positives]))
    row = mine("--num_negatives", "50", "--recall_result_file", str(tmp_path / "r"), pairs="p", params=False)[0]
    assert sorted(row[2:]) == sorted(others)
    read_train_set(str(tmp_path / "mined.tsv"))


def test_the_same_seed_is_the_same_bytes_and_another_another_draw(mine, tmp_path, capsys):
    made, told = [], []
    for seed in "0010":
        capsys.readouterr()
        mine("--range_max", "20", "--num_negatives", "2", "--seed", seed)
        made.append((tmp_path / "mined.tsv").read_bytes())
        told.append(capsys.readouterr().out)
    assert made[0] == made[1] == made[3] != made[2] and told[0] == told[1] == told[3] != told[2]


def test_the_draw_is_uniform_in_the_window(mine, tmp_path):
    """One source 2,000 times over, with a result file: ranks 5 to 14 are drawn 200 times each, and no other."""
    ranked = [f"文本{i}" for i in range(30)]
    write(tmp_path / "p", lines([(SOURCES[0], TARGETS[0])] * 200))
    write(tmp_path / "r", lines((SOURCES[0], text, f"{0.9 - i / 100:.6f}") for i, text in enumerate(ranked)))
    counts = np.zeros(30, dtype=int)
    for seed in range(5):
        rows = mine("--recall_result_file", str(tmp_path / "r"), "--range_min", "5", "--range_max", "15",
                    "--num_negatives", "2", "--seed", str(seed), params=False, pairs="p")
        assert all(len(set(row[2:])) == 2 for row in rows)
        np.add.at(counts, [ranked.index(text) for row in rows for text in row[2:]], 1)
    assert counts.sum() == 2000 and counts[5:15].sum() == 2000
    assert ((counts[5:15] - 200) ** 2 / 200).sum() < 33  # chi-square of 9 degrees: p = 1e-4


@pytest.mark.parametrize("params", [True, False])
def test_a_result_file_gives_what_the_search_gives(mine, oracle, trained, tmp_path, params, capsys):
    recall_rows(trained, str(tmp_path / "pairs.tsv"), str(tmp_path / "corpus"), tmp_path / "r", "--recall_num", "60",
                "--ann_engine", "flat")
    result = ["--recall_result_file", str(tmp_path / "r" / "recall_result.txt")]
    capsys.readouterr()
    assert_drawn(mine(*result, "--range_min", "2", "--range_max", "9", "--num_negatives", "9", params=params), oracle(2, 9), 9)
    assert ("mean cosine of source and target" in capsys.readouterr().out) == params
    if params:
        rows = mine(*result, "--range_max", "20", "--num_negatives", "50", "--max_similarity_ratio", "0.9")
        assert_drawn(rows, oracle(0, 20, ratio=0.9), 50)


def test_a_result_files_own_order_is_the_ranking_and_the_checkpoint_judges(mine, oracle, tmp_path):
    """As of lexical_recall.py: its scores are no cosines."""
    rng = np.random.default_rng(0)
    order = [CORPUS[i] for i in rng.permutation(len(CORPUS))]
    write(tmp_path / "r", lines((source, text, f"{900 - i}.5") for source in dict(PAIRS) for i, text in enumerate(order)))
    rows = mine("--recall_result_file", str(tmp_path / "r"), "--range_min", "1", "--range_max", "9", "--num_negatives", "9",
                "--absolute_margin", "0.05")
    near = oracle(0, 1000, margin=0.05, once=False)
    for row, right in zip(rows, near):
        first = {same(text): text for text in reversed(order)}.values()
        window = [text for text in order if text in first and same(text) not in excluded(row[0], PAIRS)][1:9]
        assert set(row[2:]) == set(window) & right
    assert {len(row) - 2 for row in rows} > {8}  # the margin has left some out


def test_sources_without_rows_get_no_negatives_and_strange_files_are_refused(mine, trained, tmp_path, failure, capsys):
    write(tmp_path / "r", lines((SOURCES[0], text, "0.5") for text in OTHERS))
    capsys.readouterr()
    rows = mine("--recall_result_file", str(tmp_path / "r"), params=False)
    assert [len(row) for row in rows] == [3 if row[0] == SOURCES[0] else 2 for row in rows]
    out, err = capsys.readouterr()
    assert "no rows for 18 of 19 sources" in err and "21 rows, 3 negatives; 3 rows have all 1, 18 have none" in out
    for content, words in ((lines([("别的", "文本", "0.5")]), "has rows for none of the sources"), ("a\tb\n", "2 columns where 3 belong")):
        before = (tmp_path / "mined.tsv").read_bytes()
        line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, "--recall_result_file",
                                                          write(tmp_path / "r", content), params=False))
        assert words in line and (tmp_path / "mined.tsv").read_bytes() == before


def test_a_corpus_smaller_than_the_window_gives_fewer(mine, tmp_path, capsys):
    write(tmp_path / "c", lines([[TARGETS[0]], [TARGETS[1]], [OTHERS[0]], [OTHERS[1]]]))
    rows = mine("--num_negatives", "3", corpus="c")
    assert len(rows[0]) == 2 + 2 and len(rows[5]) == 2 + 3 and set(rows[0][2:]) == set(OTHERS[:2])
    out = capsys.readouterr().out
    assert "21 rows, 60 negatives; 18 rows have all 3, 0 have none" in out
    rows = mine("--range_min", "4", corpus="c")
    assert rows == [list(pair) for pair in PAIRS] and "0 negatives; 0 rows have all 1, 21 have none" in capsys.readouterr().out


def test_statistics_and_sample_are_those_of_the_rows(mine, oracle, trained, tmp_path, capsys):
    texts = list(dict.fromkeys([*CORPUS, *(text for pair in PAIRS for text in pair)]))
    vector = dict(zip(texts, vectors_of(trained, texts, tmp_path)))
    capsys.readouterr()
    rows = mine("--num_negatives", "2", "--range_max", "20", "--max_similarity_ratio", "0.9")
    out = capsys.readouterr().out.splitlines()
    negatives = [vector[row[0]] @ vector[text] for row in rows for text in row[2:]]
    left_out = sum(len(every) - len(left) for every, left in zip(oracle(0, 20), oracle(0, 20, ratio=0.9)))
    full, none = (sum(len(row) == wanted for row in rows) for wanted in (4, 2))
    assert out[:4] == [f"{tmp_path / 'mined.tsv'}: 21 rows, {len(negatives)} negatives; {full} rows have all 2, {none} have none",
                       f"candidates left out as too near: {left_out}", f"mean score of the negatives: {np.mean(negatives):.4f}",
                       f"mean cosine of source and target: {np.mean([vector[s] @ vector[t] for s, t in PAIRS]):.4f}"]
    shown = [sample.split("\n") for sample in "\n".join(out[5:]).split("\n\n")]
    assert len(shown) == 5
    for sample in shown:
        row = next(row for row in rows if sample[0] == row[0] and sample[1].endswith(f"\t{row[1]}"))
        assert sample[1:] == [f"  +  {vector[row[0]] @ vector[row[1]]:.3f}\t{row[1]}",
                              *(f"  -  {vector[row[0]] @ vector[text]:.3f}\t{text}" for text in row[2:])]


def test_of_texts_that_count_as_one_only_the_first_is_a_candidate(mine, tmp_path):
    write(tmp_path / "r", lines((SOURCES[0], text, "0.5") for text in ["别的一条", "别的一条？", "别的 一条", "又一条"]))
    rows = mine("--recall_result_file", str(tmp_path / "r"), "--num_negatives", "4", params=False)
    assert sorted(rows[0][2:]) == sorted(["别的一条", "又一条"])
