"""The service under load: a small form of benchmarks/serve.py, with the clients of that benchmark."""

from __future__ import annotations

import asyncio
import sys

import pytest
from conftest import PROJECT, make_encoder_folder, pair_lines, write
from running_service import Service
from served_indexes import build_index

sys.path.append(str(PROJECT / "benchmarks"))

from http_load import closed_loop, open_loop, searches, slow_clients  # noqa: E402

TEXTS = [f"{line.split()[0]}{number}" for number in range(40) for line in pair_lines().splitlines()]


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    """An encoder large enough (4 x 256) to be most of the work, as it is in life."""
    import train_batch_neg

    root = tmp_path_factory.mktemp("load")
    encoder = make_encoder_folder(root / "encoder", hidden_size=256, num_hidden_layers=4, intermediate_size=1024)
    pairs = write(root / "train.tsv", pair_lines())
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder, "--train_set_file", pairs,
                                 "--save_dir", str(root / "model"), "--batch_size", "8", "--max_steps", "1"]) == 0
    params = str(root / "model" / "latest" / "model_state.pdparams")
    return ["--index", f"bank={build_index(root / 'bank', params, TEXTS)}", "--params_path", params, "--cache_size", "0"]


def loaded(service: Service, clients: int, seconds: float):
    load = asyncio.run(closed_loop(service.address, searches(TEXTS), clients, seconds))
    assert set(load.statuses) == {200}
    return load


def test_a_lone_client_is_answered_at_once_and_many_together_get_more(flags):
    with Service(*flags) as service, Service(*flags, "--no_batching") as apart:
        for one in (service, apart):
            loaded(one, 32, 2)
        alone = loaded(service, 1, 2)
        assert alone.percentile(0.5) < 50 and alone.percentile(0.99) < 200
        ratios = []
        for _ in range(3):
            ratios.append(loaded(service, 32, 2).rate / loaded(apart, 32, 2).rate)
        assert sorted(ratios)[1] > 1.3, ratios


def test_twice_the_peak_with_slow_clients_beside(flags):
    async def overload(rate: float):
        slow = asyncio.create_task(slow_clients(service.address, 50, 8))
        load = await open_loop(service.address, searches(TEXTS), rate, 8)
        await slow
        return load

    with Service(*flags) as service:
        loaded(service, 32, 3)
        peak = loaded(service, 32, 3).rate
        before = service.memory()
        load = asyncio.run(overload(2 * peak))
        assert set(load.statuses) <= {200, 429} and load.rate > 0.6 * peak
        assert service.memory() - before < 50
