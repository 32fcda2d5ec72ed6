"""Export a checkpoint into a folder of its own, for machines that only encode: with OpenVINO they need no paddle.

    python export_model.py --params_path checkpoints/latest --output_dir exported --text_file corpus_file

In:  a checkpoint, and texts like those to be encoded, one a line: the export is checked on some of them against the
     model itself, and int8 takes its ranges from them.
Out: graph, weights, tokenizer and manifest; recall.py, predict.py and search.py take the folder as --params_path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cli
from corpus import open_corpus
from encoder import CHUNK
from export import make_export
from inference import choose_precision, default_runtime
from runtime import configure_environment


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("--params_path", required=True, type=cli.checkpoint_path,
                        help="checkpoint: a model_state.pdparams, or the folder that holds it")
    parser.add_argument("--model_name_or_path", help="encoder of a bare parameter file, which has no config beside it")
    parser.add_argument("--output_dir", required=True, help="folder of the export; must not exist yet")
    parser.add_argument("--text_file", required=True, type=cli.existing_file, help="texts, one a line")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "int8"], default="auto",
                        help="auto is the fastest that this processor has at no loss in recall")
    args = parser.parse_args(argv)
    if os.path.exists(args.output_dir):
        parser.error(f"argument --output_dir: {args.output_dir!r} is there already; name a new folder")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    configure_environment("cpu")
    runtime = default_runtime()
    precision = choose_precision(args.precision, runtime)
    with open_corpus([args.text_file]) as corpus:
        sample = next(corpus.parts([(0, min(len(corpus), CHUNK))]))
    make_export(Path(args.output_dir), args.params_path, args.model_name_or_path, runtime, precision, sample)


if __name__ == "__main__":
    sys.exit(main())
