"""The streamed corpus against the plain reader of lines."""

import random

import pytest
from conftest import write

import corpus as corpus_module
from corpus import open_corpus
from data import read_texts
from files import UserError


@pytest.mark.parametrize("block", [4, 5, 7, 64, 1 << 22])
def test_any_block_size_gives_the_lines_of_the_plain_reader(tmp_path, monkeypatch, block):
    monkeypatch.setattr(corpus_module, "BLOCK", block)
    chance = random.Random(block)
    odd = ["a", "中文", "x\u2028y", "\u0085", " lead", "trail ", "a\rb", "cr\r", "x\ufeff", "𠀀", "\"q"]
    for _ in range(30):
        lines = chance.choices(odd, k=chance.randint(1, 40))
        ends = [chance.choice(["\n", "\r\n"]) for _ in lines]
        ends[-1] = chance.choice(["", "\n", "\r\n"])
        path = tmp_path / "corpus"
        path.write_bytes(chance.choice([b"", b"\xef\xbb\xbf"]) + "".join(map("".join, zip(lines, ends))).encode())
        different = list(dict.fromkeys(read_texts(str(path))))
        cut = chance.randint(0, len(different))
        with open_corpus([str(path)], wanted={"中文", "nowhere"}) as corpus:
            assert [len(corpus), *corpus.parts([(0, cut), (cut, len(different))])] == [
                len(different), different[:cut], different[cut:]]
            assert corpus.found == {"中文"} & set(different)


def test_appended_files_go_on_where_the_first_ended(tmp_path):
    paths = [write(tmp_path / "a", "b\na\nb\n A\n"), write(tmp_path / "b", "a\nc\nb")]
    with open_corpus(paths) as both, open_corpus(paths[:1]) as first:
        assert both.is_first.tolist() == [True, True, False, True, False, True, False]
        assert list(both.parts([(1, 3), (3, 4)])) == [["a", " A"], ["c"]]
        assert both.beginnings == {first.sha256: 3, both.sha256: 4}
    with open_corpus([write(tmp_path / "folded", "b\na\n A\n")]) as folded:
        assert folded.sha256 != first.sha256


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    path = write(tmp_path / "shrinking", "a\nb\nc\n")
    with open_corpus([path]) as corpus:
        write(tmp_path / "shrinking", "a\n")
        with pytest.raises(UserError, match="shrinking: the file was changed"):
            list(corpus.parts([(0, 3)]))
