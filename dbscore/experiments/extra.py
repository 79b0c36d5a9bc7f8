"""What the analysis needs beyond dbscore itself: scipy and statsmodels, in the extra `experiments`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbscore.errors import DbscoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["statistics_needed"]


@contextmanager
def statistics_needed() -> Iterator[None]:
    """Import within it what computes statistics.

    Raises:
        DbscoreError: A package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("scipy", "statsmodels"):
            raise
        raise DbscoreError(
            f"the package {package}, which computes statistics, is not installed",
            remedy="Install it: pip install 'dbscore[experiments]'.",
        ) from error
