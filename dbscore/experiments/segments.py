"""Parts of the units, by what was known of them before: a feature that the experiment records, or a query's column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from dbscore.database import run
from dbscore.errors import ExperimentError, FeatureError
from dbscore.experiments.units import ask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from dbscore.experiments.records import Experiment

__all__ = ["Cut", "read"]

# of the first prediction: what was asked later may be what the treatment has changed. Predictions of one run are of the
# same time: where a unit is there twice, the lesser value is taken
_FEATURE = """select distinct on (p.unit) p.unit, p.features -> {feature}
from dbscore.prediction p join dbscore.experiment e using (experiment_id)
where e.name = {experiment}
order by p.unit, p.predicted_at, p.features -> {feature}"""
# numbers of more values are cut into four ranges; of texts the most frequent are taken, and the others together
_MOST_NUMBERS = 12
_RANGES = 4
_MOST_TEXTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What divides the units.

    Attributes:
        name: Of the feature, or as the user calls it.
        statement: What gave it.
        labels: By unit; a unit that is not there, or has None, is in the segment None.
        order: The labels in the order in which they are shown; None is the last one where a unit has it.
    """

    name: str
    statement: str
    labels: dict[str, str | None]
    order: tuple[str, ...]

    def of(self, units: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the place of each unit's label in the order, int64, shape (n_units,); that of None is the last."""
        places: dict[str | None, int] = {label: place for place, label in enumerate(self.order)}
        none = len(self.order)
        return np.fromiter((places.get(self.labels.get(one), none) for one in units), dtype=np.int64)


def read(
    connection: Connection,
    experiment: Experiment,
    asked: Mapping[str, str | None] | Sequence[str],
    *,
    units: Iterable[str],
) -> tuple[Cut, ...]:
    """Read what divides the units, with the rights of the role.

    Args:
        connection: As a member of the owner.
        experiment: Which one.
        asked: Names of features, or one; or by name a query of unit, segment, where None stands for a feature of that
            name.
        units: Those that count; what a query says of others has no part in ranges, or in which texts are frequent.

    Raises:
        ExperimentError: A name is empty or there twice, the experiment records no features, a unit is in two
            segments, or a query is refused.
        FeatureError: There is no such feature.
        PrivilegeError: The role may not read what a query reads.
    """
    names = [asked] if isinstance(asked, str) else asked
    pairs = list(names.items()) if isinstance(names, Mapping) else [(name, None) for name in names]
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise ExperimentError(f"the segments {twice[0]!r} are asked for twice", remedy="Give each a name of its own.")
    counted = frozenset(units)
    return tuple(_cut(connection, experiment, name, query, units=counted) for name, query in pairs)


def _cut(
    connection: Connection, experiment: Experiment, name: str, query: str | None, *, units: Collection[str]
) -> Cut:
    if not name.strip():
        raise ExperimentError(f"segments are called {name!r}", remedy="Write a feature, or a name and a query.")
    if query is None:
        _require_feature(experiment, name)
        asked = sql.SQL(_FEATURE).format(feature=sql.Literal(name), experiment=sql.Literal(experiment.name))
        shown = asked.as_string()
        rows: Iterable[tuple[str | None, Any]] = run(connection, asked)
    else:
        shown = query.rstrip("; \n\t\r")
        if not shown:
            raise ExperimentError(f"the query of the segments {name!r} is empty", remedy="Select unit, segment.")
        rows = ask(connection, shown, "segment", what=f"segments {name!r}")
    values: dict[str, Any] = {}
    for unit, value in rows:
        if unit is None or unit not in units:
            continue
        # NaN is no other segment than NaN
        if unit in values and values[unit] != value and repr(values[unit]) != repr(value):
            raise ExperimentError(
                f"segments {name!r}: unit {unit!r} is in two of them, {values[unit]!r} and {value!r}",
                remedy="Select each unit once.",
            )
        values[unit] = value
    if query is None and any(map(_is_number, values.values())):
        # JSON has no NaN and no infinity: they are texts among numbers
        values = {unit: float(value) if isinstance(value, str) else value for unit, value in values.items()}
    labels, order = _grouped(values)
    return Cut(name=name, statement=shown, labels=labels, order=order)


def _require_feature(experiment: Experiment, name: str) -> None:
    if name not in experiment.features:
        raise FeatureError(
            f"experiment {experiment.name} has no feature {name!r}",
            remedy=f"Features: {', '.join(experiment.features)}. Or write a query: {name}=select unit, segment ...",
        )
    if not experiment.record_features:
        raise ExperimentError(
            f"experiment {experiment.name} records no features, so that there are no segments by {name!r}",
            remedy=f"Write a query: {name}=select unit, segment ...; or create experiments with record_features.",
        )


def _grouped(values: Mapping[str, Any]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the label of each unit, and the labels in order."""
    known = [value for value in values.values() if value is not None]
    if known and all(map(_is_number, known)):
        numbers = {unit: None if value is None else float(value) for unit, value in values.items()}
        return _ranges({unit: None if v is None or np.isnan(v) else v for unit, v in numbers.items()})
    texts = {unit: None if value is None else _text(value) for unit, value in values.items()}
    counts = Counter(text for text in texts.values() if text is not None)
    if len(counts) <= _MOST_TEXTS:
        return texts, tuple(sorted(counts))
    kept = [text for text, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: _MOST_TEXTS - 1]]
    others = f"{len(counts) - len(kept)} others"
    while others in counts:
        others += "…"
    frequent = set(kept)
    labels = {unit: text if text is None or text in frequent else others for unit, text in texts.items()}
    return labels, (*sorted(kept), others)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any SQL value
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _text(value: Any) -> str:  # noqa: ANN401 - any SQL value
    # as PostgreSQL writes it; an empty text is a segment, too
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "''"


def _digits(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number).removesuffix(".0")


def _ranges(numbers: Mapping[str, float | None]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    known = np.array([value for value in numbers.values() if value is not None])
    distinct = np.unique(known)
    if len(distinct) <= _MOST_NUMBERS:
        exact = {value: _digits(value) for value in distinct.tolist()}
        return {unit: None if v is None else exact[v] for unit, v in numbers.items()}, tuple(exact.values())
    # values that are there, so that equal numbers are in one range
    inner = np.unique(np.quantile(known, np.arange(1, _RANGES) / _RANGES, method="higher"))
    # each range ends with one of them; where most units have the greatest number, that one begins
    groups = np.searchsorted(inner, distinct, side="left" if inner[0] < distinct[-1] else "right")
    found = []
    for group in np.unique(groups):
        mine = distinct[groups == group]
        found.append((mine[0], f"{mine[0]:.4g} to {mine[-1]:.4g}" if len(mine) > 1 else f"{mine[0]:.4g}"))
    begins = np.array([begin for begin, _ in found])
    names = [name for _, name in found]
    if len(set(names)) < len(names):
        # numbers that differ beyond four digits
        names = [f"{place}: {name}" for place, name in enumerate(names, start=1)]
    labels = {
        unit: None if v is None else names[int(np.searchsorted(begins, v, side="right")) - 1]
        for unit, v in numbers.items()
    }
    return labels, tuple(names)
