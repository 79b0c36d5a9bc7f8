"""Tables and views whose rows the functions take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run
from dbscore.errors import FeatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

__all__ = ["RowType", "row_type", "row_type_of", "row_types_taken"]


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


def row_type(connection: Connection, table: str) -> RowType:
    """Look a table or view up, by a name as SQL writes it: `trips`, `public."My Trips"`.

    Raises:
        FeatureError: There is none.
    """
    found = run(
        connection,
        """select n.nspname, c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where c.oid = pg_catalog.to_regclass(%s::text) and c.relkind in ('r', 'v', 'm', 'f', 'p')""",
        [table],
    ).fetchone()
    if found is None:
        raise FeatureError(
            f"there is no table or view {table!r}",
            remedy="Name one as SQL does, with its schema where it needs one.",
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
    there = run(connection, "select pg_catalog.to_regclass(%s::text)", [quoted]).fetchone()
    return row_type(connection, quoted) if there and there[0] else None


def row_types_taken(connection: Connection, schema: str, names: Sequence[str]) -> list[RowType]:
    """Return the tables and views whose rows functions of these names take."""
    rows = run(
        connection,
        """select distinct n.nspname, c.relname
           from pg_proc p join pg_type t on t.oid = p.proargtypes[0] join pg_class c on c.oid = t.typrelid
           join pg_namespace n on n.oid = c.relnamespace
           where p.pronargs = 1 and p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = any (%s)
           order by 1, 2""",
        [schema, list(names)],
    ).fetchall()
    found = [row_type_of(connection, *row) for row in rows]
    return [table for table in found if table is not None]
