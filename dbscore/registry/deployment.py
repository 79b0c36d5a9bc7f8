"""Deploying: a converted model becomes the next version, with its functions, or nothing is stored."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, update
from sqlalchemy.dialects import postgresql

from dbscore import schema, tables
from dbscore.errors import ParityError, ServerError
from dbscore.registry.aliases import promote
from dbscore.registry.grants import grant_all, grantees
from dbscore.registry.lookup import CHAMPION, find, lock_artifact, model_id, versions
from dbscore.registry.naming import refuse_collision, refuse_name, version_functions
from dbscore.registry.publishing import new_tables, publish_alias, publish_version, remember_tables
from dbscore.registry.verification import verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dbscore.convert.conversion import Conversion, Parity
    from dbscore.functions import FunctionSet, RowType
    from dbscore.registry.records import Version

__all__ = ["deploy"]


def deploy(
    connection: Connection,
    name: str,
    conversion: Conversion,
    *,
    alias: str | None = None,
    row_types: Sequence[RowType] = (),
    metrics: Mapping[str, float] | None = None,
    description: str | None = None,
    accept_mismatch: str | None = None,
) -> Version:
    """Store a converted model as the next version, make its functions, compare what they answer.

    A server without PL/Python has no functions: the version is stored for the workers of jobs, which score in their
    own process.

    The first version becomes the champion. The same bytes with the same signature are the same version: it is
    returned, and nothing is stored.

    Args:
        connection: In a transaction, which the caller commits.
        name: The model, made if it is not there.
        conversion: What `dbscore.convert.convert` made.
        alias: An alias to point to the new version, in the same transaction.
        row_types: Tables whose rows the functions take, besides those of earlier versions.
        metrics: Numbers to keep with the version and to show in its comment.
        description: What the model is, kept with the model.
        accept_mismatch: Why a version that the parity gate refuses is deployed all the same; None refuses it.

    Raises:
        NameRefusedError: The name is no identifier, too long, or something else has it.
        ParityError: The converted model disagrees with the native one, there or in the database.
        FeatureError: A table lacks a feature's column.
        ServerError: The server's Python lacks what its functions need.
    """
    refuse_name(name)
    if conversion.parity is not None and conversion.parity.total_mismatches and accept_mismatch is None:
        raise _refusal(name, conversion.parity)
    schema.become_owner(connection)
    _refuse_server(connection)
    _ensure_model(connection, name, description)
    existing = versions(connection, name)
    sha256 = hashlib.sha256(conversion.onnx).hexdigest()
    version = _same(existing, conversion, sha256)
    if version is None:
        roles = grantees(connection, name)
        version = _store(connection, name, conversion, sha256=sha256, metrics=dict(metrics or {}))
        remember_tables(connection, name, row_types)
        refuse_collision(connection, name, existing, _functions(connection, version).names())
        publish_version(connection, version, row_types=row_types)
        grant_all(connection, version, roles)
        _record_parity(connection, version, conversion, accept_mismatch=accept_mismatch)
        if not existing and alias != CHAMPION:
            promote(connection, name, version.number, alias=CHAMPION, reason="first version")
    elif new_tables(connection, name, row_types):
        roles = grantees(connection, name)
        remember_tables(connection, name, row_types)
        publish_version(connection, version, row_types=row_types)
        for one in version.aliases:
            publish_alias(connection, version, one)
        grant_all(connection, version, roles)
    if alias is not None:
        promote(connection, name, version.number, alias=alias, reason="deployed")
    return find(connection, version.reference)


def _same(existing: Sequence[Version], conversion: Conversion, sha256: str) -> Version | None:
    """Return the version that has these bytes and this signature already."""
    for version in existing:
        if (version.sha256, version.signature, version.status) == (sha256, conversion.signature, "active"):
            return version
    return None


def _store(
    connection: Connection, name: str, conversion: Conversion, *, sha256: str, metrics: dict[str, float]
) -> Version:
    """Insert the artifact, where it is not there yet, and the version."""
    lock_artifact(connection, sha256)
    connection.execute(
        postgresql.insert(tables.artifact)
        .values(sha256=sha256, bytes=conversion.onnx, size=len(conversion.onnx))
        .on_conflict_do_nothing()
    )
    number = _next_number(connection, name)
    connection.execute(
        insert(tables.version).values(
            model_id=model_id(connection, name),
            number=number,
            sha256=sha256,
            signature=conversion.signature.to_json(),
            engine="onnx",
            provenance=conversion.provenance.to_json(),
            metrics=metrics,
        )
    )
    return find(connection, f"{name}:{number}")


def _functions(connection: Connection, version: Version) -> FunctionSet:
    return version_functions(schema.models_schema(connection), version)


def _record_parity(
    connection: Connection, version: Version, conversion: Conversion, *, accept_mismatch: str | None
) -> None:
    """Keep the whole comparison with the version: what the functions answer, where there are any, is part of it."""
    parity = conversion.parity
    if parity is None:
        return
    if schema.has_engine(connection):
        parity = _compared(connection, version, conversion, parity, accept_mismatch=accept_mismatch)
    accepted = parity.total_mismatches > 0
    connection.execute(
        update(tables.version)
        .where(
            tables.version.c.model_id == model_id(connection, version.model),
            tables.version.c.number == version.number,
        )
        .values(
            parity=parity.to_json(),
            mismatch_accepted_by=func.session_user() if accepted else None,
            mismatch_reason=accept_mismatch if accepted else None,
        )
    )


def _compared(
    connection: Connection, version: Version, conversion: Conversion, parity: Parity, *, accept_mismatch: str | None
) -> Parity:
    """Return the comparison with what the functions answer added."""
    checks = conversion.checks
    if checks is None:
        # a conversion has both or neither
        return parity
    wrong = verify(connection, _functions(connection, version), checks, parity.tolerance)
    if wrong and accept_mismatch is None:
        raise ParityError(
            f"{version.reference}: the functions in the database disagree with the native model on {len(wrong)} of "
            f"{len(checks.rows)} rows: {'; '.join(wrong[:5])}",
            remedy="Compare the server's onnxruntime with the client's (`dbscore status`).",
        )
    return replace(
        parity,
        rows={**parity.rows, "database": len(checks.rows)},
        mismatches={**parity.mismatches, "database": len(wrong)},
    )


def _refusal(name: str, parity: Parity) -> ParityError:
    """Return the refusal of a model that was converted wrongly, with the rows that show it."""
    rows = "\n".join(
        f"    {m.origin} row {m.row}: native {m.native!r}, converted {m.converted!r}" for m in parity.examples[:5]
    )
    return ParityError(
        f"{name}: the converted model disagrees with the native one on {parity.total_mismatches} of "
        f"{sum(parity.rows.values())} rows (largest difference {parity.max_absolute:.3g}, "
        f"relative {parity.max_relative:.3g}, allowed {parity.tolerance.absolute:g} + "
        f"{parity.tolerance.relative:g} of the value):\n{rows}",
        remedy="Change the estimator, or deploy it all the same with --accept-mismatch REASON, which is recorded.",
    )


def _refuse_server(connection: Connection) -> None:
    """Refuse a server whose functions would not work; one that has none is for job workers."""
    if not schema.has_engine(connection):
        return
    problem = schema.python_problem(connection, schema.server_python(connection))
    if problem:
        raise ServerError(f"engine onnx cannot run here: {problem}")


def _ensure_model(connection: Connection, name: str, description: str | None) -> None:
    """Make the model if it is not there, and lock it: two deployments of one model wait for each other."""
    connection.execute(postgresql.insert(tables.model).values(name=name).on_conflict_do_nothing())
    key = model_id(connection, name, lock=True)
    if description is not None:
        connection.execute(update(tables.model).where(tables.model.c.model_id == key).values(description=description))


def _next_number(connection: Connection, name: str) -> int:
    number = tables.model.c.last_number
    statement = update(tables.model).where(tables.model.c.name == name).values(last_number=number + 1)
    return int(connection.scalar(statement.returning(number)) or 0)
