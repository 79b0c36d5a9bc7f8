"""Create the registry: installation, artifact, model, version, alias, alias_history."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

SCHEMA = "dbscore"


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("installation_id", sa.Integer, server_default=sa.text("1"), autoincrement=False, nullable=False),
        sa.Column("models_schema", sa.Text, nullable=False),
        sa.Column("package_version", sa.Text, nullable=False),
        sa.Column("sql_sha256", sa.Text, nullable=False),
        sa.Column("functions_sha256", sa.Text),
        sa.Column("installed_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
        sa.Column("installed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("installation_id", name=op.f("installation_pkey")),
        sa.CheckConstraint("installation_id = 1", name=op.f("installation_single_check")),
        schema=SCHEMA,
        comment="What is installed here: one row.",
    )
    op.create_table(
        "artifact",
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("sha256", name=op.f("artifact_pkey")),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("artifact_sha256_check")),
        sa.CheckConstraint("size = octet_length(bytes)", name=op.f("artifact_size_check")),
        schema=SCHEMA,
        comment="ONNX models by content: stored once however many versions share them.",
    )
    # models hardly compress, and a slice of an external value is read without the rest
    op.execute("alter table dbscore.artifact alter column bytes set storage external")
    op.create_table(
        "model",
        sa.Column("model_id", sa.Integer, sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.Column("last_number", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("tables", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
        sa.PrimaryKeyConstraint("model_id", name=op.f("model_pkey")),
        sa.UniqueConstraint("name", name=op.f("model_name_key")),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,47}$'", name=op.f("model_name_check")),
        schema=SCHEMA,
        comment="A model: a name, an owner, a description.",
    )
    op.create_table(
        "version",
        sa.Column("version_id", sa.Integer, sa.Identity(always=True), nullable=False),
        sa.Column("model_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("signature", JSONB, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="active"),
        sa.Column("provenance", JSONB, nullable=False),
        sa.Column("parity", JSONB),
        sa.Column("metrics", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("mismatch_accepted_by", sa.Text),
        sa.Column("mismatch_reason", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
        sa.PrimaryKeyConstraint("version_id", name=op.f("version_pkey")),
        sa.ForeignKeyConstraint(["model_id"], ["dbscore.model.model_id"], name=op.f("version_model_id_fkey")),
        sa.ForeignKeyConstraint(["sha256"], ["dbscore.artifact.sha256"], name=op.f("version_sha256_fkey")),
        sa.UniqueConstraint("model_id", "number", name=op.f("version_model_id_number_key")),
        sa.CheckConstraint("number > 0", name=op.f("version_number_check")),
        sa.CheckConstraint("engine in ('onnx', 'sql')", name=op.f("version_engine_check")),
        sa.CheckConstraint("status in ('active', 'retired')", name=op.f("version_status_check")),
        schema=SCHEMA,
        comment="An immutable, numbered release of a model.",
    )
    op.create_index("version_sha256_idx", "version", ["sha256"], schema=SCHEMA)
    op.create_table(
        "alias",
        sa.Column("model_id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "name", name=op.f("alias_pkey")),
        sa.ForeignKeyConstraint(["model_id"], ["dbscore.model.model_id"], name=op.f("alias_model_id_fkey")),
        sa.ForeignKeyConstraint(["version_id"], ["dbscore.version.version_id"], name=op.f("alias_version_id_fkey")),
        sa.CheckConstraint("name ~ '^[a-z_][a-z0-9_]*$'", name=op.f("alias_name_check")),
        schema=SCHEMA,
        comment="A movable name for a version.",
    )
    op.create_index("alias_version_id_idx", "alias", ["version_id"], schema=SCHEMA)
    op.create_table(
        "alias_history",
        sa.Column("alias_history_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("from_number", sa.Integer),
        sa.Column("to_number", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("moved_by", sa.Text, nullable=False, server_default=sa.text("session_user")),
        sa.Column(
            "moved_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("alias_history_id", name=op.f("alias_history_pkey")),
        sa.CheckConstraint("action in ('promote', 'rollback', 'remove')", name=op.f("alias_history_action_check")),
        schema=SCHEMA,
        comment="Who moved which alias, when, from where to where, and why.",
    )
    op.create_index("alias_history_model_alias_idx", "alias_history", ["model", "alias"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("alias_history", "alias", "version", "model", "artifact", "installation"):
        op.drop_table(table, schema=SCHEMA)
