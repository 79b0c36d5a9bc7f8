"""Record which engine computes a version's rows and its batches, why, and the SQL that it was compiled to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

SCHEMA = "dbscore"


def upgrade() -> None:
    op.add_column(
        "version",
        sa.Column("batch_engine", sa.Text, server_default="onnx", nullable=False),
        schema=SCHEMA,
    )
    op.add_column("version", sa.Column("choice", JSONB), schema=SCHEMA)
    op.add_column("version", sa.Column("program", JSONB), schema=SCHEMA)
    op.create_check_constraint(
        op.f("version_batch_engine_check"), "version", "batch_engine in ('onnx', 'sql')", schema=SCHEMA
    )
