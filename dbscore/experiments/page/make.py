"""Reads in one transaction what the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbscore.experiments import days
from dbscore.experiments.analysis import analyse
from dbscore.experiments.evidence import evidence
from dbscore.experiments.page.render import Page

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["make"]


def make(connection: Connection, name: str, **options: Any) -> Page:  # noqa: ANN401 - what `analyse` takes
    """Analyse an experiment, and read what its page shows beside the report.

    Raises:
        DbscoreError: As of `analyse`.
    """
    daily = days.read(connection, name)
    made = analyse(connection, name, daily=daily, **options)
    return Page(
        report=made.report,
        experiment=made.experiment,
        evidence=evidence(connection, made.experiment, daily, alpha=made.report.alpha),
        trends=made.trends,
    )
