"""Keeping how a version's predictions are explained, and making the functions that do it.

An explanation is kept beside the version's program, also where there is no program: it is of the same model, whichever
engine computes the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from dbscore import functions, schema, tables
from dbscore.compiler.contributions import Explanation
from dbscore.registry.lookup import has_functions, model_id
from dbscore.registry.naming import version_functions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from dbscore.functions import RowType
    from dbscore.registry.records import Version

__all__ = ["Explained", "explanation", "keep_explanation", "publish_explanation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What came of taking a model's score apart.

    Attributes:
        explanation: What computes the contributions; None where they cannot be.
        refused: Why not; None where they can.
    """

    explanation: Explanation | None = None
    refused: str | None = None


def keep_explanation(connection: Connection, version: Version, explained: Explained) -> None:
    """Keep an explanation with a version, or why there is none."""
    found = explained.explanation
    told = {
        "explained": None if found is None else f"{found.method}, of {found.scale}. {found.said}",
        "unexplained": explained.refused,
    }
    v = tables.version
    choice, program = connection.execute(select(v.c.choice, v.c.program).where(*_is(connection, version))).one()
    values = {"choice": {**(choice or {}), **told}}
    if found is not None:
        values["program"] = {**(program or {}), "explanation": found.to_json()}
    connection.execute(update(v).where(*_is(connection, version)).values(values))


def explanation(connection: Connection, version: Version) -> Explanation | None:
    """Return how a version's predictions are explained; None where they are not."""
    query = select(tables.version.c.program["explanation"]).where(*_is(connection, version))
    found = connection.scalar(query)
    return None if found is None else Explanation.from_json(found)


def _is(connection: Connection, version: Version) -> tuple[ColumnElement[bool], ...]:
    v = tables.version
    return v.c.model_id == model_id(connection, version.model), v.c.number == version.number


def publish_explanation(
    connection: Connection, version: Version, *, row_types: Sequence[RowType], comment: str
) -> None:
    """Make the functions that explain a version's predictions, where something here computes them."""
    found = explanation(connection, version)
    if found is None or not has_functions(connection, version):
        return
    own = version_functions(schema.models_schema(connection), version)
    functions.create_explanation(connection, own, found, tables=row_types, comment=comment)
