"""Create the jobs: job, chunk, and who sees which."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, OID

revision = "0002"
down_revision = "0001"

SCHEMA = "dbscore"


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("job_id", sa.Integer, sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("source_kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_filenode", OID),
        sa.Column("start_xid", sa.Text),
        sa.Column("where_clause", sa.Text),
        sa.Column("key_columns", ARRAY(sa.Text), nullable=False),
        sa.Column("key_types", ARRAY(sa.Text), nullable=False),
        sa.Column("into_table", sa.Text, nullable=False),
        sa.Column("errors_table", sa.Text),
        sa.Column("staging_table", sa.Text),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("incremental", sa.Boolean, nullable=False),
        sa.Column("replanned", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("primary_key", sa.Boolean, nullable=False),
        sa.Column("runs_on", sa.Text, nullable=False),
        sa.Column("chunk_rows", sa.Integer, nullable=False),
        sa.Column("workers", sa.Integer, nullable=False),
        sa.Column("max_errors", sa.BigInteger, nullable=False),
        sa.Column("search_path", sa.Text, nullable=False),
        sa.Column("status", sa.Text, server_default="planned", nullable=False),
        sa.Column("rows_planned", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("run_by", sa.Text, server_default=sa.text("current_user"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("job_id", name=op.f("job_pkey")),
        sa.CheckConstraint("source_kind in ('table', 'view', 'query')", name=op.f("job_source_kind_check")),
        sa.CheckConstraint("mode in ('create', 'append', 'replace', 'upsert')", name=op.f("job_mode_check")),
        sa.CheckConstraint("runs_on in ('server', 'client')", name=op.f("job_runs_on_check")),
        sa.CheckConstraint(
            "status in ('planned', 'running', 'done', 'failed', 'cancelled', 'abandoned')",
            name=op.f("job_status_check"),
        ),
        sa.CheckConstraint("isfinite(started_at) and isfinite(finished_at)", name=op.f("job_times_check")),
        schema=SCHEMA,
        comment="Whole-table scoring runs.",
    )
    op.create_index(op.f("job_into_table_idx"), "job", ["into_table"], schema=SCHEMA)
    op.create_table(
        "chunk",
        sa.Column("job_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("lower_block", sa.BigInteger),
        sa.Column("upper_block", sa.BigInteger),
        sa.Column("lower_key", ARRAY(sa.Text)),
        sa.Column("upper_key", ARRAY(sa.Text)),
        sa.Column("status", sa.Text, server_default="planned", nullable=False),
        sa.Column("rows", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("errors", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("sqlstate", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("chunk_pkey")),
        sa.ForeignKeyConstraint(
            ["job_id"], [f"{SCHEMA}.job.job_id"], name=op.f("chunk_job_id_fkey"), ondelete="cascade"
        ),
        sa.CheckConstraint("status in ('planned', 'done', 'failed')", name=op.f("chunk_status_check")),
        schema=SCHEMA,
        comment="Pieces of jobs: each is scored and written by one transaction.",
    )
    # a job runs its source with the rights of the role that made it, so nobody else may alter or continue it
    for table, own in (
        ("job", "run_by = current_user"),
        ("chunk", "exists (select from dbscore.job j where j.job_id = chunk.job_id and j.run_by = current_user)"),
    ):
        op.execute(f"alter table dbscore.{table} enable row level security")
        op.execute(f"create policy own on dbscore.{table} using ({own}) with check ({own})")
