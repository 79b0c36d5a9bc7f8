"""The demonstration's two models, and how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn import metrics
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

if TYPE_CHECKING:
    from dbscore.demo.data import Data

__all__ = ["estimators", "score"]


def estimators(data: Data) -> dict[str, Any]:
    """Return an unfitted linear and an unfitted tree pipeline."""

    def columns(numbers: Any) -> Any:  # noqa: ANN401 - a transformer
        texts = make_pipeline(
            SimpleImputer(strategy="most_frequent"),
            OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=50),
        )
        return make_column_transformer(
            (numbers, make_column_selector(dtype_include=["number", "bool"])),
            (texts, make_column_selector(dtype_include=object)),
        )

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    linear = LogisticRegression(max_iter=2000) if data.is_classification else Ridge()
    boosting = HistGradientBoostingClassifier if data.is_classification else HistGradientBoostingRegressor
    return {
        "linear": make_pipeline(columns(scaled), linear),
        "tree": make_pipeline(columns("passthrough"), boosting(random_state=0)),
    }


def score(estimator: Any, data: Data) -> tuple[str, float]:  # noqa: ANN401 - an estimator
    """Return a metric of the held-out rows: AUC for two classes, accuracy for more, R² for numbers."""
    features, target = data.features[data.held_out], data.target[data.held_out]
    if not data.is_classification:
        return "r2", float(metrics.r2_score(target, estimator.predict(features)))
    if len(estimator.classes_) == 2:  # noqa: PLR2004
        return "auc", float(metrics.roc_auc_score(target, estimator.predict_proba(features)[:, 1]))
    return "accuracy", float(metrics.accuracy_score(target, estimator.predict(features)))
