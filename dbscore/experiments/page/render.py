"""Fills the page's template: no text of the database is taken for HTML, and nothing is loaded when it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dbscore.experiments.page import charts
from dbscore.experiments.page.health import tiles

if TYPE_CHECKING:
    from dbscore.experiments.evidence import Evidence
    from dbscore.experiments.records import Experiment
    from dbscore.experiments.report import Report
    from dbscore.experiments.trends import Trend

__all__ = ["Page"]

_NONE = "\N{EN DASH}"
# smaller ones are written as less than it
_LEAST_P = 0.0001
_SHARES = ("brier", "log_loss", "auc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report, and what its page shows beside it.

    Attributes:
        report: The findings.
        experiment: The design.
        evidence: By day, scores, calibration.
        trends: How the differences developed; empty where the results are withheld.
    """

    report: Report
    experiment: Experiment
    evidence: Evidence
    trends: tuple[Trend, ...]

    def to_html(self) -> str:
        """Return the page: one file of HTML, with its charts and what draws them."""
        return str(_template().render(_context(self)))


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2's template
    environment = Environment(
        loader=PackageLoader("dbscore.experiments.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, share=_share, p=_p)
    return environment.get_template("page.html")


def _context(page: Page) -> dict[str, Any]:
    report, experiment, evidence = page.report, page.experiment, page.evidence
    colours = charts.palette([one.name for one in experiment.variants])
    kinds = {one.name: one.kind for one in experiment.metrics or ()}
    drawn: dict[str, charts.Spec | None] = {
        "intervals": charts.intervals(report.findings or ()),
        "exposures": charts.exposures(evidence.daily, experiment.allocations or (), colours),
        "scores": charts.scores(evidence.scores, colours),
        "calibration": charts.calibration(
            evidence.calibration,
            colours,
            is_share=bool(evidence.calibration) and kinds[evidence.calibration[0].metric] in _SHARES,
        ),
    }
    curves = []
    for metric in dict.fromkeys(one.metric for one in page.trends):
        mine = [one for one in page.trends if one.metric == metric]
        drawn[f"lift-{metric}"] = charts.lift(mine, colours)
        curves.append({"metric": metric, "chart": f"lift-{metric}", "note": mine[0].note})
    observed = _observed(page)
    return {
        "report": report,
        "experiment": experiment,
        "evidence": evidence,
        "colours": colours,
        "curves": curves,
        "drawn": {name for name, spec in drawn.items() if spec is not None},
        "tiles": tiles(report, observed),
        "specs": {name: spec for name, spec in drawn.items() if spec is not None},
        "vega": _vega(),
    }


def _observed(page: Page) -> list[int]:
    """Return the units of each variant."""
    rows = {(one.day, one.variant, one.allocation, one.assigned) for one in page.evidence.daily}
    return [sum(row[3] for row in rows if row[1] == one.name) for one in page.experiment.variants]


@cache
def _vega() -> Markup:
    """Return vega, vega-lite and vega-embed in one script: the version that Altair writes for, else the newest."""
    wanted = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    known = vl_convert.get_vegalite_versions()
    version = wanted if wanted in known else known[-1]
    # it comes with a package that is installed, and closes no element; the stub asks for a snippet that is not needed
    return Markup(vl_convert.javascript_bundle(vl_version=version))  # type: ignore[call-arg] # noqa: S704


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.5g}"


def _share(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:+.{digits}%}"


def _p(value: float | None) -> str:
    return _NONE if value is None else "< 0.0001" if value < _LEAST_P else f"{value:.4f}"
