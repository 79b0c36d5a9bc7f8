"""Tree models in ONNX Runtime against scikit-learn itself, where trees are discontinuous above all."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from dbscore.convert.tree_arrays import float32_split
from dbscore.convert.trees import MINIMUM_ML_OPSET, declare_ml_opset, split_thresholds, tree_converters
from dbscore.errors import ConversionError

WIDTH = 4
# a complement, 1 - p, has the absolute error of p: relative to itself it is any size when p is nearly 1
NUMBERS = {"rtol": 1e-12, "atol": 1e-15}


def converted(model: Any, kind: Any = DoubleTensorType, *, width: int = WIDTH, domain_opset: int = 3) -> Any:
    shapes, converters = tree_converters()
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = convert_sklearn(
            model,
            initial_types=[("X", kind([None, width]))],
            target_opset={"": 18, "ai.onnx.ml": domain_opset},
            options=options,
            custom_shape_calculators=shapes,
            custom_conversion_functions=converters,
        )
    declare_ml_opset(graph)
    return graph


def session(model: Any, **conversion: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    graph = converted(model, **conversion).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def sample(*, missing: bool, rows: int = 250, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Return float32-representable features, with 15% NaN or none, and a latent number to make targets of."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, WIDTH)).astype(np.float32).astype(np.float64)
    features[:, 3] = np.round(features[:, 3])
    latent = features @ np.array([1.0, -2.0, 0.5, 1.5]) + rng.normal(size=rows) / 2
    if missing:
        features[rng.random(features.shape) < 0.15] = np.nan
        latent += np.isnan(features[:, 1])
    return features, latent


def around(column: int, threshold: float, row: np.ndarray) -> np.ndarray:
    """Return the row with this column at the threshold and a step, of float32 and of float64, either side."""
    near = np.float32(threshold)
    steps = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    exact = [float(s) for s in steps]
    halves = [(a + b) / 2 for a, b in pairwise(exact)]
    centres = [threshold, *exact, *halves]
    values = [v for c in centres for v in (np.nextafter(c, -np.inf), c, np.nextafter(c, np.inf))]
    rows = np.repeat(row[None, :], len(values), axis=0)
    rows[:, column] = values
    return rows


def probes(model: Any, features: np.ndarray, *, splits: int = 40, seed: int = 3) -> np.ndarray:
    """Return the sample, rows around sampled thresholds and, where the model takes them, rows with NaN."""
    rng = np.random.default_rng(seed)
    rows = [features]
    known = list(split_thresholds(model))
    chosen = rng.permutation(len(known))[:splits]
    rows += [around(*known[i], features[rng.integers(len(features))]) for i in chosen]
    if takes_missing(model, features):
        gaps = np.repeat(features[None, :40], features.shape[1], axis=0)
        for column, gap in enumerate(gaps):
            gap[:, column] = np.nan
        rows += [*gaps, np.full((1, features.shape[1]), np.nan)]
    return np.concatenate(rows)


def takes_missing(model: Any, features: np.ndarray) -> bool:
    try:
        model.predict(np.full_like(features[:1], np.nan))
    except ValueError:
        return False
    return True


def assert_same_classes(model: Any, rows: np.ndarray, **conversion: Any) -> None:
    label, numbers = session(model, **conversion).run(None, {"X": rows})
    native = model.predict(rows)
    assert label.shape == native.shape
    assert np.array_equal(label.astype(native.dtype), native)
    np.testing.assert_allclose(numbers, model.predict_proba(rows), **NUMBERS)


def assert_same_numbers(model: Any, rows: np.ndarray, **conversion: Any) -> None:
    (numbers,) = session(model, **conversion).run(None, {"X": rows})
    native = model.predict(rows)
    np.testing.assert_allclose(numbers, native.reshape(len(rows), -1), **NUMBERS)


def fitted(model: Any, features: np.ndarray, target: np.ndarray) -> Any:
    model = clone(model)
    if "random_state" in model.get_params():
        model.set_params(random_state=11)
    return model.fit(features, target)


CLASSIFIERS = {
    "tree": DecisionTreeClassifier(max_depth=6),
    "extra_tree": ExtraTreeClassifier(),
    "forest": RandomForestClassifier(n_estimators=15, max_depth=5),
    "extra_trees": ExtraTreesClassifier(n_estimators=10),
    "gradient": GradientBoostingClassifier(n_estimators=10),
    "gradient_from_zero": GradientBoostingClassifier(n_estimators=10, init="zero"),
    "gradient_subsampled": GradientBoostingClassifier(n_estimators=10, subsample=0.5, max_features=2),
    "histogram": HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8),
    "bagging": BaggingClassifier(n_estimators=8, max_features=0.6),
    "bagging_repeated": BaggingClassifier(n_estimators=5, max_samples=0.05, bootstrap_features=True),
    "adaptive": AdaBoostClassifier(n_estimators=10),
    "adaptive_deep": AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=6),
}

REGRESSORS = {
    "tree": DecisionTreeRegressor(max_depth=6),
    "tree_of_medians": DecisionTreeRegressor(max_depth=4, criterion="absolute_error"),
    "extra_tree": ExtraTreeRegressor(),
    "forest": RandomForestRegressor(n_estimators=15, max_depth=5),
    "extra_trees": ExtraTreesRegressor(n_estimators=10),
    "gradient": GradientBoostingRegressor(n_estimators=10),
    "gradient_huber": GradientBoostingRegressor(n_estimators=10, loss="huber", init="zero"),
    "gradient_quantile": GradientBoostingRegressor(n_estimators=10, loss="quantile"),
    "histogram": HistGradientBoostingRegressor(max_iter=10, max_leaf_nodes=8),
    "histogram_absolute": HistGradientBoostingRegressor(max_iter=10, loss="absolute_error"),
    "histogram_quantile": HistGradientBoostingRegressor(max_iter=10, loss="quantile", quantile=0.9),
    "histogram_poisson": HistGradientBoostingRegressor(max_iter=10, loss="poisson"),
    "histogram_gamma": HistGradientBoostingRegressor(max_iter=10, loss="gamma"),
    "bagging": BaggingRegressor(n_estimators=8, max_features=0.6),
    "adaptive": AdaBoostRegressor(n_estimators=10),
}

LABELS = {
    "binary": lambda latent: (latent > 0).astype(np.int8),
    "multiclass": lambda latent: np.digitize(latent, [-2, 2]) * 10 - 5,
    "text": lambda latent: np.array(["low", "middle", "high"])[np.digitize(latent, [-2, 2])],
    "boolean": lambda latent: latent > 0,
}

# the others are not trained with NaN, nor do they score it
FAMILIES_WITH_NAN = ("tree", "extra", "forest", "histogram", "bagging")


def trainings(models: dict[str, Any]) -> pytest.MarkDecorator:
    """Parametrize by each model's name, without NaN and, where scikit-learn trains it so, with."""
    pairs = [(name, missing) for name in models for missing in (False, True)]
    kept = [(n, m) for n, m in pairs if not m or n.startswith(FAMILIES_WITH_NAN)]
    ids = [f"{name}{'_with_nan' * missing}" for name, missing in kept]
    return pytest.mark.parametrize(("name", "missing"), kept, ids=ids)


