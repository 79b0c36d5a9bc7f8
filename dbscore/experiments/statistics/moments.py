"""What a sample is reduced to before it is compared: a count, means, variances, a covariance.

They come from sums, which SQL adds up by day and by variant; any numeric type that psycopg reads will do. A variance
that is no larger than what the rounding of its sums can make is 0: sums of equal values would otherwise have one, and
the smallest difference would be certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from dbscore.experiments.statistics.arguments import refused

__all__ = ["CovariateMoments", "Moments", "RatioMoments", "cancelled"]

_EPSILON = 2.0**-52
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """A sample of one number per unit.

    Attributes:
        n: How many units.
        mean: NaN without units.
        variance: Of the sample, its sum of squares divided by n - 1; NaN with fewer than two units.

    Raises:
        ExperimentError: The count or the variance is negative.
    """

    n: int
    mean: float
    variance: float

    def __post_init__(self) -> None:
        _require_not_negative(n=self.n, variance=self.variance)

    @classmethod
    def from_sums(cls, n: int, *, total: float, squares: float) -> Moments:
        """Return the moments of values by their sums.

        Args:
            n: How many values.
            total: Their sum.
            squares: The sum of their squares.
        """
        return cls(n=int(n), mean=_mean(n, total), variance=_variance(n, total, squares))

    @property
    def can_be_tested(self) -> bool:
        """Whether there is a mean and a variance."""
        return self.n > 1 and math.isfinite(self.mean) and math.isfinite(self.variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioMoments:
    """A sample of two numbers per unit, whose sums are divided: clicks by views, say.

    Attributes:
        n: How many units.
        mean: The numerator's.
        variance: The numerator's, with n - 1.
        denominator_mean: The denominator's.
        denominator_variance: With n - 1.
        covariance: Of both, with n - 1.

    Raises:
        ExperimentError: The count or a variance is negative.
    """

    n: int
    mean: float
    variance: float
    denominator_mean: float
    denominator_variance: float
    covariance: float

    def __post_init__(self) -> None:
        _require_not_negative(n=self.n, variance=self.variance, denominator_variance=self.denominator_variance)

    @classmethod
    def from_sums(
        cls,
        n: int,
        *,
        total: float,
        squares: float,
        denominator_total: float,
        denominator_squares: float,
        products: float,
    ) -> RatioMoments:
        """Return the moments of pairs by their sums.

        Args:
            n: How many pairs.
            total: The sum of the numerators.
            squares: The sum of their squares.
            denominator_total: The sum of the denominators.
            denominator_squares: The sum of their squares.
            products: The sum of numerators times denominators.
        """
        return cls(
            n=int(n),
            mean=_mean(n, total),
            variance=_variance(n, total, squares),
            denominator_mean=_mean(n, denominator_total),
            denominator_variance=_variance(n, denominator_total, denominator_squares),
            covariance=_covariance(n, total, denominator_total, products),
        )

    def linearised(self) -> Moments:
        """Return the ratio of the means as if it were a mean: with the variance that one unit has in it.

        Returns:
            The moments of r + (y - r x) / mean(x) over units with numerator y and denominator x, where r is
            mean(y) / mean(x). NaN where the denominators' mean is 0.

        Source:
            Deng, Knoblich & Lu (2018), Applying the Delta Method in Metric Analytics, on cluster randomisation.
        """
        if self.denominator_mean == 0:
            return Moments(n=self.n, mean=math.nan, variance=math.nan)
        ratio = self.mean / self.denominator_mean
        terms = (self.variance, -2 * ratio * self.covariance, ratio * ratio * self.denominator_variance)
        return Moments(n=self.n, mean=ratio, variance=cancelled(*terms) / self.denominator_mean / self.denominator_mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class CovariateMoments:
    """A sample of two numbers per unit, one of which was known before the unit was assigned.

    Attributes:
        n: How many units.
        mean: The outcome's.
        variance: The outcome's, with n - 1.
        covariate_mean: The covariate's.
        covariate_variance: With n - 1.
        covariance: Of both, with n - 1.

    Raises:
        ExperimentError: The count or a variance is negative.
    """

    n: int
    mean: float
    variance: float
    covariate_mean: float
    covariate_variance: float
    covariance: float

    def __post_init__(self) -> None:
        _require_not_negative(n=self.n, variance=self.variance, covariate_variance=self.covariate_variance)

    @classmethod
    def from_sums(
        cls,
        n: int,
        *,
        total: float,
        squares: float,
        covariate_total: float,
        covariate_squares: float,
        products: float,
    ) -> CovariateMoments:
        """Return the moments of pairs by their sums.

        Args:
            n: How many pairs.
            total: The sum of the outcomes.
            squares: The sum of their squares.
            covariate_total: The sum of the covariates.
            covariate_squares: The sum of their squares.
            products: The sum of outcomes times covariates.
        """
        return cls(
            n=int(n),
            mean=_mean(n, total),
            variance=_variance(n, total, squares),
            covariate_mean=_mean(n, covariate_total),
            covariate_variance=_variance(n, covariate_total, covariate_squares),
            covariance=_covariance(n, total, covariate_total, products),
        )


def cancelled(*terms: float) -> float:
    """Return the sum of terms that make up a variance: 0 where only their rounding is left of it.

    Args:
        terms: Of either sign, the sum of which is not negative.

    Returns:
        The sum; NaN where a term is not finite.
    """
    if not all(map(math.isfinite, terms)):
        return math.nan
    total = math.fsum(terms)
    return 0.0 if total <= 8 * _EPSILON * math.fsum(map(abs, terms)) else total


def _require_not_negative(**values: _Number) -> None:
    for name, value in values.items():
        if value < 0:
            raise refused(f"{name} is {value}", remedy="Counts and variances are not negative.")


def _mean(n: int, total: float) -> float:
    return float(total) / int(n) if n else math.nan


def _variance(n: int, total: float, squares: float) -> float:
    if n <= 1:
        return math.nan
    n = int(n)
    rest = float(squares) - float(total) * float(total) / n
    if not math.isfinite(rest):
        return math.nan
    # of n equal numbers, added up one by one
    return 0.0 if rest <= n * _EPSILON * float(squares) else rest / (n - 1)


def _covariance(n: int, total: float, other: float, products: float) -> float:
    if n <= 1:
        return math.nan
    n = int(n)
    return (float(products) - float(total) * float(other) / n) / (n - 1)
