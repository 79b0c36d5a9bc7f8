"""The generated SQL functions: what `models` holds, for versions and for aliases.

A version's function is `models.tip_v3`: it casts its arguments, adds the pin and calls the PL/Python function that
`dbscore_engine.create_functions` made for it. An alias's function passes its arguments on to a version's. All are
`language sql` with a parsed body, which PostgreSQL inlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run
from dbscore.errors import FeatureError, NameRefusedError, NotFoundError
from dbscore.signature import IDENTIFIER_BYTES, NullPolicy, Signature, SqlType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

__all__ = [
    "ENGINE_SCHEMA",
    "SUFFIXES",
    "FunctionSet",
    "RowType",
    "create_alias",
    "create_version",
    "drop",
    "grant",
    "grantees",
    "revoke",
    "row_type",
]

ENGINE_SCHEMA = "dbscore_engine"
MAX_ARGUMENTS = 100
# what may follow a version's or an alias's name; `batch` and `explain` are kept free for what is to come
SUFFIXES = ("", "_proba", "_score", "_batch", "_explain")

_CASTS_THAT_NEVER_CHANGE = {
    "boolean", "smallint", "integer", "bigint", "real", "double precision", "numeric", "text", "character varying", "character",
    "real[]", "double precision[]",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowType:
    """A table or view whose rows a function takes.

    Attributes:
        schema: Its schema.
        name: Its name.
        columns: Its columns' types, as PostgreSQL spells them, by name.
    """

    schema: str
    name: str
    columns: dict[str, str]

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, qualified name."""
        return sql.Identifier(self.schema, self.name)

    def column_of(self, feature: str, source: str) -> str | None:
        """Return the column that holds a feature: the one of its own name, or of its identifier."""
        return next((c for c in (source, feature) if c in self.columns), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSet:
    """The functions of one version or alias: one name, several results, several forms of arguments.

    Attributes:
        schema: Where they are.
        name: `tip_v3`, `tip`, `tip_challenger`.
        signature: What they take and give.
    """

    schema: str
    name: str
    signature: Signature

    def results(self) -> Iterator[tuple[str, str]]:
        """Yield the suffix and the SQL type of each result there is."""
        yield "", self.signature.prediction.type
        if self.signature.probabilities is not None:
            yield "_proba", SqlType.DOUBLE_ARRAY
            if self.signature.classes is not None and len(self.signature.classes) == 2:  # noqa: PLR2004
                yield "_score", SqlType.DOUBLE

    def names(self) -> list[str]:
        """Return the functions' names.

        Raises:
            NameRefusedError: One is longer than PostgreSQL's 63 bytes.
        """
        names = [self.name + suffix for suffix, _ in self.results()]
        for name in names:
            if len(name.encode()) > IDENTIFIER_BYTES:
                raise NameRefusedError(
                    f"the function {name!r} would have a name of {len(name.encode())} bytes, over PostgreSQL's 63",
                    remedy="Choose a shorter name for the model or the alias.",
                )
        return names


def row_type(connection: Connection, table: str) -> RowType:
    """Look a table or view up, by a name as SQL writes it: `trips`, `public."My Trips"`.

    Raises:
        FeatureError: There is none.
    """
    found = run(
        connection,
        """select n.nspname, c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where c.oid = to_regclass(%s) and c.relkind in ('r', 'v', 'm', 'f', 'p')""",
        [table],
    ).fetchone()
    if found is None:
        raise FeatureError(
            f"there is no table or view {table!r}", remedy="Name one as SQL does, with its schema where it needs one."
        )
    schema, name, oid = found
    columns = run(
        connection,
        """select attname, format_type(atttypid, null) from pg_attribute
           where attrelid = %s and attnum > 0 and not attisdropped order by attnum""",
        [oid],
    ).fetchall()
    return RowType(schema, name, dict(columns))


def row_type_of(connection: Connection, schema: str, name: str) -> RowType | None:
    """Look a table or view up by its schema and name; None where it is gone."""
    quoted = sql.Identifier(schema, name).as_string()
    there = run(connection, "select to_regclass(%s)", [quoted]).fetchone()
    return row_type(connection, quoted) if there and there[0] else None


def missing_columns(signature: Signature, table: RowType) -> list[str]:
    """Return the features that the table has no column for."""
    return [f.name for f in signature.features if table.column_of(f.name, f.source) is None]


def create_version(
    connection: Connection, functions: FunctionSet, *, sha256: str, tables: Sequence[RowType], comment: str
) -> None:
    """Create, or replace by the same, the functions of a version: PL/Python's and those in front of them.

    Raises:
        NameRefusedError: A name would be too long.
        FeatureError: A table lacks a feature's column.
    """
    functions.names()
    signature = functions.signature
    run(
        connection,
        "select dbscore_engine.create_functions(%s, %s, %s::jsonb)",
        [functions.name, sha256, _json(signature)],
    )
    for suffix, result in functions.results():
        for form in _forms(signature, tables):
            call = _engine_call(functions.name, suffix, signature, form)
            volatility = "immutable" if form.immutable else "stable"
            _create(connection, functions, suffix, result, form, call, volatility, comment)


def create_alias(
    connection: Connection, functions: FunctionSet, *, target: FunctionSet, tables: Sequence[RowType], comment: str
) -> None:
    """Make an alias's functions call the target's, whatever they called before.

    Functions whose arguments or result the target does not have are dropped, which PostgreSQL refuses while a
    view or another function uses them.

    Raises:
        NameRefusedError: A name would be too long.
    """
    functions.names()
    forms = list(_forms(functions.signature, tables))
    keep = {}
    for suffix, result in functions.results():
        for form in forms:
            keep[(functions.name + suffix, form.types)] = (result, form.names)
    for name, arguments, result, argument_names in _existing(connection, functions):
        if keep.get((name, arguments)) != (result, argument_names):
            run(
                connection,
                sql.SQL("drop function {}({})").format(
                    sql.Identifier(functions.schema, name), sql.SQL(arguments)  # type: ignore[arg-type]
                ),
            )
    for suffix, result in functions.results():
        for form in forms:
            arguments = sql.SQL(", ").join(sql.SQL("${}").format(sql.Literal(i + 1)) for i in range(form.arity))
            call = sql.SQL("{}({})").format(sql.Identifier(functions.schema, target.name + suffix), arguments)
            _create(connection, functions, suffix, result, form, call, "stable", comment)


@dataclass(frozen=True, slots=True)
class _Form:
    """One list of arguments: a scalar per feature, an array, or a row."""

    kind: str
    declared: sql.Composable
    types: str
    names: tuple[str, ...]
    arity: int
    values: tuple[sql.Composable, ...]
    immutable: bool = True


def _forms(signature: Signature, tables: Sequence[RowType]) -> Iterator[_Form]:
    features = signature.features
    if len(features) <= MAX_ARGUMENTS:
        yield _Form(
            kind="scalar",
            declared=sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(f.name), sql.SQL(f.type)) for f in features
            ),
            types=", ".join(f.type for f in features),
            names=tuple(f.name for f in features),
            arity=len(features),
            values=tuple(sql.SQL("${}").format(sql.Literal(i + 1)) for i in range(len(features))),
        )
    if signature.is_numeric:
        yield _Form("array", sql.SQL("features double precision[]"), "double precision[]", ("features",), 1, ())
    for table in tables:
        lacking = missing_columns(signature, table)
        if lacking:
            raise FeatureError(
                f"{table.schema}.{table.name} has no column for the feature{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
                remedy="Add the columns, or name a view that has them.",
            )
        columns = [table.column_of(f.name, f.source) or "" for f in features]
        _refuse_wrong_types(signature, table, columns)
        yield _Form(
            kind="row",
            declared=table.identifier,
            types=table.identifier.as_string(),
            names=(),
            arity=1,
            values=tuple(
                sql.SQL("($1).{}::{}").format(sql.Identifier(c), sql.SQL(f.type))
                for c, f in zip(columns, features, strict=True)
            ),
            immutable=all(table.columns[c].split("(")[0] in _CASTS_THAT_NEVER_CHANGE for c in columns),
        )


