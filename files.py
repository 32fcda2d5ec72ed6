"""Files that are whole or absent: atomic writing, checksums, and one owner per output folder."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import importlib.metadata
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class UserError(Exception):
    """Bad input or a bad environment; its text is the one line that the user gets (exit code 2)."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it appears complete or not at all.

    A symbolic link stays, and the file that it points at is replaced. A device or a pipe (/dev/null, /dev/stdout) can't
    be replaced, only written to.

    Raises:
        UserError: the folder is not writable, the disk is full, or the file came out short.
    """
    try:
        with open(path, "wb") if is_stream(path) else _replacement(Path(os.path.realpath(path))) as file:
            yield file
    except BrokenPipeError:
        raise  # the reader has seen enough: no fault
    except OSError as error:
        raise UserError(write_failure(path, error)) from error


def is_stream(path: str | os.PathLike) -> bool:
    """Whether `path` is a device, a pipe or a socket: to be written to, never to be replaced."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file in the same folder, flushed to disk, checked for its size and renamed when it is whole.

    Its name is fixed: what a killed run left behind is overwritten by the next one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                if error.filename is None and error.strerror:  # of this file, not of one that is read
                    written = os.fstat(file.fileno()).st_size
                    raise OSError(error.errno, f"{error.strerror} after {written} bytes") from error
                raise
            size = file.tell()
        if temporary.stat().st_size != size:
            raise OSError(f"{temporary.stat().st_size} of {size} bytes arrived")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_failure(path: str | os.PathLike, error: OSError) -> str:
    """Say which file could not be written, why, how much room there is, and what to do about it."""
    reason = error.strerror or str(error)
    with contextlib.suppress(OSError):
        reason += f" ({shutil.disk_usage(os.path.dirname(os.path.realpath(path))).free} bytes are free there)"
    return f"cannot write {path}: {reason}; free some space or choose a writable place, then run again"


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object; a damaged file is a UserError that names it."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore it from a good copy or make it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__} where a JSON object belongs; make it again")
    return value


def write_manifest(path: str | os.PathLike, facts: dict) -> None:
    """Write what is to be known of a folder, with a checksum, so that `read_manifest` can trust every value of it."""
    write_json(path, {**facts, "sha256": manifest_digest(facts)})


def read_manifest(path: str | os.PathLike, form: int, remedy: str, fields: dict | None = None) -> dict:
    """Read what `write_manifest` wrote.

    Args:
        fields: what it must hold, by name: a type, a dict of such fields, or a list with the type of all items.

    Raises:
        UserError: it is damaged, was changed, or has another `format` than `form`; the text ends with `remedy`.
    """
    facts = read_json(path)
    if facts.get("format") != form:
        raise UserError(f"{path}: format {facts.get('format')!r}, this version reads {form}; {remedy}")
    if facts.pop("sha256", None) != manifest_digest(facts):
        raise UserError(f"{path} was changed after it was written: its checksum does not fit; {remedy}")
    wrong = next((name for name, kind in (fields or {}).items() if not fits(facts.get(name), kind)), None)
    if wrong is not None:
        raise UserError(f"{path}: {wrong!r} is missing or is no value of its kind; {remedy}")
    return facts


def fits(value: object, kind: Any) -> bool:
    """Whether a value of a manifest is what `read_manifest` was told of it."""
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(fits(value.get(name), inner) for name, inner in kind.items())
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(item, kind[0]) for item in value)
    return type(value) is kind


def made_by() -> dict[str, str]:
    """Who wrote a manifest: user, host and versions. No time and no paths: equal runs write equal bytes."""
    versions = {}
    for package in ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "openvino", "nncf", "hnswlib", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    with contextlib.suppress(KeyError, OSError):  # a user id without a name
        versions = {"user": getpass.getuser(), **versions}
    return {"host": socket.gethostname(), **versions}


def manifest_digest(facts: dict) -> str:
    """SHA-256 of what a manifest says, without its own checksum."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_folder(path: str | os.PathLike) -> Path:
    """Make the folder `path` with its parents; a file in the way or a read-only place is a UserError."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; choose a writable place") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the folder {path} is not writable; choose a writable place")
    return Path(path)


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_file(path: str | os.PathLike) -> dict:
    """What a manifest keeps of a file: {"bytes": size, "sha256": digest}."""
    return {"bytes": os.path.getsize(path), "sha256": sha256_file(path)}


def check_file(path: str | os.PathLike, expected: dict, remedy: str) -> None:
    """Compare a file with what its manifest says of it.

    Raises:
        UserError: it is missing, incomplete or changed; the text ends with `remedy`.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing; {remedy}")
    size = os.path.getsize(path)
    if size != expected.get("bytes"):
        raise UserError(f"{path} is incomplete: {size} of {expected.get('bytes')} bytes; {remedy}")
    if sha256_file(path) != expected.get("sha256"):
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in the manifest; {remedy}")


@contextlib.contextmanager
def own_folder(path: str | os.PathLike, name: str = ".lock") -> Iterator[Path]:
    """Hold an output folder for this process; a second run is told who has it.

    The kernel drops the lock with the process, so a killed run leaves none behind.

    Args:
        name: of the lock file; processes that share a folder by agreement hold different ones.

    Raises:
        UserError: another process owns the folder (its pid, host and command are named).
    """
    made = not os.path.exists(path)
    folder = make_folder(path)
    lock_path = folder / name
    while True:
        try:
            lock = open(lock_path, "ab+", buffering=0)  # noqa: SIM115 - held open for as long as the folder is owned
        except OSError as error:
            raise UserError(write_failure(lock_path, error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            time.sleep(0.1)  # it may have begun a moment ago, and not have written who it is
            lock.seek(0)
            owner = lock.read().decode(errors="replace").strip() or "another process"
            lock.close()
            raise UserError(f"{folder} is in use by {owner}; wait for it to end or choose another folder") from error
        # The owner removes its lock file when it leaves: a lock on a removed file protects nothing, so try again.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), lock_path.stat()):
                break
        lock.close()
    try:
        with contextlib.suppress(OSError):  # a full disk shows soon enough, and the lock holds without its text
            lock.truncate(0)
            lock.write(f"pid {os.getpid()} on {socket.gethostname()}: {' '.join(sys.argv)}\n".encode())
        yield folder
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()
        if made:  # for nothing, if it is still empty
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_owned(path: str | os.PathLike, name: str) -> bool:
    """Whether a process holds the lock `name` in the folder `path`."""
    try:
        with open(Path(path) / name, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
