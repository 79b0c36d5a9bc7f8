"""The function that scores the rows of a query: `tip_v3_batch(query, key)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from dbscore.functions.forms import FunctionSet
    from dbscore.signature import Signature

__all__ = ["BATCH_FORMS", "BatchForm", "compiled_body", "version_body"]


@dataclass(frozen=True, slots=True)
class BatchForm:
    """One list of arguments of a batch function.

    A function's result type is settled before it runs, by the types of its arguments: so a key that is no bigint needs
    an argument of its type.

    Attributes:
        declared: Names and types.
        types: Types only.
        names: Names only.
        key: The type of the result's row_key.
        passed: What stands for the arguments in a call of the polymorphic function.
    """

    declared: str
    types: str
    names: tuple[str, ...]
    key: str
    passed: str

    def result(self, signature: Signature) -> str:
        """Return the function's result, as PostgreSQL spells it."""
        probabilities = "" if signature.probabilities is None else ", probabilities double precision[]"
        return f"TABLE(row_key {self.key}, prediction {signature.prediction.type}{probabilities})"

    def all_names(self, signature: Signature) -> tuple[str, ...]:
        """Return the names of the function's arguments and results, in PostgreSQL's order."""
        probabilities = () if signature.probabilities is None else ("probabilities",)
        return (*self.names, "row_key", "prediction", *probabilities)


# the polymorphic one first: the other calls it
BATCH_FORMS = (
    BatchForm(
        "query text, key text, key_type anyelement",
        "text, text, anyelement",
        ("query", "key", "key_type"),
        "anyelement",
        "$1, $2, $3",
    ),
    BatchForm("query text, key text", "text, text", ("query", "key"), "bigint", "$1, $2, null::bigint"),
)

# it has no search_path of its own: the query's names are looked up in the caller's
_BODY = """
declare
    signature constant jsonb := dbscore.version_signature({model}, {number});
    packed record;
    scored record;
    -- fetched one by one: a loop over the query would have ten of them in memory at once, and later fifty
    batches refcursor;
begin
    open batches no scroll for execute dbscore.batch_query(
        signature, query, key, pg_catalog.pg_typeof(key_type), pg_catalog.current_setting('search_path'));
    loop
        fetch batches into packed;
        exit when not found;
        select * into scored from {frame}({pin}(), packed.numbers, packed.integers, packed.texts);
        perform dbscore.refuse_errors(scored.errors, packed.k1::pg_catalog.text[]);
        return query execute dbscore.answering(signature, 1, scored.nulls is not null, false)
        using scored.predictions, scored.probabilities, scored.labels, scored.nulls, packed.n, null::pg_catalog.int4[],
              packed.k1;
    end loop;
    close batches;
end
"""


def version_body(functions: FunctionSet, engine_schema: str) -> sql.Composable:
    """Return the body of a version's polymorphic function, in PL/pgSQL.

    The body runs the query with the rights and in the search_path of the caller, some thousand rows at a time.
    """
    model, _, number = functions.name.rpartition("_v")
    return sql.SQL(_BODY).format(
        model=sql.Literal(model),
        number=sql.Literal(int(number)),
        frame=sql.Identifier(engine_schema, functions.name + "_frame"),
        pin=sql.Identifier(engine_schema, functions.name + "_pin"),
    )


_COMPILED_BODY = """
declare
    path constant text := pg_catalog.current_setting('search_path');
    computing constant text := dbscore.compiled_query(
        {model}, {number}, query, key, pg_catalog.pg_typeof(key_type), path);
begin
    return query execute computing;
exception when sqlstate 'ML002' then
    -- the first of them ended the statement: which they all are is found by another
    perform dbscore.refuse_rows({model}, {number}, query, key, pg_catalog.pg_typeof(key_type), path);
    raise;
end
"""


def compiled_body(functions: FunctionSet) -> sql.Composable:
    """Return the body of the polymorphic function of a version whose batches are computed in SQL."""
    model, _, number = functions.name.rpartition("_v")
    return sql.SQL(_COMPILED_BODY).format(model=sql.Literal(model), number=sql.Literal(int(number)))
