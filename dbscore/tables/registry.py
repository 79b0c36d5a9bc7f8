"""The registry's tables: models, versions, aliases, artifacts."""

from __future__ import annotations

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
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dbscore.tables.base import by, created_at, metadata

__all__ = ["alias", "alias_history", "artifact", "installation", "model", "version"]

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
    created_at(),
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
    created_at(),
    by(),
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
    created_at(),
    by(),
    # what computes the rows of a table or a query; `engine` is for single rows
    Column("batch_engine", Text, nullable=False, server_default="onnx"),
    # how the engines were chosen: what was measured, and the reason
    Column("choice", JSONB),
    # the version as SQL, from which its functions are made; NULL where it is not compiled
    Column("program", JSONB),
    UniqueConstraint("model_id", "number"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("engine in ('onnx', 'sql')", name="engine"),
    CheckConstraint("batch_engine in ('onnx', 'sql')", name="batch_engine"),
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
