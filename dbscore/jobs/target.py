"""The table that a worker writes to: by COPY where its columns take the values as they are, else by way of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from dbscore.jobs import binary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

__all__ = ["Key", "Target"]

# COPY applies no rules, no policies and no casts
_PLAIN = """
select c.relkind in ('r', 'p') and not c.relhasrules and not pg_catalog.row_security_active(c.oid), columns.names, columns.types
from pg_catalog.pg_class c cross join lateral dbscore.relation_columns(c.oid::pg_catalog.regclass) as columns
where c.oid = %s::pg_catalog.regclass
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Key:
    """A key column: its name, its type as SQL writes it, and whether its values are in binary form or texts."""

    name: str
    type: str
    is_binary: bool


class _Binary(bytes):
    """A value in PostgreSQL's binary form, without its length."""

    __slots__ = ()


class _BinaryDumper(Dumper):
    """Passes a value on; its type is what the statement says."""

    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class Target:
    """A table, and the columns of it that are written.

    Attributes:
        is_direct: Whether rows are copied into the table itself, by way of no other.

    Args:
        connection: In autocommit, for as long as the target is used.
        table: Its name, qualified and quoted.
        keys: Its key columns.
        others: The other columns' types, by name.
        conflict: The ON CONFLICT clause of the insert; empty for none.
        name: For a temporary table, where one is needed.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: str,
        keys: Sequence[Key],
        others: Mapping[str, str],
        *,
        conflict: str,
        name: str,
    ) -> None:
        self._connection = connection
        self._keys = keys
        wanted = {key.name: key.type for key in keys} | dict(others)
        into, temporary = sql.SQL(table), sql.Identifier("pg_temp", name)
        columns = sql.SQL(", ").join(map(sql.Identifier, wanted))
        plain, names, types = connection.execute(_PLAIN, [table]).fetchone() or (False, [], [])
        there = dict(zip(names, types, strict=True))
        direct = plain and not conflict and all(key.is_binary for key in keys)
        direct = direct and all(there.get(column) == kind for column, kind in wanted.items())
        self._copy = sql.SQL("copy {} ({}) from stdin (format binary)").format(into if direct else temporary, columns)
        self.is_direct = direct
        self._insert: sql.Composed | None = None
        self._empty = sql.SQL("delete from {}").format(temporary)
        if not direct:
            kinds = {key.name: key.type if key.is_binary else "text" for key in keys} | dict(others)
            connection.execute(
                sql.SQL("create temporary table if not exists {} ({}) on commit delete rows").format(
                    temporary,
                    sql.SQL(", ").join(
                        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in kinds.items()
                    ),
                )
            )
            casts = sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in wanted.items()
            )
            self._insert = sql.SQL("insert into {} ({}) select {} from {}{}").format(
                into, columns, casts, temporary, sql.SQL(conflict)
            )

    def copy(self, columns: Sequence[binary.Field], rows: int) -> None:
        """Write rows, within the transaction that the connection is in."""
        with self._connection.cursor().copy(self._copy) as copy:
            for piece in binary.copied(columns, rows):
                copy.write(piece)

    def flush(self, *, last: bool) -> None:
        """Let what was copied arrive.

        Args:
            last: Whether nothing more is copied in this transaction.
        """
        if self._insert is not None:
            self._connection.execute(self._insert)
            if not last:
                self._connection.execute(self._empty)

    def shown(self, values: Sequence[bytes]) -> str:
        """Return a key as PostgreSQL shows it.

        Args:
            values: The key's values, in the form that they are copied in.
        """
        cursor = self._connection.cursor()
        cursor.adapters.register_dumper(_Binary, _BinaryDumper)
        casts = sql.SQL(", ").join(
            sql.SQL("%s::{}").format(sql.SQL(k.type if k.is_binary else "text")) for k in self._keys
        )
        row = cursor.execute(
            sql.SQL("select pg_catalog.concat_ws(', ', {})").format(casts), [_Binary(value) for value in values]
        ).fetchone()
        return "" if row is None else str(row[0])
