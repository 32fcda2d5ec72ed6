"""Recall: embed a corpus, index it, and list for every evaluation source the texts that are nearest to it.

    python -u -m paddle.distributed.launch --gpus "0" recall.py --device gpu \\
        --recall_result_dir recall_result_dir --recall_result_file recall_result.txt \\
        --params_path checkpoints/latest/model_state.pdparams --hnsw_m 100 --hnsw_ef 100 --batch_size 64 \\
        --output_emb_size 256 --max_seq_length 60 --recall_num 50 \\
        --similar_text_pair semantic_similar_pair.tsv --corpus_file corpus_file

On a CPU: --device cpu, and no --gpus. Without the launcher, `python recall.py ...` does the same in one process.

In:  the corpus, one text a line; the pairs, `source TAB target` a line; a checkpoint.
Out: the result file, `source TAB recalled text TAB cosine`, best first, recall_num rows for each line of the pair file
     and in its order. A recalled text that equals the source is left out unless --keep_self is given. Vectors and
     index stay in --index_dir, and the next run with the same corpus and checkpoint uses them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np

import cli
from cli import notice
from data import Corpus, read_corpus, read_pairs
from files import make_folder, own_folder, whole_file
from runtime import describe_runtime, gather_rows, start_paddle

SAMPLE = 200  # queries on which the engine is compared with exact search


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_pair_file_flag(parser)
    parser.add_argument("--corpus_file", required=True, type=cli.existing_file, help="one text a line")
    parser.add_argument("--recall_result_dir", default="recall_result_dir", help="folder of the result")
    parser.add_argument("--recall_result_file", default="recall_result.txt", help="name of the result file in it")
    parser.add_argument("--recall_num", type=cli.positive_int, default=50, help="texts recalled for a source")
    parser.add_argument("--keep_self", action="store_true", help="keep the source itself among the recalled texts")
    parser.add_argument("--ann_engine", choices=["hnsw", "flat"], default="hnsw", help="flat is exact")
    parser.add_argument("--hnsw_m", type=cli.positive_int, default=100, help="links a node keeps, 2 to 100")
    parser.add_argument("--hnsw_ef", type=cli.positive_int, default=100, help="candidates while building and searching")
    parser.add_argument("--index_dir", help="folder of vectors and index (default: index in --recall_result_dir)")
    args = parser.parse_args(argv)
    if not 2 <= args.hnsw_m <= 100:
        parser.error(f"argument --hnsw_m: {args.hnsw_m} is not between 2 and 100")
    name, folder = args.recall_result_file, args.recall_result_dir
    if not name.strip() or os.path.basename(name) != name or name.startswith("."):
        parser.error(f"argument --recall_result_file: {name!r} is not a plain file name; the folder goes into "
                     f"--recall_result_dir")
    if args.index_dir and os.path.realpath(args.index_dir) == os.path.realpath(folder):
        parser.error(f"--index_dir and --recall_result_dir are both {folder!r}; give the index a folder of its own")
    if os.path.isdir(os.path.join(folder, name)) or (name == "index" and not args.index_dir):
        parser.error(f"argument --recall_result_file: {name!r} is a folder in {folder}; choose another name")
    parser.keep_apart("--recall_result_file", os.path.join(folder, name), args)
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    pairs, corpus = read_pairs(args.pair_file), read_corpus(args.corpus_file)
    report_inputs(args, pairs, corpus)
    result = Path(args.recall_result_dir, args.recall_result_file)
    index_dir = Path(args.index_dir or Path(args.recall_result_dir, "index"))

    with contextlib.ExitStack() as owned:
        for folder in (result.parent, index_dir):
            make_folder(folder)
            if cli.rank() == 0:
                owned.enter_context(own_folder(folder))
        run(args, pairs, corpus, result, index_dir)


def run(args, pairs: list[tuple[str, str]], corpus: Corpus, result: Path, index_dir: Path) -> None:
    """Embed on all ranks, then index, search and write on rank 0."""
    paddle = start_paddle(args.device)
    from ann_util import TextIndex, share_of_exact
    from checkpoint import load_checkpoint
    from encoder import Encoder
    from index_store import IndexStore

    checkpoint = load_checkpoint(args.params_path, args.max_seq_length, args.model_name_or_path, args.output_emb_size)
    encoder = Encoder.of(checkpoint, args.batch_size)
    store = IndexStore(index_dir, strict=args.index_dir is not None)
    made_from = {"checkpoint": checkpoint.fingerprint, "corpus": corpus.sha256, "max_seq_length": args.max_seq_length,
                 "dimension": checkpoint.model.dimension, "metric": "cosine"}

    saved = store.load_vectors(made_from) if cli.rank() == 0 else None
    # All ranks encode, or none: rank 0 has looked into the folder and tells the others.
    encode = bool(gather_rows(paddle.to_tensor([saved is None]), [1] * cli.world_size())[0])
    if encode:
        notice(f"encoding {len(corpus.texts)} texts on {describe_runtime()}")
        vectors = encoder.encode(corpus.texts, progress="corpus")
    else:
        notice(f"vectors: {index_dir}, used again")
    sources = {source: i for i, source in enumerate(dict.fromkeys(source for source, _ in pairs))}
    queries = encoder.encode(list(sources), progress="sources")
    if cli.rank():
        return

    if saved is None:
        store.save_vectors(vectors, corpus, made_from)
    index = TextIndex(vectors if saved is None else saved)
    engine = store.open_engine(args.ann_engine, index, args.hnsw_m, args.hnsw_ef)
    # One more than wanted: the source itself may be among them, and must not use up a place.
    ids, cosines = index.search(engine, queries, args.recall_num + (not args.keep_self))
    rows = write_result(result, pairs, sources, corpus.texts, ids, cosines, args)
    sample = np.random.default_rng(0).permutation(len(queries))[:SAMPLE]
    fidelity = share_of_exact(index, engine, queries[sample], args.recall_num)
    notice(f"{args.ann_engine}: {100 * fidelity:.2f} % of the exact top {args.recall_num} found, on {len(sample)} "
           f"sources\n{result}: {rows} rows")


def report_inputs(args, pairs: list[tuple[str, str]], corpus: Corpus) -> None:
    """Say what of the input limits the result: before the long work, not after it."""
    texts = set(corpus.texts)
    folded = len(corpus.text_of_line) - len(texts)
    if folded:
        notice(f"{args.corpus_file}: {folded} of {len(corpus.text_of_line)} lines repeat an earlier text; folded")
    absent = [line for line, (_, target) in enumerate(pairs, 1) if target not in texts]
    if absent:
        shown = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
        notice(f"{args.pair_file}: {len(absent)} of {len(pairs)} targets are not in the corpus (line {shown}); they "
               f"can't be recalled")
    if len(texts) < args.recall_num:
        notice(f"{args.corpus_file}: {len(texts)} different texts, so fewer than --recall_num {args.recall_num} rows "
               f"a source")


def write_result(result: Path, pairs, sources: dict[str, int], texts: list[str], ids: np.ndarray, cosines: np.ndarray,
                 args) -> int:
    """Write a block of rows for each pair line; returns the number of rows."""
    count = 0
    with whole_file(result) as file:
        for source, _ in pairs:
            row = sources[source]
            recalled = [(texts[i], cosine) for i, cosine in zip(ids[row], cosines[row])
                        if args.keep_self or texts[i] != source][: args.recall_num]
            file.write("".join(f"{source}\t{text}\t{cosine:.6f}\n" for text, cosine in recalled).encode())
            count += len(recalled)
    return count


if __name__ == "__main__":
    sys.exit(main())
