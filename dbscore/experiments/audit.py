"""Whether what was recorded is what the design makes of it: assignments recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

from dbscore.database import run
from dbscore.experiments import lookup, units
from dbscore.experiments.records import as_json

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = ["Audit", "DifferingAssignment", "audit"]

_DIFFERING = """
select d.unit, d.recorded, d.expected, d.allocation, d.assigned_at, d.by_application
from dbscore.audit_experiment(%(name)s) d
"""
_COUNTS = """
select count(*) filter (where a.forced_by is null), count(a.forced_by)
from dbscore.assignment a
join dbscore.experiment e using (experiment_id)
where e.name = %(name)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferingAssignment:
    """A unit whose recorded variant is not the one that it is to have.

    Attributes:
        unit: What tells it apart.
        recorded: The recorded variant, or `holdout`.
        expected: The one that the weights of then make of it; None where it is in another part of the layer.
        allocation: The period in which it was assigned; None where there is no such period.
        assigned_at: When.
        by_application: Whether an application has recorded the assignment (`record_assignment`), and may have drawn it
            otherwise; else it was the experiment itself.
    """

    unit: str
    recorded: str
    expected: str | None
    allocation: int | None
    assigned_at: datetime
    by_application: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What came of recomputing all assignments of an experiment.

    Attributes:
        experiment: Its name.
        checked: How many assignments were recomputed.
        forced: How many were not, since a tester's unit was given its variant.
        differing: Those that are not what they are to be, by time, then unit.
    """

    experiment: str
    checked: int
    forced: int
    differing: tuple[DifferingAssignment, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return as_json(self)


def audit(connection: Connection, name: str) -> Audit:
    """Recompute every recorded assignment from the weights, the layer, the holdout, the scheme and the salt.

    Raises:
        NotFoundError: There is no such experiment.
        PrivilegeError: The role is no member of the owner of the schema dbscore.
    """
    units.require_membership(connection, "the audit")
    lookup.experiment(connection, name)
    cursor = run(connection, _DIFFERING, {"name": name})
    make = dict_row(cursor)
    differing = tuple(DifferingAssignment(**make(row)) for row in cursor)
    checked, forced = run(connection, _COUNTS, {"name": name}).fetchall()[0]
    return Audit(experiment=name, checked=checked, forced=forced, differing=differing)
