"""The area under the ROC curve, and how much of it is owed to each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from dbscore.experiments.statistics.arguments import booleans, floats, require_same_length

if TYPE_CHECKING:
    import numpy.typing as npt

    from dbscore.experiments.statistics.arguments import Floats

__all__ = ["Placements", "placements"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placements:
    """Where units of one label stand among those of the other.

    Attributes:
        area: The mean of either; NaN where all units have the same label.
        positives: By unit of label 1, the share of units of label 0 with a lower score, ties half; shape (n_1,).
        negatives: By unit of label 0, the share of units of label 1 with a higher score, ties half; shape (n_0,).
    """

    area: float
    positives: Floats
    negatives: Floats

    @property
    def can_be_tested(self) -> bool:
        """Whether there are two units of each label, so that there is a variance."""
        return min(len(self.positives), len(self.negatives)) > 1

    def covariance(self, other: Placements) -> float:
        """Return the covariance of two areas, or with itself the variance of one.

        Args:
            other: The placements of the same units, in the same order, by other scores.
        """
        pairs = ((self.positives, other.positives), (self.negatives, other.negatives))
        return float(sum(np.cov(first, second)[0, 1] / len(first) for first, second in pairs))


def placements(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Placements:
    """Return where units stand, in a time of n log n.

    Args:
        labels: 0 or 1 per unit, shape (n_units,).
        scores: The higher, the more likely a 1; shape (n_units,), compared as float64.

    Raises:
        ExperimentError: The shapes differ, a label is neither 0 nor 1, or a score is NULL, NaN or infinite.

    Source:
        Sun & Xu (2014), Fast Implementation of DeLong's Algorithm for Comparing the Areas Under Correlated ROC Curves,
        IEEE Signal Processing Letters 21(11): midranks among all units less those among one's own.
    """
    truth, score = booleans("labels", labels), floats("scores", scores)
    require_same_length(labels=truth, scores=score)
    positive, negative = score[truth], score[~truth]
    if not len(positive) or not len(negative):
        return Placements(area=np.nan, positives=positive * np.nan, negatives=negative * np.nan)
    ranks = rankdata(score)
    above = (ranks[truth] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[~truth] - rankdata(negative)) / len(positive)
    return Placements(area=float(above.mean()), positives=above, negatives=below)
