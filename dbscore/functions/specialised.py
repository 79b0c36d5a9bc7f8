"""Views of the rows of a table that fulfil a condition, with predictions computed for such rows alone."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run, scalar
from dbscore.errors import FeatureError
from dbscore.functions.compiled import COMPILED_SCHEMA, compiled_call, compiled_names, create_compiled
from dbscore.functions.forms import Form, FunctionSet
from dbscore.functions.grants import grant
from dbscore.signature import Signature, SqlType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.compiler.substitution import Known
    from dbscore.functions.rows import RowType

__all__ = ["SpecialisedView", "Speed", "create_functions", "create_view", "differing_rows", "measured_speed"]

# what a view adds to the table's columns
RESULTS = {"": "prediction", "_proba": "probabilities"}
ROUNDS = 5
MOST_ROWS = 100_000
_HASH = 8
_PREFIX = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialisedView:
    """A view to make.

    Attributes:
        schema: Its schema.
        name: Its name.
        table: Whose rows it has.
        where: Which of them.
        functions: The version's functions.
        program: The model for these rows.
        known: What is known of features there, by number.
    """

    schema: str
    name: str
    table: RowType
    where: str
    functions: FunctionSet
    program: Program
    known: Mapping[int, Known]

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, qualified name."""
        return sql.Identifier(self.schema, self.name)

    @property
    def own_functions(self) -> FunctionSet:
        """The functions that the view calls, named after the version and the view."""
        mark = hashlib.sha256(f"{self.schema}.{self.name}".encode()).hexdigest()[:_HASH]
        # characters, not bytes, of what has been an identifier already
        named = f"{self.functions.name}_{self.name}".encode()[:_PREFIX].decode(errors="ignore")
        return FunctionSet(schema=COMPILED_SCHEMA, name=f"{named}_{mark}", signature=self.functions.signature)

    @property
    def results(self) -> list[str]:
        """The suffixes of the results that it has as columns."""
        return [suffix for suffix, _ in self.functions.results() if suffix in RESULTS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rows a second, each the median of several rounds, and the median of the rounds' ratios."""

    rows: int
    function: float
    view: float
    ratio: float


def create_functions(connection: Connection, view: SpecialisedView, roles: Sequence[str]) -> None:
    """Create, or replace, what the view calls, and let the roles execute it.

    Args:
        connection: As the owner of the schema.
        view: The view that is to be made.
        roles: Who may score the model.
    """
    own = view.own_functions
    create_compiled(connection, own, view.program)
    grant(connection, COMPILED_SCHEMA, compiled_names(own.name), roles)


def create_view(connection: Connection, view: SpecialisedView, *, replace: bool = False) -> None:
    """Create the view, as the caller and in the caller's search_path.

    Raises:
        FeatureError: The table has a column that is called as one of the view's own.
    """
    taken = [RESULTS[suffix] for suffix in view.results if RESULTS[suffix] in view.table.columns]
    if taken:
        raise FeatureError(
            f"{view.table.schema}.{view.table.name} has a column {taken[0]} already, which the view would have twice",
            remedy="Name a view of the table with another name for that column.",
        )
    signature = view.functions.signature
    form = Form(
        kind="scalar",
        declared=sql.SQL(""),
        types="",
        names=(),
        arity=len(signature.features),
        values=tuple(_value(signature, view.table, view.known, i) for i in range(len(signature.features))),
    )
    computed = sql.SQL(", ").join(
        sql.SQL("{} as {}").format(
            compiled_call(view.own_functions, suffix, view.program, form), sql.Identifier(RESULTS[suffix])
        )
        for suffix in view.results
    )
    run(
        connection,
        sql.SQL("create {} {} as select t.*, {} from {} as t where ({}\n)").format(
            sql.SQL("or replace view" if replace else "view"),
            view.identifier,
            computed,
            view.table.identifier,
            _condition(view.where),
        ),
    )
    about = f"{view.functions.name} for the rows of {view.table.schema}.{view.table.name} where {view.where}"
    run(connection, sql.SQL("comment on view {} is {}").format(view.identifier, sql.Literal(about)))
    run(connection, sql.SQL("revoke all on {} from public").format(view.identifier))


def _condition(where: str) -> sql.Composed:
    # as it was typed: it was read as one condition before
    return sql.SQL(where.replace("{", "{{").replace("}", "}}")).format()


def _value(signature: Signature, table: RowType, known: Mapping[int, Known], index: int) -> sql.Composable:
    """Return what stands for a feature: its column, or the value that it has in all rows."""
    feature, said = signature.features[index], known.get(index)
    if said is not None and said.is_missing:
        return sql.SQL("null::{}").format(sql.SQL(feature.type))
    if said is not None and said.values is not None and len(said.values) == 1:
        value = next(iter(said.values))
        text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
        return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(feature.type))
    return sql.SQL("t.{}::{}").format(_column(table, feature.name, feature.source), sql.SQL(feature.type))


