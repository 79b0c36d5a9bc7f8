"""How scikit-learn's encoders number categories: infrequent, dropped, unknown and missing ones included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Groups", "code_of", "codes", "is_gap", "one_hot_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The output columns of a OneHotEncoder for one input column.

    Attributes:
        groups: The categories of each output column, in order; several where infrequent ones share it.
        dropped: Categories that the encoder knows and gives no column.
        default: The output column of unknown categories; None where they give zeros.
    """

    groups: tuple[tuple[Any, ...], ...]
    dropped: tuple[Any, ...] = ()
    default: int | None = None


def is_gap(value: Any) -> bool:  # noqa: ANN401 - a category of any type
    """Whether it stands for a missing value: None, NaN or pandas.NA."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def one_hot_groups(encoder: Any) -> list[Groups]:  # noqa: ANN401 - a fitted OneHotEncoder
    """Return the output columns for each input column of a fitted OneHotEncoder."""
    infrequent = getattr(encoder, "infrequent_categories_", None) or [None] * len(encoder.categories_)
    dropped = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(encoder.categories_)
    return [
        _groups(list(categories), _listed(rare), drop, encoder.handle_unknown)
        for categories, rare, drop in zip(encoder.categories_, infrequent, dropped, strict=True)
    ]


def codes(encoder: Any, index: int) -> list[tuple[Any, float]]:  # noqa: ANN401 - a fitted OrdinalEncoder
    """Return every category of an OrdinalEncoder's input column with its code."""
    categories = list(encoder.categories_[index])
    rare = _listed((getattr(encoder, "infrequent_categories_", None) or [None] * (index + 1))[index])
    gaps = [c for c in categories if is_gap(c)]
    common = [c for c in categories if not is_gap(c) and c not in rare]
    numbered = [(c, float(i)) for i, c in enumerate(common)]
    numbered += [(c, float(len(common))) for c in rare]
    return numbered + [(c, float(encoder.encoded_missing_value)) for c in gaps]


def code_of(pairs: list[tuple[Any, float]]) -> float | None:
    """Return the code of a missing value; None where the encoder has none."""
    return next((v for c, v in pairs if is_gap(c)), None)


def _listed(values: Any) -> list[Any]:  # noqa: ANN401 - an array or None
    return [] if values is None else list(values)


def _groups(categories: list[Any], rare: list[Any], drop: int | None, unknown: str) -> Groups:
    groups = [(c,) for c in categories if not _among(c, rare)]
    if rare:
        groups.append(tuple(rare))
    gone: tuple[Any, ...] = ()
    if drop is not None:
        gone = next(g for g in groups if _among(categories[drop], list(g)))
        groups.remove(gone)
    catches = unknown in ("infrequent_if_exist", "warn") and bool(rare) and gone != tuple(rare)
    return Groups(groups=tuple(groups), dropped=gone, default=len(groups) - 1 if catches else None)


def _among(value: Any, values: list[Any]) -> bool:  # noqa: ANN401
    return any(v == value or (is_gap(v) and is_gap(value)) for v in values)
