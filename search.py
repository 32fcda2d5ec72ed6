"""Search: the texts of a saved index that are nearest to a query.

    python search.py --index_dir recall_result_dir/index --params_path checkpoints/latest --query 怎么退款
    python search.py --index_dir recall_result_dir/index --params_path checkpoints/latest --query_file queries.txt \\
        --format tsv > answers.tsv
    some_program | python search.py --index_dir recall_result_dir/index --params_path checkpoints/latest --format jsonl

Without queries on the command line they are read from standard input, a line each, and answered one by one; on a
terminal there is a prompt.

In:  an index folder that recall.py wrote, and the checkpoint that it was made with, or an export of it.
Out: the best --top_k texts of each query with their cosines, on stdout: a table; `query TAB text TAB cosine` rows, as
     recall.py --keep_self writes them; or a JSON object a query. --exact shows exact search beside the index's engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cli
from data import is_whole, read_texts
from encoder import open_encoder
from export import CALIBRATION_TEXTS
from files import UserError


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--index_dir", required=True, help="folder of the index")
    parser.add_argument("--query", action="append", metavar="TEXT", help="a query; may be given several times")
    parser.add_argument("--query_file", type=cli.existing_file, help="queries, one a line")
    parser.add_argument("--top_k", type=cli.positive_int, default=10, help="texts shown for a query")
    parser.add_argument("--ann_engine", choices=["hnsw", "flat", "milvus"],
                        help="flat, or an engine that recall.py has saved (default: one that is saved, else flat)")
    parser.add_argument("--exact", action="store_true", help="show exact search too, and what the engine missed")
    parser.add_argument("--format", choices=["table", "tsv", "jsonl"], default="table", help="form of the answers")
    parser.set_defaults(max_seq_length=None)
    args = parser.parse_args(argv)
    if args.query and args.query_file:
        parser.error("give --query or --query_file, not both")
    for query in args.query or []:
        if not query or "\n" in query or "\t" in query:
            parser.error(f"argument --query: {query!r} is empty or holds a TAB or a line break; give one plain text")
        if not is_whole(query):
            parser.error(f"argument --query: {query!r} is not UTF-8; send UTF-8")
    if not args.query and not args.query_file and sys.stdin is None:
        parser.error("there is no standard input to read queries from; give --query or --query_file")
    return args


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    queries = args.query or (read_texts(args.query_file) if args.query_file else None)
    from ann_util import FlatIndex
    from index_store import IndexStore

    store = IndexStore(Path(args.index_dir), strict=True, read_only=True)
    saved = store.open()
    made_from = saved.facts["vectors"]
    args.max_seq_length = args.max_seq_length or made_from["max_seq_length"]
    if args.precision == "auto" and not os.path.isdir(args.params_path):  # an export has a precision of its own
        args.precision = made_from["precision"]  # what the index was made in, on whichever machine
    encoder, own = open_encoder(args, [saved.texts[i] for i in range(min(len(saved.texts), CALIBRATION_TEXTS))])
    store.check_made_from(saved, own)
    name = args.ann_engine or next(iter(store.saved_engines(saved)), "flat")

    def answer(texts: list[str]) -> None:
        vectors = encoder.encode(texts)
        found = saved.index.search(engine, vectors, args.top_k)
        exact = saved.index.search(FlatIndex().build(saved.index.vectors), vectors, args.top_k) if args.exact else None
        for number, text in enumerate(texts):
            rows = [(int(i), float(c)) for i, c in zip(found[0][number], found[1][number])]
            right = [(int(i), float(c)) for i, c in zip(exact[0][number], exact[1][number])] if exact else None
            print(FORMATS[args.format](text, rows, right, name, saved.texts), flush=True)

    with contextlib.closing(store.open_saved_engine(name, saved)) as engine:
        if queries is not None:
            answer(queries)
            return
        for text in typed_queries():
            answer([text])


def typed_queries() -> Iterator[str]:
    """Lines of standard input, with a prompt on a terminal; empty ones are passed over."""
    prompt = sys.stdin.isatty()
    number = 0
    while True:
        if prompt:
            print("query> ", end="", file=sys.stderr, flush=True)
        raw = sys.stdin.buffer.readline()
        if not raw:
            return
        number += 1
        try:
            text = raw.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input: line {number}: byte {error.start + 1} (0x{raw[error.start]:02x}) is not "
                            f"UTF-8; send UTF-8") from error
        if "\t" in text:
            raise UserError(f"standard input: line {number}: there is a TAB inside the text; each line is one query")
        if text:
            yield text


def table(query: str, rows, exact, engine: str, texts) -> str:
    """Rank, cosine and text; with exact search, a mark at what the engine missed or has instead."""
    lines = [query]
    if exact is None:
        return "\n".join([*lines, *(f"{n:4}  {cosine:.6f}  {texts[i]}" for n, (i, cosine) in enumerate(rows, 1)), ""])
    ids = {i for i, _ in rows}
    lines += [f"{n:4}  {cosine:.6f}  {' ' if i in ids else '-'} {texts[i]}" for n, (i, cosine) in enumerate(exact, 1)]
    missed = sum(i not in ids for i, _ in exact)
    return "\n".join([*lines, f"      {engine} missed {missed} of the exact {len(exact)}{' (-)' * (missed > 0)}", ""])


def tsv(query: str, rows, exact, engine: str, texts) -> str:
    """`query TAB text TAB cosine`; with exact search a fourth column: both, the engine's name, or exact."""
    if exact is None:
        return "\n".join(f"{query}\t{texts[i]}\t{cosine:.6f}" for i, cosine in rows)
    ids, right = {i for i, _ in rows}, {i for i, _ in exact}
    both = sorted(set(rows) | set(exact), key=lambda row: (-row[1], row[0]))
    where = {i: "both" if i in ids and i in right else engine if i in ids else "exact" for i, _ in both}
    return "\n".join(f"{query}\t{texts[i]}\t{cosine:.6f}\t{where[i]}" for i, cosine in both)


def jsonl(query: str, rows, exact, engine: str, texts) -> str:
    """{"query", "engine", "results": [{"id", "cosine", "text"}]}, and with exact search also "exact" and "missed"."""
    def objects(found) -> list[dict]:
        return [{"id": i, "cosine": round(cosine, 6), "text": texts[i]} for i, cosine in found]

    value = {"query": query, "engine": engine, "results": objects(rows)}
    if exact is not None:
        ids = {i for i, _ in rows}
        value.update(exact=objects(exact), missed=[i for i, _ in exact if i not in ids])
    return json.dumps(value, ensure_ascii=False)


FORMATS = {"table": table, "tsv": tsv, "jsonl": jsonl}

if __name__ == "__main__":
    sys.exit(main())
