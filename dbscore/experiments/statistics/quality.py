"""How good predictions were, once the truth is known: per unit, and over all of them with the error of that.

Losses per unit are what variants, periods and groups of units are compared by; they are stored with the outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dbscore.experiments.statistics.arguments import Floats, booleans, floats, refused, require_same_length
from dbscore.experiments.statistics.auc import placements

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Quality",
    "absolute_errors",
    "area_under_curve",
    "brier_losses",
    "log_losses",
    "mean_loss",
    "root_mean_loss",
    "squared_errors",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One number for all units.

    Attributes:
        n: How many units.
        value: None where there is none: without units, or an area with a single label.
        standard_error: None where it cannot be estimated: with one unit, or one of a label.
    """

    n: int
    value: float | None
    standard_error: float | None


def log_losses(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Return minus the logarithm of the probability that was given to the truth.

    Args:
        labels: 0 or 1 per unit, shape (n_units,). Of a classifier with more classes pass 1, and the probability of the
            class that it was.
        probabilities: Of label 1, shape (n_units,). They are kept 2.2e-16 from 0 and 1, as scikit-learn keeps them, so
            that no loss is infinite.

    Returns:
        Natural logarithms, shape (n_units,), between 0 and 36.05.

    Raises:
        ExperimentError: The shapes differ, a label is neither 0 nor 1, or a probability is NULL, NaN or out of [0, 1].
    """
    truth, probability = _labelled(labels, probabilities)
    least = np.finfo(np.float64).eps
    kept = np.clip(probability, least, 1 - least)
    # log1p, for what is near 1
    return -np.where(truth, np.log(kept), np.log1p(-kept))


def brier_losses(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Return the squared differences of probabilities and truths.

    Args:
        labels: 0 or 1 per unit, shape (n_units,).
        probabilities: Of label 1, shape (n_units,).

    Returns:
        Shape (n_units,), between 0 and 1.

    Raises:
        ExperimentError: The shapes differ, a label is neither 0 nor 1, or a probability is NULL, NaN or out of [0, 1].

    Source:
        Brier (1950), Verification of forecasts expressed in terms of probability, in the form for two classes.
    """
    truth, probability = _labelled(labels, probabilities)
    return np.square(probability - truth)


def squared_errors(truths: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    """Return the squared differences of predictions and truths.

    Args:
        truths: Numbers, shape (n_units,).
        predictions: Shape (n_units,).

    Returns:
        Shape (n_units,), in the square of their unit.

    Raises:
        ExperimentError: The shapes differ, or a number is NULL, NaN or infinite.
    """
    return np.square(_errors(truths, predictions))


def absolute_errors(truths: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    """Return the absolute differences of predictions and truths.

    Args:
        truths: Numbers, shape (n_units,).
        predictions: Shape (n_units,).

    Returns:
        Shape (n_units,), in their unit.

    Raises:
        ExperimentError: The shapes differ, or a number is NULL, NaN or infinite.
    """
    return np.abs(_errors(truths, predictions))


def mean_loss(losses: npt.ArrayLike) -> Quality:
    """Return the log-loss, the Brier score or the mean absolute error: the mean of losses per unit.

    Args:
        losses: Shape (n_units,).

    Raises:
        ExperimentError: A loss is NULL, NaN or infinite.
    """
    loss = floats("losses", losses)
    n = len(loss)
    error = float(loss.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    return Quality(n=n, value=float(loss.mean()) if n else None, standard_error=error)


def root_mean_loss(losses: npt.ArrayLike) -> Quality:
    """Return the root of the mean of losses per unit: of squared errors the RMSE.

    Args:
        losses: Shape (n_units,), none below 0.

    Returns:
        The root, with the standard error by the delta method: that of the mean divided by twice the root; None where
        the root is 0.

    Raises:
        ExperimentError: A loss is negative, NULL, NaN or infinite.
    """
    loss = floats("losses", losses)
    if len(loss) and loss.min() < 0:
        raise refused(f"a loss is {loss.min():g}", remedy="Pass squared errors.")
    mean = mean_loss(loss)
    root = None if mean.value is None else math.sqrt(mean.value)
    error = mean.standard_error / (2 * root) if mean.standard_error is not None and root else None
    return Quality(n=mean.n, value=root, standard_error=error)


def area_under_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Quality:
    """Return the area under the ROC curve: the probability that a unit of label 1 has the higher score, ties half.

    Args:
        labels: 0 or 1 per unit, shape (n_units,).
        scores: The higher, the more likely a 1; shape (n_units,).

    Raises:
        ExperimentError: The shapes differ, a label is neither 0 nor 1, or a score is NULL, NaN or infinite.

    Source:
        DeLong, DeLong & Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 44, for the standard error.
    """
    places = placements(labels, scores)
    error = math.sqrt(places.covariance(places)) if places.can_be_tested else None
    n = len(places.positives) + len(places.negatives)
    return Quality(n=n, value=None if math.isnan(places.area) else places.area, standard_error=error)


def _labelled(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Floats]:
    truth, probability = booleans("labels", labels), floats("probabilities", probabilities)
    require_same_length(labels=truth, probabilities=probability)
    wrong = probability[(probability < 0) | (probability > 1)]
    if len(wrong):
        raise refused(f"a probability is {wrong[0]:g}", remedy="They are between 0 and 1.")
    return truth, probability


def _errors(truths: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    truth, prediction = floats("truths", truths), floats("predictions", predictions)
    require_same_length(truths=truth, predictions=prediction)
    return prediction - truth