@pytest.mark.parametrize("labels", LABELS)
@trainings(CLASSIFIERS)
def test_classifier_answers_as_the_native_one_at_every_step(name: str, labels: str, *, missing: bool) -> None:
    features, latent = sample(missing=missing)
    model = fitted(CLASSIFIERS[name], features, LABELS[labels](latent))
    assert_same_classes(model, probes(model, features))


@trainings(REGRESSORS)
def test_regressor_answers_as_the_native_one_at_every_step(name: str, *, missing: bool) -> None:
    features, latent = sample(missing=missing)
    model = fitted(REGRESSORS[name], features, np.exp(latent / 3))
    assert_same_numbers(model, probes(model, features))


@trainings({name: REGRESSORS[name] for name in ("tree", "extra_tree", "forest", "extra_trees")})
def test_regressor_of_several_outputs_gives_one_number_for_each(name: str, *, missing: bool) -> None:
    features, latent = sample(missing=missing)
    model = fitted(REGRESSORS[name], features, np.stack([latent, latent**2, -latent], axis=1))
    assert_same_numbers(model, probes(model, features))


@pytest.mark.parametrize("contamination", ["auto", 0.1, 0.3])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_isolation_forest_answers_as_the_native_one_at_every_step(contamination: Any, share: float) -> None:
    features, _ = sample(missing=False)
    model = IsolationForest(n_estimators=20, contamination=contamination, max_features=share, random_state=1)
    model.fit(features)
    rows = probes(model, features)
    label, score = session(model).run(None, {"X": rows})
    assert np.array_equal(label[:, 0], model.predict(rows))
    # the offset is taken off a score between 0 and 1, so the error is absolute
    np.testing.assert_allclose(score[:, 0], model.decision_function(rows), rtol=0, atol=1e-15)


