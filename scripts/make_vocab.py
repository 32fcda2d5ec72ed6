"""Make the vocabulary of configs/ernie_tiny: characters of given texts and general Chinese characters.

    python scripts/make_vocab.py --output configs/ernie_tiny/vocab.txt sample_data/semantic_pair_train.tsv

In:  text files. Out: a WordPiece vocabulary: special tokens, the 6,763 characters of GB 2312, ASCII and full-width
signs, letters and digits as words and as word parts, every further character of the texts, and their Latin words that
occur at least --min_count times.
"""

from __future__ import annotations

import collections
import re
import string
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from data import read_lines
from files import whole_file

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
SIGNS = "，。？！、；：“”‘’（）《》【】—…·￥％＋－／～"


def gb2312() -> list[str]:
    """The Chinese characters of GB 2312, rows 16 to 87, in its order (by use and pronunciation, then by radical)."""
    cells = (bytes([row + 0xA0, cell + 0xA0]) for row in range(16, 88) for cell in range(1, 95))
    return [character for character in (cell.decode("gb2312", "ignore") for cell in cells) if character]


def vocabulary(texts: list[str], min_count: int) -> list[str]:
    """The tokens in order: token i has id i."""
    words: collections.Counter[str] = collections.Counter()
    characters: collections.Counter[str] = collections.Counter()
    for text in texts:
        words.update(re.findall("[a-z]{2,}", text.lower()))
        characters.update(text.lower())
    letters = string.ascii_lowercase + string.digits
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *string.punctuation, *SIGNS, *gb2312()]
    tokens += sorted(character for character in characters if not character.isspace())
    tokens += sorted(word for word, count in words.items() if count >= min_count)
    return list(dict.fromkeys(tokens))


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("text_files", nargs="+", type=cli.existing_file, help="texts that it has to cover")
    parser.add_argument("--output", required=True, type=cli.output_file, help="the vocabulary file to write")
    parser.add_argument("--min_count", type=cli.positive_int, default=5, help="uses that make a Latin word a token")
    args = parser.parse_args(argv)
    tokens = vocabulary([line for path in args.text_files for _, line in read_lines(path)], args.min_count)
    with whole_file(args.output) as file:
        file.write("".join(f"{token}\n" for token in tokens).encode())
    cli.notice(f"{args.output}: {len(tokens)} tokens")


if __name__ == "__main__":
    sys.exit(main())
