"""Export an index as Parquet: for Milvus bulk import, for embedding-atlas, and for whatever else reads Parquet.

    python export_index.py --index_dir recall_result_dir/index --output_dir parquet

In:  an index folder that recall.py wrote.
Out: one file for each part of the index, FIRST-END.parquet, with the columns id (int64, position in the corpus), text
     (string) and vector (float32, D a row). Each file is read back and compared before it gets its name; files that are
     there already are compared too, and written again only where they differ: a killed run goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cli
from cli import notice, progress_bar
from files import UserError, make_folder, own_folder, whole_file


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("--index_dir", required=True, help="folder of the index")
    parser.add_argument("--output_dir", required=True, help="folder for the Parquet files")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    args = parse_flags(argv)
    from index_store import IndexStore

    saved = IndexStore(Path(args.index_dir), strict=True, read_only=True).open()
    with own_folder(make_folder(args.output_dir)) as folder:
        parts = [(first, end) for first, end, _ in saved.facts["parts"]]
        refuse_strangers(folder, [name_of(part) for part in parts])
        written = 0
        with progress_bar(len(saved.texts), "parquet") as bar:
            for part in parts:
                written += export_part(folder / name_of(part), saved, part)
                bar.update(part[1] - part[0])
    notice(f"{args.output_dir}: {len(parts)} file(s), {written} of them written now, {len(saved.texts)} rows")


def name_of(part: tuple[int, int]) -> str:
    return f"{part[0]:010d}-{part[1]:010d}.parquet"


def refuse_strangers(folder: Path, names: list[str]) -> None:
    """A reader takes all Parquet files of a folder: there must be none of another index."""
    for path in folder.glob("*.parquet"):
        if path.name not in names:
            raise UserError(f"{path} is no part of this index; delete it or choose another --output_dir")


def export_part(path: Path, saved, part: tuple[int, int]) -> bool:
    """Write a part, unless it is there already; returns whether it was written."""
    import pyarrow as pa
    from pyarrow import parquet

    ids = np.arange(*part)
    texts, vectors = [saved.texts[int(i)] for i in ids], saved.index.vectors[ids]
    flat = pa.array(vectors.ravel())
    table = pa.table({"id": ids, "text": texts, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
    if path.is_file() and _holds(path, table):
        return False
    temporary = path.with_name(f".{path.name}.check")
    try:
        with whole_file(temporary) as file:
            parquet.write_table(table, file)
        if not _holds(temporary, table):
            raise UserError(f"{path} does not read back as it was written; check the disk, then run again")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _holds(path: Path, table) -> bool:
    """Whether a Parquet file reads as exactly this table."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path).read().equals(table)  # read_table would take columns from folder names
    except (pa.ArrowException, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
