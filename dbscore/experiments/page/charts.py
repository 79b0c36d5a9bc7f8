"""The charts of the page, as Vega-Lite specifications; Altair makes them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeAlias

import altair as alt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.experiments.days import Daily
    from dbscore.experiments.evidence import CalibrationBin, ScoreBin
    from dbscore.experiments.records import Allocation
    from dbscore.experiments.report import Finding
    from dbscore.experiments.trends import Trend

__all__ = ["calibration", "exposures", "intervals", "lift", "palette", "scores"]

Spec: TypeAlias = dict[str, Any]

# the control is grey; treatments have the colours of Okabe and Ito, which the colour-blind tell apart
_CONTROL = "#6b7280"
_TREATMENTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_VERDICTS = {
    "better": "#15803d",
    "held": "#15803d",
    "worse": "#b91c1c",
    "broken": "#b91c1c",
    "undecided": "#6b7280",
}
_ROW = 26
_HEIGHT = 220


def palette(variants: Sequence[str]) -> dict[str, str]:
    """Return the colour of each variant, the control first."""
    treatments = (_TREATMENTS[place % len(_TREATMENTS)] for place in range(len(variants)))
    return {name: next(treatments) if place else _CONTROL for place, name in enumerate(variants)}


def intervals(findings: Sequence[Finding]) -> Spec | None:
    """Draw the relative differences with their intervals; None where no metric has one."""
    rows = []
    for one in findings:
        shown = one.always_valid or one.comparison
        if shown.relative is None or shown.relative_lower is None or shown.relative_upper is None:
            continue
        rows.append(
            {
                "row": f"{one.metric}, {one.variant}",
                "relative": shown.relative,
                "lower": shown.relative_lower,
                "upper": shown.relative_upper,
                "verdict": one.verdict if one.guardrail is None else one.guardrail.verdict,
                # the margin is on the side that is worse
                "margin": None
                if one.guardrail is None
                else one.guardrail.margin * (-1 if one.direction == "higher" else 1),
            }
        )
    if not rows:
        return None
    base = _chart(rows).encode(
        y=alt.Y("row:N", title=None, sort=[str(row["row"]) for row in rows]),
        color=alt.Color("verdict:N", legend=None, scale=_scale(_VERDICTS)),
        tooltip=[
            alt.Tooltip("row:N", title="metric, variant"),
            alt.Tooltip("relative:Q", title="lift", format="+.2%"),
            alt.Tooltip("lower:Q", title="from", format="+.2%"),
            alt.Tooltip("upper:Q", title="to", format="+.2%"),
            alt.Tooltip("verdict:N", title="verdict"),
        ],
    )
    title = "lift over the control"
    axis = alt.X("lower:Q", title=title, axis=alt.Axis(format="+~%"))
    layers: list[Any] = [
        _chart([{"zero": 0}]).mark_rule(color="#111827").encode(x=alt.X("zero:Q", title=title)),
        base.mark_rule(strokeWidth=3).encode(x=axis, x2="upper:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("relative:Q", title=title)),
    ]
    if any(row["margin"] is not None for row in rows):
        layers.append(
            base.transform_filter("isValid(datum.margin)")
            .mark_tick(color="#b91c1c", thickness=2, size=18)
            .encode(x=alt.X("margin:Q", title=title), color=alt.value("#b91c1c"))
        )
    return _spec(alt.layer(*layers), height=_ROW * len(rows) + 10)


def lift(trends: Sequence[Trend], colours: Mapping[str, str]) -> Spec | None:
    """Draw how the difference by one metric developed, with its always-valid band; None without a point.

    Args:
        trends: Of the treatments, by the same metric.
        colours: By variant.
    """
    points = [(one.variant, point) for one in trends for point in one.points]
    if not points:
        return None
    # of the control's share where that has an interval somewhere, else in the metric's unit
    is_relative = any(point.relative_lower is not None for _, point in points)
    rows = [
        {
            "day": point.day.isoformat(),
            "variant": variant,
            "units": point.units,
            "value": point.relative if is_relative else point.difference,
            "lower": point.relative_lower if is_relative else point.lower,
            "upper": point.relative_upper if is_relative else point.upper,
        }
        for variant, point in points
    ]
    form = "+.2%" if is_relative else "+.5~g"
    base = _chart(rows).encode(
        x=alt.X("day:T", title="units assigned until", scale=alt.Scale(type="utc"), axis=_days()),
        color=alt.Color("variant:N", title=None, scale=_scale(_used(colours, rows))),
        tooltip=[
            alt.Tooltip("day:N"),
            alt.Tooltip("variant:N"),
            alt.Tooltip("units:Q", format=","),
            alt.Tooltip("value:Q", title="difference", format=form),
            alt.Tooltip("lower:Q", title="from", format=form),
            alt.Tooltip("upper:Q", title="to", format=form),
        ],
    )
    lowest, highest = _window(rows)
    title = "lift" if is_relative else "difference"
    axis = alt.Y(
        "lower:Q",
        title=title,
        axis=alt.Axis(format="+~%" if is_relative else "~g"),
        scale=alt.Scale(domain=[lowest, highest], clamp=True),
    )
    return _spec(
        alt.layer(
            _chart([{"zero": 0}]).mark_rule(color="#111827").encode(y=alt.Y("zero:Q", title=title)),
            base.mark_area(opacity=0.18, line=False).encode(y=axis, y2="upper:Q"),
            base.mark_line(point=True).encode(y=alt.Y("value:Q", title=title)),
        )
    )


def exposures(daily: Sequence[Daily], allocations: Sequence[Allocation], colours: Mapping[str, str]) -> Spec | None:
    """Draw the units assigned on each day; a line where the weights changed. None without units."""
    # each metric has the same rows
    counts: dict[tuple[str, str], int] = {}
    for one in {(one.day, one.variant, one.allocation, one.assigned) for one in daily}:
        key = one[0].isoformat(), one[1]
        counts[key] = counts.get(key, 0) + one[3]
    rows = [
        {"day": day, "date": day, "variant": variant, "units": n} for (day, variant), n in sorted(counts.items()) if n
    ]
    if not rows:
        return None
    bars = (
        _chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("day:T", timeUnit="utcyearmonthdate", title=None, axis=_days()),
            y=alt.Y("units:Q", title="units", axis=alt.Axis(format=",d")),
            color=alt.Color("variant:N", title=None, scale=_scale(_used(colours, rows))),
            tooltip=[
                alt.Tooltip("date:N", title="day"),
                alt.Tooltip("variant:N"),
                alt.Tooltip("units:Q", format=","),
            ],
        )
    )
    ramps = [
        {
            "day": one.valid_from.astimezone(UTC).date().isoformat(),
            "weights": ", ".join(f"{name} {weight:g} %" for name, weight in one.weights.items()),
        }
        for one in allocations[1:]
    ]
    lines = (
        _chart(ramps)
        .mark_rule(strokeDash=[5, 4], strokeWidth=2, color="#111827")
        .encode(
            x=alt.X("day:T", timeUnit="utcyearmonthdate", title=None),
            tooltip=[alt.Tooltip("weights:N", title="weights from then on")],
        )
    )
    return _spec(alt.layer(bars, lines) if ramps else bars)


def scores(bins: Sequence[ScoreBin], colours: Mapping[str, str]) -> Spec | None:
    """Draw the share of each variant's predictions by score, or by class; None without predictions."""
    totals: dict[str, int] = {}
    for one in bins:
        totals[one.variant] = totals.get(one.variant, 0) + one.predictions
    rows = [
        {
            "variant": one.variant,
            "label": one.label,
            "lower": one.lower,
            "upper": one.upper,
            "share": one.predictions / totals[one.variant],
            "predictions": one.predictions,
        }
        for one in bins
        if totals[one.variant]
    ]
    if not rows:
        return None
    tooltip = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("share:Q", format=".2%"),
        alt.Tooltip("predictions:Q", format=","),
    ]
    base = _chart(rows).encode(
        y=alt.Y("share:Q", title="share of predictions", axis=alt.Axis(format="~%")),
        color=alt.Color("variant:N", title=None, scale=_scale(_used(colours, rows))),
    )
    if bins[0].label is not None:
        return _spec(
            base.mark_bar().encode(
                x=alt.X("label:N", title="class"), xOffset="variant:N", tooltip=[alt.Tooltip("label:N"), *tooltip]
            )
        )
    ranges = [alt.Tooltip("lower:Q", format=".4~g"), alt.Tooltip("upper:Q", format=".4~g")]
    # a bar of half the colour for each variant, so that both are seen where they overlap
    return _spec(
        base.mark_bar(opacity=0.5, binSpacing=0).encode(
            x=alt.X("lower:Q", bin="binned", title="score"),
            x2="upper:Q",
            y=alt.Y("share:Q", title="share of predictions", axis=alt.Axis(format="~%"), stack=None),
            tooltip=[*ranges, *tooltip],
        )
    )


