"""The sample data and its vocabulary: the same files from the same seed, and pairs that are what their kind says."""

import collections
import random
import subprocess

from conftest import PROJECT, readme_excerpts, recall_of, run_process, write


def test_the_sample_data(tmp_path, capsys):
    for name in "ab":
        subprocess.run(["python", PROJECT / "scripts" / "make_sample_data.py", "--output_dir", tmp_path / name], check=True,
                       capture_output=True)
    read = {path.name: path.read_text().splitlines() for path in (tmp_path / "a").iterdir()}
    assert all((tmp_path / "b" / name).read_text().splitlines() == lines for name, lines in read.items())
    train, pairs, corpus = (read[name] for name in ("semantic_pair_train.tsv", "semantic_similar_pair.tsv", "corpus_file"))
    assert (len(train), len(pairs), len(corpus)) == (20_000, 1000, 20_000) and len(set(corpus)) == 20_000
    shown = readme_excerpts("README.md")  # two lines of each file, in its order
    assert all("\n".join(lines[:2]) in "\n".join(shown) for lines in read.values())
    seen = {text for line in train for text in line.split("\t")}
    assert not any(set(line.split("\t")) & seen for line in pairs)
    assert {line.split("\t")[1] for line in pairs} <= set(corpus)
    assert len({line.split("\t")[0] for line in pairs}) < len(pairs)  # some sources have several targets
    data = tmp_path / "a"
    result = run_process("python", "benchmarks/tfidf_recall.py", "--similar_text_pair", str(data / "semantic_similar_pair.tsv"),
                         "--corpus_file", str(data / "corpus_file"), "--recall_result_file", str(tmp_path / "tfidf.txt"))
    assert result.returncode == 0, result.stderr
    assert 20 < recall_of(data / "semantic_similar_pair.tsv", tmp_path / "tfidf.txt", capsys)[0] < 45  # not solved, not noise


def test_the_vocabulary_of_texts(tmp_path):
    texts = write(tmp_path / "t", "wifi龘 abc\nWiFi\n")
    result = run_process("python", "scripts/make_vocab.py", "--output", str(tmp_path / "v"), "--min_count", "2", texts)
    tokens = (tmp_path / "v").read_text().splitlines()
    assert result.returncode == 0 and tokens[:5] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    assert tokens[-2:] == ["龘", "wifi"] and len(set(tokens)) == len(tokens) and {"啊", "##9", "，"} <= set(tokens)


def test_the_kinds_of_sample_pairs_are_what_they_say(monkeypatch):
    """On the generator's own record: which template and meaning each text was made from."""
    monkeypatch.syspath_prepend(str(PROJECT / "scripts"))
    import make_sample_data as sample

    assert sample.generate(6, 50, 10, 50) != sample.generate(5, 50, 10, 50)
    writer = sample.Writer(random.Random(0), {})
    assert [writer.claim("text", meaning) for meaning in ("a", "a", "b")] == [True, True, False]
    made, owners = {}, {}
    make_eval_set, make_train_pairs, claim = sample.make_eval_set, sample.make_train_pairs, sample.Writer.claim
    monkeypatch.setattr(sample, "make_eval_set", lambda *a: made.setdefault("eval", make_eval_set(*a)))
    monkeypatch.setattr(sample, "make_train_pairs", lambda *a: made.setdefault("train", make_train_pairs(*a)))
    monkeypatch.setattr(sample.Writer, "claim", lambda self, text, meaning: (
        owners.setdefault(text, meaning) == meaning and claim(self, text, meaning)))
    files = sample.generate(5, 2000, 103, 2000)
    cases, train = made["eval"].cases, made["train"]
    assert [len(files[name]) for name in sorted(files)] == [2000, 2000, 103, 103]
    assert files["semantic_similar_pair.part"] == [part for _, _, part in cases]
    assert files["semantic_similar_pair.tsv"] == [f"{source.text}\t{target.text}" for source, target, _ in cases]
    assert collections.Counter(files["semantic_similar_pair.part"]) == {
        "same_template": 30, "seen_template": 17, "new_template": 36, "new_combination": 20}
    meanings, templates, ways = set(), set(), set()
    for text in (text for pair in train for text in pair):
        meanings.add(text.meaning)
        templates.add((text.meaning.intent.name, text.template))
        ways.add((text.meaning, text.template))
    assert all(source.meaning == target.meaning for source, target in train)
    for source, target, part in cases:
        seen = [(text.meaning.intent.name, text.template) in templates for text in (source, target)]
        assert (source.meaning in meanings) == (part != "new_combination")
        assert all(seen) == (part != "new_template") or part == "new_combination"
        assert (source.meaning, source.template) not in ways
    marked = {target.text for _, target, _ in cases}
    unmarked = collections.Counter(
        meaning for text, meaning in owners.items() if text in set(files["corpus_file"]) - marked)
    assert max(unmarked[source.meaning] for source, _, _ in cases) == 3
