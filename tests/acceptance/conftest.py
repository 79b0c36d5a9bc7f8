"""Real data in one database per module: loaded once, every model deployed beside the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import psycopg
import pytest

from dbscore import Client
from tests.conftest import DATA, database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def house_url(server_url: str, template: str) -> Iterator[str]:
    """A database with dbscore that the tests of one module share."""
    with database(server_url, template) as url:
        yield url


@pytest.fixture(scope="module")
def house(house_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to it; each statement commits by itself."""
    with psycopg.connect(house_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def keeper(house_url: str) -> Iterator[Client]:
    """A client of it."""
    with Client(house_url) as client:
        yield client


@pytest.fixture(scope="module")
def real() -> Callable[[str], pd.DataFrame]:
    """Read a file of real data, its row number as the key; skip, saying so, where the folder is absent."""

    def read(name: str) -> pd.DataFrame:
        path = DATA / f"{name}.parquet"
        if not path.exists():
            pytest.skip(f"real data is not at hand: {path.name}")
        return pd.read_parquet(path).rename_axis("key")

    return read
