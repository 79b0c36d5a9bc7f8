"""What all tables share: the schema, the names of their constraints, their common columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, MetaData, Text, func, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

__all__ = ["SCHEMA", "XID8", "by", "created_at", "metadata"]

SCHEMA = "dbscore"


class XID8(UserDefinedType[int]):
    """PostgreSQL's number of a transaction, which is never used twice."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:  # noqa: ANN401 - what SQLAlchemy passes
        """Return the type as SQL writes it."""
        return "xid8"


# so that a table that is there is understood
ischema_names["xid8"] = XID8


metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    },
)


def created_at() -> Column[Any]:
    """Return the column that says when a row was made."""
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def by(name: str = "created_by") -> Column[Any]:
    """Return a column that says who made a row."""
    return Column(name, Text, nullable=False, server_default=text("session_user"))
