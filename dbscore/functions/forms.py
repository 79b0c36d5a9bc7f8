"""The forms of arguments: a scalar per feature, an array of numbers, a row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.errors import FeatureError, NameRefusedError
from dbscore.signature import IDENTIFIER_BYTES, NullPolicy, Signature, SqlType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbscore.functions.rows import RowType

__all__ = ["ENGINE_SCHEMA", "SUFFIXES", "Form", "FunctionSet", "engine_call", "forms", "refusal", "wrapped"]

ENGINE_SCHEMA = "dbscore_engine"
MAX_ARGUMENTS = 100
# what may follow a version's or an alias's name
SUFFIXES = ("", "_proba", "_score", "_batch", "_explain")

_IMMUTABLE_CASTS = frozenset(
    {
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric",
        "text",
        "character varying",
        "character",
        "real[]",
        "double precision[]",
    }
)

_TEXTS = frozenset({"text", "character varying", "character", "name"})
# a fraction would be rounded by the cast to an integer feature; what is out of its range fails by itself
_INTEGERS = frozenset({SqlType.SMALLINT, SqlType.INTEGER, SqlType.BIGINT})
_WHOLE = frozenset({"smallint", "integer", "bigint", "boolean"})


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
        names = [self.name + suffix for suffix in (*(suffix for suffix, _ in self.results()), "_batch", "_explain")]
        for name in names:
            if len(name.encode()) > IDENTIFIER_BYTES:
                raise NameRefusedError(
                    f"the function {name!r} would have a name of {len(name.encode())} bytes, over PostgreSQL's 63",
                    remedy="Choose a shorter name for the model or the alias.",
                )
        return names


@dataclass(frozen=True, slots=True)
class Form:
    """One list of arguments: a scalar per feature, an array, or a row."""

    kind: str
    declared: sql.Composable
    types: str
    names: tuple[str, ...]
    arity: int
    values: tuple[sql.Composable, ...]
    immutable: bool = True


def forms(signature: Signature, tables: Sequence[RowType]) -> Iterator[Form]:
    """Yield the forms of arguments that a version's functions have.

    Raises:
        FeatureError: A table lacks a feature's column, or has it in a type that cannot be cast.
    """
    features = signature.features
    if len(features) <= MAX_ARGUMENTS:
        yield Form(
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
        yield Form("array", sql.SQL("features double precision[]"), "double precision[]", ("features",), 1, ())
    yield from (_row_form(signature, table) for table in tables)


def _row_form(signature: Signature, table: RowType) -> Form:
    misfit = refusal(signature, table)
    if misfit is not None:
        raise misfit
    columns = [table.column_of(f.name, f.source) or "" for f in signature.features]
    return Form(
        kind="row",
        declared=table.identifier,
        types=table.identifier.as_string(),
        names=(),
        arity=1,
        values=tuple(
            sql.SQL("($1).{}::{}").format(sql.Identifier(c), sql.SQL(f.type))
            for c, f in zip(columns, signature.features, strict=True)
        ),
        immutable=all(table.columns[c].split("(")[0] in _IMMUTABLE_CASTS for c in columns),
    )


def refusal(signature: Signature, table: RowType) -> FeatureError | None:
    """Return why a function cannot take the rows of a table; None where it can."""
    name = f"{table.schema}.{table.name}"
    for feature in signature.features:
        column = table.column_of(feature.name, feature.source)
        if column is None:
            return FeatureError(
                f"{name} has no column for the feature {feature.name}",
                remedy="Add the column, or name a view that has it.",
            )
        kind = table.columns[column].split("(", maxsplit=1)[0]
        if feature.type is SqlType.TEXT:
            continue
        if kind.startswith(("date", "time", "interval")):
            remedy = f"Extract the number in SQL, in a view or a column: extract(epoch from {column})."
        elif kind in _TEXTS or (feature.type in _INTEGERS and kind not in _WHOLE):
            remedy = "Cast it in a view and name that view, or fit the model on values of the column's type."
        else:
            continue
        return FeatureError(
            f"column {column} of {name} is of type {kind}, the feature {feature.name} of type {feature.type}",
            remedy=remedy,
        )
    return None


def engine_call(name: str, suffix: str, signature: Signature, form: Form) -> sql.Composable:
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
    call = sql.SQL("{}({}(), {})").format(
        sql.Identifier(ENGINE_SCHEMA, name + suffix),
        sql.Identifier(ENGINE_SCHEMA, name + "_pin"),
        sql.SQL(", ").join(values),
    )
    if form.kind == "row" and all(f.null_policy is NullPolicy.NAN for f in features):
        # a row that an outer join did not find is no row of missing values
        return sql.SQL("case when not ($1 is null) then {} end").format(call)
    return call


def wrapped(form: Form, call: sql.Composable) -> sql.Composable:
    """Return the body of a function in front of a call.

    A parsed body names what it calls for good, and PostgreSQL knows what depends on what. A body that takes a row is
    a string: parsed, it would depend on the whole row type, and no column could be added with a default.
    """
    if form.kind == "row":
        return sql.SQL("as {}").format(sql.Literal((sql.SQL("select ") + call).as_string()))
    return sql.SQL("return {}").format(call)


def _numbers(signature: Signature, form: Form) -> sql.Composable:
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
