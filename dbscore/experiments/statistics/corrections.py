"""What p-values are worth when there are many: of metrics, of variants.

Of twenty metrics that do not differ, one has a p-value below 0.05. Holm's correction bounds the probability of any
wrong finding; Benjamini and Hochberg's bounds the share of wrong ones among the findings, and finds more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from statsmodels.stats.multitest import multipletests

from dbscore.experiments.statistics.arguments import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return p-values that may each be compared with alpha: the probability of any wrong finding stays below it.

    Args:
        p_values: Of one family. None and NaN are of no test: they stay None and do not count.

    Returns:
        The adjusted ones in the same order, at most 1.

    Raises:
        ExperimentError: One is below 0 or above 1.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure; by statsmodels.
    """
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return p-values that may each be compared with alpha: the expected share of wrong findings stays below it.

    Args:
        p_values: Of one family, independent or positively dependent. None and NaN are of no test: they stay None and
            do not count.

    Returns:
        The adjusted ones in the same order, at most 1.

    Raises:
        ExperimentError: One is below 0 or above 1.

    Source:
        Benjamini & Hochberg (1995), Controlling the false discovery rate; by statsmodels.
    """
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: Sequence[float | None], method: str) -> tuple[float | None, ...]:
    tested = [p for p in p_values if p is not None and not math.isnan(p)]
    wrong = [p for p in tested if not 0 <= p <= 1]
    if wrong:
        raise refused(f"a p-value is {wrong[0]}", remedy="They are between 0 and 1.")
    adjusted = iter(multipletests(tested, method=method)[1].tolist() if tested else ())
    return tuple(None if p is None or math.isnan(p) else float(next(adjusted)) for p in p_values)
