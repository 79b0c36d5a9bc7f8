"""Taking versions out of use: retire, drop."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, delete, select, update

from dbscore import functions, schema, tables
from dbscore.errors import InUseError, NotFoundError
from dbscore.functions import COMPILED_SCHEMA, ENGINE_SCHEMA
from dbscore.registry.aliases import remove_alias
from dbscore.registry.lookup import REFERENCE, find, lock_artifact, model_id, versions
from dbscore.registry.naming import version_functions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.registry.records import Version

__all__ = ["drop", "forget_unused", "retire"]


def retire(connection: Connection, reference: str) -> Version:
    """Take a version out of use: its functions go, its row and its bytes stay.

    Raises:
        NotFoundError: There is no such version.
        InUseError: An alias stands for it, an experiment tests it, or a view or a generated column uses its functions.
    """
    version = _free(connection, reference, "retired")
    _refuse_tested(connection, version, "retired", ("draft", "running", "paused"))
    if version.status == "active":
        _drop_functions(connection, version)
        connection.execute(update(tables.version).where(_is(connection, version)).values(status="retired"))
    return find(connection, version.reference)


def drop(connection: Connection, reference: str, *, with_aliases: bool = False) -> list[Version]:
    """Drop one version (`churn:3`) or a whole model (`churn`); bytes that no version uses any more go too.

    Args:
        connection: In a transaction.
        reference: `name:number` or a name; an alias is refused, since it may move meanwhile.
        with_aliases: Remove the aliases that stand for what is dropped.

    Raises:
        NotFoundError: There is no such model or version.
        InUseError: An alias stands for it, or a view or a generated column uses its functions.
    """
    schema.become_owner(connection)
    parts = REFERENCE.fullmatch(reference)
    if parts is None or parts["alias"] is not None:
        raise NotFoundError(
            f"{reference!r} names no version to drop",
            remedy="Write name:number, or the name for the whole model.",
        )
    name = parts["model"]
    model_id(connection, name, lock=True)
    doomed = versions(connection, name) if parts["number"] is None else [find(connection, reference)]
    for version in doomed:
        for alias in version.aliases if with_aliases else ():
            remove_alias(connection, name, alias, reason=f"{reference} dropped")
    for version in doomed:
        freed = _free(connection, version.reference, "dropped")
        _refuse_tested(connection, freed, "dropped", ("draft", "running", "paused", "concluded"))
        if freed.status == "active":
            _drop_functions(connection, freed)
        connection.execute(delete(tables.version).where(_is(connection, freed)))
        _drop_artifact(connection, freed.sha256)
    if parts["number"] is None:
        connection.execute(delete(tables.model).where(tables.model.c.name == name))
    return doomed


def _free(connection: Connection, reference: str, what: str) -> Version:
    """Return the version, locked, if no alias stands for it."""
    schema.become_owner(connection)
    name = find(connection, reference).model
    model_id(connection, name, lock=True)
    version = find(connection, reference)
    if version.aliases:
        raise InUseError(
            f"{version.reference} cannot be {what}: the alias{'es' * (len(version.aliases) > 1)} "
            f"{', '.join(version.aliases)} stand{'s' * (len(version.aliases) == 1)} for it",
            remedy=f"Promote another version first, or remove the alias: dbscore unalias {name}@{version.aliases[0]}.",
        )
    job = tables.job
    running = connection.scalar(
        select(job.c.job_id)
        .where(job.c.model == name, job.c.version == version.number, job.c.status.in_(("planned", "running")))
        .limit(1)
    )
    if running is not None:
        raise InUseError(
            f"{version.reference} cannot be {what}: job {running} scores with it",
            remedy=f"Let it end, or cancel it: dbscore jobs cancel {running}.",
        )
    return version


def _refuse_tested(connection: Connection, version: Version, what: str, statuses: Sequence[str]) -> None:
    """Refuse to take a version away from an experiment."""
    e, t, v = tables.experiment, tables.variant, tables.version
    found = connection.execute(
        select(e.c.name, e.c.status)
        .select_from(t.join(e, e.c.experiment_id == t.c.experiment_id).join(v, v.c.version_id == t.c.version_id))
        .where(_is(connection, version), e.c.status.in_(statuses))
        .order_by(e.c.name)
        .limit(1)
    ).fetchone()
    if found is not None:
        action = "stop" if found.status in ("running", "paused") else "drop"
        raise InUseError(
            f"{version.reference} cannot be {what}: experiment {found.name} ({found.status}) tests it",
            remedy=f"Let the experiment end first: dbscore experiment {action} {found.name}.",
        )


def _is(connection: Connection, version: Version) -> ColumnElement[bool]:
    return and_(
        tables.version.c.model_id == model_id(connection, version.model),
        tables.version.c.number == version.number,
    )


def _drop_functions(connection: Connection, version: Version) -> None:
    own = version_functions(schema.models_schema(connection), version)
    functions.drop(connection, own.schema, own.names())
    functions.drop(connection, COMPILED_SCHEMA, functions.compiled_names(own.name))
    functions.drop(connection, ENGINE_SCHEMA, functions.engine_names(own.name))


def _drop_artifact(connection: Connection, sha256: str) -> None:
    lock_artifact(connection, sha256)
    used = connection.scalar(select(tables.version.c.version_id).where(tables.version.c.sha256 == sha256).limit(1))
    if used is None:
        connection.execute(delete(tables.artifact).where(tables.artifact.c.sha256 == sha256))
        _forget(connection, sha256)


def forget_unused(connection: Connection, content: bytes) -> None:
    """Remove the server's copy of bytes that were not deployed in the end."""
    schema.become_owner(connection)
    sha256 = hashlib.sha256(content).hexdigest()
    lock_artifact(connection, sha256)
    stored = connection.scalar(select(tables.artifact.c.sha256).where(tables.artifact.c.sha256 == sha256))
    if stored is None:
        _forget(connection, sha256)


def _forget(connection: Connection, sha256: str) -> None:
    """Remove the server's copy, where the server scores at all."""
    if schema.has_engine(connection):
        functions.forget(connection, sha256)
