"""Experiments: what can be done to them and with them, by calling the functions that they have in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import sql

from dbscore import functions
from dbscore.database import run, scalar
from dbscore.errors import ExperimentError
from dbscore.experiments import lookup
from dbscore.experiments.audit import Audit, audit
from dbscore.experiments.extra import statistics_needed
from dbscore.experiments.records import Variant, percentage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from dbscore.experiments.certification import Certificate
    from dbscore.experiments.records import (
        Direction,
        Experiment,
        ExperimentEvent,
        Kind,
        Metric,
        MetricResult,
        MetricSummary,
        Mode,
        Role,
        Scheme,
    )
    from dbscore.experiments.report import Correction, Report

__all__ = ["Experiments"]

_CREATE = """
select dbscore.create_experiment(
    %(name)s, %(unit)s, %(variants)s::text[],
    mode => %(mode)s,
    scheme => %(scheme)s,
    salt => %(salt)s,
    layer => %(layer)s,
    layer_share => %(layer_share)s::numeric,
    eligible => %(eligible)s,
    holdout => %(holdout)s::numeric,
    record_features => %(record_features)s::boolean,
    description => %(description)s)
"""
_CREATE_METRIC = """
select dbscore.create_metric(
    %(experiment)s, %(name)s, %(kind)s,
    direction => %(direction)s,
    role => %(role)s,
    margin => %(margin)s::double precision,
    "window" => %(window)s::interval,
    quantile => %(quantile)s::double precision,
    source => %(source)s,
    covariate => %(covariate)s)
"""
_RECORD = """
select dbscore.record_outcome(
    %(experiment)s, %(unit)s, %(metric)s, %(value)s::text,
    at => coalesce(%(at)s::timestamptz, pg_catalog.now()),
    denominator => %(denominator)s::double precision)
