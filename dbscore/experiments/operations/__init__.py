"""Experiments: what can be done to them and with them, by calling the functions that they have in SQL."""

from __future__ import annotations

from dbscore.experiments.operations.analysis import Analysis
from dbscore.experiments.operations.design import Design
from dbscore.experiments.operations.outcomes import Outcomes
from dbscore.experiments.operations.units import Units

__all__ = ["Experiments"]


class Experiments(Design, Units, Outcomes, Analysis):
    """The experiments of a database: `client.experiments`. Each method is one transaction.

    Who does not own the schema, and was granted an experiment, may read it, and `assign`, `run`, `record_assignment`
    and `record_outcome`.

    Args:
        transaction: Opens the client's transactions.
    """
