"""The units of experiments: assigned, and predicted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from dbscore import functions
from dbscore.database import scalar
from dbscore.errors import ExperimentError
from dbscore.experiments.operations.transactions import Transactions

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Units"]

_RECORD = """
select dbscore.record_assignment(
    %(name)s, %(unit)s, %(variant)s, coalesce(%(at)s::timestamptz, pg_catalog.now()))
"""


class Units(Transactions):
    """What an experiment does with its units."""

    def assign(self, name: str, unit: str) -> str | None:
        """Return the variant that a unit has, or would get, and write nothing.

        Returns:
            Its name; `holdout` for a unit that is held out; None for one that is in another part of the layer.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: The unit is empty.
        """
        with self._begun() as connection:
            found = scalar(connection, "select dbscore.assign(%s, %s)", [name, unit])
        return None if found is None else str(found)

    def force(self, name: str, unit: str, *, variant: str) -> None:
        """Give a tester's unit a variant; the unit is left out of the analysis.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: The unit is empty.
        """
        self._call("select dbscore.force_assignment(%s, %s, %s)", [name, unit, variant])

    def record_assignment(self, name: str, unit: str, *, variant: str, at: datetime | str | None = None) -> None:
        """Record the variant that a unit has seen, where an application draws variants by itself.

        The unit keeps the first one. One that was seen in another variant later is left out of the analysis, and
        counted in the report.

        Args:
            name: The experiment.
            unit: The unit.
            variant: The variant that it has seen.
            at: When; by default now. Outcomes from then on count.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: It is not running, the unit is empty, or the time is infinite.
        """
        self._call(_RECORD, {"name": name, "unit": unit, "variant": variant, "at": at})

    def run(
        self, name: str, query: str | None = None, *, key: str, source: str | None = None, request_id: str | None = None
    ) -> int:
        """Assign the units of a query's or a table's rows, predict for them, and record both.

        Args:
            name: The experiment.
            query: A SELECT with a column for each feature; it is run with the rights of the role.
            key: The column that tells the units apart.
            source: A table or view, as SQL writes its name; either this or `query`.
            request_id: Asked again with the same id, nothing is done.

        Returns:
            How many predictions were recorded; 0 where the request was answered before.

        Raises:
            NotFoundError: There is no such experiment.
            FeatureError: There is no such table.
            ExperimentError: It is not running, a unit is NULL or empty, or there is neither a query nor a table.
        """
        if (query is None) == (source is None):
            raise ExperimentError("there is no query and no table, or both", remedy="Pass either query or source.")
        with self._begun() as connection:
            if source is not None:
                table = functions.row_type(connection, source).identifier
                query = sql.SQL("select * from {}").format(table).as_string()
            return int(
                scalar(connection, "call dbscore.run_experiment(%s, %s, %s, %s)", [name, query, key, request_id])
            )
