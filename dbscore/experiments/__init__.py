"""Experiments: units are assigned to versions, what came of them is recorded and analysed.

What is done to an experiment is done by functions of sql/052 to sql/064; `Experiments` calls them.
"""

from __future__ import annotations

from dbscore.experiments.audit import Audit, DifferingAssignment
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
from dbscore.experiments.report import Coverage, Finding, Health, Report

__all__ = [
    "Allocation",
    "Audit",
    "Coverage",
    "DifferingAssignment",
    "Experiment",
    "ExperimentEvent",
    "Experiments",
    "Finding",
    "Health",
    "Metric",
    "MetricResult",
    "MetricSummary",
    "Report",
    "Variant",
]
