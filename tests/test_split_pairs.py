from pathlib import Path

import pytest
from conftest import PROJECT, run_process, write

from scripts import split_pairs

# Groups: a chain of four texts (3 rows), a pair in both directions and once more (3), and single pairs.
PAIRS = [("a", "b"), ("p1", "q1"), ("c", "b"), ("x", "y"), ("p2", "q2"), ("c", "d"), ("y", "x"), ("p3", "q3"), ("x", "y"),
         ("p4", "q4"), ("p5", "q5"), ("p6", "q6")]
LABELS = [f"part {i % 3}" for i in range(len(PAIRS))]


def split(out: Path, pairs=PAIRS, *flags: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows of train and dev; with their labels as a third column if --part_file was given."""
    assert split_pairs.main(["--train_set_file", write(out.parent / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in pairs)),
                             "--output_dir", str(out), *flags]) == 0
    parts = []
    for name in ("train", "dev"):
        rows = [line.split("\t") for line in (out / f"{name}.tsv").read_text().split("\n")[:-1]]
        labels = (out / f"{name}.part").read_text().split("\n")[:-1] if "--part_file" in flags else None
        assert labels is None or len(labels) == len(rows)
        parts.append([(*row, *([labels[i]] if labels else [])) for i, row in enumerate(rows)])
    return parts[0], parts[1]


@pytest.mark.parametrize("seed", range(8))
def test_no_text_is_on_both_sides_and_rows_keep_order_and_label(tmp_path, seed):
    labels = write(tmp_path / "labels", "".join(f"{label}\n" for label in LABELS))
    train, dev = split(tmp_path / "out", PAIRS, "--dev_pairs", "4", "--part_file", labels, "--seed", str(seed))
    rows = [(*pair, label) for pair, label in zip(PAIRS, LABELS)]
    assert 4 <= len(dev) <= 6 and sorted(train + dev) == sorted(rows)
    assert not {text for row in train for text in row[:2]} & {text for row in dev for text in row[:2]}
    for part in (train, dev):  # in the order of the file: each next row is found after the one before
        left = iter(rows)
        assert all(row in left for row in part)


def test_nothing_of_an_earlier_split_stays(tmp_path):
    labels = write(tmp_path / "labels", "".join(f"{label}\n" for label in LABELS))
    split(tmp_path / "out", PAIRS, "--dev_pairs", "4", "--part_file", labels)
    split(tmp_path / "out", PAIRS, "--dev_pairs", "4", "--seed", "1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dev.tsv", "train.tsv"]


def test_a_text_as_source_and_as_target_is_one_text(tmp_path):
    chain = [(f"t{i}", f"t{i + 1}") for i in range(30)]
    apart = [(f"u{i}", f"v{i}") for i in range(30)]
    train, dev = split(tmp_path / "out", [row for both in zip(chain, apart) for row in both], "--dev_pairs", "10")
    assert len(dev) == 10 and set(chain) <= set(train)  # 30 pairs are more than a group may have
    train, dev = split(tmp_path / "out", [*chain, *apart[:2]], "--dev_pairs", "3", "--max_group", "30")
    assert len(dev) in (30, 31) and set(chain) <= set(dev)


def test_a_seed_is_one_draw(tmp_path):
    pairs = [(f"s{i}", f"t{i}") for i in range(40)]
    draws = [split(tmp_path / "out", pairs, "--dev_pairs", "10", "--seed", seed)[1] for seed in "1121"]
    assert draws[0] == draws[1] == draws[3] != draws[2] and all(len(dev) == 10 for dev in draws)
    drawn = [row for seed in range(60) for row in split(tmp_path / "out", pairs, "--dev_pairs", "10", "--seed", str(seed))[1]]
    in_dev = [drawn.count(pair) for pair in pairs]
    assert min(in_dev) > 3 and max(in_dev) < 30  # 15 of 60 each, standard deviation 3.4


@pytest.mark.parametrize("pairs, flags, words", [
    (PAIRS, ["--dev_pairs", "12"], ["12 of 12 pairs", "--dev_pairs 12", "use fewer"]),
    (PAIRS, ["--dev_pairs", "13"], ["--dev_pairs 13"]),
    (PAIRS, ["--dev_pairs", "7", "--max_group", "2"], ["at most 2 pairs have 6 of 12 pairs"]),
    (PAIRS[:1] + PAIRS[2:3], ["--dev_pairs", "1"], ["--dev_pairs 1 can't be set apart"]),  # the one group would leave none
    ([("a", "b"), ("b", "c"), ("x", "y"), ("y", "z")], ["--dev_pairs", "3"], ["--dev_pairs 3 can't be set apart"]),
    (PAIRS, ["--dev_pairs", "0"], ["--dev_pairs", "'0'"]),
])
def test_impossible_numbers(tmp_path, failure, pairs, flags, words):
    path = write(tmp_path / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in pairs))
    line = failure(split_pairs.main, ["--train_set_file", path, "--output_dir", str(tmp_path / "out"), *flags])
    assert all(word in line for word in words) and not (tmp_path / "out").exists()


def test_labels_of_another_file_are_refused(tmp_path, failure):
    path = write(tmp_path / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in PAIRS))
    line = failure(split_pairs.main, ["--train_set_file", path, "--output_dir", str(tmp_path / "out"), "--part_file",
                                      write(tmp_path / "labels", "a\nb\n"), "--dev_pairs", "2"])
    assert "2 labels for 12 pairs" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag, name", [("--train_set_file", "train.tsv"), ("--part_file", "dev.part")])
def test_an_input_is_not_overwritten(tmp_path, failure, flag, name):
    files = {"--train_set_file": tmp_path / "pairs.tsv", "--part_file": tmp_path / "labels", flag: tmp_path / name}
    text = {"--train_set_file": "".join(f"{s}\t{t}\n" for s, t in PAIRS), "--part_file": "".join(f"{x}\n" for x in LABELS)}
    flags = [word for other, path in files.items() for word in (other, write(path, text[other]))]
    line = failure(split_pairs.main, [*flags, "--output_dir", str(tmp_path), "--dev_pairs", "2"])
    assert f"would overwrite '{tmp_path / name}', the file of {flag}" in line
    assert (tmp_path / name).read_text() == text[flag]


def test_it_runs_as_a_command(tmp_path):
    path = write(tmp_path / "pairs.tsv", "".join(f"{s}\t{t}\n" for s, t in PAIRS))
    done = run_process("python", str(PROJECT / "scripts" / "split_pairs.py"), "--train_set_file", path, "--dev_pairs", "5",
                       "--output_dir", "out", cwd=tmp_path)
    assert done.returncode == 0 and "out/train.tsv: " in done.stderr, done.stderr
