"""Pairs and a corpus for mining, and mine_hard_negatives.py run on them."""

from pathlib import Path

import pytest
from conftest import SOURCES, TARGETS, write

import mine_hard_negatives

# Sources with several positives, the reverse of a pair, a source that is a target, and a variant of a source.
PAIRS = [*zip(SOURCES, TARGETS), (SOURCES[0], TARGETS[1]), (TARGETS[2], SOURCES[3]), (TARGETS[4], TARGETS[5]),
         (SOURCES[6] + "？", TARGETS[7]), (SOURCES[0], TARGETS[2])]
# Beside all their texts, variants of positives and sources, and texts of nobody.
OTHERS = [SOURCES[i] + TARGETS[j] for i, j in ((0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10), (8, 1))]
VARIANTS = ["登录密码忘了，如何重新设置？", " 登录 密码忘了如何重新设置", "怎么重置登录密码!!", "物流信息好几天不动怎么办。", "「开票信息填错怎么修改」",
            "信用卡怎么提额…", "空调不制冷 怎么办?", "\u3000装宽带要等几天\u3000"]
CORPUS = [*TARGETS, *OTHERS, *VARIANTS, *SOURCES]


def lines(rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


@pytest.fixture(name="mine")
def mine_fixture(trained, tmp_path):
    """`mine(flags)` returns the rows that are written; the corpus is mined unless the flags name a result file."""
    write(tmp_path / "pairs.tsv", lines(PAIRS))
    write(tmp_path / "corpus", lines([text] for text in CORPUS))

    def run(*flags: str, pairs="pairs.tsv", output="mined.tsv", corpus="corpus", params=True) -> list[list[str]]:
        assert mine_hard_negatives.main(flags_of(trained, tmp_path, *flags, pairs=pairs, output=output, corpus=corpus,
                                                 params=params)) == 0
        return [line.split("\t") for line in (tmp_path / output).read_text(encoding="utf-8").split("\n")[:-1]]
    return run


def flags_of(trained, folder: Path, *flags: str, pairs="pairs.tsv", output="mined.tsv", corpus="corpus",
             params=True) -> list[str]:
    own = [*(["--params_path", trained, "--device", "cpu", "--max_seq_length", "32"] if params else []),
           *(["--corpus_file", str(folder / corpus)] if "--recall_result_file" not in flags else [])]
    return [*own, "--train_set_file", str(folder / pairs), "--output_file", str(folder / output), *flags]
