"""The functions that explain predictions: `tip_v3_explain(...)`, a row for each feature.

What computes the contributions is `dbscore_compiled.tip_v3_explain`, in PL/pgSQL, whichever engine computes the
prediction: the explanation is of the same model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.compiler.program import Program
from dbscore.database import run
from dbscore.functions.compiled import COMPILED_SCHEMA, create_compiled
from dbscore.functions.forms import forms
from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.contributions import Explanation
    from dbscore.functions.forms import Form, FunctionSet
    from dbscore.functions.rows import RowType
    from dbscore.signature import Feature, Signature

__all__ = [
    "EXPLAIN",
    "create_explanation",
]

EXPLAIN = "_explain"
BASE = "(base)"
_COLUMNS = (("feature", "text"), ("value", "text"), ("contribution", "double precision"))
_EXPLAINED = f"TABLE({', '.join(f'{name} {kind}' for name, kind in _COLUMNS)})"


def _explained_forms(signature: Signature, tables: Sequence[RowType]) -> Iterator[Form]:
    """Yield the forms of arguments that an explaining function has: a scalar per feature, a row."""
    yield from (form for form in forms(signature, tables) if form.kind != "array")


def _argument_names(form: Form) -> tuple[str, ...]:
    """Return the arguments' names: a feature that is called as a column of the result has an underscore more."""
    taken = {name for name, _ in _COLUMNS}
    found: list[str] = []
    for name in form.names:
        own = name
        while own in taken or (own != name and own in form.names):
            own += "_"
        found.append(own)
    return tuple(found)


def create_explanation(
    connection: Connection,
    functions: FunctionSet,
    explanation: Explanation,
    *,
    tables: Sequence[RowType],
    comment: str,
) -> None:
    """Create, or replace by the same, the functions that explain a version's predictions.

    Args:
        connection: In a transaction.
        functions: The version's.
        explanation: What computes the contributions.
        tables: Whose rows they take.
        comment: What the version is.
    """
    features = functions.signature.features
    arguments = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(f"f{i}"), sql.SQL(f.type)) for i, f in enumerate(features, 1)
    )
    types = sql.SQL(", ".join(f.type for f in features))
    inner = sql.Identifier(COMPILED_SCHEMA, functions.name + EXPLAIN)
    # the check alone, for a version that nothing else is compiled of
    create_compiled(connection, functions, Program(results={}, unused=(), splits=0))
    run(
        connection,
        sql.SQL(
            "create or replace function {}({}) returns double precision[] language plpgsql immutable parallel safe"
            " cost {} as {}"
        ).format(inner, arguments, sql.Literal(max(10, explanation.size // 20)), sql.Literal(explanation.body)),
    )
    run(connection, sql.SQL("revoke all on function {}({}) from public").format(inner, types))
    about = (
        f"{comment} What each feature contributes to {explanation.scale}; {BASE} is the base value. {explanation.said}"
    )
    for form in _explained_forms(functions.signature, tables):
        if form.kind == "scalar":
            body = sql.SQL("begin atomic {}; end").format(_explaining(functions, explanation))
        else:
            call = sql.SQL("select * from {}({})").format(
                sql.Identifier(functions.schema, functions.name + EXPLAIN), sql.SQL(", ").join(form.values)
            )
            if all(f.null_policy is NullPolicy.NAN for f in features):
                # a row that an outer join did not find is no row of missing values
                call += sql.SQL(" where not ($1 is null)")
            body = sql.SQL("as {}").format(sql.Literal(call.as_string()))
        volatility = "immutable" if form.immutable else "stable"
        _create(connection, functions, form, volatility, body, len(explanation.rows) + 1, about)


def _create(
    connection: Connection,
    functions: FunctionSet,
    form: Form,
    volatility: str,
    body: sql.Composable,
    rows: int,
    comment: str,
) -> None:
    name = sql.Identifier(functions.schema, functions.name + EXPLAIN)
    declared = form.declared
    if form.kind == "scalar":
        listed = zip(_argument_names(form), functions.signature.features, strict=True)
        declared = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(f.type)) for n, f in listed)
    run(
        connection,
        sql.SQL("create or replace function {}({}) returns {} language sql {} parallel safe rows {} {}").format(
            name, declared, sql.SQL(_EXPLAINED), sql.SQL(volatility), sql.Literal(rows), body
        ),
    )
    signature = sql.SQL("{}({})").format(name, sql.SQL(form.types))
    run(connection, sql.SQL("revoke all on function {} from public").format(signature))
    run(connection, sql.SQL("comment on function {} is {}").format(signature, sql.Literal(comment)))


def _explaining(functions: FunctionSet, explanation: Explanation) -> sql.Composable:
    """Return the query of the function that takes a scalar per feature: no rows where there is no prediction."""
    features = functions.signature.features
    given = sql.SQL(", ").join(sql.SQL("${}").format(sql.Literal(i + 1)) for i in range(len(features)))
    cleaned = sql.SQL(", ").join(_cleaned(i + 1, f) for i, f in enumerate(features))
    names = sql.SQL(", ").join(sql.Literal(name) for name in (BASE, *(row.name for row in explanation.rows)))
    values = sql.SQL(" ").join(
        sql.SQL("when {} then {}").format(sql.Literal(place), _value(functions.signature, row.features))
        for place, row in enumerate(explanation.rows, 2)
    )
    return sql.SQL(
        "select (array[{names}])[e.place], case e.place {values} end, e.contribution"
        " from pg_catalog.unnest(case when {check}({given}) then {base}::double precision || {own}({cleaned}) end)"
        " with ordinality as e(contribution, place)"
    ).format(
        check=sql.Identifier(COMPILED_SCHEMA, functions.name + "_check"),
        given=given,
        base=sql.Literal(repr(explanation.base)),
        own=sql.Identifier(COMPILED_SCHEMA, functions.name + EXPLAIN),
        cleaned=cleaned,
        names=names,
        values=values,
    )


def _cleaned(number: int, feature: Feature) -> sql.Composable:
    """Return an argument in which NaN, where it means a missing value, is NULL."""
    argument = sql.SQL("${}").format(sql.Literal(number))
    if feature.null_policy is not NullPolicy.NAN:
        return argument
    if feature.type in (SqlType.REAL, SqlType.DOUBLE):
        return sql.SQL("nullif({}, 'NaN')").format(argument)
    if feature.type in (SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY):
        return sql.SQL("pg_catalog.array_replace({}, 'NaN', null)").format(argument)
    return argument


def _value(signature: Signature, features: Sequence[int]) -> sql.Composable:
    """Return the values of a row's features, as text."""
    texts = []
    for index in features:
        argument = sql.SQL("${}").format(sql.Literal(index + 1))
        is_text = signature.features[index].type is SqlType.TEXT
        texts.append(argument if is_text else sql.SQL("{}::text").format(argument))
    return sql.SQL(" || ' * ' || ").join(texts)
