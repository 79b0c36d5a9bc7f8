"""A server without PL/Python, as managed ones are: PostgreSQL 18 from the wheel."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dbscore import Client, LocalServer
from dbscore.errors import ServerError
from dbscore.local.installation import find_embedded
from tests.conftest import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def plain_url() -> Iterator[str]:
    home = Path(tempfile.mkdtemp(prefix="dbscore-tests-", dir="/var/tmp"))
    home.chmod(0o755)
    server = LocalServer(home, config=QUICK, installation=find_embedded()[0])
    try:
        yield server.start()
    finally:
        server.remove()
        shutil.rmtree(home, ignore_errors=True)


def test_the_registry_installs_and_status_names_the_package_that_is_missing(plain_url: str) -> None:
    with Client(plain_url) as client:
        status = client.install()
        assert status.server_version.startswith("18")
        assert status.engines == ()
        assert "apt-get install postgresql-plpython3-18" in status.problems[0]
        assert client.install().installed


def test_a_deployment_is_refused_with_the_command_and_nothing_is_stored(plain_url: str) -> None:
    frame = np.random.default_rng(0).normal(size=(50, 2))
    model = LogisticRegression().fit(frame, (frame[:, 0] > 0).astype(int))
    with Client(plain_url) as client:
        client.install()
        with pytest.raises(ServerError, match="no PL/Python") as caught:
            client.deploy("tip", model, sample=frame)
        assert caught.value.sqlstate == "ML009"
        assert client.models() == []
        client.uninstall()