def test_isolation_forest_labels_rows_whose_score_is_the_offset_itself() -> None:
    features, _ = sample(missing=False, rows=101)
    # with the seeds 29 and 56 a power that is off in its last bit turns a label
    for seed in (0, 1, 29, 56):
        # the tenth percentile of 101 scores is one of them
        model = IsolationForest(n_estimators=10, contamination=0.1, random_state=seed).fit(features)
        assert (model.decision_function(features) == 0).any()
        label = session(model).run(None, {"X": features})[0]
        assert np.array_equal(label[:, 0], model.predict(features))


def test_sums_of_trees_are_equal_to_the_last_bit() -> None:
    features, latent = sample(missing=True)
    forest = RandomForestClassifier(n_estimators=40, max_depth=6, random_state=0).fit(features, latent > 0)
    histogram = HistGradientBoostingRegressor(max_iter=40).fit(features, latent)
    gradient = GradientBoostingRegressor(n_estimators=40).fit(np.nan_to_num(features), latent)
    rows = probes(forest, features)
    assert np.array_equal(session(forest).run(None, {"X": rows})[1], forest.predict_proba(rows))
    assert np.array_equal(session(histogram).run(None, {"X": rows})[0][:, 0], histogram.predict(rows))
    rows = np.nan_to_num(rows)
    assert np.array_equal(session(gradient).run(None, {"X": rows})[0][:, 0], gradient.predict(rows))


def test_one_row_is_scored_as_it_is_among_many() -> None:
    features, latent = sample(missing=True)
    # more trees than ONNX Runtime treats alike for one row and for many
    model = RandomForestClassifier(n_estimators=100, max_depth=4, random_state=0).fit(features, latent > 0)
    scorer = session(model)
    many = scorer.run(None, {"X": features})[1]
    single = [scorer.run(None, {"X": row[None, :]})[1][0] for row in features]
    assert np.array_equal(many, np.stack(single))


def test_ties_go_to_the_class_that_scikit_learn_gives_them_to() -> None:
    rows = np.zeros((4, WIDTH))
    target = np.array(["no", "yes", "no", "yes"])
    native = {}
    for model in (
        DecisionTreeClassifier(),
        GradientBoostingClassifier(n_estimators=2),
        HistGradientBoostingClassifier(max_iter=2),
    ):
        model.fit(rows, target)
        label = session(model).run(None, {"X": rows})[0]
        assert np.array_equal(label, model.predict(rows))
        native[type(model)] = label[0]
    # gradient boosting asks for >= 0, its histogram twin for > 0
    assert list(native.values()) == ["no", "yes", "no"]


def test_model_without_a_split_is_constant() -> None:
    rows = np.zeros((5, WIDTH))
    for model in (
        DecisionTreeRegressor(),
        RandomForestRegressor(3),
        HistGradientBoostingRegressor(max_iter=2),
    ):
        assert_same_numbers(model.fit(rows, np.full(5, 0.1)), rows)
    assert_same_classes(RandomForestClassifier(3).fit(rows, np.full(5, 3)), rows)


