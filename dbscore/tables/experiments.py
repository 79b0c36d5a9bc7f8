"""The tables of experiments."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dbscore.tables.base import XID8, by, created_at, metadata
from dbscore.tables.registry import version

__all__ = [
    "allocation",
    "assignment",
    "experiment",
    "experiment_history",
    "exposure_day",
    "metric",
    "metric_day",
    "outcome",
    "prediction",
    "request",
    "variant",
]

experiment = Table(
    "experiment",
    metadata,
    Column("experiment_id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    Column("mode", Text, nullable=False),
    # the column, and the argument, that holds a unit
    Column("unit_name", Text, nullable=False),
    Column("scheme", Text, nullable=False),
    Column("salt", Text, nullable=False),
    # experiments of one layer have parts of its units, in ten thousandths
    Column("layer", Text),
    Column("layer_from", Integer),
    Column("layer_to", Integer),
    # a condition on the features
    Column("eligible", Text),
    # how many of ten thousand units are served by the control and compared with nothing
    Column("holdout", Integer, nullable=False, server_default=text("0")),
    Column("records_features", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, server_default="draft"),
    Column("winner", Text),
    created_at(),
    by(),
    Column("started_at", DateTime(timezone=True)),
    Column("concluded_at", DateTime(timezone=True)),
    # what was recorded by transactions before it is in the tables of days
    Column("counted_xact", XID8),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,47}$'", name="name"),
    CheckConstraint("mode in ('ab', 'shadow')", name="mode"),
    CheckConstraint("scheme in ('sha256', 'growthbook2')", name="scheme"),
    CheckConstraint("status in ('draft', 'running', 'paused', 'concluded')", name="status"),
    CheckConstraint("holdout between 0 and 9999", name="holdout"),
    CheckConstraint(
        "num_nulls(layer, layer_from, layer_to) in (0, 3) and layer_from >= 0 and layer_from < layer_to"
        " and layer_to <= 10000",
        name="layer",
    ),
    comment="A/B and shadow tests of versions.",
)

experiment_history = Table(
    "experiment_history",
    metadata,
    Column("experiment_history_id", BigInteger, Identity(always=True), primary_key=True),
    # the name, not a key: what was done outlives the experiment
    Column("experiment", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("reason", Text, nullable=False, server_default=""),
    Column("done_by", Text, nullable=False, server_default=text("session_user")),
    Column("done_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Index(None, "experiment"),
    comment="Who did what to which experiment, when and why.",
)

variant = Table(
    "variant",
    metadata,
    Column("experiment_id", ForeignKey(experiment.c.experiment_id, ondelete="cascade"), primary_key=True),
    # the first one is the control
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version_id", ForeignKey(version.c.version_id), nullable=False),
    UniqueConstraint("experiment_id", "name"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,47}$' and name <> 'holdout'", name="name"),
    Index(None, "version_id"),
    comment="Arms of experiments, each bound to a version.",
)

allocation = Table(
    "allocation",
    metadata,
    Column("allocation_id", Integer, Identity(always=True), primary_key=True),
    Column("experiment_id", ForeignKey(experiment.c.experiment_id, ondelete="cascade"), nullable=False),
    Column("number", Integer, nullable=False),
    # in ten thousandths, one for each variant in their order
    Column("weights", ARRAY(Integer), nullable=False),
    # the first bucket that is beyond each variant
    Column("boundaries", ARRAY(Integer), nullable=False),
    Column("valid_from", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    # NULL: in force
    Column("valid_to", DateTime(timezone=True)),
    Column("reason", Text, nullable=False, server_default=""),
    by(),
    UniqueConstraint("experiment_id", "number"),
    comment="The weights of variants, each period a row.",
)

assignment = Table(
    "assignment",
    metadata,
    # no foreign keys, as for predictions and outcomes: to check each row would take longer than to write it
    Column("experiment_id", Integer, primary_key=True, autoincrement=False),
    Column("unit", Text(collation="C"), primary_key=True),
    # 0: held out
    Column("variant", SmallInteger, nullable=False),
    Column("allocation_id", Integer, nullable=False),
    Column("assigned_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("xact", XID8, nullable=False, server_default=text("pg_current_xact_id()")),
    # a variant that was chosen by hand, and by whom
    Column("forced_variant", SmallInteger),
    Column("forced_by", Text),
    # left out of the analysis, by this transaction: forced, or seen in two variants
    Column("left_out_xact", XID8),
    # an application has recorded it (dbscore.record_assignment), and may have drawn the variant otherwise
    Column("by_application", Boolean, nullable=False, server_default=text("false")),
    Index(None, "experiment_id", "xact"),
    Index(None, "experiment_id", "left_out_xact", postgresql_where=text("left_out_xact is not null")),
    comment="Which variant a unit got first; it keeps it.",
)

prediction = Table(
    "prediction",
    metadata,
    Column("experiment_id", Integer, nullable=False),
    Column("unit", Text(collation="C"), nullable=False),
    Column("variant", SmallInteger, nullable=False),
    Column("version_id", Integer, nullable=False),
    Column("engine", Text, nullable=False),
    # whether it was answered; in shadow mode the others were only recorded
    Column("is_served", Boolean, nullable=False),
    # a number, or 0 and 1 for a truth
    Column("prediction", Double),
    # a text
    Column("label", Text),
    Column("probabilities", ARRAY(Double)),
    Column("request_id", Text),
    Column("features", JSONB),
    Column("predicted_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Index(None, "experiment_id", "unit"),
    Index("prediction_predicted_at_idx", "predicted_at", postgresql_using="brin"),
    postgresql_partition_by="range (predicted_at)",
    comment="What was predicted for units of experiments, by month.",
)

request = Table(
    "request",
    metadata,
    Column("experiment_id", ForeignKey(experiment.c.experiment_id, ondelete="cascade"), primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("unit", Text),
    # where its predictions are
    Column("predicted_at", DateTime(timezone=True), nullable=False),
    comment="Requests that were answered: asked again, they get the same answer.",
)

metric = Table(
    "metric",
    metadata,
    Column("metric_id", Integer, Identity(always=True), primary_key=True),
    Column("experiment_id", ForeignKey(experiment.c.experiment_id, ondelete="cascade"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("role", Text, nullable=False),
    # of a guardrail: how much worse is not worse, as a share of the control's mean
    Column("margin", Double),
    # how long after the assignment an outcome counts; NULL: for ever
    Column("window", Interval),
    Column("quantile", Double),
    # a query of unit, value[, denominator], at
    Column("source", Text),
    # a query of unit, value: what was before the assignment
    Column("covariate", Text),
    created_at(),
    by(),
    UniqueConstraint("experiment_id", "name"),
    CheckConstraint("name ~ '^[a-z_][a-z0-9_]{0,47}$'", name="name"),
    CheckConstraint(
        "kind in ('conversion', 'mean', 'count', 'ratio', 'quantile', 'log_loss', 'brier', 'auc', 'rmse', 'mae')",
        name="kind",
    ),
    CheckConstraint("direction in ('higher', 'lower')", name="direction"),
    CheckConstraint("role in ('goal', 'guardrail')", name="role"),
    CheckConstraint("(role = 'guardrail') = (margin is not null) and margin >= 0", name="margin"),
    CheckConstraint("(kind = 'quantile') = (quantile is not null) and quantile > 0 and quantile < 1", name="quantile"),
    comment="What experiments are judged by.",
)

outcome = Table(
    "outcome",
    metadata,
    Column("metric_id", Integer, nullable=False),
    Column("unit", Text(collation="C"), nullable=False),
    # whose prediction it is compared with; NULL: nobody's, it is the unit's
    Column("variant", SmallInteger),
    # of a metric of quality the loss
    Column("value", Double, nullable=False),
    Column("denominator", Double),
    # of a metric of quality the truth, and the number it was compared with
    Column("label", Text),
    Column("predicted", Double),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("xact", XID8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    by("recorded_by"),
    Index(None, "metric_id", "unit"),
    Index(None, "metric_id", "xact"),
    comment="What came of units.",
)

exposure_day = Table(
    "exposure_day",
    metadata,
    Column("experiment_id", ForeignKey(experiment.c.experiment_id, ondelete="cascade"), primary_key=True),
    Column("allocation_id", ForeignKey(allocation.c.allocation_id, ondelete="cascade"), primary_key=True),
    Column("variant", SmallInteger, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("units", BigInteger, nullable=False),
    comment="Units by the day of their assignment, counted.",
)

metric_day = Table(
    "metric_day",
    metadata,
    Column("metric_id", ForeignKey(metric.c.metric_id, ondelete="cascade"), primary_key=True),
    Column("allocation_id", ForeignKey(allocation.c.allocation_id, ondelete="cascade"), primary_key=True),
    Column("variant", SmallInteger, primary_key=True),
    Column("day", Date, primary_key=True),
    # those with an outcome that counts
    Column("units", BigInteger, nullable=False),
    Column("total", Double, nullable=False),
    Column("squares", Double, nullable=False),
    Column("denominator_total", Double, nullable=False),
    Column("denominator_squares", Double, nullable=False),
    Column("products", Double, nullable=False),
    comment="Sums of outcomes by the day on which units were assigned.",
)