def _refuse_wrong_types(signature: Signature, table: RowType, columns: list[str]) -> None:
    temporal = ("date", "time", "interval")
    for feature, column in zip(signature.features, columns, strict=True):
        kind = table.columns[column]
        if kind.startswith(temporal) and feature.type is not SqlType.TEXT:
            raise FeatureError(
                f"column {column} of {table.schema}.{table.name} is of type {kind}, the feature {feature.name} of type {feature.type}",
                remedy=f"Extract the number in SQL, in a view or a column: extract(epoch from {column}), extract(hour from {column}).",
            )
        textual = kind in ("text", "character varying", "character", "name")
        if textual and feature.type is not SqlType.TEXT:
            raise FeatureError(
                f"column {column} of {table.schema}.{table.name} is of type {kind}, the feature {feature.name} of type {feature.type}",
                remedy="Cast it in a view, and name that view.",
            )


def _engine_call(name: str, suffix: str, signature: Signature, form: _Form) -> sql.Composable:
    """Return the call of the PL/Python function: the pin, then the values in the form that it takes."""
    features = signature.features
    if form.kind == "array":
        values: list[sql.Composable] = [sql.SQL("$1")]
    elif len(features) < MAX_ARGUMENTS:
        values = list(form.values)
    else:
        values = [_numbers(signature, form)]
        texts = [v for f, v in zip(features, form.values, strict=True) if f.type is SqlType.TEXT]
        if texts:
            values.append(sql.SQL("array[{}]").format(sql.SQL(", ").join(texts)))
    return sql.SQL("{}({}(), {})").format(
        sql.Identifier(ENGINE_SCHEMA, name + suffix),
        sql.Identifier(ENGINE_SCHEMA, name + "_pin"),
        sql.SQL(", ").join(values),
    )


