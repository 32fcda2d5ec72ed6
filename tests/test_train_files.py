"""Training files: JSON lines, columns, and texts alone."""

import json
import os

import numpy as np
import pytest
from conftest import readme_excerpts, write

from data import known_positives
from files import UserError
from train_data import TrainSet, read_train_set


def rows_of(data: TrainSet) -> list[list[str]]:
    """Source, target and negatives of each row, as texts."""
    return [[data.texts[i] for i in (source, target, *negatives)]
            for source, target, negatives in zip(data.sources, data.targets, data.negatives)]


def json_rows(path, *objects) -> list[list[str]]:
    return rows_of(read_train_set(write(path, "".join(json.dumps(value) + "\n" for value in objects))))


def assert_same(a: TrainSet, b: TrainSet) -> None:
    assert (a.texts, a.negatives, a.positives, a.unlabelled) == (b.texts, b.negatives, b.positives, b.unlabelled)
    for x, y in ((a.sources, b.sources), (a.targets, b.targets)):
        assert x.dtype == y.dtype == np.int64 and x.tolist() == y.tolist()


def error_of(path, text: str) -> str:
    """The one line that a bad file gives."""
    with pytest.raises(UserError) as error:
        read_train_set(write(path, text))
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    line.encode()  # it can be printed
    return line


def test_equal_content_gives_equal_rows_from_columns_and_json(tmp_path):
    """Ids too: texts are numbered by source, target, negatives, in the order of the rows."""
    columns = "q\tb\tn2\tn1\nq\ta\tn2\tn1\nr\tq\na\tr\tb\n中 \"\\\t nan\n"
    objects = [{"query": "q", "pos": ["b", "a"], "neg": ["n2", "n1"]}, {"pos": "q", "neg": [], "query": "r"},
               {"query": "a", "pos": "r", "neg": "b"}, {"query": "中 \"\\", "pos": [" nan"]}]
    lines = "".join(json.dumps(value, ensure_ascii=value["query"] != "q") + "\n" for value in objects)
    tsv = read_train_set(write(tmp_path / "t.tsv", columns))
    assert_same(tsv, read_train_set(write(tmp_path / "t.jsonl", lines)))
    assert tsv.texts == ["q", "b", "n2", "n1", "a", "r", "中 \"\\", " nan"] and not tsv.unlabelled
    assert tsv.sources.tolist() == [0, 0, 5, 4, 6] and tsv.targets.tolist() == [1, 4, 0, 5, 7]
    assert tsv.negatives == [[2, 3], [2, 3], [], [1], []] and tsv.positives[0] == {0, 1, 4, 5}


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json", "T.JSONL", "a.tsv.Json"])
def test_the_name_says_that_a_file_is_json(tmp_path, name):
    assert json_rows(tmp_path / name, {"query": "q", "pos": "p"}) == [["q", "p"]]


@pytest.mark.parametrize("negatives", [{}, {"neg": None}, {"neg": []}, {"neg": ""}])
def test_negatives_may_be_missing(tmp_path, negatives):
    """So rows differ in how many they have."""
    rows = json_rows(tmp_path / "t.jsonl", {"query": "q", "pos": ["p"], **negatives}, {"query": "r", "pos": "s", "neg": "n"},
                     {"query": "t", "pos": "u", "neg": ["x", "y", "x"]})
    assert rows == [["q", "p"], ["r", "s", "n"], ["t", "u", "x", "y", "x"]]


def test_each_positive_is_a_row_in_order_and_repeated_ones_stay(tmp_path):
    assert json_rows(tmp_path / "t.jsonl", {"query": "q", "pos": ["b", "a", "b"], "neg": "n"}) == [
        ["q", "b", "n"], ["q", "a", "n"], ["q", "b", "n"]]


def test_other_keys_are_ignored_whatever_they_hold(tmp_path):
    line = ('{"id": %s, "prompt": "", "type": null, "pos_scores": [NaN, -1e999999], "answers": [[{"query": 7}]], "query": "first", '
            '"query": "q", "pos": ["p"], "neg_scores": [0.1], "docs": "\\ud800"}\n' % ("9" * 100_000))
    assert rows_of(read_train_set(write(tmp_path / "t.jsonl", line))) == [["q", "p"]]  # the last of equal keys, as in json