def test_extreme_probabilities_keep_their_relative_precision() -> None:
    features = np.linspace(-1, 1, 200)[:, None]
    model = GradientBoostingClassifier(n_estimators=60, learning_rate=1.0).fit(features, features[:, 0] > 0)
    native = model.predict_proba(features)[:, 1]
    assert native.min() < 1e-7
    positive = session(model, width=1).run(None, {"X": features})[1][:, 1]
    np.testing.assert_allclose(positive, native, rtol=1e-12)


@pytest.mark.parametrize("cardinality", [3, 40, 250])
def test_categorical_splits_send_unknown_and_missing_categories_where_the_native_model_does(
    cardinality: int,
) -> None:
    rng = np.random.default_rng(cardinality)
    features = rng.normal(size=(1200, WIDTH))
    # neither zero-based nor whole numbers: scikit-learn encodes them itself
    features[:, 2] = rng.integers(0, cardinality, 1200) * 1.5 - 3
    features[:, 0] = rng.integers(0, 5, 1200)
    features[rng.random(features.shape) < 0.1] = np.nan
    effect = rng.normal(size=2 * cardinality + 1)
    latent = effect[(np.nan_to_num(features[:, 2], nan=-3) + 3).astype(int)] + np.nan_to_num(features[:, 1])
    rows = features[:600].copy()
    rows[:200, 2] = rng.choice([-3.0, -3.5, -1e9, 0.2, 1.5, 255, 256, 1e6, np.nan], 200)
    rows[200:300, 0] = rng.choice([-1.0, 0.5, 4.0, 5.0, np.nan], 100)
    for categorical in ([0, 2], [True, False, True, False]):
        model = HistGradientBoostingRegressor(max_iter=12, categorical_features=categorical)
        model.fit(features, latent)
        assert any(p.nodes["is_categorical"].any() for (p,) in model._predictors)
        assert_same_numbers(model, np.concatenate([probes(model, features), rows]))
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features=[0, 2])
    assert_same_classes(model.fit(features, np.digitize(latent, [-1, 1])), rows)


def classes_of(latent: np.ndarray) -> np.ndarray:
    return np.digitize(latent, [-2, 2])