def _numbers(signature: Signature, form: _Form) -> sql.Composable:
    """Return one flat float8[] of all that is not text."""
    pieces: list[sql.Composable] = []
    scalars: list[sql.Composable] = []

    def close() -> None:
        if scalars:
            pieces.append(sql.SQL("array[{}]").format(sql.SQL(", ").join(scalars)))
            scalars.clear()

    for feature, value in zip(signature.features, form.values, strict=True):
        if feature.type is SqlType.TEXT:
            continue
        if feature.type.is_array:
            close()
            pieces.append(sql.SQL("({})::double precision[]").format(value))
        else:
            number = sql.SQL("({})::integer").format(value) if feature.type is SqlType.BOOLEAN else value
            scalars.append(sql.SQL("({})::double precision").format(number))
    close()
    return sql.SQL(" || ").join(pieces) if pieces else sql.SQL("array[]::double precision[]")


def _create(  # noqa: PLR0913 - the parts of one statement
    connection: Connection,
    functions: FunctionSet,
    suffix: str,
    result: str,
    form: _Form,
    call: sql.Composable,
    volatility: str,
    comment: str,
) -> None:
    name = sql.Identifier(functions.schema, functions.name + suffix)
    run(
        connection,
        sql.SQL("create or replace function {}({}) returns {} language sql {} parallel safe return {}").format(
            name, form.declared, sql.SQL(result), sql.SQL(volatility), call
        ),
    )
    signature = sql.SQL("{}({})").format(name, sql.SQL(form.types))
    run(connection, sql.SQL("revoke all on function {} from public").format(signature))
    run(connection, sql.SQL("comment on function {} is {}").format(signature, sql.Literal(comment + _about(suffix, functions.signature))))


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


def _json(signature: Signature) -> str:
    import json

    return json.dumps(signature.to_json())


def call(functions: FunctionSet, suffix: str) -> sql.Composable:
    """Return a call of a version's function on columns that are named as the features are."""
    columns = [sql.Identifier(f.name) for f in functions.signature.features]
    if len(columns) <= MAX_ARGUMENTS:
        arguments = sql.SQL(", ").join(columns)
        return sql.SQL("{}({})").format(sql.Identifier(functions.schema, functions.name + suffix), arguments)
    form = _Form("row", sql.SQL(""), "", (), 1, tuple(columns))
    return _engine_call(functions.name, suffix, functions.signature, form)


def engine_names(name: str) -> list[str]:
    """Return the names that a version's PL/Python functions may have."""
    return [name + suffix for suffix in ("", "_proba", "_score", "_json", "_pin")]


def existing_names(connection: Connection, schema: str) -> set[str]:
    """Return the names of all functions in a schema."""
    query = "select proname from pg_proc where pronamespace = to_regnamespace(quote_ident(%s))"
    return {name for (name,) in run(connection, query, [schema]).fetchall()}


