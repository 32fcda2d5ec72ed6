"""Recall: embed a corpus, index it, and list for every evaluation source the texts that are nearest to it.

    python -u -m paddle.distributed.launch --gpus "0" recall.py --device gpu \\
        --recall_result_dir recall_result_dir --recall_result_file recall_result.txt \\
        --params_path checkpoints/latest/model_state.pdparams --hnsw_m 100 --hnsw_ef 100 --batch_size 64 \\
        --output_emb_size 256 --max_seq_length 60 --recall_num 50 \\
        --similar_text_pair semantic_similar_pair.tsv --corpus_file corpus_file

On a CPU: --device cpu, and no --gpus. Without the launcher, `python recall.py ...` does the same in one process.

In:  the corpus, one text a line; the pairs, `source TAB target` a line; a checkpoint.
Out: the result file, `source TAB recalled text TAB cosine`, best first, recall_num rows for each line of the pair file
     and in its order. A recalled text that equals the source is left out unless --keep_self is given. Vectors, texts
     and index stay in --index_dir; the next run with the same corpus and checkpoint uses them, a killed run goes on.

Several machines without a launcher: start the same command with `--index_dir SHARED --num_shards N --shard I` for each
I from 0 to N - 1, then once with `--num_shards N` alone, which makes the index of their parts and recalls.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

import cli
from cli import notice, progress_bar
from corpus import Corpus, open_corpus
from data import read_pairs
from encoder import CHUNK, Encoder, open_encoder, report_tokenless
from files import UserError, is_owned, make_folder, own_folder
from results import report_inputs, write_result
from runtime import wait_for_ranks

SAMPLE = 200  # queries on which the engine is compared with exact search


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_recall_flags(parser, "recall_result.txt")
    parser.add_argument("--append_corpus", nargs="+", default=[], type=cli.existing_file, metavar="FILE",
                        help="further texts, added to a saved index of the others")
    cli.add_engine_flags(parser)
    parser.add_argument("--index_dir", help="folder of vectors and index (default: index in --recall_result_dir)")
    parser.add_argument("--num_shards", type=cli.positive_int, help="machines or jobs that share the encoding")
    parser.add_argument("--shard", type=cli.natural, help="encode this share only, from 0 to --num_shards - 1")
    parser.add_argument("--dry_run", action="store_true", help="print the plan with its cost, and stop")
    args = parser.parse_args(argv)
    cli.check_engine_flags(parser, args)
    check_shards(parser, args)
    if args.index_dir and os.path.realpath(args.index_dir) == os.path.realpath(args.recall_result_dir):
        parser.error(f"--index_dir and --recall_result_dir are both {args.recall_result_dir!r}; give the index a "
                     f"folder of its own")
    cli.check_result_file(parser, args, taken=() if args.index_dir else ("index",))
    return args


def check_shards(parser: cli.Parser, args) -> None:
    if args.shard is not None and (args.num_shards is None or args.shard >= args.num_shards):
        parser.error(f"--shard {args.shard} needs --num_shards {args.shard + 1} or more, not {args.num_shards}")
    if args.num_shards and not args.index_dir:
        parser.error("--num_shards needs --index_dir, the folder that all shards share")
    if args.num_shards and cli.world_size() > 1:
        parser.error("--num_shards is for jobs without the launcher, whose ranks share the work already; take one away")


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    pairs = read_pairs(args.pair_file)
    result = Path(args.recall_result_dir, args.recall_result_file)
    index_dir = Path(args.index_dir or Path(args.recall_result_dir, "index"))
    with contextlib.ExitStack() as stack:
        corpus = stack.enter_context(open_corpus([args.corpus_file, *args.append_corpus], {t for _, t in pairs}))
        report_inputs(args, pairs, corpus)
        if not args.dry_run:
            own_folders(stack, args, result.parent, index_dir)
        run(args, pairs, corpus, result, index_dir)


def own_folders(stack: contextlib.ExitStack, args, result_dir: Path, index_dir: Path) -> None:
    """One run owns result and index; ranks and shards, which write parts of an index together, each own their share."""
    make_folder(result_dir)
    if args.shard is not None:
        stack.enter_context(own_folder(index_dir, f".lock-shard-{args.shard}"))
        refuse_other_owners(index_dir, ".lock")
    elif cli.rank():
        stack.enter_context(own_folder(index_dir, f".lock-rank-{cli.rank()}"))
    else:
        for folder in (result_dir, index_dir):
            stack.enter_context(own_folder(folder))
        refuse_other_owners(index_dir, ".lock-shard-*")


def refuse_other_owners(folder: Path, pattern: str) -> None:
    for lock in folder.glob(pattern):
        if is_owned(folder, lock.name):
            raise UserError(f"{folder} is in use by {lock.read_text(errors='replace').strip()}; wait for it to end or "
                            f"choose another folder")


def run(args, pairs: list[tuple[str, str]], corpus: Corpus, result: Path, index_dir: Path) -> None:
    """Embed on all ranks, then index, search and write on rank 0."""
    sample = next(corpus.parts([(0, min(len(corpus), CHUNK))]))
    encoder, made_from = open_encoder(args, sample)
    from estimate import describe_plan
    from index_store import IndexStore

    store = IndexStore(index_dir, strict=args.index_dir is not None, read_only=args.dry_run)
    shards, shard = args.num_shards or cli.world_size(), cli.rank() if args.shard is None else args.shard
    alone = args.shard is None and cli.rank() == 0  # looks after the whole index, not only its own share
    if alone:
        plan = store.plan(corpus, made_from, shards)
    wait_for_ranks()  # whatever had to be cleared away is gone
    if not alone:
        plan = store.plan(corpus, made_from, shards, shard)
    # --num_shards alone only brings together what is there.
    merging = args.num_shards is not None and args.shard is None
    mine = [] if merging else [part for part in plan.parts[shard::shards] if part in plan.missing]
    rate = texts_per_second(encoder, sample) if mine else 0
    notice(describe_plan(corpus, plan.parts, mine, rate, shards, made_from["dimension"], args))
    if merging and plan.missing:
        notice(f"  missing {len(plan.missing)} part(s), which --shard 0 to --shard {shards - 1} have to encode")
    if args.dry_run:
        return

    embed(encoder, store, corpus, mine, made_from)
    if not alone:
        return
    wait_for_parts(plan, store)
    saved = store.finish(plan, corpus, made_from)
    report_tokenless(saved.facts["tokenless"])
    sources = {source: i for i, source in enumerate(dict.fromkeys(source for source, _ in pairs))}
    queries = encoder.encode(list(sources), progress="sources")
    with contextlib.closing(store.open_engine(args.ann_engine, saved, **cli.engine_settings(args))) as engine:
        search(args, pairs, saved, engine, sources, queries, result)


def search(args, pairs, saved, engine, sources: dict[str, int], queries: np.ndarray, result: Path) -> None:
    """Find the texts of each source, write them, and tell how near the engine comes to exact search."""
    from ann_util import share_of_exact

    # One more than wanted: the source itself may be among them, and must not use up a place.
    ids, cosines = saved.index.search(engine, queries, args.recall_num + (not args.keep_self))
    rows = write_result(result, pairs, sources, saved.texts, ids, cosines, args)
    few = np.random.default_rng(0).permutation(len(queries))[:SAMPLE]
    fidelity = share_of_exact(saved.index, queries[few], ids[few, : args.recall_num])
    notice(f"{args.ann_engine}: {100 * fidelity:.2f} % of the exact top {args.recall_num} found, on {len(few)} "
           f"sources\n{result}: {rows} rows")


def texts_per_second(encoder: Encoder, sample: list[str]) -> float:
    """Measured on some texts, after others have warmed the runtime up."""
    some = sample[:: max(1, len(sample) // 256)][:256]
    list(encoder.encode_chunks([some], lambda _: None))
    started = time.perf_counter()
    list(encoder.encode_chunks([some], lambda _: None))
    encoder.tokenless = 0
    return len(some) / (time.perf_counter() - started)


def embed(encoder: Encoder, store, corpus: Corpus, parts: list[tuple[int, int]], made_from: dict) -> None:
    """Encode and write these parts, one after the other; a part that is written is not lost if the run is killed."""
    texts_of_parts: deque[list[str]] = deque()

    def read_ahead():
        for texts in corpus.parts(parts):
            texts_of_parts.append(texts)
            yield texts

    with progress_bar(sum(end - first for first, end in parts), "corpus") as bar:
        for part, vectors in zip(parts, encoder.encode_chunks(read_ahead(), bar.update)):
            store.write_part(part, texts_of_parts.popleft(), vectors, encoder.tokenless, made_from)
            encoder.tokenless = 0


def wait_for_parts(plan, store) -> None:
    """Wait until the other ranks have written their parts; each holds a lock for as long as it is at work."""
    for number in range(1, cli.world_size()):
        while is_owned(store.folder, f".lock-rank-{number}"):
            time.sleep(0.2)
        if not store.has(plan.parts[number :: cli.world_size()]):
            raise UserError(f"rank {number} has left without all its parts of {store.folder}; see its log, and run "
                            f"again: what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