"""


class Experiments:
    """The experiments of a database: `client.experiments`. Each method is one transaction.

    Who does not own the schema, and was granted an experiment, may read it, and `assign`, `run` and `record_outcome`.

    Args:
        transaction: Opens the client's transactions.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._transaction = transaction

    # --- the design ---

    def create(  # noqa: PLR0913 - what a design may say
        self,
        name: str,
        *,
        unit: str,
        variants: Sequence[Variant | str],
        mode: Mode = "ab",
        scheme: Scheme = "sha256",
        salt: str | None = None,
        layer: str | None = None,
        layer_share: float | None = None,
        eligible: str | None = None,
        holdout: float = 0.0,
        record_features: bool = False,
        description: str = "",
    ) -> Experiment:
        """Draft an experiment and make its functions; it answers nothing until it is started.

        Args:
            name: Its name, which becomes its functions': a lower-case identifier of at most 48 characters.
            unit: What the column is called that tells units apart, such as `customer_id`.
            variants: The control first: `Variant`s, or texts such as `control=tip:3:50`, `treatment=tip@challenger:50`.
            mode: `ab`, or `shadow`: all versions predict, the control's prediction is the answer, and there are no
                weights.
            scheme: What draws the variants: `sha256`, or `growthbook2` as GrowthBook's SDKs do.
            salt: What is hashed with the unit; by default the experiment's name.
            layer: Experiments of a layer share no unit.
            layer_share: How much of the layer, in percent; by default what is left in one piece.
            eligible: A condition on the features; other units get the control's prediction, and nothing is recorded.
            holdout: The share of units, a fraction in [0, 1), that get the control's prediction and are compared with
                nothing.
            record_features: Record the features with each prediction.
            description: What it is for.

        Raises:
            NotFoundError: There is no such version.
            FeatureError: The versions do not take the same features.
            NameRefusedError: The name, or a variant's, is refused or taken.
            ExperimentError: The design cannot be; the message says why.
            PrivilegeError: The role does not own the schema.
        """
        parameters = {
            "name": name,
            "unit": unit,
            "variants": [_variant(variant, mode) for variant in variants],
            "mode": mode,
            "scheme": scheme,
            "salt": salt,
            "layer": layer,
            "layer_share": layer_share,
            "eligible": eligible,
            "holdout": holdout,
            "record_features": record_features,
            "description": description,
        }
        return self._changed(name, _CREATE, parameters)

    def start(self, name: str, *, reason: str = "") -> Experiment:
        """Start a draft, or go on after a pause.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is running or concluded, or a version was retired.
        """
        return self._changed(name, "select dbscore.start_experiment(%s, %s)", [name, reason])

    def pause(self, name: str, *, reason: str = "") -> Experiment:
        """Let a running experiment answer nothing until it is started again.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is not running.
        """
        return self._changed(name, "select dbscore.pause_experiment(%s, %s)", [name, reason])

    def ramp(self, name: str, weights: Mapping[str, float] | Sequence[str], *, reason: str = "") -> Experiment:
        """Change the weights, for units that are assigned from now on; the others keep their variant.

        Args:
            name: The experiment.
            weights: Of all variants, in percent: `{"control": 20, "treatment": 80}`, or texts such as `control=20`.
            reason: Why; kept in the experiment's history.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: The weights are not those of all variants, or do not sum to 100.
        """
        if isinstance(weights, Mapping):
            weights = [f"{variant}={percentage(weight)}" for variant, weight in weights.items()]
        return self._changed(name, "select dbscore.ramp_experiment(%s, %s::text[], %s)", [name, list(weights), reason])

    def stop(self, name: str, *, reason: str = "") -> Experiment:
        """Conclude an experiment without a winner.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is a draft, or concluded.
        """
        return self._changed(name, "select dbscore.stop_experiment(%s, %s)", [name, reason])

    def conclude(self, name: str, winner: str, *, reason: str = "") -> Experiment:
        """Conclude an experiment, and make the winner's version its model's champion.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: It is a draft, or concluded.
            InUseError: The winner cannot be promoted, as a view uses a function that it does not have.
        """
        return self._changed(name, "select dbscore.conclude_experiment(%s, %s, %s)", [name, winner, reason])

    def drop(self, name: str, *, reason: str = "") -> None:
        """Drop a draft or a concluded experiment, with everything that it recorded; its history stays.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is running or paused.
        """
        self._call("select dbscore.drop_experiment(%s, %s)", [name, reason])

    def list(self) -> Sequence[Experiment]:
        """Return the experiments that the role may use, oldest first."""
        with self._begun() as connection:
            return lookup.experiments(connection)

    def get(self, name: str) -> Experiment:
        """Return one experiment.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.experiment(connection, name)

    def history(self, name: str) -> Sequence[ExperimentEvent]:
        """Return what was done to an experiment, by whom and why, oldest first; also to one that was dropped.

        Raises:
            NotFoundError: There never was such an experiment.
            PrivilegeError: The role does not own the schema.
        """
        with self._begun() as connection:
            return lookup.history(connection, name)

    def grant(self, name: str, role: str) -> None:
        """Let a role use an experiment: ask it, record what came of it, and read its views.

        Raises:
            NotFoundError: There is no such experiment or role.
        """
        self._call("select dbscore.grant_experiment(%s, %s)", [name, role])

    def revoke(self, name: str, role: str) -> None:
        """Take from a role what `grant` gave for this experiment.

        Raises:
            NotFoundError: There is no such experiment or role.
        """
        self._call("select dbscore.revoke_experiment(%s, %s)", [name, role])

    # --- units ---

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

    # --- what came of them ---

    def add_metric(  # noqa: PLR0913 - what a metric may say
        self,
        name: str,
        metric: str,
        *,
        kind: Kind,
        direction: Direction | None = None,
        role: Role = "goal",
        margin: float | None = None,
        window: timedelta | str | None = None,
        quantile: float | None = None,
        source: str | None = None,
        covariate: str | None = None,
    ) -> Metric:
        """Give an experiment a metric.

        Args:
            name: The experiment.
            metric: The metric's name: a lower-case identifier.
            kind: `conversion`: whether there is an outcome other than 0; `mean`: the sum of a unit's outcomes;
                `count`: how many there are; `ratio`: the sum of values over the sum of denominators; `quantile`: of
                units' sums. `log_loss`, `brier`, `auc`, `rmse` and `mae` compare predictions with the truth.
            direction: Which is better: `higher` or `lower`; by default lower for losses.
            role: `goal`, or `guardrail`, which must not get worse by more than `margin`.
            margin: Of a guardrail, a share of the control's mean, 0 or more.
            window: How long after its assignment a unit's outcomes count; by default for ever.
            quantile: Which one, in (0, 1); of the kind `quantile` only.
            source: A query of unit, value[, denominator], at, for `collect`.
            covariate: A query of unit, value: what was before the assignment, for CUPED.

        Raises:
            NotFoundError: There is no such experiment.
            NameRefusedError: The name is refused or taken.
            ExperimentError: The metric cannot be; the message says why.
        """
        parameters = {
            "experiment": name,
            "name": metric,
            "kind": kind,
            "direction": direction,
            "role": role,
            "margin": margin,
            "window": window,
            "quantile": quantile,
            "source": source,
            "covariate": covariate,
        }
        made = self._changed(name, _CREATE_METRIC, parameters)
        return next(m for m in made.metrics or () if m.name == metric)

    def drop_metric(self, name: str, metric: str) -> None:
        """Drop a metric with its outcomes.

        Raises:
            NotFoundError: There is no such experiment or metric.
        """
        self._call("select dbscore.drop_metric(%s, %s)", [name, metric])

    def record_outcome(
        self,
        name: str,
        unit: str,
        *,
        metric: str,
        value: float | str,
        at: datetime | str | None = None,
        denominator: float | None = None,
    ) -> None:
        """Record what came of a unit.

        Args:
            name: The experiment.
            unit: The unit, which was exposed before.
            metric: The metric.
            value: A number; or the truth that a prediction is compared with, which may be a class.
            at: When it came; by default now.
            denominator: Of a ratio.

        Raises:
            NotFoundError: There is no such experiment or metric.
            ExperimentError: The unit was never exposed, or the value is none of the metric's.
        """
        parameters = {
            "experiment": name,
            "unit": unit,
            "metric": metric,
            # a truth as PostgreSQL writes it; a number by its shortest text is the same number again
            "value": str(int(value)) if isinstance(value, bool) else str(value),
            "at": at,
            "denominator": denominator,
        }
        self._call(_RECORD, parameters)

    def collect(self, name: str) -> int:
        """Run the queries of an experiment's metrics, with the rights of the role; their rows replace the outcomes.

        Returns:
            How many outcomes there are now.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role does not own the schema, or may not read what a query reads.
        """
        with self._begun() as connection:
            return int(scalar(connection, "select dbscore.collect_outcomes(%s)", [name]))

    def refresh(self, name: str | None = None) -> None:
        """Add what was recorded since the last time to the sums by day, of one experiment or of all: views get faster.

        Raises:
            NotFoundError: There is no such experiment.
        """
        if name is None:
            self._call("select dbscore.refresh_experiments()", [])
        else:
            self._call("select dbscore.refresh_experiment(%s)", [name])

    def summary(self, name: str) -> Sequence[MetricSummary]:
        """Return what came of the units, by metric, period and variant; without quantiles and `auc`.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.summary(connection, name)

    def results(self, name: str) -> Sequence[MetricResult]:
        """Return each variant beside the control, by metric; without quantiles and `auc`.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.results(connection, name)

    # --- the analysis: for members of the owner ---

    def report(
        self, name: str, *, alpha: float = 0.05, correction: Correction | None = "holm", sequential: bool = True
    ) -> Report:
        """Say which variant is better by which metric, and how surely; metrics' covariate queries are run as the role.

        Args:
            name: The experiment.
            alpha: The level of intervals and verdicts, a share.
            correction: For there being several goals and treatments: `holm`, `bh` (Benjamini and Hochberg), or None.
            sequential: Whether verdicts hold whenever one looks; otherwise, for who looks once, at a fixed time.

        Returns:
            The report; without findings where the units are not divided as the weights say.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role is no member of the owner, or may not read what a covariate's query reads.
            ExperimentError: The level is no share, or there is no such correction.
            DbscoreError: A package of the extra `experiments` is not installed.
        """
        with statistics_needed():
            from dbscore.experiments import analysis
        with self._begun() as connection:
            return analysis.report(connection, name, alpha=alpha, correction=correction, sequential=sequential)

    def audit(self, name: str) -> Audit:
        """Recompute every recorded assignment, and return those that differ; forced ones are not looked at.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role is no member of the owner.
        """
        with self._begun() as connection:
            return audit(connection, name)

    def certify(
        self, name: str, *, salts: int = 1000, seed: int = 0, sample: int = 20_000, alpha: float = 0.05
    ) -> Certificate:
        """Divide the units by other salts (A/A), and say whether the p-values of the goals are uniform, as they should.

        Args:
            name: The experiment.
            salts: How many divisions are compared.
            seed: The same seed makes the same salts, and draws the same units.
            sample: How many units are divided, where there are more: they are drawn. A million hashes take a second.
            alpha: The level whose share of rejections is checked.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role is no member of the owner.
            ExperimentError: It is in shadow mode, or an argument is out of range.
            DbscoreError: A package of the extra `experiments` is not installed.
        """
        with statistics_needed():
            from dbscore.experiments import certification
        with self._begun() as connection:
            return certification.certify(connection, name, salts=salts, seed=seed, sample=sample, alpha=alpha)

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        with self._transaction() as connection:
            lookup.require_experiments(connection)
            yield connection

    def _call(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> None:
        with self._begun() as connection:
            run(connection, statement, parameters)

    def _changed(self, name: str, statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Experiment:
        with self._begun() as connection:
            run(connection, statement, parameters)
            return lookup.experiment(connection, name)


def _variant(variant: Variant | str, mode: str) -> str:
    if isinstance(variant, Variant) and variant.weight is None and mode != "shadow":
        # tip:3 without its weight would be read as the champion with a weight of 3
        raise ExperimentError(
            f"variant {variant.name} has no weight", remedy="Give each variant its percentage of the units."
        )
    return str(variant)
