"""scripts/download_data.sh against a local server with good, broken and missing files."""

import hashlib
import http.server
import tarfile
import threading
from functools import partial

import pytest
from conftest import PROJECT, run_process, write


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        ranges: list = []

        def do_GET(self):
            start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
            self.ranges.append(int(start))
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()[int(start):]
            self.send_response(206 if int(start) else 200)
            self.send_header("Content-Length", str(len(content)))
            total = int(start) + len(content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    Handler.ranges = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}/", Handler
        running.shutdown()


def download(tmp_path, url, content: bytes):
    return run_process("bash", str(PROJECT / "scripts" / "download_data.sh"), "got", "corpus_file", cwd=tmp_path,
                       BASE_URL=url, MD5=hashlib.md5(content).hexdigest())


def test_a_good_file_arrives_resumes_and_is_not_fetched_twice(server, tmp_path):
    folder, url, handler = server
    content = bytes(range(256)) * 40
    (folder / "corpus_file").write_bytes(content)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "corpus_file.part").write_bytes(content[:3000])
    for _ in range(2):
        result = download(tmp_path, url, content)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "got" / "corpus_file").read_bytes() == content
    assert handler.ranges == [3000]
    (tmp_path / "got" / "corpus_file").write_bytes(b"changed")
    assert "not the published file" in download(tmp_path, url, content).stderr


def test_a_part_that_is_whole_asks_for_nothing(server, tmp_path):
    """A run that was killed before the last rename: the server would refuse to send from the end of the file."""
    _, url, handler = server
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "corpus_file.part").write_bytes(b"whole")
    result = download(tmp_path, url, b"whole")
    assert result.returncode == 0 and handler.ranges == [], result.stderr
    assert (tmp_path / "got" / "corpus_file").read_bytes() == b"whole"


def test_a_broken_and_a_missing_file_fail_clearly(server, tmp_path):
    folder, url, _ = server
    missing = download(tmp_path, url, b"")
    assert missing.returncode == 2 and "corpus_file could not be downloaded" in missing.stderr
    (folder / "corpus_file").write_bytes(b"broken")
    broken = download(tmp_path, url, b"whole")
    assert broken.returncode == 2 and "arrived broken" in broken.stderr
    assert not list((tmp_path / "got").iterdir())


def test_an_unknown_name_lists_the_files(tmp_path):
    result = run_process("bash", str(PROJECT / "scripts" / "download_data.sh"), "got", "nope", cwd=tmp_path)
    assert result.returncode == 2 and "semantic_pair_train.tsv" in result.stderr


def test_an_archive_is_unpacked(server, tmp_path):
    folder, url, _ = server
    write(tmp_path / "model_state.pdparams", "weights")
    with tarfile.open(folder / "batch_neg_v1.0.tar", "w") as archive:
        archive.add(tmp_path / "model_state.pdparams", "checkpoints/model_state.pdparams")
    md5 = hashlib.md5((folder / "batch_neg_v1.0.tar").read_bytes()).hexdigest()
    result = run_process("bash", str(PROJECT / "scripts" / "download_data.sh"), "got", "batch_neg_v1.0.tar", cwd=tmp_path,
                         BASE_URL=url.rstrip("/"), MD5=md5)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "got" / "checkpoints" / "model_state.pdparams").read_text() == "weights"
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == ["batch_neg_v1.0.tar", "checkpoints"]
