import numpy as np
import pytest
from conftest import PROJECT, SHARED_DATA, byte_level_bpe_folder, make_encoder_folder, write

from batches import make_batch
from data import epoch_batches, pad_batch, read_lines, read_pairs, read_text_pairs, read_texts
from files import UserError
from tokenizer import Tokenizer
from train_data import read_train_set


def lines_of(path, raw: bytes) -> list[str]:
    path.write_bytes(raw)
    return [text for _, text in read_lines(str(path))]


def test_a_line_ends_at_lf_alone(tmp_path):
    odd = "a\u2028b\u0085c\vd\fe\rf"
    raw = b"\xef\xbb\xbf" + f"{odd}\r\n\ufeffx\r\r\n  nan \n\"007".encode()
    assert lines_of(tmp_path / "f", raw) == [odd, "\ufeffx\r", "  nan ", '"007']


def test_a_cr_at_the_end_of_the_file_is_text(tmp_path):
    assert lines_of(tmp_path / "f", b"a\nb\r") == ["a", "b\r"]


@pytest.mark.parametrize("raw, words", [
    (b"", ["the file is empty"]),
    (b"good\xe4\xbd\xa0\nbad\xff\n", ["line 2", "byte 4", "0xff", "UTF-8", "iconv"]),
    ("中\n".encode("gb18030"), ["line 1", "UTF-8"]),
])
def test_unreadable_files_name_file_and_line(tmp_path, raw, words):
    with pytest.raises(UserError) as error:
        lines_of(tmp_path / "f.txt", raw)
    for word in ["f.txt", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("read, text, words", [
    (read_pairs, "a\tb\nc\n", ["line 2", "1 column"]),
    (read_pairs, "a\tb\nc\td\te\n", ["line 2", "3 columns"]),
    (read_pairs, "a\tb\n\nc\td\n", ["line 2", "the line is empty"]),
    (read_pairs, "a\tb\n\tc\n", ["line 2", "column 1 is empty"]),
    (read_texts, "a\nb\tc\n", ["line 2", "TAB"]),
    (read_texts, "a\n\nb\n", ["line 2", "the line is empty"]),
    (read_train_set, "a\tb\nc\t\td\n\te\n \tf\n", ["line 2", "column 2 (target)", "also line 3, 4"]),
    (read_train_set, "a\tb\nc\td\t\n", ["line 2", "column 3 (negative 1)"]),
    (read_text_pairs, "a\tb\t1\nc\td\n", ["line 2", "2 columns where the first line has 3"]),
    (read_text_pairs, "a\tb\t1\nc\td\t1\n", ["all 2 labels are 1", "need both 0 and 1"]),
    (read_text_pairs, "a\tb\t2\n", ["line 1", "'2' is neither 0 nor 1"]),
])
def test_bad_lines_are_named(tmp_path, read, text, words):
    with pytest.raises(UserError) as error:
        read(write(tmp_path / "f.tsv", text))
    for word in ["f.tsv", *words]:
        assert word in str(error.value)


def test_no_text_is_its_own_negative_nor_one_that_it_is_paired_with_the_other_way_round(tmp_path):
    data = read_train_set(write(tmp_path / "t", "a\tb\nb\ta\nc\ta\nd\te\n"))
    a, b, c, d, e = (data.texts.index(text) for text in "abcde")
    assert [data.positives[i] for i in (a, b, c, d)] == [{a, b, c}, {a, b}, {a, c}, {d, e}]
    not_negative = make_batch(data, np.arange(4), data.negatives, ranks=1).not_negative
    # Columns b, a, a, e. The row's own positive is never masked.
    assert not_negative.tolist() == [[False, True, True, False], [True, False, True, False],
                                     [False, True, False, False], [False] * 4]


def test_train_set_knows_all_positives_of_a_source(tmp_path):
    data = read_train_set(write(tmp_path / "t", "q\tx\tn1\tn2\nq\ty\nr\tx\n"))
    q, x, y = (data.texts.index(text) for text in "qxy")
    assert data.positives[q] == {q, x, y}
    assert [[data.texts[i] for i in row] for row in data.negatives] == [["n1", "n2"], [], []]
    assert data.sources[1] == q and data.targets[2] == x


@pytest.mark.parametrize("count, batch", [(1, 4), (5, 4), (64, 4), (1003, 8)])
def test_every_row_is_in_one_batch_and_epochs_differ(count, batch):
    lengths = np.random.default_rng(0).integers(3, 60, count)
    first = epoch_batches(lengths, batch, seed=7, epoch=0)
    assert sorted(np.concatenate(first)) == list(range(count))
    assert sum(len(rows) != batch for rows in first) <= 1
    again = epoch_batches(lengths, batch, seed=7, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    if count > 5:
        for other in (epoch_batches(lengths, batch, 7, 1), epoch_batches(lengths, batch, 8, 0)):
            assert any(set(a) != set(b) for a, b in zip(first, other))


def test_batches_hold_texts_of_similar_length():
    lengths = np.random.default_rng(0).integers(3, 64, 4000)
    spread = [np.ptp(lengths[rows]) for rows in epoch_batches(lengths, 32, 1, 0)]
    assert np.mean(spread) < 8 < np.ptp(lengths)


def test_pad_batch():
    ids, mask = pad_batch([[1, 5, 2], [1, 2]], pad_id=9, length=4)
    assert ids.tolist() == [[1, 5, 2, 9], [1, 2, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]


def test_tokenizer_cuts_and_keeps_texts_without_tokens(tmp_path):
    tokenizer = Tokenizer(make_encoder_folder(tmp_path / "e"), max_seq_length=6)
    long, blank, replacement = tokenizer(["密码" * 50_000, "\u200b \u3000", "\ufffd"])
    assert len(long) == 6
    assert blank == replacement == tokenizer([""])[0]
    assert len(blank) == 2


@pytest.mark.parametrize("remove, words", [("vocab.txt", "no vocab.txt"), (None, "no [UNK]")])
def test_tokenizer_needs_a_vocabulary(tmp_path, remove, words):
    folder = make_encoder_folder(tmp_path / "e")
    if remove:
        (tmp_path / "e" / remove).unlink()
    else:
        write(tmp_path / "e" / "vocab.txt", "[PAD]\n[CLS]\n[SEP]\n")
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        Tokenizer(folder, 16)


HARD_TEXTS = ["iPhone12多少钱", "ＡＢＣ１２３", "WiFi密码 是Abc_123吗？", "naïve café", "😀好", "[SEP]是什么", "㐀㐁", "a" * 300,
              "100%正品", "7℃", "😀😃", "こんにちは", "αβγ", "Привет", "a+b=c", "[sep][MASK]x", "²º", "“引号”—破折号…", "\tTAB里外", "한국어", "Ⅷ㎡", "e\u0301",
              "b" * 100, "c" * 101, "d" * 150]


def test_tokenizer_agrees_with_paddlenlp():
    from pretrained import _paddlenlp

    texts = list(HARD_TEXTS)
    if (SHARED_DATA / "corpus_file").is_file():
        texts += [text for _, text in read_lines(str(SHARED_DATA / "corpus_file"))][::20]
    folder = PROJECT / "configs" / "ernie_tiny"
    slow = _paddlenlp().ErnieTokenizer(str(folder / "vocab.txt"))
    ours = Tokenizer(folder, 64)(texts)
    theirs = [slow(text, max_length=64, truncation=True)["input_ids"] for text in texts]
    different = [text for text, a, b in zip(texts, ours, theirs) if a != b]
    assert not different, different[:10]


def test_byte_level_bpe_agrees_with_paddlenlp(tmp_path):
    from pretrained import _paddlenlp

    texts = ["How do I reset my password?", " two  spaces", "it's 12:30", *HARD_TEXTS, "y" * 200]
    byte_level_bpe_folder(tmp_path, texts)
    slow = _paddlenlp().RobertaBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokenizer = Tokenizer(tmp_path, 20)
    assert tokenizer.pad_id == 1 and tokenizer([""]) == [[0, 2]]
    for text, ids in zip(texts, tokenizer(texts)):
        assert ids == slow(text, max_length=20, truncation=True)["input_ids"], text


def test_byte_level_bpe_files_have_to_fit_each_other(tmp_path):
    byte_level_bpe_folder(tmp_path, ["some words", "some more words"])
    write(tmp_path / "merges.txt", "#version: 0.2\nqq zz\n")
    with pytest.raises(UserError, match="merges.txt: does not fit .*vocab.json"):
        Tokenizer(tmp_path, 20)


def test_a_repeated_token_does_not_hide_ids_beyond_the_embedding(tmp_path):
    folder = make_encoder_folder(tmp_path / "e")
    lines = (tmp_path / "e" / "vocab.txt").read_text().splitlines()
    write(tmp_path / "e" / "vocab.txt", "".join(f"{token}\n" for token in [*lines, "a", "新"]))
    assert Tokenizer(folder, 20).size == len(lines) + 2


def test_of_many_bad_lines_ten_are_named(tmp_path):
    with pytest.raises(UserError, match=r"line 1: .* \(also line 2, 3, 4, 5, 6, 7, 8, 9, 10 and others\)"):
        read_pairs(write(tmp_path / "f", "x\n" * 11))


def test_short_batches_do_not_come_first():
    lengths = np.arange(640)
    batches = epoch_batches(lengths, 32, 1, 0)  # one window
    means = [lengths[rows].mean() for rows in batches]
    assert means != sorted(means)


def test_tokenizer_config_decides_on_case(tmp_path):
    folder = make_encoder_folder(tmp_path / "e")
    assert Tokenizer(folder, 16)(["ABC"]) == Tokenizer(folder, 16)(["abc"])
    write(tmp_path / "e" / "tokenizer_config.json", '{"do_lower_case": false}')
    tokenizer = Tokenizer(folder, 16)
    assert tokenizer(["ABC"]) != tokenizer(["abc"])
    assert "tokenizer_config.json" in tokenizer.files  # a checkpoint keeps it
