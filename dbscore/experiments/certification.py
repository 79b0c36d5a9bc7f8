"""A/A certification: whether the tests find nothing where there is nothing, on an experiment's own units."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.errors import ExperimentError
from dbscore.experiments import lookup, units
from dbscore.experiments.assignment import BUCKETS, fnv1a
from dbscore.experiments.records import as_json
from dbscore.experiments.statistics.arguments import require_share
from dbscore.experiments.statistics.means import compare_means, compare_ratios
from dbscore.experiments.statistics.moments import Moments, RatioMoments
from dbscore.experiments.statistics.proportions import compare_proportions
from dbscore.experiments.statistics.uniformity import check_uniformity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from sqlalchemy import Connection

    from dbscore.experiments.units import Sample

__all__ = ["Certificate", "CertifiedMetric", "buckets", "certify"]

# a bootstrap for each salt would take hours
_NOT_REPLAYED = ("quantile", "auc")
_PRIME, _MASK = np.uint64(0x01000193), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedMetric:
    """The p-values of one metric and treatment, one for each salt.

    Attributes:
        metric: The metric's name.
        kind: Its kind.
        variant: The treatment that the units would have had.
        tests: How many salts there was a p-value for.
        rejected: How many p-values are at most alpha.
        share: Of all; None without tests.
        lower: Where the 99 percent interval of that share begins.
        upper: Where it ends.
        distance: Kolmogorov and Smirnov's, of the p-values from uniform ones.
        p_value: Of such a distance by chance.
        is_uniform: Whether alpha is in the interval, and the distance could be by chance; None without tests.
    """

    metric: str
    kind: str
    variant: str
    tests: int
    rejected: int
    share: float | None
    lower: float | None
    upper: float | None
    distance: float | None
    p_value: float | None
    is_uniform: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What came of replaying an experiment's units.

    Attributes:
        experiment: Its name.
        salts: How many divisions of the units were compared.
        seed: Of the salts, and of the units that were drawn.
        alpha: The level whose share of rejections is checked.
        metrics: Goals, by name and treatment.
        not_replayed: Names of goals that are compared by drawing samples, or by areas: they are not replayed.
    """

    experiment: str
    salts: int
    seed: int
    alpha: float
    metrics: tuple[CertifiedMetric, ...]
    not_replayed: tuple[str, ...]

    @property
    def is_uniform(self) -> bool:
        """Whether no metric's p-values are otherwise than uniform."""
        return all(one.is_uniform is not False for one in self.metrics)

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as JSON values."""
        return {**as_json(self), "is_uniform": self.is_uniform}


def certify(connection: Connection, name: str, *, salts: int, seed: int, sample: int, alpha: float) -> Certificate:
    """Divide the units that count by other salts and the weights of now, and compare what came of them.

    Raises:
        NotFoundError: There is no such experiment.
        PrivilegeError: The role is no member of the owner of the schema dbscore.
        ExperimentError: It is in shadow mode, there are too few salts, or the level is no share.
    """
    require_share("alpha", alpha)
    for what, number in (("salts", salts), ("units", sample)):
        if number < 1:
            raise ExperimentError(f"there are {number} {what}", remedy="Take 1 or more; 1,000 salts are usual.")
    units.require_membership(connection, "the certification")
    experiment = lookup.experiment(connection, name)
    if experiment.mode != "ab" or not experiment.allocations:
        raise ExperimentError(
            f"experiment {name} is in shadow mode, and divides no units",
            remedy="Certify an experiment of mode ab: its units have a variant each.",
        )
    boundaries = experiment.allocations[-1].boundaries
    goals = [metric for metric in experiment.metrics or () if metric.role == "goal"]
    found = []
    for metric in goals:
        if metric.kind in _NOT_REPLAYED:
            continue
        values = units.sample(connection, name, metric.name)
        # the same units for each metric that all have, in the order of the query
        drawn = np.sort(np.random.default_rng(seed).permutation(len(values.units))[:sample])
        p_values: list[list[float | None]] = [[] for _ in experiment.variants[1:]]
        kept = [values.units[row] for row in drawn]
        salted = (f"{experiment.salt}.aa.{seed}.{number}" for number in range(salts))
        for bucket in _each(experiment.scheme, salted, kept):
            variants = np.searchsorted(boundaries, bucket, side="right")
            for number, some in enumerate(p_values, start=1):
                some.append(_p_value(metric.kind, values, (drawn[variants == 0], drawn[variants == number])))
        for variant, some in zip(experiment.variants[1:], p_values, strict=True):
            checked = check_uniformity(some, alpha=alpha)
            found.append(
                CertifiedMetric(
                    metric=metric.name,
                    kind=metric.kind,
                    variant=variant.name,
                    tests=checked.n,
                    rejected=checked.rejected,
                    share=checked.share,
                    lower=checked.lower,
                    upper=checked.upper,
                    distance=checked.statistic,
                    p_value=checked.p_value,
                    is_uniform=checked.is_uniform,
                )
            )
    return Certificate(
        experiment=name,
        salts=salts,
        seed=seed,
        alpha=alpha,
        metrics=tuple(found),
        not_replayed=tuple(metric.name for metric in goals if metric.kind in _NOT_REPLAYED),
    )


def buckets(scheme: str, salt: str, units: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the bucket of each unit, from 0 to 9999: `assignment.bucket` of many units.

    Args:
        scheme: `sha256` or `growthbook2`.
        salt: The salt.
        units: What tells the units apart, as texts.

    Returns:
        int64, shape (n_units,).
    """
    return next(_each(scheme, iter([salt]), units))