def forget(connection: Connection, sha256: str) -> None:
    """Remove the server's copy of a model; it comes back when it is needed."""
    run(connection, "select dbscore_engine.forget(%s)", [sha256])


def refuse_unknown_role(connection: Connection, role: str) -> None:
    """Raise NotFoundError where there is no such role."""
    if run(connection, "select 1 from pg_roles where rolname = %s", [role]).fetchone() is None:
        raise NotFoundError(f"there is no role {role!r}", remedy=f'Create it first: create role "{role}".')


def grant_usage(connection: Connection, schema: str, role: str) -> None:
    """Let a role name the functions, and use what is the same for all models."""
    to = sql.Identifier(role)
    schemas = sql.SQL(", ").join(map(sql.Identifier, (schema, "dbscore", ENGINE_SCHEMA)))
    run(connection, sql.SQL("grant usage on schema {} to {}").format(schemas, to))
    run(
        connection,
        sql.SQL(
            "grant execute on function dbscore.resolve(text), dbscore.predict(text, jsonb), dbscore.sessions(),"
            " dbscore_engine.sessions() to {}"
        ).format(to),
    )
    run(connection, sql.SQL("grant select on dbscore.models, dbscore.versions, dbscore.aliases to {}").format(to))


def _existing(connection: Connection, functions: FunctionSet) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return name, argument types, result type and argument names of the functions there are now."""
    rows = run(
        connection,
        r"""select p.proname,
                   array(select case when t.typtype = 'c'
                                then format('"%%s"."%%s"', replace(n.nspname, '"', '""'), replace(t.typname, '"', '""'))
                                else format_type(t.oid, null) end
                         from unnest(p.proargtypes) with ordinality as a (oid, i)
                         join pg_type t on t.oid = a.oid join pg_namespace n on n.oid = t.typnamespace order by i),
                   pg_get_function_result(p.oid), coalesce(p.proargnames, '{}')
            from pg_proc p where p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = any (%s)""",
        [functions.schema, [functions.name + suffix for suffix in SUFFIXES]],
    ).fetchall()
    return [(name, ", ".join(types), result, tuple(names)) for name, types, result, names in rows]


def drop(connection: Connection, schema: str, names: Sequence[str]) -> None:
    """Drop every function of these names; PostgreSQL refuses while something uses one."""
    found = run(
        connection,
        """select oid::regprocedure::text from pg_proc
           where pronamespace = to_regnamespace(quote_ident(%s)) and proname = any (%s)""",
        [schema, list(names)],
    ).fetchall()
    for (signature,) in found:
        # regprocedure's text is quoted and qualified by PostgreSQL
        run(connection, sql.SQL("drop function {}").format(sql.SQL(signature)))


def grantees(connection: Connection, schema: str, names: Sequence[str]) -> list[str]:
    """Return the roles, the owner left out, that may execute any function of these names."""
    rows = run(
        connection,
        """select distinct r.rolname from pg_proc p cross join aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
           where p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = any (%s)
             and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner order by 1""",
        [schema, list(names)],
    ).fetchall()
    return [role for (role,) in rows]


def grant(connection: Connection, schema: str, names: Sequence[str], roles: Sequence[str]) -> None:
    """Let the roles execute every function of these names."""
    _change_grants(connection, "grant execute on function {} to {}", schema, names, roles)


def revoke(connection: Connection, schema: str, names: Sequence[str], roles: Sequence[str]) -> None:
    """Take from the roles what `grant` gave."""
    _change_grants(connection, "revoke execute on function {} from {}", schema, names, roles)


def _change_grants(
    connection: Connection, statement: str, schema: str, names: Sequence[str], roles: Sequence[str]
) -> None:
    if not roles:
        return
    found = run(
        connection,
        """select oid::regprocedure::text from pg_proc
           where pronamespace = to_regnamespace(quote_ident(%s)) and proname = any (%s)""",
        [schema, list(names)],
    ).fetchall()
    for (signature,) in found:
        run(
            connection,
            sql.SQL(statement).format(  # type: ignore[arg-type]
                sql.SQL(signature), sql.SQL(", ").join(sql.Identifier(role) for role in roles)
            ),
        )
