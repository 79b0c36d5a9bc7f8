"""Experiments: units are assigned to versions, what came of them is recorded and analysed.

What is done to an experiment is done by functions of sql/052 to sql/060; `Experiments` calls them.
"""

from __future__ import annotations

from dbscore.experiments.operations import Experiments
from dbscore.experiments.records import (
    Allocation,
    Experiment,
    ExperimentEvent,
    Metric,
    MetricResult,
    MetricSummary,
    Variant,
)

__all__ = [
    "Allocation",
    "Experiment",
    "ExperimentEvent",
    "Experiments",
    "Metric",
    "MetricResult",
    "MetricSummary",
    "Variant",
]
