"""What experiments tell of: the design, its variants, weights and metrics, what came of them, what was done to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

__all__ = [
    "Allocation",
    "Direction",
    "Experiment",
    "ExperimentEvent",
    "Kind",
    "Metric",
    "MetricResult",
    "MetricSummary",
    "Mode",
    "Role",
    "Scheme",
    "Variant",
    "as_json",
    "percentage",
]

Mode = Literal["ab", "shadow"]
Scheme = Literal["sha256", "growthbook2"]
Direction = Literal["higher", "lower"]
Role = Literal["goal", "guardrail"]
Kind = Literal["conversion", "mean", "count", "ratio", "quantile", "log_loss", "brier", "auc", "rmse", "mae"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One arm of an experiment. The first one is the control.

    Attributes:
        name: Its name: lower-case letters, digits and underscores.
        reference: The version: `tip:3`; to create an experiment also `tip` or `tip@challenger`.
        weight: Its share of the units, in percent; None to create an experiment in shadow mode.
    """

    name: str
    reference: str
    weight: float | None = None

    def __str__(self) -> str:
        """Return the variant as `dbscore.create_experiment` takes it: `control=tip:3:50`."""
        return f"{self.name}={self.reference}" + ("" if self.weight is None else f":{percentage(self.weight)}")

    def to_json(self) -> dict[str, Any]:
        """Return the variant as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The weights of a period.

    Attributes:
        number: The period's number, from 1.
        weights: By variant, in percent.
        boundaries: The first bucket, of 10,000, beyond each variant, in their order.
        valid_from: When it began; of a draft, when it was made.
        valid_to: When it ended; None where it is in force.
        reason: Why it began.
        created_by: Who began it.
    """

    number: int
    weights: dict[str, float]
    boundaries: tuple[int, ...]
    valid_from: datetime
    valid_to: datetime | None
    reason: str
    created_by: str

    def to_json(self) -> dict[str, Any]:
        """Return the allocation as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What an experiment is judged by.

    Attributes:
        name: Its name.
        kind: `conversion`, `mean`, `count`, `ratio`, `quantile`, `log_loss`, `brier`, `auc`, `rmse` or `mae`.
        direction: Which is better: `higher` or `lower`.
        role: `goal` or `guardrail`.
        margin: How much worse is not worse, as a share of the control's mean; of a guardrail only.
        window: How long after its assignment a unit's outcomes count, as PostgreSQL writes it; None: for ever.
        quantile: Which one, in (0, 1); of the kind `quantile` only.
        source: A query of unit, value[, denominator], at.
        covariate: A query of unit, value: what was before the assignment.
        created_by: Who made it.
        created_at: When.
    """

    name: str
    kind: str
    direction: str
    role: str
    margin: float | None
    window: str | None
    quantile: float | None
    source: str | None
    covariate: str | None
    created_by: str
    created_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the metric as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One A/B or shadow test of versions.

    Attributes:
        name: Its name, which becomes its functions': `experiments.tip_test(...)`.
        description: What it is for.
        mode: `ab`, or `shadow`: all versions predict, and the control's prediction is the answer.
        status: `draft`, `running`, `paused` or `concluded`.
        unit: What the column is called that tells units apart.
        scheme: What draws the variants: `sha256` or `growthbook2`.
        salt: What is hashed with the unit.
        layer: The layer, whose experiments share no unit; None where it is in none.
        layer_from: The first bucket of the layer, of 10,000, that it has.
        layer_to: The first bucket beyond.
        eligible: A condition on the features; None where every unit is eligible.
        holdout: The share of units that are compared with nothing, a fraction in [0, 1).
        variants: The control first, with the weights of now.
        features: The names of the versions' features.
        record_features: Whether the features are recorded with each prediction.
        winner: The variant that it was concluded with.
        created_by: Who made it.
        created_at: When.
        started_at: When it first started.
        concluded_at: When it ended.
        allocations: The periods of its weights, oldest first; None for who does not own the schema.
        metrics: What it is judged by, oldest first; None for who does not own the schema.
    """

    name: str
    description: str
    mode: str
    status: str
    unit: str
    scheme: str
    salt: str
    layer: str | None
    layer_from: int | None
    layer_to: int | None
    eligible: str | None
    holdout: float
    variants: tuple[Variant, ...]
    features: tuple[str, ...]
    record_features: bool
    winner: str | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    concluded_at: datetime | None
    allocations: tuple[Allocation, ...] | None
    metrics: tuple[Metric, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Return the experiment as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """What came of the units of one variant in one period, by one metric.

    Attributes:
        metric: The metric's name.
        kind: Its kind.
        variant: The variant's name, or `holdout`.
        allocation: The number of the period in which the units were assigned.
        n: Units that count; of a metric that compares predictions with the truth, those whose truth is known.
        sum: Of the units' values.
        sum_of_squares: Of the units' values.
        mean: Of the units' values; of a ratio, the sum over the denominators' sum. None without units.
        variance: Of a unit's value, n - 1 in the denominator; of a ratio by the delta method. None below two units.
        denominator_sum: Of a ratio's denominators; 0.0 of other metrics.
        denominator_sum_of_squares: The same of their squares.
        sum_of_products: The same of value times denominator.
    """

    metric: str
    kind: str
    variant: str
    allocation: int
    n: int
    sum: float
    sum_of_squares: float
    mean: float | None
    variance: float | None
    denominator_sum: float
    denominator_sum_of_squares: float
    sum_of_products: float

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One variant beside the control, by one metric; periods of other weights are compared apart, then put together.

    Attributes:
        metric: The metric's name.
        kind: Its kind.
        direction: Which is better: `higher` or `lower`.
        role: `goal` or `guardrail`.
        variant: The variant's name.
        control_n: Units of the control.
        n: Units of the variant.
        control_mean: The control's mean.
        mean: The variant's mean.
        difference: The variant's mean less the control's.
        lift: The difference over the control's mean; None where that is 0.
        standard_error: Of the difference.
        lower: The lower end of the difference's 95 percent interval.
        upper: The upper end.
        z: The difference in standard errors; of conversions, under the hypothesis that the shares are equal.
        p: The two-sided probability of a z further from 0, by the normal distribution.
        allocations: How many periods were compared.
        sample_ratio_chi_square: How far the units are from the weights; None in shadow mode.
        sample_ratio_p: The probability of more.
        sample_ratio_suspicious: Whether that is below 0.001: something loses units, and the rest means little.
    """

    metric: str
    kind: str
    direction: str
    role: str
    variant: str
    control_n: int
    n: int
    control_mean: float
    mean: float
    difference: float
    lift: float | None
    standard_error: float | None
    lower: float | None
    upper: float | None
    z: float | None
    p: float | None
    allocations: int
    sample_ratio_chi_square: float | None
    sample_ratio_p: float | None
    sample_ratio_suspicious: bool

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentEvent:
    """One line of an experiment's history: who did what, when and why."""

    experiment: str
    action: str
    detail: Any
    reason: str
    done_by: str
    done_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return as_json(self)


def percentage(number: float) -> str:
    """Return a percentage in digits, never with an exponent: PostgreSQL says what it thinks of it."""
    return format(Decimal(str(number)), "f")


def as_json(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the records
    """Return a record as JSON values; times as ISO 8601."""
    return {name: _plain(value) for name, value in asdict(record).items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
