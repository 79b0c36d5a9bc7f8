"""The analysis of experiments: reported, audited and certified, for members of the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.experiments.audit import Audit, audit
from dbscore.experiments.extra import statistics_needed
from dbscore.experiments.operations.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.experiments.certification import Certificate
    from dbscore.experiments.page import Page
    from dbscore.experiments.report import Correction, Report

__all__ = ["Analysis"]


class Analysis(Transactions):
    """What an experiment has shown, and whether that can be trusted."""

    def report(
        self,
        name: str,
        *,
        alpha: float = 0.05,
        correction: Correction | None = "holm",
        sequential: bool = True,
        segments: Mapping[str, str | None] | Sequence[str] = (),
    ) -> Report:
        """Say which variant is better by which metric, and how surely; metrics' covariate queries are run as the role.

        Args:
            name: The experiment.
            alpha: The level of intervals and verdicts, a share.
            correction: For there being several goals and treatments: `holm`, `bh` (Benjamini and Hochberg), or None.
            sequential: Whether verdicts hold whenever one looks; otherwise, for who looks once, at a fixed time.
            segments: What divides the units into parts that are compared apart: features that the experiment records;
                or by name a query of unit, segment, which is run as the role.

        Returns:
            The report; without findings where the units are not divided as the weights say.

        Raises:
            NotFoundError: There is no such experiment.
            PrivilegeError: The role is no member of the owner, or may not read what a query reads.
            ExperimentError: The level is no share, there is no such correction, or the segments cannot be: the
                experiment records no features, or a unit is in two.
            FeatureError: There is no such feature.
            DbscoreError: A package of the extra `experiments` is not installed.
        """
        with statistics_needed():
            from dbscore.experiments.analysis import analyse
        with self._begun() as connection:
            made = analyse(connection, name, alpha=alpha, correction=correction, sequential=sequential, cut_by=segments)
            return made.report

    def page(
        self,
        name: str,
        *,
        alpha: float = 0.05,
        correction: Correction | None = "holm",
        sequential: bool = True,
        segments: Mapping[str, str | None] | Sequence[str] = (),
    ) -> Page:
        """Analyse an experiment for the page of its report: `page("tip_test").to_html()` is one file.

        Args:
            name: The experiment.
            alpha: As of `report`.
            correction: As of `report`.
            sequential: As of `report`.
            segments: As of `report`.

        Returns:
            The report, and what its page shows beside it: how the differences developed, exposures by day, scores,
            calibration, and the SQL of each.

        Raises:
            DbscoreError: As of `report`.
        """
        with statistics_needed():
            from dbscore.experiments.page import make
        with self._begun() as connection:
            return make(connection, name, alpha=alpha, correction=correction, sequential=sequential, cut_by=segments)

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
