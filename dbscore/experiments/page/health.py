"""The health strip: what the results rest on, and whether something is to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.report import Coverage, Report

__all__ = ["Tile", "tiles"]

Level: TypeAlias = Literal["ok", "look", "bad", "none"]
# as many units seen in two variants are a matter of some; more are a matter of the assignment
_FEW = 0.01
# GrowthBook and others look at a hundred units a variant at least before they say anything of a mean
_ENOUGH_UNITS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One of the strip.

    Attributes:
        title: What is looked at.
        value: What was found, in a few words.
        level: `ok`, `look`, `bad`, or `none` where there is nothing to look at.
        detail: A sentence.
    """

    title: str
    value: str
    level: Level
    detail: str


def tiles(report: Report, observed: Sequence[int]) -> list[Tile]:
    """Return the tiles.

    Args:
        report: Of the experiment.
        observed: Units by variant, the control first.
    """
    return [
        _sample_ratio(report, observed),
        _units(report, observed),
        _multi_variant(report),
        *_missing(report.health.coverage),
        *_mature(report.health.coverage),
    ]


def _sample_ratio(report: Report, observed: Sequence[int]) -> Tile:
    ratio = report.sample_ratio
    if ratio is None:
        return Tile(
            title="Sample ratio", value="not needed", level="none", detail="In shadow mode all versions have all units."
        )
    if ratio.p_value is None:
        return Tile(title="Sample ratio", value="no units", level="none", detail="Nothing was assigned yet.")
    wanted = ", ".join(f"{n:,.0f}" for n in ratio.expected)
    return Tile(
        title="Sample ratio",
        value=f"p = {ratio.p_value:.2g}",
        level="bad" if ratio.is_suspicious else "ok",
        detail=f"Units {', '.join(f'{n:,}' for n in observed)}; by the weights {wanted}.",
    )


def _units(report: Report, observed: Sequence[int]) -> Tile:
    health = report.health
    left_out = [f"{n:,} {what}" for n, what in ((health.forced, "forced"), (health.held_out, "held out")) if n]
    least = min(observed, default=0) if report.mode == "ab" else health.units
    return Tile(
        title="Units",
        value=f"{health.units:,}",
        level="ok" if least >= _ENOUGH_UNITS else "look",
        detail=f"Left out: {', '.join(left_out)}." if left_out else "None is forced or held out.",
    )


def _multi_variant(report: Report) -> Tile:
    n = report.health.seen_in_two_variants
    share = n / (n + report.health.units) if n else 0.0
    return Tile(
        title="Seen in two variants",
        value=f"{n:,}",
        level="ok" if not n else "look" if share <= _FEW else "bad",
        detail=f"{share:.2%} of the units; they are left out." if n else "No unit was.",
    )


def _missing(coverage: Sequence[Coverage]) -> list[Tile]:
    found = []
    for metric in dict.fromkeys(one.metric for one in coverage):
        arms = [one for one in coverage if one.metric == metric and one.missing is not None]
        if not arms:
            continue
        shares = [one.missing for one in arms if one.missing is not None]
        found.append(
            Tile(
                title=f"No outcome: {metric}",
                value=f"{min(shares):.1%} to {max(shares):.1%}" if max(shares) > min(shares) else f"{shares[0]:.1%}",
                level="ok" if min(shares) < 1 else "look",
                detail="; ".join(f"{one.variant} {one.missing:.2%}" for one in arms) + " of the units.",
            )
        )
    return found


def _mature(coverage: Sequence[Coverage]) -> list[Tile]:
    found = []
    for metric in dict.fromkeys(one.metric for one in coverage):
        arms = [one for one in coverage if one.metric == metric and one.mature_share is not None]
        if not arms:
            continue
        least = min(one.mature_share or 0.0 for one in arms)
        found.append(
            Tile(
                title=f"Window passed: {metric}",
                value=f"{least:.1%}",
                level="ok" if least >= 1 else "look",
                detail="; ".join(f"{one.variant} {one.mature_share:.2%}" for one in arms) + " of the units.",
            )
        )
    return found
