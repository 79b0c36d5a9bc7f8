"""Reading the registry: models, versions, references, artifacts, history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql

from dbscore import schema, tables
from dbscore.compiler.program import Program
from dbscore.errors import NotFoundError
from dbscore.registry.records import AliasMove, Model, Version
from dbscore.signature import Signature

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "CHAMPION",
    "REFERENCE",
    "artifact",
    "find",
    "has_functions",
    "history",
    "lock_artifact",
    "model_id",
    "models",
    "program",
    "versions",
]

CHAMPION = "champion"
REFERENCE = re.compile(r"(?P<model>[^@:]+)(?:@(?P<alias>[^@:]+)|:(?P<number>[0-9]{1,9}))?")


def models(connection: Connection) -> list[Model]:
    """Return all models, by name."""
    m, v, a = tables.model, tables.version, tables.alias
    counted = select(func.count()).where(v.c.model_id == m.c.model_id).scalar_subquery()
    pointed = (
        select(func.jsonb_object_agg(a.c.name, v.c.number))
        .select_from(a.join(v, v.c.version_id == a.c.version_id))
        .where(a.c.model_id == m.c.model_id)
        .scalar_subquery()
    )
    rows = connection.execute(select(m, counted.label("versions"), pointed.label("aliases")).order_by(m.c.name))
    return [
        Model(
            name=r.name,
            description=r.description,
            aliases=r.aliases or {},
            versions=r.versions,
            created_by=r.created_by,
            created_at=r.created_at,
        )
        for r in rows
    ]


def versions(connection: Connection, name: str | None = None) -> list[Version]:
    """Return the versions of one model, or of all, by name and number.

    Raises:
        NotFoundError: There is no such model.
    """
    if name is not None:
        model_id(connection, name)
    m, v, a = tables.model, tables.version, tables.alias
    aliases = (
        select(func.array_agg(postgresql.aggregate_order_by(a.c.name, a.c.name)))
        .where(a.c.version_id == v.c.version_id)
        .scalar_subquery()
    )
    query = (
        # without the program, which may be large
        select(
            *(c for c in v.c if c is not v.c.program),
            m.c.name.label("model"),
            tables.artifact.c.size,
            aliases.label("aliases"),
        )
        .join(m, m.c.model_id == v.c.model_id)
        .join(tables.artifact, tables.artifact.c.sha256 == v.c.sha256)
        .order_by(m.c.name, v.c.number)
    )
    if name is not None:
        query = query.where(m.c.name == name)
    return [
        Version(
            model=r.model,
            number=r.number,
            sha256=r.sha256,
            bytes=r.size,
            signature=Signature.from_json(r.signature),
            engine=r.engine,
            batch_engine=r.batch_engine,
            choice=r.choice,
            status=r.status,
            aliases=tuple(r.aliases or ()),
            provenance=r.provenance,
            parity=r.parity,
            metrics=r.metrics,
            mismatch_accepted_by=r.mismatch_accepted_by,
            mismatch_reason=r.mismatch_reason,
            created_by=r.created_by,
            created_at=r.created_at,
        )
        for r in connection.execute(query)
    ]


def find(connection: Connection, reference: str) -> Version:
    """Return the version that a reference means: `churn`, `churn@challenger` or `churn:3`.

    Raises:
        NotFoundError: There is no such model, version or alias; the message names those there are.
    """
    parts = REFERENCE.fullmatch(reference)
    if parts is None:
        raise NotFoundError(
            f"{reference!r} is not a reference to a model", remedy="Write churn, churn@challenger or churn:3."
        )
    found = versions(connection, parts["model"])
    if parts["number"] is not None:
        number = int(parts["number"])
        known = ", ".join(str(v.number) for v in found)
        match = [v for v in found if v.number == number]
        problem = f"model {parts['model']!r} has no version {number}"
        remedy = f"Its versions: {known}." if known else "It has no versions."
    else:
        alias = parts["alias"] or CHAMPION
        known = ", ".join(sorted(a for v in found for a in v.aliases))
        match = [v for v in found if alias in v.aliases]
        problem = f"model {parts['model']!r} has no alias {alias!r}"
        remedy = f"Its aliases: {known}." if known else "It has no aliases."
    if not match:
        raise NotFoundError(problem, remedy=remedy)
    return match[0]


def program(connection: Connection, version: Version) -> Program | None:
    """Return what a version was compiled to; None where it was not."""
    v = tables.version
    query = select(v.c.program).where(v.c.model_id == model_id(connection, version.model), v.c.number == version.number)
    found = connection.scalar(query)
    # how it is explained is kept there too
    return Program.from_json(found) if found is not None and "results" in found else None


def has_functions(connection: Connection, version: Version) -> bool:
    """Say whether something here computes a version: PL/Python, or the SQL that it was compiled to."""
    return version.engine == "sql" or schema.has_engine(connection) or program(connection, version) is not None


def artifact(connection: Connection, sha256: str) -> bytes:
    """Return a model's bytes.

    Raises:
        NotFoundError: There are none of that hash.
    """
    found = connection.scalar(select(tables.artifact.c.bytes).where(tables.artifact.c.sha256 == sha256))
    if found is None:
        raise NotFoundError(f"there is no artifact {sha256}")
    return bytes(found)


def lock_artifact(connection: Connection, sha256: str) -> None:
    """Wait for whoever else stores or drops the same bytes: they are shared by versions of any model."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))


def history(connection: Connection, name: str, *, alias: str | None = None) -> list[AliasMove]:
    """Return the moves of a model's aliases, oldest first; also of a model that was dropped.

    Raises:
        NotFoundError: There never was such a model.
    """
    h = tables.alias_history
    query = select(h).where(h.c.model == name).order_by(h.c.alias_history_id)
    if alias is not None:
        query = query.where(h.c.alias == alias)
    moves = [
        AliasMove(
            model=r.model,
            alias=r.alias,
            action=r.action,
            from_number=r.from_number,
            to_number=r.to_number,
            reason=r.reason,
            moved_by=r.moved_by,
            moved_at=r.moved_at,
        )
        for r in connection.execute(query)
    ]
    if not moves:
        model_id(connection, name)
    return moves


def model_id(connection: Connection, name: str, *, lock: bool = False) -> int:
    """Return a model's key; with `lock`, after whoever else moves that model has ended."""
    query = select(tables.model.c.model_id).where(tables.model.c.name == name)
    found = connection.scalar(query.with_for_update() if lock else query)
    if found is None:
        known = ", ".join(connection.scalars(select(tables.model.c.name).order_by(tables.model.c.name)))
        raise NotFoundError(
            f"there is no model {name!r}",
            remedy=f"Models there are: {known}." if known else "There is no model yet.",
        )
    return int(found)
