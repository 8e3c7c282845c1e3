"""What the tests of the service share: a run, and servers whose network is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import small
from photoflux import variant
from photoflux.model.settings import Settings
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.folder import write_description, writing
from photoflux.runs.run import Run, load_run
from services import HELD, Server


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two classes with random weights, on images of 8×8."""
    folder = tmp_path_factory.mktemp("served")
    prepared = small.prepare(folder / "prepared", 2)
    trained = variant("dense_l2")
    run = Run(
        folder / "run", "flux", trained, Settings(1, 8, 0.001), RunData.of(prepared), [], 0, "epochs", 1.0,
        RunMetrics(None), {}, threshold={"score": 0.25, "promise": "recall", "value": 0.9},
    )  # fmt: skip
    with writing(run.path) as temporary:
        small.write_random(temporary / "weights.safetensors", trained, run.shape, 2)
        write_description(temporary, run)
    return load_run(run.path)


Start = Callable[..., Server]


@pytest.fixture
def start(served: Run, tmp_path: Path) -> Iterator[Start]:
    """Start servers whose network is held, with options; all are ended."""
    servers: list[Server] = []

    def started(*options: object, **environment: str) -> Server:
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(Server(folder, [HELD, "serve", served.path, *options], environment))
        return servers[-1]

    yield started
    for server in servers:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        server.process.stdout.close()
