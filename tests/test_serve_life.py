"""The service from its start over exchanges of its indexes to its end."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import threading
import time

import pytest
from conftest import SOURCES, TARGETS
from running_service import Service
from served_indexes import error_of, flags_of, folders_fixture  # noqa: F401 - fixtures


def test_reload_takes_what_is_new_and_keeps_what_runs(folders, tmp_path):
    live = tmp_path / "live"
    live.symlink_to(folders["bank"])
    with Service("--index", f"live={live}", "--params_path", folders["params"]) as service:
        assert service.http.post("/admin/reload").json() == {"reloaded": [{"name": "live", "texts": 24, "changed": False}]}
        live.unlink()
        live.symlink_to(folders["small"])
        assert service.http.post("/admin/reload", json={"index": "live"}).json() == {
            "reloaded": [{"name": "live", "texts": 16, "changed": True}]}
        assert service.search(SOURCES[0])["answers"][0]["results"][0]["text"] == SOURCES[0]

        broken = shutil.copytree(folders["bank"], tmp_path / "broken")
        next((broken / "parts").glob("*.npy")).write_bytes(b"no vectors")
        live.unlink()
        live.symlink_to(broken)
        answer = service.http.post("/admin/reload")
        assert error_of(answer, 409) == "reload_failed" and "incomplete" in answer.text
        for manifest in (b"[" * 100_000, None):
            (broken / "manifest.json").unlink()
            (broken / "manifest.json").write_bytes(manifest) if manifest else (broken / "manifest.json").mkdir()
            assert error_of(service.http.post("/admin/reload"), 409) == "reload_failed"
        live.unlink()
        live.symlink_to(live)
        assert error_of(service.http.post("/admin/reload"), 409) == "reload_failed"
        live.unlink()
        live.symlink_to(folders["cut"])  # of another checkpoint
        assert "no --params_path is it" in service.http.post("/admin/reload").text
        assert service.search(SOURCES[0])["answers"][0]["results"][0]["text"] == SOURCES[0]

        live.unlink()
        live.symlink_to(folders["bank"])
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while service.http.get("/info").json()["indexes"][0]["texts"] != 24:
            assert time.monotonic() < end
            time.sleep(0.05)
        foreign = service.http.post("/admin/reload", headers={"origin": "http://elsewhere.example"})
        assert error_of(foreign, 403) == "foreign_origin"


def test_each_index_is_loaded_whatever_becomes_of_the_others(folders, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for live in (one, two):
        live.symlink_to(folders["bank"])
    damaged = shutil.copytree(folders["bank"], tmp_path / "damaged")
    with Service("--index", f"one={one}", "--index", f"two={two}", "--params_path", folders["params"]) as service:
        texts = lambda: [index["texts"] for index in service.http.get("/info").json()["indexes"]]  # noqa: E731
        assert texts() == [24, 24]
        one.unlink()
        two.unlink()
        two.symlink_to(folders["small"])
        answer = service.http.post("/admin/reload")
        assert error_of(answer, 409) == "reload_failed" and "new is two" in answer.text and texts() == [24, 16]
        one.symlink_to(folders["small"])
        two.unlink()
        service.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while texts() != [16, 16] or not any("served before" in line for line in service.log[-3:]):
            assert time.monotonic() < end
            time.sleep(0.05)
        one.unlink()
        one.symlink_to(damaged)  # which is another state, and then the same one with damage
        assert "damaged" not in service.http.post("/admin/reload", json={"index": "one"}).text and texts()[0] == 24
        next((damaged / "parts").glob("*.txt")).write_text("short\n")
        assert error_of(service.http.post("/admin/reload", json={"index": "one"}), 409) == "reload_failed"


def test_twenty_swaps_under_load(folders, tmp_path):
    """No request fails, and no answer holds texts of both states."""
    live = tmp_path / "live"
    live.symlink_to(folders["bank"])
    states = {24: set(TARGETS + SOURCES[8:]), 16: set(SOURCES)}
    with Service("--index", f"live={live}", "--params_path", folders["params"]) as service:
        stop, faults, seen = threading.Event(), [], set()

        def client(number: int) -> None:
            while not stop.is_set():
                answer = service.http.post("/search", json={"text": [SOURCES[number], TARGETS[number]], "k": 24,
                                                            "exact": number % 2 == 0})
                lists = [[row["text"] for row in found["results"]] for found in answer.json().get("answers", [])]
                if answer.status_code != 200 or len(lists) != 2 or any(set(texts) != states.get(len(texts)) for texts in lists):
                    faults.append(answer.text[:500])
                seen.update(map(len, lists))

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(client, number) for number in range(6)]
            for swap in range(20):
                replacement = tmp_path / f"link{swap}"
                replacement.symlink_to(folders["small" if swap % 2 == 0 else "bank"])
                os.replace(replacement, live)
                assert service.http.post("/admin/reload").json()["reloaded"][0]["changed"]
            stop.set()
            for future in clients:
                future.result()
    assert not faults and seen == {16, 24}, faults[:2]


def test_sigterm_finishes_what_is_running(folders):
    with Service(*flags_of(folders, "bank"), "--cache_size", "0") as service:
        texts = [a + b for a in TARGETS for b in SOURCES]
        service.search(texts, k=24)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            running = [pool.submit(lambda: service.http.post("/search", json={"text": texts, "k": 24, "exact": True}))
                       for _ in range(4)]
            while "requests_at_work 4.0" not in service.http.get("/metrics").text and not any(f.done() for f in running):
                pass
            code = service.stop()
            assert [future.result().status_code for future in running] == [200] * 4
        assert code == 0
        with pytest.raises(OSError):
            socket.create_connection(service.address, timeout=2)


def test_control_c_ends_it_too(folders):
    with Service(*flags_of(folders, "bank")) as service:
        assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("flags", "words"), [
    (["--host", "0.0.0.0"], "--api_key"), (["--host", "example.org"], "--api_key"), (["--port", "70000"], "65535"),
    (["--index", "bank=elsewhere"], "given twice"), (["--index", "elsewhere"], "NAME=DIR"),
    (["--index", "a/b=elsewhere"], "NAME=DIR"), (["--index", "new=elsewhere"], "no finished index"),
    (["--api_key", "with blank"], "another key"), (["--max_queue", "0"], "above 0")])
def test_a_bad_start_ends_in_one_line(folders, failure, flags, words):
    import serve

    assert words in failure(serve.main, [*flags_of(folders, "bank"), *flags])


def test_a_port_that_is_taken(folders, failure):
    import serve

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        line = failure(serve.main, [*flags_of(folders, "bank"), "--port", str(other.getsockname()[1])])
    assert "choose another address or port" in line


def test_an_index_without_its_checkpoint(folders, failure):
    import serve

    line = failure(serve.main, ["--index", f"cut={folders['cut']}", "--params_path", folders["params"]])
    assert "'cut'" in line and folders["params"] in line and "--params_path" in line
