"""The NULL policies that a caller asks for, by feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.errors import FeatureError
from dbscore.signature import NullPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["requested"]


def requested(asked: Mapping[str, str] | str | None, features: Sequence[tuple[str, str]]) -> dict[int, NullPolicy]:
    """Return the policies that the caller asked for, by feature index.

    Args:
        asked: `nan` or `null` for all features, or by a feature's source or name.
        features: The source and the name of each.

    Raises:
        FeatureError: A policy is neither `nan` nor `null`, or is for a feature that is none.
    """
    if asked is None:
        return {}
    if isinstance(asked, str):
        return dict.fromkeys(range(len(features)), _policy(asked))
    known = {name: i for i, pair in enumerate(features) for name in pair}
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise FeatureError(
            f"null_policy names {unknown[0]!r}, which is no feature",
            remedy=f"The features are {', '.join(name for _, name in features)}.",
        )
    return {known[name]: _policy(value) for name, value in asked.items()}


def _policy(value: str) -> NullPolicy:
    try:
        return NullPolicy(value)
    except ValueError:
        raise FeatureError(
            f"null_policy is {value!r}, neither 'nan' nor 'null'", remedy="Use one of the two."
        ) from None
