"""The transactions in which something is done to experiments."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbscore.database import run
from dbscore.experiments import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from dbscore.experiments.records import Experiment

__all__ = ["Transactions"]


class Transactions:
    """Opens transactions in a database that has experiments.

    Args:
        transaction: Opens the client's transactions.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        with self._transaction() as connection:
            lookup.require_experiments(connection)
            yield connection

    def _call(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> None:
        with self._begun() as connection:
            run(connection, statement, parameters)

    def _changed(self, name: str, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Experiment:
        with self._begun() as connection:
            run(connection, statement, parameters)
            return lookup.experiment(connection, name)