def _column(table: RowType, name: str, source: str) -> sql.Identifier:
    return sql.Identifier(table.column_of(name, source) or name)


def _calls(view: SpecialisedView, alias: str) -> dict[str, sql.Composable]:
    """Return the calls of the version's own functions for a row, by suffix."""
    values = sql.SQL(", ").join(
        sql.SQL("{}.{}::{}").format(sql.Identifier(alias), _column(view.table, f.name, f.source), sql.SQL(f.type))
        for f in view.functions.signature.features
    )
    name = view.functions
    return {
        suffix: sql.SQL("{}({})").format(sql.Identifier(name.schema, name.name + suffix), values)
        for suffix in view.results
    }


def differing_rows(connection: Connection, view: SpecialisedView, *, tolerance: float) -> tuple[int, int]:
    """Return how many rows the view has, and for how many the version's own functions answer otherwise.

    Args:
        connection: As who may read the view.
        view: The view.
        tolerance: How far numbers may be from each other, as a fraction of the larger of the number and 1: a sum may
            be added up in another order.
    """
    types = dict(view.functions.results())
    same = [
        _same(sql.Identifier("r", RESULTS[suffix]), sql.Identifier("r", f"own{suffix}"), types[suffix], tolerance)
        for suffix in view.results
    ]
    own = sql.SQL(", ").join(
        sql.SQL("{} as {}").format(call, sql.Identifier(f"own{suffix}")) for suffix, call in _calls(view, "v").items()
    )
    named = sql.SQL(", ").join(sql.Identifier("v", RESULTS[suffix]) for suffix in view.results)
    statement = sql.SQL(
        "select count(*), count(*) filter (where ({}) is not true) from (select {}, {} from {} as v offset 0) as r"
    ).format(sql.SQL(" and ").join(same), named, own, view.identifier)
    rows, differing = run(connection, statement).fetchall()[0]
    return int(rows), int(differing)


def _same(one: sql.Composable, other: sql.Composable, kind: str, tolerance: float) -> sql.Composable:
    equal = sql.SQL("{0} is not distinct from {1}").format(one, other)
    far = sql.Literal(tolerance)
    if kind in (SqlType.REAL, SqlType.DOUBLE):
        near = sql.SQL("abs({0} - {1}) <= {2} * greatest(abs({1}), 1)").format(one, other, far)
    elif kind in (SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY):
        near = sql.SQL(
            "(select bool_and(p.a is not distinct from p.b or abs(p.a - p.b) <= {2} * greatest(abs(p.b), 1))"
            " from unnest({0}, {1}) as p (a, b))"
        ).format(one, other, far)
    else:
        return sql.SQL("({})").format(equal)
    return sql.SQL("({} or {})").format(equal, near)


def measured_speed(connection: Connection, view: SpecialisedView) -> Speed | None:
    """Return what the view and the version's own functions compute in a second, of the same rows; None without rows.

    Both read the table, up to 100,000 of the rows that fulfil the condition; they take turns, five each.
    """
    results = sql.SQL(", ").join(sql.SQL("count(s.{})").format(sql.Identifier(RESULTS[x])) for x in view.results)
    columns = sql.SQL(", ").join(sql.Identifier(RESULTS[x]) for x in view.results)
    limit = sql.Literal(MOST_ROWS)
    ours = sql.SQL("select {} from (select {} from {} limit {}) as s").format(results, columns, view.identifier, limit)
    calls = _calls(view, "t").items()
    own = sql.SQL(", ").join(sql.SQL("{} as {}").format(c, sql.Identifier(RESULTS[x])) for x, c in calls)
    theirs = sql.SQL("select {} from (select {} from {} as t where ({}\n) limit {}) as s").format(
        results, own, view.table.identifier, _condition(view.where), limit
    )
    rows = int(
        scalar(
            connection, sql.SQL("select count(*) from (select from {} limit {}) as s").format(view.identifier, limit)
        )
    )
    if rows == 0:
        return None
    taken = [(_seconds(connection, theirs), _seconds(connection, ours)) for _ in range(ROUNDS + 1)]
    # the first round plans, and loads what is not in memory
    rounds = taken[1:]
    return Speed(
        rows=rows,
        function=rows / median(function for function, _ in rounds),
        view=rows / median(own for _, own in rounds),
        ratio=median(function / own for function, own in rounds),
    )


def _seconds(connection: Connection, statement: sql.Composed) -> float:
    begin = time.perf_counter()
    run(connection, statement).fetchall()
    return max(time.perf_counter() - begin, 1e-9)