def calibration(bins: Sequence[CalibrationBin], colours: Mapping[str, str], *, is_share: bool) -> Spec | None:
    """Draw what was predicted beside what came true, with the diagonal on which both agree; None without outcomes."""
    if not bins:
        return None
    rows = [
        {
            "variant": one.variant,
            "predicted": one.predicted,
            "observed": one.observed,
            "lower": one.lower,
            "upper": one.upper,
            "n": one.n,
        }
        for one in bins
    ]
    ends = [0.0, 1.0]
    if not is_share:
        ends = [
            min(min(one.predicted, one.observed) for one in bins),
            max(max(one.predicted, one.observed) for one in bins),
        ]
    base = _chart(rows).encode(
        x=alt.X("predicted:Q", title="mean prediction", scale=alt.Scale(zero=False)),
        color=alt.Color("variant:N", title=None, scale=_scale(_used(colours, rows))),
        tooltip=[
            alt.Tooltip("variant:N"),
            alt.Tooltip("n:Q", title="outcomes", format=","),
            alt.Tooltip("predicted:Q", format=".4~g"),
            alt.Tooltip("observed:Q", format=".4~g"),
            alt.Tooltip("lower:Q", title="from", format=".4~g"),
            alt.Tooltip("upper:Q", title="to", format=".4~g"),
        ],
    )
    title = "share that came true" if is_share else "mean truth"
    diagonal = _chart([{"x": end} for end in ends]).mark_line(color="#9ca3af", strokeDash=[4, 4], tooltip=None)
    return _spec(
        alt.layer(
            diagonal.encode(x=alt.X("x:Q", title="mean prediction"), y=alt.Y("x:Q", title=title)),
            base.mark_rule(strokeWidth=2).encode(
                y=alt.Y("lower:Q", title=title, scale=alt.Scale(zero=False)), y2="upper:Q"
            ),
            base.mark_line(point=True).encode(y=alt.Y("observed:Q", title=title)),
        )
    )


def _window(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return what of the difference is shown: the first days, with few units, would make the rest flat."""
    later = rows[len(rows) // 4 :]
    known = [float(row[key]) for row in later for key in ("lower", "upper", "value") if row[key] is not None]
    known = [*known, 0.0]
    room = (max(known) - min(known)) * 0.05 or 1.0
    return min(known) - room, max(known) + room


def _days() -> alt.Axis:
    return alt.Axis(format="%b %-d", labelOverlap=True, labelAngle=0)


def _chart(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows)))


def _used(colours: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    used = {row["variant"] for row in rows}
    return {name: colour for name, colour in colours.items() if name in used}


def _scale(colours: Mapping[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(colours), range=list(colours.values()))


def _spec(chart: Any, *, height: int = _HEIGHT) -> Spec:  # noqa: ANN401 - a chart, or layers of them
    font = "system-ui, sans-serif"
    made = (
        chart.properties(width="container", height=height)
        .configure(font=font)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#e5e7eb")
        .configure_legend(labelFontSize=12, orient="top")
        .configure_view(stroke=None)
    )
    return dict(made.to_dict())
