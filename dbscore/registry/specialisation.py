"""Specialising: a view of the rows that fulfil a condition, with a version's predictions computed for them alone."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from sqlalchemy import select

from dbscore import functions, schema, tables
from dbscore.database import run, scalar
from dbscore.errors import FeatureError, NameRefusedError, ParityError
from dbscore.functions.specialised import (
    SpecialisedView,
    create_functions,
    create_view,
    differing_rows,
    measured_speed,
)
from dbscore.registry.grants import grantees
from dbscore.registry.lookup import artifact, find
from dbscore.registry.naming import version_functions
from dbscore.signature import IDENTIFIER_BYTES

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.compiler.conditions import Conditions
    from dbscore.compiler.specialisation import Specialised
    from dbscore.functions import RowType
    from dbscore.registry.records import Version

__all__ = ["Specialisation", "specialise"]


# how far numbers of a graph of this precision may be from each other: sums are added up in another order
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialisation:
    """A view that was made, and what specialising took away.

    Attributes:
        reference: The version; a later promotion does not change the view.
        view: The view, qualified.
        table: The table or view whose rows it has, qualified.
        where: Which of them.
        features: The features of which something is known, by name.
        used: The parts of the condition from which it is.
        kept: The other parts, which only filter.
        splits: Splits of trees, before and after.
        terms: Terms of sums and entries of what is looked up, before and after.
        rows: The rows that the view has now; in all of them it answers as the version's own functions.
        engine: What computes the version's own functions.
        function_rows_per_second: How many rows these compute; None where the view has no rows.
        view_rows_per_second: How many the view computes.
        speed_up: The median of five rounds' ratios of the two.
    """

    reference: str
    view: str
    table: str
    where: str
    features: tuple[str, ...]
    used: tuple[str, ...]
    kept: tuple[str, ...]
    splits: tuple[int, int]
    terms: tuple[int, int]
    rows: int
    engine: str
    function_rows_per_second: float | None = None
    view_rows_per_second: float | None = None
    speed_up: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the specialisation as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caller:
    """Who specialises, and in which search_path their names are looked up."""

    role: str
    search_path: str


def specialise(
    connection: Connection,
    reference: str,
    *,
    where: str,
    table: str | None = None,
    view: str | None = None,
    replace: bool = False,
) -> Specialisation:
    """Create a view of the rows that fulfil a condition, with the predictions of a version specialised for them.

    The view belongs to the caller, and nobody else may read it. Its rows are scored both ways before it is kept.

    Args:
        connection: In a transaction, which the caller commits.
        reference: The version.
        where: The condition, as it stands after WHERE.
        table: Whose rows; by default the only table whose rows the model's functions take.
        view: The view's name, with its schema where it shall not be the table's; by default made of the model's name
            and the condition.
        replace: Replace a view that is there, where PostgreSQL can.

    Raises:
        NotFoundError: There is no such version.
        FeatureError: The table lacks a feature's column, the condition is none, or nothing can fulfil it.
        CompilationError: The model cannot be compiled.
        NameRefusedError: The view's name is no identifier.
        ParityError: In a row, the view answers otherwise than the version's function.
        PrivilegeError: The caller may not act as the owner of the models, or may not create a view there.
    """
    from dbscore.compiler.conditions import read_conditions
    from dbscore.compiler.specialisation import specialise_model

    role, path = run(connection, "select current_user, current_setting('search_path')").fetchall()[0]
    caller = _Caller(role=role, search_path=path)
    version = find(connection, reference)
    row_type = functions.row_type(connection, table or _only_table(connection, version))
    misfit = functions.refusal(version.signature, row_type)
    if misfit is not None:
        raise misfit
    conditions = read_conditions(where, _columns(connection, version, row_type))
    in_schema, name = _named(connection, view or _default_name(version, where), row_type.schema)
    schema.become_owner(connection)
    content = artifact(connection, version.sha256)
    specialised = specialise_model(content, version.signature, conditions.known)
    made = SpecialisedView(
        schema=in_schema,
        name=name,
        table=row_type,
        where=where,
        functions=version_functions(schema.models_schema(connection), version),
        program=specialised.program,
        known=conditions.known,
    )
    roles = {*grantees(connection, version.model), caller.role}
    create_functions(connection, made, sorted(roles))
    run(connection, sql.SQL("set local role {}").format(sql.Identifier(caller.role)))
    run(connection, "select set_config('search_path', %s, true)", [caller.search_path])
    create_view(connection, made, replace=replace)
    tolerance = TOLERANCE[version.provenance["precision"]]
    rows, differing = differing_rows(connection, made, tolerance=tolerance)
    if differing:
        raise ParityError(
            f"{version.reference} specialised for {where!r} answers otherwise in {differing} of {rows} rows of "
            f"{row_type.schema}.{row_type.name}; the view was not made",
            remedy="Please report it, with the model; models.NAME in a view of your own is right.",
        )
    return _told(connection, version, made, specialised, conditions, rows)


def _told(
    connection: Connection,
    version: Version,
    made: SpecialisedView,
    specialised: Specialised,
    conditions: Conditions,
    rows: int,
) -> Specialisation:
    speed = measured_speed(connection, made)
    before, after = specialised.before, specialised.after
    return Specialisation(
        reference=version.reference,
        view=f"{made.schema}.{made.name}",
        table=f"{made.table.schema}.{made.table.name}",
        where=made.where,
        features=tuple(version.signature.features[i].name for i in sorted(conditions.known)),
        used=conditions.used,
        kept=conditions.kept,
        splits=(before.splits, after.splits),
        terms=(before.terms, after.terms),
        rows=rows,
        engine=version.engine,
        function_rows_per_second=None if speed is None else speed.function,
        view_rows_per_second=None if speed is None else speed.view,
        speed_up=None if speed is None else speed.ratio,
    )


def _only_table(connection: Connection, version: Version) -> str:
    """Return the table whose rows the model's functions take.

    Raises:
        FeatureError: There is none, or there are several.
    """
    known = connection.scalar(select(tables.model.c.tables).where(tables.model.c.name == version.model)) or []
    if len(known) != 1:
        said = "takes the rows of " + (", ".join(".".join(t) for t in known) if known else "no table")
        raise FeatureError(f"{version.model} {said}", remedy="Name one: --from TABLE.")
    return sql.Identifier(*known[0]).as_string()


def _columns(connection: Connection, version: Version, table: RowType) -> dict[str, Any]:
    """Return the columns that hold features, by name."""
    from dbscore.compiler.conditions import Column

    inexact = run(
        connection,
        """select a.attname from pg_catalog.pg_attribute a join pg_catalog.pg_collation c on c.oid = a.attcollation
           where a.attrelid = pg_catalog.to_regclass(%s::text) and not c.collisdeterministic""",
        [table.identifier.as_string()],
    ).fetchall()
    found = {}
    for index, feature in enumerate(version.signature.features):
        name = table.column_of(feature.name, feature.source) or feature.name
        kind = table.columns[name].split("(", maxsplit=1)[0]
        found[name] = Column(index=index, feature=feature, type=kind, is_exact=(name,) not in inexact)
    return found


def _default_name(version: Version, where: str) -> str:
    """Return a name of the model's and the condition's words: tip_payment_type_crd."""
    words = "_".join(re.findall(r"[a-z0-9]+", where.lower()))
    return sql.Identifier(f"{version.model}_{words}"[:IDENTIFIER_BYTES].rstrip("_")).as_string()


def _named(connection: Connection, view: str, otherwise: str) -> tuple[str, str]:
    """Return the schema and the name that a view shall have."""
    try:
        parts = scalar(connection, "select pg_catalog.parse_ident(%s)", [view])
    except psycopg.Error as error:
        raise NameRefusedError(
            f"{view!r} is no name for a view", remedy="Write it as SQL does: name, schema.name."
        ) from error
    if len(parts) not in (1, 2) or any(len(part.encode()) > IDENTIFIER_BYTES for part in parts):
        raise NameRefusedError(f"{view!r} is no name for a view", remedy="Write it as SQL does: name, schema.name.")
    return (otherwise, parts[0]) if len(parts) == 1 else (parts[0], parts[1])
