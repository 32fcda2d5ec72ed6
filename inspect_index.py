"""Inspect: what an index, a checkpoint or an export is, who made it with which settings, and whether it is whole.

    python inspect_index.py recall_result_dir/index
    python inspect_index.py checkpoints/latest

Out: the facts of its manifest, then `whole`; or one line that names a missing or damaged file, and exit code 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import checkpoint
import cli
import export
from files import UserError, read_json


def parse_flags(argv: list[str] | None):
    parser = cli.Parser(__doc__)
    parser.add_argument("folder", metavar="DIR", help="folder of an index, a checkpoint or an export")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: list[str] | None = None) -> None:
    folder = Path(parse_flags(argv).folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one of an index, a checkpoint or an export")
    manifest, kind = find_manifest(folder)
    about = check(folder, kind)
    print(f"{folder}: {kind}")
    show({name: value for name, value in read_json(manifest).items() if name not in ("sha256", "files", "parts")})
    print(f"{about}files: {size_of(folder)}\nwhole: every file is there, with the SHA-256 that its manifest gives")


def find_manifest(folder: Path) -> tuple[Path, str]:
    """The manifest in `folder`, and what it makes of it."""
    for name, kind in (("manifest.json", "an index"), (checkpoint.MANIFEST, "a checkpoint"),
                       (export.MANIFEST, "an export of a checkpoint")):
        if (folder / name).is_file():
            return folder / name, kind
    if (folder / "parts").is_dir():
        raise UserError(f"{folder}: an unfinished index (parts, but no manifest.json); run its recall.py again")
    raise UserError(f"{folder}: holds no manifest of an index, a checkpoint or an export; name another folder")


def check(folder: Path, kind: str) -> str:
    """Raise UserError for the first file that is missing or damaged; returns what else is to be said."""
    if kind == "a checkpoint":
        for name in (checkpoint.WEIGHTS, *checkpoint.check_checkpoint(folder).get("training_files", {})):
            checkpoint.read_state_dict(folder / name)
    elif kind == "an index":
        from index_store import IndexStore

        store = IndexStore(folder, strict=True, read_only=True)
        saved = store.open()
        for name in store.saved_engines(saved):
            store.open_saved_engine(name, saved).close()
        return f"texts: {len(saved.texts)} in {len(saved.facts['parts'])} part(s), the first: {saved.texts[0]}\n"
    else:
        export.read_export(folder)
    return ""


def show(facts: dict, indent: str = "") -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            show(value, f"{indent}  ")
        else:
            print(f"{indent}{name}: {value}")


def size_of(folder: Path) -> str:
    from estimate import human_bytes

    sizes = [os.path.getsize(path) for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)}, {human_bytes(sum(sizes))}"


if __name__ == "__main__":
    sys.exit(main())
