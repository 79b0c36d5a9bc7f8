"""What the analysis needs beyond dbscore: what computes statistics and draws charts, the extra `experiments`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbscore.errors import DbscoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["statistics_needed"]

_PACKAGES = ("altair", "jinja2", "markupsafe", "scipy", "statsmodels", "vl_convert")


@contextmanager
def statistics_needed() -> Iterator[None]:
    """Import within it what computes statistics or draws charts.

    Raises:
        DbscoreError: A package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise DbscoreError(
            f"the package {package}, which the analysis of experiments needs, is not installed",
            remedy="Install it: pip install 'dbscore[experiments]'.",
        ) from error