@pytest.mark.parametrize("domain_opset", [3, 5])
@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), RandomForestClassifier(5, max_depth=4, random_state=0)),
        make_pipeline(
            ColumnTransformer([("scaled", StandardScaler(), [2, 0])], remainder="passthrough"),
            HistGradientBoostingClassifier(max_iter=5),
        ),
        VotingClassifier(
            [
                ("forest", RandomForestClassifier(5, max_depth=4, random_state=0)),
                ("gradient", GradientBoostingClassifier(n_estimators=4, random_state=0)),
                ("histogram", HistGradientBoostingClassifier(max_iter=4)),
            ],
            voting="soft",
            flatten_transform=False,
        ),
        StackingClassifier(
            [
                ("forest", RandomForestClassifier(5, max_depth=4, random_state=0)),
                ("gradient", GradientBoostingClassifier(n_estimators=4, random_state=0)),
            ],
            final_estimator=LogisticRegression(),
            cv=2,
        ),
        CalibratedClassifierCV(ExtraTreesClassifier(5, max_depth=4, random_state=0), cv=2),
        CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=4, random_state=0), cv=2),
        CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=4), cv=2),
        CalibratedClassifierCV(AdaBoostClassifier(n_estimators=4, random_state=0), cv=2),
        BaggingClassifier(GradientBoostingClassifier(n_estimators=3), n_estimators=2, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_inside_another_classifier_answer_as_natively(model: Any, domain_opset: int) -> None:
    features, latent = sample(missing=False)
    for target in (latent > 0, classes_of(latent)):
        assert_same_classes(clone(model).fit(features, target), features, domain_opset=domain_opset)


@pytest.mark.parametrize(
    "model",
    [
        VotingRegressor([("forest", RandomForestRegressor(5)), ("histogram", HistGradientBoostingRegressor())]),
        StackingRegressor([("forest", RandomForestRegressor(5))], final_estimator=LinearRegression(), cv=2),
        BaggingRegressor(HistGradientBoostingRegressor(max_iter=3), n_estimators=2, max_features=0.5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_inside_another_regressor_answer_as_natively(model: Any) -> None:
    features, latent = sample(missing=False)
    assert_same_numbers(model.fit(features, latent + 20), features)


def test_other_input_types_are_compared_as_the_float32_they_become() -> None:
    rng = np.random.default_rng(0)
    integers = rng.integers(-50, 50, size=(200, WIDTH))
    model = RandomForestClassifier(10, random_state=0).fit(integers, integers.sum(axis=1) > 0)
    label, numbers = session(model, kind=Int64TensorType).run(None, {"X": integers})
    assert np.array_equal(label, model.predict(integers))
    assert np.array_equal(numbers, model.predict_proba(integers))
    floats = rng.normal(size=(200, WIDTH)).astype(np.float32)
    model = RandomForestClassifier(10, random_state=0).fit(floats, floats.sum(axis=1) > 0)
    label, numbers = session(model, kind=FloatTensorType).run(None, {"X": floats})
    assert np.array_equal(label, model.predict(floats))
    assert numbers.dtype == np.float32


def finite32(value: float) -> bool:
    return abs(value) < float(np.finfo(np.float32).max) / 2


thresholds = st.one_of(
    st.floats(allow_nan=False, width=32).filter(finite32),
    st.floats(allow_nan=False).filter(finite32),
    st.floats(min_value=-1e-44, max_value=1e-44),
)


@settings(deadline=None, max_examples=400)
@given(threshold=thresholds, far=thresholds)
@example(threshold=0.0, far=2.0**-150)
@example(threshold=-0.0, far=-(2.0**-150))
@example(threshold=16777217.0, far=16777217.0)
def test_folded_threshold_compares_as_the_float32_cast_does(threshold: float, far: float) -> None:
    folded = float32_split(np.array([threshold]))[0]
    values = np.concatenate([around(0, threshold, np.zeros(1))[:, 0], [far, folded, np.nextafter(folded, np.inf)]])
    assert np.array_equal(values <= folded, values.astype(np.float32) <= np.float64(threshold))


def test_infinite_threshold_stays_infinite() -> None:
    # scikit-learn splits missing values from all others at infinity
    assert float32_split(np.array([np.inf]))[0] == np.inf


FEATURES, LATENT = sample(missing=True)
FOREST = RandomForestClassifier(10, random_state=0).fit(FEATURES, LATENT > 0)
HISTOGRAM = HistGradientBoostingClassifier(max_iter=10).fit(FEATURES, classes_of(LATENT))
SCORERS = [(model, session(model)) for model in (FOREST, HISTOGRAM)]
cells = st.one_of(st.floats(-5, 5), st.just(float("nan")), st.floats(-5, 5, width=32), st.integers(-3, 3).map(float))


@settings(deadline=None, max_examples=150)
@given(row=st.lists(cells, min_size=WIDTH, max_size=WIDTH))
def test_any_row_is_scored_as_natively(row: list[float]) -> None:
    rows = np.array([row])
    for model, scorer in SCORERS:
        label, numbers = scorer.run(None, {"X": rows})
        assert label[0] == model.predict(rows)[0]
        np.testing.assert_allclose(numbers, model.predict_proba(rows), **NUMBERS)


def test_thresholds_of_a_tree_are_those_between_the_values() -> None:
    features = np.array([[9.0, 0.0], [9.0, 1.0], [9.0, 4.0]])
    model = DecisionTreeRegressor().fit(features, [0.0, 10.0, 11.0])
    assert sorted(split_thresholds(model)) == [(1, 0.5), (1, 2.5)]


def test_thresholds_of_bagging_name_the_columns_of_the_whole_matrix() -> None:
    features, latent = sample(missing=False)
    model = BaggingRegressor(n_estimators=6, max_features=1, random_state=0).fit(features, latent)
    own = [int(columns[0]) for columns in model.estimators_features_]
    assert {column for column, _ in split_thresholds(model)} == set(own)
    for column, threshold in split_thresholds(model):
        assert features[:, column].min() < threshold < features[:, column].max()


def test_thresholds_of_histogram_boosting_leave_out_categories_and_undo_the_reordering() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([rng.normal(size=400), rng.integers(0, 4, 400), rng.normal(100, 1, 400)], axis=1)
    target = features[:, 0] + features[:, 1] ** 2 + features[:, 2]
    model = HistGradientBoostingRegressor(max_iter=10, categorical_features=[1]).fit(features, target)
    splits = list(split_thresholds(model))
    assert {column for column, _ in splits} == {0, 2}
    assert all((threshold > 50) == (column == 2) for column, threshold in splits)


def test_split_of_missing_values_alone_has_no_threshold() -> None:
    features = np.array([[1.0], [1.0], [np.nan], [np.nan]])
    model = DecisionTreeRegressor().fit(features, [0.0, 0.0, 1.0, 1.0])
    assert model.tree_.node_count == 3
    assert list(split_thresholds(model)) == []
    assert_same_numbers(model, features, width=1)


def test_estimator_that_is_no_tree_has_no_thresholds() -> None:
    assert list(split_thresholds(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))) == []


def test_text_categories_are_refused_with_a_way_out() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"colour": ["red", "blue"] * 40, "size": np.arange(80.0)})
    frame["colour"] = frame["colour"].astype("category")
    model = HistGradientBoostingRegressor(max_iter=2).fit(frame, np.arange(80.0))
    with pytest.raises(ConversionError, match=r"categorical feature colour.*'blue'") as caught:
        converted(model, width=2)
    assert "OrdinalEncoder" in caught.value.remedy


def test_gradient_boosting_from_another_estimator_is_refused_with_a_way_out() -> None:
    features, latent = sample(missing=False)
    for start in (LogisticRegression(), DummyClassifier(strategy="stratified")):
        model = GradientBoostingClassifier(n_estimators=2, init=start).fit(features, latent > 0)
        with pytest.raises(ConversionError, match=type(start).__name__) as caught:
            converted(model)
        assert "init=None" in caught.value.remedy


def test_classifier_of_several_outputs_is_refused_with_a_way_out() -> None:
    features, latent = sample(missing=False)
    model = RandomForestClassifier(2).fit(features, np.stack([latent > 0, latent > 1], axis=1))
    with pytest.raises(ConversionError, match="2 outputs") as caught:
        converted(model)
    assert "one classifier per output" in caught.value.remedy


def test_adaptive_boosting_of_other_classifiers_is_refused_with_a_way_out() -> None:
    features, latent = sample(missing=False)
    model = AdaBoostClassifier(LogisticRegression(), n_estimators=2).fit(features, latent > 0)
    with pytest.raises(ConversionError, match="LogisticRegression"):
        converted(model)


def test_isolation_forest_of_single_rows_is_refused() -> None:
    features, _ = sample(missing=False)
    with pytest.raises(ConversionError, match="max_samples=1"):
        converted(IsolationForest(n_estimators=2, max_samples=1).fit(features))


def test_converted_model_declares_the_opset_of_its_trees() -> None:
    graph = converted(FOREST)
    assert {o.domain: o.version for o in graph.opset_import}["ai.onnx.ml"] == MINIMUM_ML_OPSET


def graph_of(*types: str) -> Any:
    nodes = [helper.make_node(t, ["X"], [f"Y{i}"], domain="ai.onnx.ml") for i, t in enumerate(types)]
    value = helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, 1])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph(nodes, "g", [value], []), opset_imports=imports)


def test_model_without_trees_keeps_its_opset() -> None:
    graph = graph_of("Scaler")
    declare_ml_opset(graph)
    assert [o.version for o in graph.opset_import] == [18, 3]


def test_trees_beside_a_withdrawn_operator_are_refused() -> None:
    with pytest.raises(ConversionError, match="TreeEnsembleRegressor"):
        declare_ml_opset(graph_of("TreeEnsemble", "TreeEnsembleRegressor"))