def test_json_texts_are_kept_as_they_are(tmp_path):
    texts = [" a\tb\nc\r ", "\u2028\x85\x0b\0", "\ufeffx", "😀"]
    assert json_rows(tmp_path / "t.jsonl", {"query": texts[0], "pos": texts[1:]}) == [[texts[0], text] for text in texts[1:]]


def test_json_lines_end_as_all_lines_do(tmp_path):
    text = '\ufeff {"query": "q", "pos": "a\u2028b"} \r\n{"query": "r", "pos": "s"}'
    assert rows_of(read_train_set(write(tmp_path / "t.jsonl", text))) == [["q", "a\u2028b"], ["r", "s"]]


GOOD = '{"query": "q", "pos": "p"}\n'


@pytest.mark.parametrize("line, words", [
    ('{"query": "q", "pos": }', "not JSON: Expecting value (character 23)"),
    ('{"query": "q", "pos": "p"} x', "not JSON: Extra data (character 28)"),
    ('{"query": "a\tb", "pos": "p"}', "not JSON: Invalid control character at (character 13)"),
    ("q\tp", "not JSON: Expecting value (character 1)"),
    ("", "the line is empty"),
    (" \r", "the line is empty"),
    ('["q", "p"]', "a list where an object belongs"),
    ('"query pos"', "a string where an object belongs"),
    ("1", "a number where an object belongs"),
    ("null", "null where an object belongs"),
    ("true", "a truth value where an object belongs"),
    ("{}", '"query" is missing'),
    ('{"pos": "p"}', '"query" is missing'),
    ('{"query": null, "pos": "p"}', '"query" is null where a string belongs'),
    ('{"query": ["q"], "pos": "p"}', '"query" is a list where a string belongs'),
    ('{"query": 1, "pos": "p"}', '"query" is a number where a string belongs'),
    ('{"query": " \\t", "pos": "p"}', '"query" is empty or blank'),
    ('{"query": "q", "neg": "n"}', '"pos" is missing'),
    ('{"query": "q", "pos": null}', '"pos" is null where a string belongs'),
    ('{"query": "q", "pos": []}', '"pos" is empty'),
    ('{"query": "q", "pos": ""}', '"pos" is empty or blank'),
    ('{"query": "q", "pos": {"text": "p"}}', '"pos" is an object where a string belongs'),
    ('{"query": "q", "pos": ["p", ["p"]]}', 'text 2 of "pos" is a list where a string belongs'),
    ('{"query": "q", "pos": ["p", "\\u3000"]}', 'text 2 of "pos" is empty or blank'),
    ('{"query": "q", "pos": "p", "neg": 0}', '"neg" is a number where a string belongs'),
    ('{"query": "q", "pos": "p", "neg": false}', '"neg" is a truth value where a string belongs'),
    ('{"query": "q", "pos": "p", "neg": {}}', '"neg" is an object where a string belongs'),
    ('{"query": "q", "pos": "p", "neg": ["n", null]}', 'text 2 of "neg" is null where a string belongs'),
    ('{"query": "q", "pos": "p", "neg": [""]}', 'text 1 of "neg" is empty or blank'),
    ('{"query": "q", "pos": "p", "neg": " "}', '"neg" is empty or blank'),
    ('{"query": "ab\\ud800", "pos": "p"}', '"query" has half a character, \\ud800, at character 3'),
    ('{"query": "q", "pos": ["p", "\\udc00\\ud83d"]}', 'text 2 of "pos" has half a character, \\udc00, at character 1'),
    ('{"query": "q", "pos": "p", "neg": "\\ud83dx"}', '"neg" has half a character, \\ud83d, at character 1'),
    pytest.param('{"query": "q", "pos": ' + "[" * 100_000 + "]" * 100_000 + "}", "the JSON is nested too deeply", id="deep"),
    pytest.param('{"query": "q", "pos": ' + "9" * 100_000 + "}", '"pos" is a number where a string belongs', id="huge"),
])
def test_bad_json_lines_are_named(tmp_path, line, words):
    assert f"t.jsonl: line 2: {words}; each line is one object" in error_of(tmp_path / "t.jsonl", f"{GOOD}{line}\n{GOOD}")


def test_further_bad_json_lines_are_named_by_number(tmp_path):
    line = error_of(tmp_path / "t.jsonl", f'\n{GOOD}{{\n{GOOD}{{"query": "q", "pos": []}}\n')
    assert "line 1: the line is empty (also line 3, 5); each line is one object" in line


