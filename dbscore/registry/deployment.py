"""Deploying: a converted model becomes the next version, with its functions, or nothing is stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, null, update
from sqlalchemy.dialects import postgresql

from dbscore import schema, tables
from dbscore.errors import ParityError, ServerError
from dbscore.registry.aliases import promote
from dbscore.registry.comparison import Compiled, Engine, compare
from dbscore.registry.explanations import Explained, keep_explanation
from dbscore.registry.grants import grant_all, grantees
from dbscore.registry.lookup import CHAMPION, find, lock_artifact, model_id, versions
from dbscore.registry.naming import refuse_collision, refuse_name, version_functions
from dbscore.registry.publishing import new_tables, publish_alias, publish_version, remember_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.convert.conversion import Conversion, Parity
    from dbscore.functions import RowType
    from dbscore.registry.engines import Choice
    from dbscore.registry.records import Version

__all__ = ["Deployment", "deploy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is to become a version, and how.

    Attributes:
        conversion: What `dbscore.convert.convert` made.
        compiled: What came of compiling it.
        explained: What came of taking its score apart.
        engine: `onnx`, `sql`, or `auto`: for single rows and for batches whichever is the faster here.
        alias: An alias to point to the new version, in the same transaction.
        row_types: Tables whose rows the functions take, besides those of earlier versions.
        metrics: Numbers to keep with the version and to show in its comment.
        description: What the model is, kept with the model.
        accept_mismatch: Why a version that the parity gate refuses is deployed all the same; None refuses it.
    """

    conversion: Conversion
    compiled: Compiled = field(default_factory=lambda: Compiled(program=None, refused="nobody tried"))
    explained: Explained = field(default_factory=lambda: Explained(refused="nobody tried"))
    engine: Engine = "auto"
    alias: str | None = None
    row_types: Sequence[RowType] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    description: str | None = None
    accept_mismatch: str | None = None

    @property
    def sha256(self) -> str:
        """The hash of the bytes."""
        return hashlib.sha256(self.conversion.onnx).hexdigest()

    def is_same(self, version: Version) -> bool:
        """Say whether a version is what would be deployed: these bytes, this signature, an engine that will do."""
        known = (version.sha256, version.signature, version.status)
        suits = self.engine == "auto" or version.engine == version.batch_engine == self.engine
        return suits and known == (self.sha256, self.conversion.signature, "active")


def deploy(connection: Connection, name: str, deployment: Deployment) -> Version:
    """Store a converted model as the next version, make its functions, compare what they answer, choose its engines.

    A server without PL/Python has functions of compiled versions only: any other is stored for the workers of jobs,
    which score in their own process.

    The first version becomes the champion. The same bytes with the same signature are the same version, unless it has
    another engine than the one that is asked for: it is returned, and nothing is stored.

    Args:
        connection: In a transaction, which the caller commits.
        name: The model, made if it is not there.
        deployment: What is to become a version.

    Raises:
        CompilationError: Engine `sql` is asked for, and the model cannot be compiled.
        NameRefusedError: The name is no identifier, too long, or something else has it.
        ParityError: The converted model disagrees with the native one, there or in the database.
        FeatureError: A table lacks a feature's column.
        ServerError: The server's Python lacks what its functions need.
    """
    refuse_name(name)
    parity = deployment.conversion.parity
    if parity is not None and parity.total_mismatches and deployment.accept_mismatch is None:
        raise _refusal(name, parity)
    schema.become_owner(connection)
    if deployment.engine != "sql":
        _refuse_server(connection)
    compiled = deployment.compiled.considered(name, deployment.engine)
    _ensure_model(connection, name, deployment.description)
    existing = versions(connection, name)
    version = next((v for v in existing if deployment.is_same(v)), None)
    if version is None:
        version = _release(connection, name, deployment, compiled, existing)
        if not existing and deployment.alias != CHAMPION:
            promote(connection, name, version.number, alias=CHAMPION, reason="first version")
    elif new_tables(connection, name, deployment.row_types):
        roles = grantees(connection, name)
        remember_tables(connection, name, deployment.row_types)
        publish_version(connection, version, row_types=deployment.row_types)
        for one in version.aliases:
            publish_alias(connection, version, one)
        grant_all(connection, version, roles)
    if deployment.alias is not None:
        promote(connection, name, version.number, alias=deployment.alias, reason="deployed")
    return find(connection, version.reference)


def _release(
    connection: Connection, name: str, deployment: Deployment, compiled: Compiled, existing: Sequence[Version]
) -> Version:
    """Store a new version, compare its engines, make its functions, and let those execute them who may the others'."""
    roles = grantees(connection, name)
    version = _store(connection, name, deployment, compiled.program)
    refuse_collision(connection, name, existing, version_functions(schema.models_schema(connection), version).names())
    parity, choice = compare(
        connection,
        version,
        deployment.conversion,
        compiled=compiled,
        engine=deployment.engine,
        accept_mismatch=deployment.accept_mismatch is not None,
    )
    version = _record(connection, version, deployment, parity, choice)
    keep_explanation(connection, version, deployment.explained)
    version = find(connection, version.reference)
    remember_tables(connection, name, deployment.row_types)
    publish_version(connection, version, row_types=deployment.row_types)
    grant_all(connection, version, roles)
    return version


def _store(connection: Connection, name: str, deployment: Deployment, program: Program | None) -> Version:
    """Insert the artifact, where it is not there yet, and the version."""
    conversion, sha256 = deployment.conversion, deployment.sha256
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
            # until both were measured
            engine="onnx" if program is None else "sql",
            batch_engine="onnx" if program is None else "sql",
            choice=_told(program),
            program=null() if program is None else program.to_json(),
            provenance=conversion.provenance.to_json(),
            metrics=dict(deployment.metrics),
        )
    )
    return find(connection, f"{name}:{number}")


def _told(program: Program | None) -> dict[str, Any]:
    """Return what is told of a program to those who do not read the whole of it."""
    if program is None:
        return {"complement": False, "unused": []}
    return {"complement": program.is_complement, "unused": list(program.unused)}


def _record(
    connection: Connection, version: Version, deployment: Deployment, parity: Parity | None, choice: Choice
) -> Version:
    """Keep the comparison with the version, its engines, and why these; SQL that was refused is not kept."""
    program = deployment.compiled.program if choice.refused is None else None
    values: dict[str, Any] = {
        "engine": choice.rows,
        "batch_engine": choice.batches,
        "choice": choice.to_json() | _told(program),
    }
    if choice.refused is not None:
        values["program"] = null()
    if parity is not None:
        accepted = parity.total_mismatches > 0
        values["parity"] = parity.to_json()
        values["mismatch_accepted_by"] = func.session_user() if accepted else None
        values["mismatch_reason"] = deployment.accept_mismatch if accepted else None
    connection.execute(
        update(tables.version)
        .where(
            tables.version.c.model_id == model_id(connection, version.model),
            tables.version.c.number == version.number,
        )
        .values(values)
    )
    return find(connection, version.reference)


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
