"""A real Milvus server for tests: the standalone binary that the package milvus==2.3.5 carries, started plainly.

That version listens on all interfaces, whatever its `ip` settings say. So it runs in a network namespace of its own, where
a loopback interface is all there is. This file, run as a script in there, starts it and passes on what arrives at a
socket that was bound to 127.0.0.1 outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import lzma
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PACKAGE = "milvus==2.3.5"
ALONE = ["unshare", "--map-root-user", "--net", "--mount"]
HIDE_RUN = ["mount", "-t", "tmpfs", "none", "/run"]  # /run/milvus is for a Milvus that the machine may have
TOKEN = "root:Milvus"  # the account that a new server has
INNER_PORT = 19530  # of the proxy; Milvus's other parts have the next ones
READY_WITHIN = 90  # seconds; it takes 3 to 4, and 8 to 30 after a kill, until the sessions of before have run out


class MilvusServer:
    """A server with its data in `folder`, where it finds them when it is started again. Skips where it can't be had.

    Args:
        cache: a folder where the binary (246 MB) is downloaded to and unpacked, once.
    """

    def __init__(self, cache: Path, folder: Path) -> None:
        self.binaries, self.folder, self.log = _binaries(cache), folder, folder / "milvus.log"
        self.process: subprocess.Popen | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "milvus.yaml").write_text(json.dumps(_settings(folder)))  # JSON is YAML
        (folder / "configs" / "glog.conf").write_text("")

    def start(self) -> MilvusServer:
        """Start it, on the data that are there, and return when it answers."""
        with socket.create_server(("127.0.0.1", self.port)) as listener, open(self.log, "ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # until the last process that inherits it is gone
            self.process = subprocess.Popen(
                [*ALONE, sys.executable, __file__, str(listener.fileno())], pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, "LD_LIBRARY_PATH": str(self.binaries)})
        end = time.monotonic() + READY_WITHIN
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"the Milvus server did not come up; the end of {self.log}:\n{tail}")
            time.sleep(0.2)
        return self

    def _answers(self) -> bool:
        from grpc import RpcError
        from pymilvus import MilvusClient, MilvusException

        try:
            with contextlib.closing(MilvusClient(self.uri, token=TOKEN, timeout=2, dedicated=True)) as client:
                client.list_collections(timeout=2)
        except (MilvusException, RpcError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, as a power cut: nothing more is written. (On SIGTERM it doesn't end within a minute.)"""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            with open(self.log, "rb") as log:
                fcntl.flock(log, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # all that it leaves outside of its folder
                Path("/tmp/milvus", f"server_id_{(self.folder / 'pid').read_text()}").unlink()

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder)


def _settings(folder: Path) -> dict:
    """What differs from Milvus's defaults: all in one folder, a password, and sessions that end soon after a kill."""
    parts = ["proxy", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"]
    return {
        "etcd": {"use": {"embed": True}, "data": {"dir": str(folder / "etcd")}, "log": {"level": "warn"}},
        "mq": {"type": "rocksmq"}, "rocksmq": {"path": str(folder / "rocksmq")},
        "localStorage": {"path": str(folder / "files")},
        "common": {"storageType": "local", "session": {"ttl": 5}, "security": {"authorizationEnabled": True}},
        **{part: {"ip": "127.0.0.1", "port": INNER_PORT + i} for i, part in enumerate(parts)}}


def _binaries(cache: Path) -> Path:
    """The folder with the server's binary and libraries."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip(f"{PACKAGE} has no server for this machine")
    try:
        subprocess.run([*ALONE, *HIDE_RUN], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespace to keep the Milvus server from other machines: {error}")
    folder = cache / PACKAGE.replace("==", "-")
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as package:
            pip = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--target", package,
                                  PACKAGE], capture_output=True, text=True)
            if pip.returncode:
                pytest.skip(f"pip can't get {PACKAGE}: {pip.stderr.strip()[-300:]}")
            unpacked = Path(package, "unpacked")
            unpacked.mkdir()
            for packed in Path(package, "milvus", "data", "bin").glob("*.lzma"):
                (unpacked / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
            (unpacked / "milvus").chmod(0o755)
            with contextlib.suppress(OSError):  # another run was faster
                unpacked.rename(folder)
    return folder


async def _run_inside(listener: socket.socket) -> None:
    """In the namespace: run the server until it ends or the test process does, and be its way to the outside."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS IFF_UP
    subprocess.run(HIDE_RUN, check=True)
    milvus = await asyncio.create_subprocess_exec(
        f"{os.environ['LD_LIBRARY_PATH']}/milvus", "run", "standalone", env={**os.environ, "DEPLOY_MODE": "STANDALONE"})
    Path("pid").write_text(str(milvus.pid))
    await asyncio.start_server(_connect, sock=listener)
    ended = asyncio.ensure_future(milvus.wait())
    left_alone = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([ended, left_alone], return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        milvus.kill()
    os._exit(0)  # not waiting for stdin


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", INNER_PORT)
    except OSError:
        writer.transport.abort()
    else:
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 20):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_run_inside(socket.socket(fileno=int(sys.argv[1]))))
