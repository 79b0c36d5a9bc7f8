"""The functions of compiled versions: an expression in front of nothing, or in front of a body in PL/pgSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.compiler.emit import with_features
from dbscore.database import run
from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.functions.forms import Form, FunctionSet
    from dbscore.signature import Feature

__all__ = ["COMPILED_SCHEMA", "compiled_call", "compiled_names", "create_compiled"]

COMPILED_SCHEMA = "dbscore_compiled"
_FLOATS = (SqlType.REAL, SqlType.DOUBLE)
# beyond are the infinities
_LARGEST = {SqlType.REAL: "3.4028235e+38", SqlType.DOUBLE: "1.7976931348623157e+308"}


def compiled_names(name: str) -> list[str]:
    """Return the names that a compiled version's functions may have, besides those that analysts call."""
    return [name + suffix for suffix in ("", "_proba", "_score", "_check", "_why", "_explain")]


def create_compiled(connection: Connection, functions: FunctionSet, program: Program) -> None:
    """Create, or replace by the same, what the functions of a compiled version call.

    `tip_v3_check` tells whether a row has a prediction: NULL where a NULL leaves it without one, an error where the
    model does not take a value; `tip_v3_why` returns that error. `tip_v3` and so on compute what is too large for an
    expression.
    """
    arguments = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(f"f{i}"), sql.SQL(f.type))
        for i, f in enumerate(functions.signature.features, 1)
    )
    types = sql.SQL(", ".join(f.type for f in functions.signature.features))
    # it is called for few rows: its cost must not make the planner compile the expression around it
    made = [(functions.name + "_check", "boolean", _check_body(functions), 1)]
    made += [
        (functions.name + suffix, result.type, result.body, max(10, result.size // 20))
        for suffix, result in program.results.items()
        if result.body is not None
    ]
    made.append((functions.name + "_why", "text", _why_body(functions), 100))
    for name, returned, body, cost in made:
        # what catches an error may not run in parallel
        safe = sql.SQL("unsafe" if returned == "text" and name.endswith("_why") else "safe")
        # what computes is named by its schema throughout; what looks at few rows has a search_path of its own
        is_check = name.endswith(("_check", "_why"))
        own = sql.SQL("set search_path = pg_catalog, pg_temp" if is_check else "")
        function = sql.Identifier(COMPILED_SCHEMA, name)
        run(
            connection,
            sql.SQL(
                "create or replace function {}({}) returns {} language plpgsql immutable parallel {} cost {} {} as {}"
            ).format(function, arguments, sql.SQL(returned), safe, sql.Literal(cost), own, sql.Literal(body)),
        )
        run(connection, sql.SQL("revoke all on function {}({}) from public").format(function, types))


def compiled_call(functions: FunctionSet, suffix: str, program: Program, form: Form) -> sql.Composable:
    """Return what computes a result, for one list of arguments."""
    signature, result = functions.signature, program.results[suffix]
    values = [_argument(functions, i, form) for i in range(len(signature.features))]
    if form.kind != "scalar":
        # a row's or an array's numbers go through the function that takes them one by one, which becomes part of this
        called = sql.Identifier(functions.schema, functions.name + suffix).as_string()
        call = _verbatim(f"{called}({', '.join(values)})")
        if form.kind == "array":
            version, count = sql.Literal(functions.name).as_string(), len(values)
            return sql.SQL(
                "case when pg_catalog.cardinality($1) = {1} and pg_catalog.array_ndims($1) = 1 then {2}"
                " when dbscore.checked_numbers({0}, $1, {1}) is not null then null end"
            ).format(sql.SQL(version), sql.Literal(count), call)
        if form.kind == "row" and all(f.null_policy is NullPolicy.NAN for f in signature.features):
            # a row that an outer join did not find is no row of missing values
            return sql.SQL("case when not ($1 is null) then {} end").format(call)
        return call
    listed = ", ".join(values)
    check = f"{_qualified(functions.name + '_check')}({listed})"
    if result.expression is None:
        text = f"{_qualified(functions.name + suffix)}({listed})"
    else:
        text = with_features(result.expression, values)
        if result.unchecked:
            nothing = "'NaN'" if result.type in _FLOATS else "null"
            text = f"coalesce({text}, case when {check} then {nothing}::{result.type} end)"
    if not result.unchecked and result.type in _FLOATS:
        # what is computed has NULL for NaN; a row that has no prediction does not come here
        text = f"coalesce({text}, 'NaN'::{result.type})"
    looked_at = [i for i in range(len(values)) if i not in result.unchecked]
    plain = [c for i in looked_at if (c := _is_plain(signature.features[i], values[i])) is not None]
    if plain:
        text = f"case when {' and '.join(plain)} or {check} then {text} end"
    return _verbatim(text)


def _verbatim(text: str) -> sql.Composable:
    return sql.SQL(text.replace("{", "{{").replace("}", "}}")).format()


def _qualified(name: str) -> str:
    return sql.Identifier(COMPILED_SCHEMA, name).as_string()


def _argument(functions: FunctionSet, index: int, form: Form) -> str:
    """Return the text of a feature's value."""
    if form.kind != "array":
        return form.values[index].as_string()
    feature = functions.signature.features[index]
    number = f"($1)[pg_catalog.array_lower($1, 1) + {index}]"
    if feature.type is SqlType.DOUBLE:
        return number
    named = f"{sql.Literal(functions.name).as_string()}, {sql.Literal(feature.name).as_string()}"
    held = f"dbscore.held_number({named}, '{feature.type}', {number})"
    return f"{held}::integer::boolean" if feature.type is SqlType.BOOLEAN else f"{held}::{feature.type}"


def _is_plain(feature: Feature, value: str) -> str | None:
    """Return a condition under which a value needs no closer look; None where none does."""
    nullable = feature.null_policy is NullPolicy.NAN
    conditions = []
    if feature.type.is_array:
        # its elements are looked at one by one
        return "false"
    if feature.categories is not None:
        listed = ", ".join(_literal(c) for c in feature.categories)
        text = f'({value} collate pg_catalog."C")' if feature.type is SqlType.TEXT else value
        conditions.append(f"{text} in ({listed})" if listed else "false")
    if feature.type is SqlType.TEXT and nullable and feature.missing is not None:
        conditions.append(f'({value} collate pg_catalog."C") <> {_literal(feature.missing)}')
    if feature.type in _FLOATS and not (nullable and feature.accepts_infinity):
        if feature.accepts_infinity:
            # all but NaN
            conditions.append(f"{value} <= 'Infinity'")
        else:
            largest = (
                _LARGEST[feature.type]
                if feature.largest is None
                else repr(min(feature.largest, float(_LARGEST[feature.type])))
            )
            conditions.append(f"{value} between '-{largest}' and '{largest}'")
    if not conditions:
        return None if nullable else f"{value} is not null"
    whole = " and ".join(conditions)
    return f"({whole}) is not false" if nullable else whole


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return sql.Literal(value).as_string() if isinstance(value, str) else repr(value)


def _check_body(functions: FunctionSet) -> str:
    """Return the body of the function that looks at values closely."""
    version = sql.Literal(functions.name).as_string()
    strict = [
        f"f{i} is null" for i, f in enumerate(functions.signature.features, 1) if f.null_policy is NullPolicy.NULL
    ]
    lines = ["begin"]
    if strict:
        lines += [f"    if {' or '.join(strict)} then", "        return null;", "    end if;"]
    for index, feature in enumerate(functions.signature.features, 1):
        lines += [f"    perform {call};" for call in _checks(version, f"f{index}", feature)]
    return "\n".join([*lines, "    return true;", "end"])


def _why_body(functions: FunctionSet) -> str:
    """Return the body of the function that returns what the other raises."""
    values = ", ".join(f"f{i + 1}" for i in range(len(functions.signature.features)))
    check = f"{_qualified(functions.name + '_check')}({values})"
    lines = ["begin", f"    perform {check};", "    return null;"]
    return "\n".join([*lines, "exception when sqlstate 'ML002' then", "    return sqlerrm;", "end"])


def _checks(version: str, argument: str, feature: Feature) -> list[str]:
    """Return the calls that refuse what the model does not take."""
    named = f"{version}, {sql.Literal(feature.name).as_string()}"
    largest = "null" if feature.largest is None else f"'{feature.largest!r}'"
    limits = f"'{feature.null_policy}', {str(feature.accepts_infinity).lower()}, {largest}"
    if feature.type.is_array:
        return [f"dbscore.check_array({named}, {argument}::double precision[], {feature.width}, {limits})"]
    categories = None if feature.categories is None else [str(c) for c in feature.categories]
    if feature.type is SqlType.TEXT:
        missing = "null" if feature.missing is None else _literal(feature.missing)
        known = "null" if categories is None else f"{sql.Literal(categories).as_string()}::text[]"
        return [f"dbscore.check_text({named}, {argument}, {missing}, {known})"]
    found = []
    if feature.type in _FLOATS:
        found.append(f"dbscore.check_number({named}, {argument}, {limits})")
    if feature.categories is not None:
        # numbers are compared as numbers: 1 is 1.0
        known = "array[" + ", ".join(_literal(c) for c in feature.categories) + "]"
        test = (
            f"{argument} <> all ({known}) and {argument} is distinct from 'NaN'"
            if feature.type in _FLOATS
            else f"{argument} <> all ({known})"
        )
        listed = sql.Literal([str(c) for c in feature.categories]).as_string()
        found.append(f"dbscore.check_category({named}, {argument}::text, {listed}::text[]) where {test}")
    return found
