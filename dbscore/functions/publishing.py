"""Creating, replacing and dropping the functions of versions and aliases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run, scalar
from dbscore.functions.batches import BATCH_FORMS, BatchForm, compiled_body, version_body
from dbscore.functions.compiled import compiled_call
from dbscore.functions.forms import ENGINE_SCHEMA, engine_call, forms, wrapped
from dbscore.signature import NullPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.functions.forms import Form, FunctionSet
    from dbscore.functions.rows import RowType
    from dbscore.signature import Signature

__all__ = ["create_engine", "create_wrappers", "drop", "engine_names", "existing_names", "forget"]


def create_engine(connection: Connection, functions: FunctionSet, *, sha256: str) -> None:
    """Create, or replace by the same, the PL/Python functions of a version."""
    run(
        connection,
        "select dbscore_engine.create_functions(%s, %s, %s::jsonb)",
        [functions.name, sha256, json.dumps(functions.signature.to_json())],
    )


def create_wrappers(
    connection: Connection,
    functions: FunctionSet,
    *,
    tables: Sequence[RowType],
    comment: str,
    rows: Program | None,
    batches: Program | None,
) -> None:
    """Create, or replace by the same, the functions of a version that analysts call.

    Args:
        connection: In a transaction.
        functions: What they are.
        tables: Whose rows they take.
        comment: What the version is.
        rows: What computes a row's results in SQL; None where PL/Python's functions do.
        batches: What computes those of a query's rows; None where the frame lane does.

    Raises:
        NameRefusedError: A name would be too long.
        FeatureError: A table lacks a feature's column.
    """
    functions.names()
    for suffix, result in functions.results():
        for form in forms(functions.signature, tables):
            if rows is None:
                call = engine_call(functions.name, suffix, functions.signature, form)
            else:
                call = compiled_call(functions, suffix, rows, form)
            volatility = "immutable" if form.immutable else "stable"
            _create(connection, functions, suffix, result, form, call, volatility, comment)
    polymorphic, *others = BATCH_FORMS
    body = version_body(functions, ENGINE_SCHEMA) if batches is None else compiled_body(functions)
    _create_batch(connection, functions, polymorphic, "plpgsql", body, comment)
    for form_of_batch in others:
        _create_batch(connection, functions, form_of_batch, "sql", _batch_call(functions, form_of_batch), comment)


def _create(
    connection: Connection,
    functions: FunctionSet,
    suffix: str,
    result: str,
    form: Form,
    call: sql.Composable,
    volatility: str,
    comment: str,
) -> None:
    name = sql.Identifier(functions.schema, functions.name + suffix)
    run(
        connection,
        sql.SQL("create or replace function {}({}) returns {} language sql {} parallel safe {}").format(
            name, form.declared, sql.SQL(result), sql.SQL(volatility), wrapped(form, call)
        ),
    )
    signature = sql.SQL("{}({})").format(name, sql.SQL(form.types))
    run(connection, sql.SQL("revoke all on function {} from public").format(signature))
    run(
        connection,
        sql.SQL("comment on function {} is {}").format(
            signature, sql.Literal(comment + _about(suffix, functions.signature))
        ),
    )


def _batch_call(target: FunctionSet, form: BatchForm) -> sql.Composable:
    """Return the body of a function that passes its arguments on to a version's polymorphic batch function."""
    name = sql.Identifier(target.schema, target.name + "_batch")
    return sql.SQL("select * from {}({})").format(name, sql.SQL(form.passed))


def _create_batch(
    connection: Connection,
    functions: FunctionSet,
    form: BatchForm,
    language: str,
    body: sql.Composable,
    comment: str,
) -> None:
    """Create, or replace by the same, a function that scores the rows of a query."""
    name = sql.Identifier(functions.schema, functions.name + "_batch")
    run(
        connection,
        sql.SQL("create or replace function {}({}) returns {} language {} volatile rows 100000 as {}").format(
            name,
            sql.SQL(form.declared),
            sql.SQL(form.result(functions.signature)),
            sql.SQL(language),
            sql.Literal(body.as_string()),
        ),
    )
    signature = sql.SQL("{}({})").format(name, sql.SQL(form.types))
    run(connection, sql.SQL("revoke all on function {} from public").format(signature))
    kind = "the type of key_type" if form.key == "anyelement" else f"type {form.key}"
    about = f" Scores the rows of a query; row_key is its column that key names, of {kind}."
    run(connection, sql.SQL("comment on function {} is {}").format(signature, sql.Literal(comment + about)))


def _about(suffix: str, signature: Signature) -> str:
    if suffix == "_proba":
        return f" One probability per class, in the order {_listed(signature.classes or ())}."
    if suffix == "_score":
        return f" The probability of {(signature.classes or ('', ''))[1]!r}."
    nulls = [f.name for f in signature.features if f.null_policy is NullPolicy.NAN]
    taken = f" NULL is a missing value in {', '.join(nulls)}." if nulls else ""
    if len(nulls) == len(signature.features):
        return taken
    return f"{taken} {'Any other NULL' if nulls else 'NULL'} gives NULL."


def _listed(values: Iterable[object]) -> str:
    return ", ".join(repr(v) for v in values)


def engine_names(name: str) -> list[str]:
    """Return the names that a version's PL/Python functions may have."""
    return [name + suffix for suffix in ("", "_proba", "_score", "_json", "_frame", "_pin")]


def existing_names(connection: Connection, schema: str) -> set[str]:
    """Return the names of all functions in a schema."""
    query = "select proname from pg_proc where pronamespace = to_regnamespace(quote_ident(%s))"
    return {name for (name,) in run(connection, query, [schema]).fetchall()}


def drop(connection: Connection, schema: str, names: Sequence[str]) -> None:
    """Drop every function of these names; PostgreSQL refuses while something uses one."""
    query = "select oid from pg_proc where pronamespace = to_regnamespace(quote_ident(%s)) and proname = any (%s)"
    for (oid,) in run(connection, query, [schema, list(names)]).fetchall():
        _drop(connection, oid)


def _drop(connection: Connection, oid: int) -> None:
    # PostgreSQL itself quotes and qualifies the name
    signature = scalar(connection, "select %s::regprocedure::text", [oid])
    run(connection, f"drop function {signature}")


def forget(connection: Connection, sha256: str) -> None:
    """Remove the server's copy of a model; it comes back when it is needed."""
    run(connection, "select dbscore_engine.forget(%s)", [sha256])
