"""files.py on its own: the order of writing, short files, stale locks."""

import fcntl
import hashlib
import os
import stat

import pytest

from files import UserError, make_folder, own_folder, read_json, sha256_file, whole_file


def test_bytes_are_on_disk_before_the_file_takes_its_name(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    with whole_file(tmp_path / "f") as file:
        file.write(b"abc")
    assert calls == ["fsync", "replace"] and (tmp_path / "f").read_bytes() == b"abc"


def test_a_file_that_came_out_short_does_not_replace_the_old_one(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(UserError, match="1 of 3 bytes arrived"), whole_file(tmp_path / "f") as file:
        file.write(b"abc")
        file.flush()
        os.truncate(tmp_path / ".f.tmp", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"old"


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/f")
    (tmp_path / "new").symlink_to("there/g")
    for name in ("link", "new"):
        with whole_file(tmp_path / name) as file:
            file.write(b"abc")
    assert os.readlink(tmp_path / "link") == "there/f" and os.readlink(tmp_path / "new") == "there/g"
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == {"f": b"abc", "g": b"abc"}


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """A pipe stands for all that is no file: replacing /dev/null would harm the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(tmp_path / "pipe") as file:
        file.write(b"abc")
    assert os.read(reader, 10) == b"abc" and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_full_device_is_told(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")  # a link: broken code replaces it, and not the device
    with pytest.raises(UserError, match="No space left on device"), whole_file(tmp_path / "full") as file:
        file.write(b"abc")
    assert os.readlink(tmp_path / "full") == "/dev/full"


def test_a_hash_covers_the_whole_file(tmp_path):
    content = bytes(1 << 20) + b"end"
    (tmp_path / "f").write_bytes(content)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_json_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "f.json").write_text("[1]")
    with pytest.raises(UserError, match="f.json: holds list"):
        read_json(tmp_path / "f.json")


def test_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(UserError, match="is not writable"):
        make_folder(tmp_path)


def test_a_lock_on_a_removed_file_is_taken_again(tmp_path, monkeypatch):
    """The owner leaves, and removes its lock file, between our opening and our locking it."""
    calls, flock = [], fcntl.flock

    def leave_first(file, how):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", leave_first)
    with own_folder(tmp_path), pytest.raises(UserError, match="in use by pid"), own_folder(tmp_path):
        pass
    assert len(calls) == 3


def test_the_name_of_a_killed_owner_does_not_stay(tmp_path):
    (tmp_path / ".lock").write_text("pid 1 on gone: recall.py\n")
    with own_folder(tmp_path), pytest.raises(UserError, match=f"in use by pid {os.getpid()} "), own_folder(tmp_path):
        pass


def test_a_folder_that_was_made_for_nothing_goes_and_one_of_the_users_stays(tmp_path):
    with pytest.raises(KeyError), own_folder(tmp_path / "new"):
        raise KeyError
    (tmp_path / "empty").mkdir()
    with own_folder(tmp_path / "empty"), own_folder(tmp_path / "full") as full:
        (full / "result").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