@pytest.mark.parametrize("text", ['[{"query": "q", "pos": "p"}]\n', '\ufeff [\n{"query": "q", "pos": "p"},\n{}\n]\n', "[["])
def test_a_json_array_has_to_become_lines(tmp_path, text):
    line = error_of(tmp_path / "t.json", text)
    assert "line 1: a JSON array; write one object a line" in line and "also" not in line


@pytest.mark.parametrize("line", [GOOD, ' {"neg": [], "query": "q"} \r\n'])
def test_json_under_a_name_of_columns_is_told(tmp_path, line):
    assert "the first line is a JSON object; give the file a name that ends in .jsonl" in error_of(tmp_path / "t.tsv", line)


@pytest.mark.parametrize("line", ["{} query", '{"text": "query"}', '["query"]', '"query"', "7",
                                  pytest.param('{"a": ' + "[" * 100_000, id="deep")])
def test_texts_that_look_like_json_are_texts(tmp_path, line):
    assert read_train_set(write(tmp_path / "t.tsv", f"a\n{GOOD}")).texts == ["a", GOOD[:-1]]
    assert read_train_set(write(tmp_path / "t.tsv", f"{line}\n")).texts == [line]
    for source in (line, GOOD[:-1]):
        assert read_train_set(write(tmp_path / "t.tsv", f"{source}\tx\n")).texts == [source, "x"]


def test_texts_alone_are_their_own_positives(tmp_path):
    data = read_train_set(write(tmp_path / "t", "b\n a \r\nb\nc"))
    assert data.unlabelled and data.texts == ["b", " a ", "c"]
    assert rows_of(data) == [["b", "b"], [" a ", " a "], ["b", "b"], ["c", "c"]]
    assert data.positives == {0: {0}, 1: {1}, 2: {2}}
    masked = known_positives(data.sources, data.targets, data.positives)  # the other row of an equal text, nothing else
    assert np.argwhere(masked).tolist() == [[0, 2], [2, 0]]


def test_pairs_of_equal_texts_are_no_texts_alone(tmp_path):
    assert not read_train_set(write(tmp_path / "t", "a\ta\n")).unlabelled
    assert not read_train_set(write(tmp_path / "t.json", '{"query": "a", "pos": "a"}\n')).unlabelled


@pytest.mark.parametrize("text, words", [
    ("a\nb\nc\nd\ne\tf\ng\nh\ti\tj\n", "line 5: 2 columns where the first line has 1 (also line 7); each line is"),
    ("a\nb\t\n", "line 2: 2 columns where the first line has 1; each line is"),
    ("a\tb\nc\nd\te\n", "line 2: 1 column where at least 2 belong; each line is"),
    ("a\n\nb\n", "line 2: the line is empty; each line is"),
    ("a\n \u3000\nb\n", "line 2: the line is blank; each line is"),
    ("\na\tb\nc\td\n", "line 1: the line is empty; each line is"),  # and the others are as good as they were
    (" \na\tb\nc\n", "line 1: the line is blank (also line 3); each line is"),
    ("\na\nb\tc\n", "line 1: the line is empty (also line 3); each line is"),
])
def test_columns_and_texts_alone_do_not_mix(tmp_path, text, words):
    assert words in error_of(tmp_path / "t.tsv", text)


@pytest.mark.parametrize("name, text, row", [("p.json", GOOD, ["q", "p"]), ("p", "a\tb\n", ["a", "b"]), ("p", "a\n", ["a", "a"])])
def test_a_pipe_will_do(tmp_path, name, text, row):
    """So a file is read once."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(text.encode())
    (tmp_path / name).symlink_to(f"/dev/fd/{reader}")
    assert rows_of(read_train_set(str(tmp_path / name))) == [row]
    os.close(reader)


def test_the_readme_shows_one_row_in_both_forms(tmp_path):
    shown = readme_excerpts("README.md")
    (line,) = (line for line in shown if line.startswith('{"query"'))
    (columns,) = (row for row in shown if row.count("\t") == 2 and row.startswith(json.loads(line)["query"]))
    assert_same(read_train_set(write(tmp_path / "t.jsonl", line)), read_train_set(write(tmp_path / "t.tsv", columns)))
