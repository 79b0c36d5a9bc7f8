"""The tables of the schema `dbscore`: their one definition in SQLAlchemy Core.

Queries are built on these; migrations/ creates them, and a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

__all__ = ["SCHEMA", "alias", "alias_history", "artifact", "installation", "metadata", "model", "version"]

SCHEMA = "dbscore"

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


def _created_at() -> Column[Any]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def _by(name: str = "created_by") -> Column[Any]:
    return Column(name, Text, nullable=False, server_default=text("session_user"))


installation = Table(
    "installation",
    metadata,
    # one row: the key can have one value only
    Column("installation_id", Integer, primary_key=True, server_default=text("1"), autoincrement=False),
    Column("models_schema", Text, nullable=False),
    Column("package_version", Text, nullable=False),
    Column("sql_sha256", Text, nullable=False),
    # what the versions' functions were made by; NULL where they are still to be made
    Column("functions_sha256", Text),
    Column("installed_by", Text, nullable=False, server_default=text("session_user")),
    Column("installed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("installation_id = 1", name="single"),
    comment="What is installed here: one row.",
)

artifact = Table(
    "artifact",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    _created_at(),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("size = octet_length(bytes)", name="size"),
    comment="ONNX models by content: stored once however many versions share them.",
)

model = Table(
    "model",
    metadata,
    Column("model_id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    # numbers are never used twice, also after a version was dropped
    Column("last_number", Integer, nullable=False, server_default=text("0")),
    # tables that have a row overload: a list of [schema, name]
    Column("tables", JSONB, nullable=False, server_default=text("'[]'")),
    _created_at(),
    _by(),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,47}$'", name="name"),
    comment="A model: a name, an owner, a description.",
)

version = Table(
    "version",
    metadata,
    Column("version_id", Integer, Identity(always=True), primary_key=True),
    Column("model_id", ForeignKey(model.c.model_id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("sha256", ForeignKey(artifact.c.sha256), nullable=False),
    Column("signature", JSONB, nullable=False),
    Column("engine", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    Column("provenance", JSONB, nullable=False),
    Column("parity", JSONB),
    Column("metrics", JSONB, nullable=False, server_default=text("'{}'")),
    # who deployed it although the parity gate refused it, and why
    Column("mismatch_accepted_by", Text),
    Column("mismatch_reason", Text),
    _created_at(),
    _by(),
    UniqueConstraint("model_id", "number"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("engine in ('onnx', 'sql')", name="engine"),
    CheckConstraint("status in ('active', 'retired')", name="status"),
    Index(None, "sha256"),
    comment="An immutable, numbered release of a model.",
)

alias = Table(
    "alias",
    metadata,
    Column("model_id", ForeignKey(model.c.model_id), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version_id", ForeignKey(version.c.version_id), nullable=False),
    Index(None, "version_id"),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]*$'", name="name"),
    comment="A movable name for a version.",
)

alias_history = Table(
    "alias_history",
    metadata,
    Column("alias_history_id", BigInteger, Identity(always=True), primary_key=True),
    # names and numbers, not keys: the history outlives what it tells of
    Column("model", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("from_number", Integer),
    Column("to_number", Integer),
    Column("reason", Text, nullable=False, server_default=""),
    Column("moved_by", Text, nullable=False, server_default=text("session_user")),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Index(None, "model", "alias"),
    CheckConstraint("action in ('promote', 'rollback', 'remove')", name="action"),
    comment="Who moved which alias, when, from where to where, and why.",
)
