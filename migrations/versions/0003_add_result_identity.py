"""Know a job's result table again: one that was dropped and made anew has lost what the job wrote."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import OID

revision = "0003"
down_revision = "0002"

SCHEMA = "dbscore"


def upgrade() -> None:
    op.add_column("job", sa.Column("into_oid", OID), schema=SCHEMA)