def _each(scheme: str, salts: Iterator[str], units: Sequence[str]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the buckets of the units by each salt; what the salts have in common is done once."""
    if scheme == "growthbook2":
        codes = [np.frombuffer(unit.encode("utf-16-le"), dtype="<u2") for unit in units]
        longest = max(map(len, codes), default=0)
        lengths = np.array([len(code) for code in codes])
        table = np.zeros((longest, len(units)), dtype=np.uint64)
        for place, code in enumerate(codes):
            table[: len(code), place] = code
        for salt in salts:
            numbers = _fnv1a(np.full(len(units), fnv1a(salt), dtype=np.uint64), table, lengths)
            yield _fnv1a_of_digits(numbers).astype(np.int64) % BUCKETS
        return
    encoded = [unit.encode() for unit in units]
    for salt in salts:
        prefix = f"{salt}.".encode()
        hashed = b"".join([hashlib.sha256(prefix + unit).digest()[:8] for unit in encoded])
        yield (np.frombuffer(hashed, dtype=">u8") % np.uint64(BUCKETS)).astype(np.int64)


def _fnv1a(
    numbers: npt.NDArray[np.uint64], table: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Go on hashing: a row of the table has each unit's next code unit, for as many as it has."""
    for place, codes in enumerate(table):
        numbers = np.where(place < lengths, ((numbers ^ codes) * _PRIME) & _MASK, numbers)
    return numbers


def _fnv1a_of_digits(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash each number as it is written in decimal, without leading zeros."""
    written = np.array([str(number).zfill(10) for number in numbers.tolist()], dtype="S10")
    digits = written.view(np.uint8).reshape(len(numbers), 10).T.astype(np.uint64)
    skipped = 10 - np.array([len(str(number)) for number in numbers.tolist()])
    hashed = np.full(len(numbers), fnv1a(""), dtype=np.uint64)
    for place, codes in enumerate(digits):
        hashed = np.where(place >= skipped, ((hashed ^ codes) * _PRIME) & _MASK, hashed)
    return hashed


def _p_value(kind: str, sample: Sample, rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> float | None:
    values = [sample.values[some] for some in rows]
    if kind == "ratio":
        sides = [
            RatioMoments.from_sums(
                len(y),
                total=float(y.sum()),
                squares=float(y @ y),
                denominator_total=float(x.sum()),
                denominator_squares=float(x @ x),
                products=float(x @ y),
            )
            for y, x in zip(values, [sample.denominators[some] for some in rows], strict=True)
        ]
        return compare_ratios(*sides).p_value
    arms = [Moments.from_sums(len(y), total=float(y.sum()), squares=float(y @ y)) for y in values]
    # of an rmse the mean squared errors: their roots differ where they do
    return (compare_proportions if kind == "conversion" else compare_means)(*arms).p_value
