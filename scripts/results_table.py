"""Print the table in the form that the results are published in, from a JSON file of evaluate.py.

python scripts/results_table.py quickstart/metrics.json Baseline BatchNeg HardestNeg
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from files import UserError, read_json


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("json_file", type=cli.existing_file, help="written by evaluate.py --output_json")
    parser.add_argument("names", nargs="+", help="its systems, in the order of the rows")
    args = parser.parse_args(argv)
    systems = read_json(args.json_file).get("systems", {})
    print("| Strategy | Recall@10 | Recall@50 |\n| --- | --- | --- |")
    for name in args.names:
        if name not in systems:
            raise UserError(f"{args.json_file} has no system {name!r}; it has {', '.join(systems) or 'none'}: name "
                            f"a JSON file of evaluate.py and systems of it")
        print(f"| {name} | {100 * systems[name]['R@10']['value']:.2f} | {100 * systems[name]['R@50']['value']:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
