"""The tables of jobs."""

from __future__ import annotations

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
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import OID

from dbscore.tables.base import created_at, metadata

__all__ = ["chunk", "job"]

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
    created_at(),
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
