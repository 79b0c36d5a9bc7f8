"""Making the functions of versions and aliases from what the registry says.

A version that is not compiled has no functions on a server without PL/Python: it is in the registry only, and job
workers score it. They are made when dbscore is installed again after PL/Python came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from dbscore import functions, schema, tables
from dbscore.database import run
from dbscore.registry.explanations import publish_explanation
from dbscore.registry.grants import grant_all, grantees
from dbscore.registry.lookup import has_functions, program, versions
from dbscore.registry.naming import function_sets, version_functions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.functions import RowType
    from dbscore.registry.records import Version

__all__ = [
    "new_tables",
    "publish_alias",
    "publish_engines",
    "publish_version",
    "refresh",
    "remember_tables",
    "republish_version",
    "row_types_of",
]


def new_tables(connection: Connection, name: str, row_types: Sequence[RowType]) -> list[list[str]]:
    """Return which of the tables the model does not have yet, each as [schema, name]."""
    known = _known_tables(connection, name)
    return [[t.schema, t.name] for t in row_types if [t.schema, t.name] not in known]


def remember_tables(connection: Connection, name: str, row_types: Sequence[RowType]) -> None:
    """Add the tables to those whose rows the model's functions take."""
    known = _known_tables(connection, name) + new_tables(connection, name, row_types)
    connection.execute(update(tables.model).where(tables.model.c.name == name).values(tables=known))


def _known_tables(connection: Connection, name: str) -> list[list[str]]:
    return list(connection.scalar(select(tables.model.c.tables).where(tables.model.c.name == name)) or [])


def publish_version(connection: Connection, version: Version, *, row_types: Sequence[RowType] = ()) -> None:
    """Make a version's functions, for the model's tables and for those named now.

    Raises:
        FeatureError: A table named now lacks a feature's column; one named earlier is passed over.
    """
    own = version_functions(schema.models_schema(connection), version)
    if schema.has_engine(connection):
        functions.create_engine(connection, own, sha256=version.sha256)
    compiled = program(connection, version)
    if compiled is not None:
        functions.create_compiled(connection, own, compiled)
    known = row_types_of(connection, version)
    taken = known + [t for t in row_types if t not in known]
    publish_engines(connection, version, compiled, tables=taken)
    publish_explanation(connection, version, row_types=taken, comment=_own_comment(version))


def publish_engines(
    connection: Connection,
    version: Version,
    compiled: Program | None,
    *,
    tables: Sequence[RowType],
    rows: str | None = None,
    batches: str | None = None,
) -> None:
    """Let a version's functions call its engines, or others.

    Args:
        connection: In a transaction.
        version: Whose functions; where nothing here computes it, it has none.
        compiled: What it was compiled to.
        tables: Whose rows they take.
        rows: The engine of single rows; by default the version's.
        batches: The engine of many; by default the version's.
    """
    if not schema.has_engine(connection):
        if compiled is None:
            return
        # whatever was the faster where it was deployed
        rows = batches = "sql"
    functions.create_wrappers(
        connection,
        version_functions(schema.models_schema(connection), version),
        tables=tables,
        comment=_own_comment(version),
        rows=compiled if (rows or version.engine) == "sql" else None,
        batches=compiled if (batches or version.batch_engine) == "sql" else None,
    )


def republish_version(connection: Connection, version: Version) -> None:
    """Make a version's SQL functions anew: a table may have been dropped and made again since they were."""
    known = row_types_of(connection, version)
    publish_engines(connection, version, program(connection, version), tables=known)
    publish_explanation(connection, version, row_types=known, comment=_own_comment(version))


def publish_alias(connection: Connection, version: Version, alias: str) -> None:
    """Make an alias's functions call the version's, whatever they called before."""
    if has_functions(connection, version):
        run(connection, "select dbscore.publish_alias(%s, %s, %s)", [version.model, version.number, alias])


def row_types_of(connection: Connection, version: Version) -> list[RowType]:
    """Return the model's tables whose rows the version's functions can take.

    Those that were named at a deployment, where they still are there; and those that functions of the model take now,
    whatever they are called since.
    """
    named = [functions.row_type_of(connection, *table) for table in _known_tables(connection, version.model)]
    models_schema = schema.models_schema(connection)
    sets = [s for v in versions(connection, version.model) for s in function_sets(models_schema, v)]
    taken = functions.row_types_taken(connection, models_schema, [name for s in sets for name in s.names()])
    found = {(t.schema, t.name): t for t in [*named, *taken] if t is not None}
    return [t for t in found.values() if functions.refusal(version.signature, t) is None]


def _own_comment(version: Version) -> str:
    return _comment(version, f"{version.model} version {version.number}")


def _comment(version: Version, subject: str) -> str:
    provenance, classes = version.provenance, version.signature.classes
    kind = (provenance.get("estimator") or "ONNX model").rsplit(".", 1)[-1]
    parts = [f"{subject}: {kind}, {provenance['precision']}, engine {version.engine}"]
    parts += [f"{name} {value:.4g}" for name, value in version.metrics.items()]
    if classes is not None:
        parts.append("classes " + ", ".join(map(repr, classes)))
    return "; ".join(parts) + "."


def refresh(connection: Connection) -> int:
    """Make the functions of every active version anew, as after an upgrade; return how many versions there are."""
    schema.become_owner(connection)
    active = [v for v in versions(connection) if v.status == "active"]
    roles = {name: grantees(connection, name) for name in {v.model for v in active}}
    for version in active:
        publish_version(connection, version)
        for alias in version.aliases:
            publish_alias(connection, version, alias)
        grant_all(connection, version, roles[version.model])
    for role in sorted({role for found in roles.values() for role in found}):
        functions.grant_usage(connection, schema.models_schema(connection), role)
    run(connection, "select dbscore.publish_experiments()")
    return len(active)
