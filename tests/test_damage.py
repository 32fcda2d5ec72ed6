"""Damaged index folders: each run is refused with a line that names the file, or gives the right answer. None crashes."""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, TARGETS, pair_lines, write
from test_recall import flags_of

from files import describe_file, write_manifest
from parts import part_path

COUNT, SEED = int(os.environ.get("DAMAGES", 100)), int(os.environ.get("DAMAGE_SEED", 0))
PART = 30
CHILD = f"""
import contextlib, io, json, sys, traceback
sys.path.insert(0, {str(PROJECT)!r})
import encoder, export_index, index_store, inspect_index, recall, search
index_store.PART, opened = {PART}, {{}}
def open_once(args, sample):
    key = args.params_path, args.max_seq_length
    if key not in opened:
        opened[key] = encoder.open_encoder(args, sample)
    return opened[key]
recall.open_encoder = search.open_encoder = open_once
answers = sys.stdout
for line in sys.stdin:
    script, flags = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = globals()[script].main(flags)
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


class Child:
    """Runs scripts one after the other in a process that may crash, with the model loaded once."""

    def __init__(self) -> None:
        self.process = None

    def run(self, script: str, flags: list[str]) -> tuple[int | str, str, str]:
        """Exit code, stdout and stderr; for a crash its traceback or signal in the place of the code."""
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps([script, flags])}\n".encode())
            self.process.stdin.flush()
        line = b""
        if select.select([self.process.stdout], [], [], 60)[0]:
            line = self.process.stdout.readline()
        if line:
            return tuple(json.loads(line))
        running = self.process.poll() is None and not self.process.stdout.peek()
        self.close()
        return ("no answer within 60 s" if running else f"ended by signal {-self.process_code}"), "", ""

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process_code, self.process = self.process.wait(), None


@pytest.fixture(scope="module")
def child():
    child = Child()
    yield child
    child.close()


@pytest.fixture(scope="module")
def world(trained, tmp_path_factory, child):
    """An index in four parts with a graph and with equal vectors, its right answers, and others to take files from."""
    base = tmp_path_factory.mktemp("world")
    emoji = [chr(0x1F600 + i) for i in range(8)]  # which the tokenizer can't tell apart
    texts = [*TARGETS, *emoji[:4], *(f"{a}，{b}" for a in SOURCES[:8] for b in TARGETS[:10]), *emoji[4:]]  # 104
    pairs = write(base / "p", pair_lines())
    world = SimpleNamespace(base=base, folder=base / "ix", others=[])
    for name, lines in (("corpus", texts), ("reversed", texts[::-1]), ("short", texts[:-4])):
        write(base / name, "".join(f"{text}\n" for text in lines))
    world.recall = [*flags_of(trained, pairs, str(base / "corpus"), base / "out"), "--recall_num", "10", "--index_dir", str(world.folder)]
    world.search = ["--device", "cpu", "--params_path", trained, "--index_dir", str(world.folder), "--format", "jsonl",
                    *(word for source in SOURCES[:6] for word in ("--query", source))]
    for name, flags in (("reversed", ["--corpus_file", str(base / "reversed")]), ("short", ["--corpus_file", str(base / "short")]),
                        ("length", ["--max_seq_length", "16"]), ("m", ["--hnsw_m", "9"])):
        world.others.append(base / f"other-{name}")
        run_right(child, "recall", [*world.recall, "--hnsw_deterministic", *flags, "--index_dir", str(world.others[-1])])
    world.others.append(narrow_index(base / "other-narrow", texts))
    world.right = {}
    for engine in ("hnsw", "flat"):  # the graph stays
        for script in ("recall", "search"):
            world.right[script, engine] = answer(world, child, script, engine)
    world.whole = Path(shutil.copytree(world.folder, base / "whole"))
    assert len(files_of(world.whole)) == 15 and np.load(next(world.whole.glob("repeated*.npy"))).shape == (7, 2)
    return world


def narrow_index(folder: Path, texts: list[str]) -> Path:
    """An index of the same texts in 16 dimensions."""
    from index_store import IndexStore, Plan

    vectors = np.random.default_rng(0).normal(size=(len(texts), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranges = [(first, min(first + PART, len(texts))) for first in range(0, len(texts), PART)]
    store, made_from = IndexStore(folder, strict=True), {"checkpoint": "0" * 64, "precision": "fp32", "max_seq_length": 32, "dimension": 16,
                                                           "metric": "cosine"}
    for first, end in ranges:
        store.write_part((first, end), texts[first:end], vectors[first:end], 0, made_from)

    class Corpus(list):
        sha256 = "0" * 64

    store.open_engine("hnsw", store.finish(Plan(ranges, []), Corpus(texts), made_from), m=16, deterministic=True)
    return folder


def run_right(child: Child, script: str, flags: list[str]) -> str:
    code, out, err = child.run(script, flags)
    assert code == 0, f"{code}{err}"
    return out


def command_of(world, script: str, engine: str) -> list[str]:
    return {"recall": [*world.recall, *(["--hnsw_deterministic"] if engine == "hnsw" else []), "--ann_engine", engine],
            "search": [*world.search, "--ann_engine", engine], "inspect_index": [str(world.folder)],
            "export_index": ["--index_dir", str(world.folder), "--output_dir", str(world.base / "parquet")]}[script]


def answer(world, child: Child, script: str, engine: str) -> str | bytes:
    out = run_right(child, script, command_of(world, script, engine))
    return out if script == "search" else (world.base / "out" / "recall_result.txt").read_bytes()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def block(rng, raw: bytes, fill) -> bytes:
    size = int(rng.integers(1, 1 + min(len(raw), 2048)))
    place = int(rng.integers(len(raw) - size + 1))
    return raw[:place] + fill(size) + raw[place + size :]


def flip(rng, raw: bytes, end: int) -> bytes:
    raw, place = bytearray(raw), int(rng.integers(min(end, len(raw))))
    raw[place] ^= 1 << int(rng.integers(8))
    return bytes(raw)


BYTES = {  # damages of one file
    "a bit": lambda rng, raw: flip(rng, raw, len(raw)),
    "a bit of the head": lambda rng, raw: flip(rng, raw, 128),
    "noise": lambda rng, raw: block(rng, raw, rng.bytes),
    "noise in the head": lambda rng, raw: block(rng, raw[:128], rng.bytes) + raw[128:],
    "zeros": lambda rng, raw: block(rng, raw, bytes),
    "cut": lambda rng, raw: raw[: rng.integers(len(raw))],
    "more": lambda rng, raw: raw + rng.bytes(rng.integers(1, 64)),
    "emptied": lambda rng, raw: b"",
    "deleted": lambda rng, raw: None}


def damage(rng, folder: Path, others: list[Path], spared: str = "") -> tuple[str, list[Path]]:
    """Damage an index folder; returns what was done, and the files that it was done to.

    Args:
        spared: name of a file that is not taken from another index together with many.
    """
    files = files_of(folder)
    path, kind = files[rng.integers(len(files))], rng.choice([*BYTES, "two swapped", "of another index", "a part of another index",
                                                              "many of another index"])
    other = others[rng.integers(len(others))]
    if kind in BYTES:
        raw = BYTES[kind](rng, path.read_bytes())
        path.write_bytes(raw) if raw is not None else path.unlink()
        return kind, [path]
    if kind == "two swapped":
        alike = [p for p in files if p != path and (p.suffix == path.suffix or rng.random() < 0.1)] or [folder / "manifest.json"]
        second = alike[rng.integers(len(alike))]
        one, two = path.read_bytes(), second.read_bytes()
        path.write_bytes(two)
        second.write_bytes(one)
        return kind, [path, second]
    names = {"of another index": [path], "a part of another index": [p for p in files if p.parent.name == "parts" and p.stem == path.stem],
             "many of another index": [p for p in files if rng.random() < 0.8 and p.name != spared]}[kind]
    taken = [p for p in names if (other / p.relative_to(folder)).is_file()]
    for p in taken:
        shutil.copy(other / p.relative_to(folder), p)
    return f"{kind} ({other.name})", taken


def verdict(world, script: str, engine: str, result: tuple, kind: str, touched: list[Path]) -> str:
    """What came of a run: `refused` as it should be, the `same` answer, or what is wrong with it."""
    code, out, err = result
    if code == 0:
        got = out if script == "search" else (world.base / "out" / "recall_result.txt").read_bytes()
        return "same" if got == world.right[script, engine] else "silent wrong answer"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if code != 2 or "Traceback" in err or len(errors) != 1 or out:
        return f"crash: {code} {err[-500:]}"
    named = touched if kind in BYTES else [world.folder]
    if not any(str(path) in errors[0] for path in named) and f"{world.folder} holds no finished index (no manifest.json)" not in errors[0]:
        return f"not named: {errors[0]}"
    return "refused" if re.search("delete |run again|make it again|run its shard|name another|with recall.py", errors[0]) else f"no remedy: {errors[0]}"


def restore(world) -> None:
    shutil.rmtree(world.folder, ignore_errors=True)
    shutil.rmtree(world.base / "out", ignore_errors=True)
    shutil.copytree(world.whole, world.folder)


@pytest.mark.parametrize("script", ["recall", "search"])
def test_a_damaged_index_is_refused_or_answers_right(world, child, script):
    counts: Counter = Counter()
    wrong = []
    for number in range(COUNT if script == "recall" else COUNT // 2):
        rng = np.random.default_rng((SEED, number))
        restore(world)
        # The whole of another index is no damage for search, which is told no corpus: a manifest makes an index.
        kind, touched = damage(rng, world.folder, world.others, "manifest.json" if script == "search" else "")
        engine = str(rng.choice(["hnsw", "flat"]))
        outcome = verdict(world, script, engine, child.run(script, command_of(world, script, engine)), kind, touched)
        counts[outcome.partition(":")[0]] += 1
        if outcome not in ("refused", "same"):
            wrong.append(f"{number} {engine}: {kind} {[str(path.relative_to(world.folder)) for path in touched]}: {outcome}")
    print(f"{script}: {dict(counts)}")
    assert not wrong, "\n".join(wrong)
    assert counts["refused"] > 0.5 * sum(counts.values())


def fit_checksums(folder: Path) -> None:
    """Make the manifests fit the files again, as far as they can be read."""
    for path in reversed(files_of(folder)):  # the parts' first
        with contextlib.suppress(Exception):
            facts = json.loads(path.read_bytes())
            facts.pop("sha256", None)
            for kind, file in facts.get("files", {}).items():
                file.update(describe_file(path.with_suffix(f".{kind}")))
            for file in facts.get("engines", {}).values():
                file.update(describe_file(folder / file["file"]))
            if "repeated" in facts:
                facts["repeated"].update(describe_file(next(folder.glob("repeated*.npy"))))
                facts["parts"] = [[*part[:2], json.loads(part_path(folder / "parts", tuple(part[:2]), "json").read_bytes())["sha256"]]
                                  for part in facts["parts"]]
            write_manifest(path, facts)


VALUES = [None, True, -1, 0, 1, 31, 2**40, 2**70, 1.5, "", "x", "parts", [], [1], [[0, 30]], [[0, 30], [30, 10**12]], {}, {"bytes": 1}]


def change_a_value(rng, folder: Path) -> str:
    """Change or take away a value of a manifest, and make its checksum fit."""
    paths = [path for path in files_of(folder) if path.suffix == ".json"]
    path = folder / "manifest.json" if rng.random() < 0.5 else paths[rng.integers(len(paths))]
    facts = at = json.loads(path.read_bytes())
    facts.pop("sha256")
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = keys[rng.integers(len(keys))]
        if not isinstance(at[key], (dict, list)) or not at[key] or rng.random() < 0.3:
            break
        at = at[key]
    name = f"{path.name} {key!r}: {at[key]!r}"
    if rng.random() < 0.3:
        del at[key]
    else:
        at[key] = VALUES[rng.integers(len(VALUES))]
        name += f" -> {at[key]!r}"
    write_manifest(path, facts)
    if path.name != "manifest.json":
        fit_checksums(folder)
    return name


def test_damage_that_fits_its_checksums_crashes_nothing(world, child):
    """Whoever damages a file and its checksum too gets an error or some answer, and no crash."""
    counts: Counter = Counter()
    wrong = []
    for number in range(COUNT // 2):
        rng = np.random.default_rng((SEED, number, 1))
        restore(world)
        if number % 2:
            kind = change_a_value(rng, world.folder)
        else:
            kind, touched = damage(rng, world.folder, world.others)
            kind += f" {[str(path.relative_to(world.folder)) for path in touched]}"
            fit_checksums(world.folder)
        for script in ("inspect_index", "export_index", "search", "recall"):
            shutil.rmtree(world.base / "parquet", ignore_errors=True)
            code, out, err = child.run(script, command_of(world, script, str(rng.choice(["hnsw", "flat"]))))
            counts[f"{script} {code if code in (0, 2) else 'crash'}"] += 1
            if code not in (0, 2) or (code == 2 and err.count("error: ") != 1):
                wrong.append(f"{number} {script}: {kind}: {' '.join(str(code).split())[-300:]} {err[-100:]}")
    print(dict(counts))
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong)
