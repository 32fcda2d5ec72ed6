"""Split training pairs into a part to train on and one to choose settings by, without a text in both.

    python scripts/split_pairs.py --train_set_file semantic_pair_train.tsv --dev_pairs 2000 --output_dir split

Pairs that share a text, directly or through other pairs, stay together. Whole groups are drawn at random for the
development part until it has --dev_pairs rows.

In:  training pairs, `source TAB target` a line, and for figures by part a file with the part of each line.
Out: train.tsv, dev.tsv, and with --part_file train.part and dev.part.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from data import read_pairs
from files import UserError, own_folder, whole_file
from metrics import read_parts


def groups_of(pairs: list[tuple[str, str]]) -> np.ndarray:
    """For each pair the number of its group: the connected component of its texts."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ids: dict[str, int] = {}
    ends = np.array([[ids.setdefault(text, len(ids)) for text in pair] for pair in pairs])
    graph = coo_array((np.ones(len(pairs)), (ends[:, 0], ends[:, 1])), shape=(len(ids), len(ids)))
    return connected_components(graph, directed=False)[1][ends[:, 0]]


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--train_set_file", required=True, type=cli.existing_file, help="the pairs")
    parser.add_argument("--part_file", type=cli.existing_file, help="label of each pair line")
    parser.add_argument("--dev_pairs", type=cli.positive_int, default=2000, help="pairs of the development part")
    parser.add_argument("--max_group", type=cli.positive_int, default=20,
                        help="pairs of a group that may go there: a large one would be all of it")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the draw")
    parser.add_argument("--output_dir", required=True, help="folder for the parts")
    args = parser.parse_args(argv)
    for name in ("train.tsv", "dev.tsv", "train.part", "dev.part"):
        parser.keep_apart("--output_dir", Path(args.output_dir, name), args)
    pairs = read_pairs(args.train_set_file)
    parts = read_parts(args.part_file, len(pairs)) if args.part_file else None
    group = groups_of(pairs)
    size = np.bincount(group)
    small = np.random.default_rng(args.seed).permutation(np.flatnonzero(size <= args.max_group))
    chosen = small[: int(np.searchsorted(np.cumsum(size[small]), args.dev_pairs)) + 1]
    is_dev = np.isin(group, chosen)
    if size[small].sum() < args.dev_pairs or is_dev.all():  # the last group drawn may be more than was wanted
        raise UserError(f"{args.train_set_file}: groups of at most {args.max_group} pairs have {size[small].sum()} of "
                        f"{len(pairs)} pairs, so --dev_pairs {args.dev_pairs} can't be set apart; use fewer")
    with own_folder(args.output_dir) as folder:
        for name in ("train", "dev"):  # of an earlier split, which a kill must not leave beside one of this
            for ending in ("tsv", "part"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
        for name, rows in (("train", np.flatnonzero(~is_dev)), ("dev", np.flatnonzero(is_dev))):
            with whole_file(folder / f"{name}.tsv") as file:
                file.write("".join(f"{pairs[i][0]}\t{pairs[i][1]}\n" for i in rows).encode())
            if parts:
                with whole_file(folder / f"{name}.part") as file:
                    file.write("".join(f"{parts[i]}\n" for i in rows).encode())
            cli.notice(f"{folder}/{name}.tsv: {len(rows)} pairs")


if __name__ == "__main__":
    sys.exit(main())
