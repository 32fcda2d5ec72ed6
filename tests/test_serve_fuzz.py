"""A thousand bad requests: those that schemathesis makes of the OpenAPI description, beside the ones in test_serve.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from running_service import Service
from served_indexes import flags_of, folders_fixture  # noqa: F401 - fixtures
from test_serve_faults import BAD, RAW

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed (it needs Python 3.10)")
def test_nothing_that_schemathesis_sends_is_a_fault_of_ours(folders, tmp_path):
    with Service(*flags_of(folders, "bank", "cut")) as service:
        for body, _ in BAD * 3:
            service.http.post("/search", json=body)
        for body in RAW * 3:
            service.http.post("/search", content=body, headers={"content-type": "application/json"})
        before, requests = service.memory(), requests_of(service)
        done = subprocess.run(
            [str(SCHEMATHESIS), "run", f"{service.url}/openapi.json", "--checks", "not_a_server_error", "--mode", "all",
             "--max-examples", "150", "--seed", "1", "--phases", "coverage,fuzzing", "--generation-database", "none",
             "--max-failures", "5", "--request-timeout", "20"],
            capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert requests_of(service) - requests > 800
        assert 'status="500"' not in service.http.get("/metrics").text
        assert service.memory() - before < 50


def requests_of(service) -> float:
    """All that it has answered."""
    lines = service.http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("semantic_index_requests_total{"))


def test_the_description_is_there(folders):
    with Service(*flags_of(folders, "bank")) as service:
        paths = service.http.get("/openapi.json").json()["paths"]
        assert set(paths["/search"]) == {"get", "post"} and "422" in paths["/search"]["post"]["responses"]
