"""The tables of the schema `dbscore`: their one definition in SQLAlchemy Core.

Queries are built on these; migrations/ creates them, and a test holds the two against each other.
"""

from dbscore.tables.base import SCHEMA, metadata
from dbscore.tables.experiments import (
    allocation,
    assignment,
    experiment,
    experiment_history,
    exposure_day,
    metric,
    metric_day,
    outcome,
    prediction,
    request,
    variant,
)
from dbscore.tables.jobs import chunk, job
from dbscore.tables.registry import alias, alias_history, artifact, installation, model, version

__all__ = [
    "SCHEMA",
    "alias",
    "alias_history",
    "allocation",
    "artifact",
    "assignment",
    "chunk",
    "experiment",
    "experiment_history",
    "exposure_day",
    "installation",
    "job",
    "metadata",
    "metric",
    "metric_day",
    "model",
    "outcome",
    "prediction",
    "request",
    "variant",
    "version",
]
