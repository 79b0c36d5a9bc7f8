"""Creating, replacing and dropping the functions of versions and aliases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run, scalar
from dbscore.functions.batches import BATCH_FORMS, BatchForm, compiled_body, version_body
from dbscore.functions.compiled import compiled_call
from dbscore.functions.explanations import (
    EXPLAIN,
    EXPLAINED,
    create_alias_explanation,
    explained_forms,
    explained_names,
)
from dbscore.functions.forms import ENGINE_SCHEMA, SUFFIXES, engine_call, forms, wrapped
from dbscore.signature import NullPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.contributions import Explanation
    from dbscore.compiler.program import Program
    from dbscore.functions.forms import Form, FunctionSet
    from dbscore.functions.rows import RowType
    from dbscore.signature import Signature

__all__ = ["create_alias", "create_engine", "create_wrappers", "drop", "engine_names", "existing_names", "forget"]


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


def create_alias(
    connection: Connection,
    functions: FunctionSet,
    *,
    target: FunctionSet,
    tables: Sequence[RowType],
    comment: str,
    explanation: Explanation | None = None,
) -> None:
    """Make an alias's functions call the target's, whatever they called before.

    Functions whose arguments or result the target does not have are dropped, which PostgreSQL refuses while a
    view or another function uses them.

    Raises:
        NameRefusedError: A name would be too long.
    """
    functions.names()
    keep = _kept(functions, tables, explanation)
    for oid, name, arguments, result, argument_names in _existing(connection, functions):
        if keep.get((name, arguments)) != (result, argument_names):
            _drop(connection, oid)
    for suffix, result in functions.results():
        for form in forms(functions.signature, tables):
            passed = sql.SQL(", ").join(sql.SQL("${}").format(sql.Literal(i + 1)) for i in range(form.arity))
            # an alias moves, so nothing may be stored that depends on it: the condition, always true, keeps
            # PostgreSQL from taking the inlined body for immutable, and so from indexing it
            call = sql.SQL("case when current_timestamp is not null then {}({}) end").format(
                sql.Identifier(functions.schema, target.name + suffix), passed
            )
            _create(connection, functions, suffix, result, form, call, "stable", comment)
    for batch in BATCH_FORMS:
        _create_batch(connection, functions, batch, "sql", _batch_call(target, batch), comment)
    if explanation is not None:
        create_alias_explanation(connection, functions, explanation, target=target, tables=tables, comment=comment)


def _kept(
    functions: FunctionSet, tables: Sequence[RowType], explanation: Explanation | None
) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return the results and the names of the arguments of an alias's functions, by name and types of arguments."""
    taken = list(forms(functions.signature, tables))
    keep: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for suffix, result in functions.results():
        for form in taken:
            keep[(functions.name + suffix, form.types)] = (result, form.names)
    for batch in BATCH_FORMS:
        named = (batch.result(functions.signature), batch.all_names(functions.signature))
        keep[(functions.name + "_batch", batch.types)] = named
    for form in explained_forms(functions.signature, tables) if explanation is not None else ():
        keep[(functions.name + EXPLAIN, form.types)] = (EXPLAINED, explained_names(form))
    return keep


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


def _existing(connection: Connection, functions: FunctionSet) -> list[tuple[int, str, str, str, tuple[str, ...]]]:
    """Return oid, name, argument types, result type and argument names of the functions there are now."""
    rows = run(
        connection,
        r"""select p.oid, p.proname,
                   array(select case when t.typtype = 'c'
                                then format('"%%s"."%%s"', replace(n.nspname, '"', '""'), replace(t.typname, '"', '""'))
                                else format_type(t.oid, null) end
                         from unnest(p.proargtypes) with ordinality as a (oid, i)
                         join pg_type t on t.oid = a.oid join pg_namespace n on n.oid = t.typnamespace order by i),
                   pg_get_function_result(p.oid), coalesce(p.proargnames, '{}')
            from pg_proc p where p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = any (%s)""",
        [functions.schema, [functions.name + suffix for suffix in SUFFIXES]],
    ).fetchall()
    return [(oid, name, ", ".join(types), result, tuple(names)) for oid, name, types, result, names in rows]


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
