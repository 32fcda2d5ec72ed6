"""serve.py as a process of its own, for tests that speak HTTP with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parents[1]


class Service:
    """A running service; `with Service("--index", ...) as service: service.http.get("/search", ...)`."""

    def __init__(self, *flags: str, command: Sequence[str] = (sys.executable, "-u", str(PROJECT / "serve.py")),
                 **environment: str) -> None:
        self.process = subprocess.Popen([*command, "--device", "cpu", "--port", "0", *flags], cwd=PROJECT,
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.log: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(120)
        found = re.search(r"http://\S+", self.log[-1] if self.log else "")
        assert found, "".join(self.log)
        self.url = found[0]
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(line)
            if line.startswith("serving "):
                self._ready.set()
        self._ready.set()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def memory(self) -> float:
        """Megabytes that the process holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def search(self, text: str | list[str], **more) -> dict:
        answer = self.http.post("/search", json={"text": text, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert not any("Traceback" in line for line in self.log), "".join(self.log)
