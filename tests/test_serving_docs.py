"""docs/serving.md: every curl line is run against a service, and what it says of flags and codes is so."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from conftest import PROJECT, run_process
from page_browser import CHROMIUM
from running_service import Service
from served_indexes import flags_of, folders_fixture, service_fixture  # noqa: F401 - fixtures

DOCUMENT = (PROJECT / "docs" / "serving.md").read_text(encoding="utf-8")
CURL = [line for block in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL) for line in block.splitlines()]


def test_the_document_has_curl_lines_for_every_path():
    import argparse

    from guard import Limits, Metrics
    from service import make_app

    paths = set(make_app(argparse.Namespace(served={}), Limits(1, 1, 1, 1, 1, 1), Metrics(), "0").openapi()["paths"])
    shown = {re.search(r"127\.0\.0\.1:8000(/[^\s'?]*)", line)[1] for line in CURL}
    assert {path.replace("{name}", "bank") for path in paths} <= shown


@pytest.mark.parametrize("line", CURL)
def test_curl(line, service):  # noqa: F811
    words = [word.replace("http://127.0.0.1:8000", service.url) for word in shlex.split(line)]
    done = subprocess.run([words[0], "--silent", "--fail-with-body", *words[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    if "/metrics" not in line:
        assert "error" not in json.loads(done.stdout)


def test_codes_are_those_of_the_code():
    listed = set(re.findall(r"`([a-z_]+)`", DOCUMENT.split("| status | code |")[1].split("## Limits")[0]))
    source = "".join((PROJECT / name).read_text(encoding="utf-8") for name in ("guard.py", "http_protocol.py", "service.py"))
    raised = set(re.findall(r"(?:ApiError|_refuse)\(\s*\d+, \"([a-z_]+)\"", source))
    raised |= {"index_not_found", "model_not_found", "invalid_request", "not_found", "method_not_allowed"}
    assert listed == raised


def test_flags_and_defaults_are_those_of_the_script():
    from serve import parse_flags

    table = DOCUMENT.split("| flag | default | |")[1].split("\n\n")[0]
    rows = [re.findall(r"`--(\w+)`", row.split("|")[1]) + [row.split("|")[2].strip()] for row in table.splitlines()[2:]]
    defaults = vars(parse_flags(["--index", "a=b", "--params_path", str(PROJECT / "README.md")]))
    for *names, values in rows:
        for name, value in zip(names, values.split(", ")):
            assert name in defaults and (not value or float(value) == defaults[name]), name


def test_the_wrapper(folders):
    environment = {"DEVICE": "cpu", "PARAMS_PATH": folders["params"], "INDEX_DIR": str(folders["bank"]), "NAME": "wrapped"}
    with Service("--max_k", "5", command=["bash", str(PROJECT / "scripts" / "run_serve.sh")], **environment) as running:
        assert running.http.get("/readyz").json()["indexes"] == ["wrapped"]
        assert running.http.get("/info").json()["limits"]["k"] == 5
        assert running.stop() == 0


def test_the_page_of_the_service(folders):
    """What tests of the page ask of a server that has no switches, asked of the real one. Without Chromium they skip."""
    files = sorted(map(str, (PROJECT / "tests").glob("test_page_*.py")))
    assert files
    with Service(*flags_of(folders, "bank", "small")) as running:
        done = run_process(sys.executable, "-m", "pytest", *files, "-q", SEARCH_PAGE_URL=running.url)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_the_screenshot_is_made_anew(folders, tmp_path):
    pytest.importorskip("playwright", reason="Playwright is missing")
    picture = tmp_path / "page.png"
    done = run_process("python", "scripts/screenshot.py", "--query", "密码", "--chromium", CHROMIUM, "--output", str(picture), "--",
                       "--device", "cpu", *flags_of(folders, "bank", "small"))
    assert done.returncode == 0 and picture.read_bytes().startswith(b"\x89PNG"), done.stderr
