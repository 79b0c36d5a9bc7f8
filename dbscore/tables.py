"""The tables of the schema `dbscore`: their one definition in SQLAlchemy Core.

Queries are built on these; migrations/ creates them, and a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import JSONB, OID

__all__ = [
    "SCHEMA",
    "alias",
    "alias_history",
    "artifact",
    "chunk",
    "installation",
    "job",
    "metadata",
    "model",
    "version",
]

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

job = Table(
    "job",
    metadata,
    Column("job_id", Integer, Identity(always=True), primary_key=True),
    # names and numbers, not keys: a job's record outlives the version
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("source_kind", Text, nullable=False),
    # a qualified, quoted name, or the query
    Column("source", Text, nullable=False),
    # tables: the file that the chunks' blocks lie in; another means that the table was rewritten
    Column("source_filenode", OID),
    # tables: transactions before this one had ended when the job was planned
    Column("start_xid", Text),
    Column("where_clause", Text),
    Column("key_columns", ARRAY(Text), nullable=False),
    Column("key_types", ARRAY(Text), nullable=False),
    Column("into_table", Text, nullable=False),
    Column("errors_table", Text),
    # mode replace: where the predictions wait until all are there
    Column("staging_table", Text),
    Column("mode", Text, nullable=False),
    Column("incremental", Boolean, nullable=False),
    # tables: planned anew after a rewrite, for the rows that have no prediction of the job yet
    Column("replanned", Boolean, nullable=False, server_default=text("false")),
    # whether a table that the job makes gets one, when all rows are there
    Column("primary_key", Boolean, nullable=False),
    Column("runs_on", Text, nullable=False),
    Column("chunk_rows", Integer, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("max_errors", BigInteger, nullable=False),
    # the names in `source` and `where_clause` are looked up in it
    Column("search_path", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="planned"),
    Column("rows_planned", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("run_by", Text, nullable=False, server_default=text("current_user")),
    _created_at(),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    # the table that the results are in: another of its name has not what the job wrote
    Column("into_oid", OID),
    CheckConstraint("source_kind in ('table', 'view', 'query')", name="source_kind"),
    CheckConstraint("mode in ('create', 'append', 'replace', 'upsert')", name="mode"),
    CheckConstraint("runs_on in ('server', 'client')", name="runs_on"),
    CheckConstraint("status in ('planned', 'running', 'done', 'failed', 'cancelled', 'abandoned')", name="status"),
    CheckConstraint("isfinite(started_at) and isfinite(finished_at)", name="times"),
    Index(None, "into_table"),
    comment="Whole-table scoring runs.",
)

chunk = Table(
    "chunk",
    metadata,
    Column("job_id", ForeignKey(job.c.job_id, ondelete="cascade"), primary_key=True),
    Column("number", Integer, primary_key=True),
    # tables: blocks, from the lower one to before the upper one; NULL: to the end
    Column("lower_block", BigInteger),
    Column("upper_block", BigInteger),
    # everything else: keys, above the lower one up to the upper one; NULL: no bound
    Column("lower_key", ARRAY(Text)),
    Column("upper_key", ARRAY(Text)),
    Column("status", Text, nullable=False, server_default="planned"),
    Column("rows", BigInteger, nullable=False, server_default=text("0")),
    Column("errors", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("sqlstate", Text),
    Column("error", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint("status in ('planned', 'done', 'failed')", name="status"),
    comment="Pieces of jobs: each is scored and written by one transaction.",
)
