"""An estimator as skl2onnx understands it: the same fitted steps, said in fewer ways."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from dbscore.convert.lineage import selected

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Columns", "rewrite"]


def rewrite(estimator: Any, names: Sequence[str] | None = None) -> Any:  # noqa: ANN401 - an estimator
    """Return the estimator with columns selected by position and targets transformed back by a step of its own.

    The copies share their fitted steps with the original, which stays as it is.

    Args:
        estimator: A fitted estimator.
        names: Its columns' names, where a ColumnTransformer selects by name.
    """
    if isinstance(estimator, Pipeline):
        steps: list[tuple[str, Any]] = []
        for i, (name, step) in enumerate(estimator.steps):
            inside = i > 0 and isinstance(step, ColumnTransformer)
            new = _as_union(step) if inside else rewrite(step, names if i == 0 else None)
            # a pipeline in a pipeline is its steps
            inner = new.steps if isinstance(new, Pipeline) else [("", new)]
            steps.extend((f"{name}_{part}" if part else name, s) for part, s in inner)
        return _copy(estimator, steps=steps)
    if isinstance(estimator, ColumnTransformer):
        width = estimator.n_features_in_
        # one matrix has a name of its own, which is no column's
        given = names if names is not None and len(names) == width else None
        known = list(getattr(estimator, "feature_names_in_", [])) or given
        chosen = selected(estimator, known, width)
        return _copy(
            estimator,
            transformers_=[
                (name, rewrite(step, [known[i] for i in indexes] if known else None), indexes)
                for (name, step, _), indexes in zip(estimator.transformers_, chosen, strict=True)
                if indexes
            ],
        )
    if isinstance(estimator, FeatureUnion):
        return _copy(
            estimator,
            transformer_list=[(name, rewrite(step, names)) for name, step in estimator.transformer_list],
        )
    if isinstance(estimator, TransformedTargetRegressor):
        return rewrite(Pipeline([("regressor", estimator.regressor_), ("target", _inverse(estimator.transformer_))]))
    if isinstance(estimator, VotingClassifier):
        # it concerns `transform` only, and skl2onnx refuses one of its values
        return _copy(estimator, flatten_transform=False)
    return estimator


class Columns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Takes columns of a matrix; stateless, so that it needs no fit.

    Args:
        indexes: Which.
    """

    def __init__(self, indexes: Sequence[int] = ()) -> None:
        self.indexes = indexes


def _as_union(transformer: ColumnTransformer) -> FeatureUnion:
    """Return a ColumnTransformer as a union: inside a pipeline skl2onnx cannot count the columns it is given."""
    names = list(getattr(transformer, "feature_names_in_", [])) or None
    chosen = selected(transformer, names, transformer.n_features_in_)
    parts = [
        (name, Pipeline([("columns", Columns(indexes)), ("step", rewrite(step))]))
        for (name, step, _), indexes in zip(transformer.transformers_, chosen, strict=True)
        if indexes
    ]
    return FeatureUnion(parts, transformer_weights=transformer.transformer_weights)


def _copy(estimator: Any, **attributes: Any) -> Any:  # noqa: ANN401
    same = copy.copy(estimator)
    for name, value in attributes.items():
        setattr(same, name, value)
    return same


def _inverse(transformer: Any) -> Any:  # noqa: ANN401
    """Return a transformer whose `transform` is the other's `inverse_transform`."""
    if isinstance(transformer, FunctionTransformer):
        return FunctionTransformer(transformer.inverse_func, kw_args=transformer.inv_kw_args)
    if isinstance(transformer, StandardScaler):
        scale = np.ones(transformer.n_features_in_) if transformer.scale_ is None else transformer.scale_
        mean = np.zeros(len(scale)) if transformer.mean_ is None else transformer.mean_
        back = StandardScaler()
        back.scale_ = 1.0 / scale
        back.mean_ = -mean / scale
        back.var_ = back.scale_**2
        back.n_features_in_ = transformer.n_features_in_
        return back
    raise NotImplementedError(f"TransformedTargetRegressor(transformer={type(transformer).__name__})")
