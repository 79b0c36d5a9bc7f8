"""Record which assignments an application has recorded, and not the experiment itself."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = "dbscore"


def upgrade() -> None:
    op.add_column(
        "assignment",
        sa.Column("by_application", sa.Boolean, server_default=sa.text("false"), nullable=False),
        schema=SCHEMA,
    )
    # the experiment itself predicts for every unit that it assigns: what the audit took for a sign until now
    op.execute(
        """update dbscore.assignment a set by_application = true
           where a.forced_by is null and not exists (
               select from dbscore.prediction p where p.experiment_id = a.experiment_id and p.unit = a.unit)"""
    )
    # they return other columns from now on, and nobody but members of the owner may call them: no grant is lost
    op.execute("drop function if exists dbscore.audit_experiment(text)")
    op.execute("drop function if exists dbscore.unit_values(text, text)")
    # a query's rows were taken down in a table of the caller's; experiments' functions are made anew after an upgrade
    op.execute("drop function if exists dbscore.run_rows(integer, regclass, text)")
    op.execute("drop function if exists dbscore.refuse_relation(regclass, text[], text[])")
    op.execute("drop function if exists dbscore.insert_scored(text, integer, jsonb, text[], text[], text, text)")
