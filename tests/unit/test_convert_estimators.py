"""What scikit-learn has, converted and compared with itself row by row."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans, MiniBatchKMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
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
from sklearn.feature_selection import RFE, SelectKBest, VarianceThreshold
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
    SGDOneClassSVM,
    SGDRegressor,
)
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from dbscore.convert import Conversion, convert
from dbscore.errors import ConversionError
from dbscore.signature import SqlType, Task

X, LABELS = load_iris(return_X_y=True)
NUMBERS = X @ [0.3, -0.2, 1.1, 0.7] + np.sin(X[:, 0]) + 3.0

CLASSIFIERS = [
    AdaBoostClassifier(n_estimators=5, random_state=0),
    BaggingClassifier(n_estimators=3, random_state=0),
    BaggingClassifier(LogisticRegression(), n_estimators=3, random_state=0),
    BernoulliNB(),
    CalibratedClassifierCV(LogisticRegression()),
    ComplementNB(),
    DecisionTreeClassifier(random_state=0),
    ExtraTreeClassifier(random_state=0),
    ExtraTreesClassifier(n_estimators=5, random_state=0),
    GaussianNB(),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}),
    HistGradientBoostingClassifier(max_iter=5),
    LinearDiscriminantAnalysis(),
    LogisticRegression(),
    LogisticRegressionCV(cv=3, l1_ratios=(0.0,), use_legacy_attributes=False),
    MLPClassifier((8,), max_iter=20, random_state=0),
    MultinomialNB(),
    OneVsRestClassifier(LogisticRegression()),
    QuadraticDiscriminantAnalysis(),
    RandomForestClassifier(n_estimators=5, random_state=0),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(random_state=0))]),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
    make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=5, random_state=0)),
    make_pipeline(PolynomialFeatures(2), MinMaxScaler(), LogisticRegression()),
    make_pipeline(FeatureUnion([("a", PCA(2)), ("b", RobustScaler())]), LogisticRegression()),
    make_pipeline(SelectKBest(k=2), GradientBoostingClassifier(n_estimators=3, random_state=0)),
    make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    make_pipeline(PowerTransformer(), LogisticRegression()),
    make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()),
]
LABELLERS = [
    LinearSVC(),
    NuSVC(),
    OneVsOneClassifier(LogisticRegression()),
    OneVsRestClassifier(LinearSVC()),
    OneVsRestClassifier(SGDClassifier(random_state=0)),
    OneVsOneClassifier(Perceptron()),
    Perceptron(),
    RidgeClassifier(),
    RidgeClassifierCV(),
    SGDClassifier(random_state=0),
    SVC(),
    VotingClassifier([("a", LogisticRegression()), ("b", Perceptron())]),
]
REGRESSORS = [
    ARDRegression(),
    AdaBoostRegressor(n_estimators=5, random_state=0),
    BaggingRegressor(n_estimators=3, random_state=0),
    BayesianRidge(),
    DecisionTreeRegressor(random_state=0),
    ElasticNet(),
    ExtraTreeRegressor(random_state=0),
    ExtraTreesRegressor(n_estimators=5, random_state=0),
    GammaRegressor(),
    GaussianProcessRegressor(alpha=1e-2),
    GradientBoostingRegressor(n_estimators=5, random_state=0),
    HistGradientBoostingRegressor(max_iter=5),
    HuberRegressor(max_iter=500),
    KNeighborsRegressor(1),
    Lasso(0.01),
    LinearRegression(),
    LinearSVR(),
    MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0),
    NuSVR(),
    PLSRegression(2),
    PoissonRegressor(),
    RandomForestRegressor(n_estimators=5, random_state=0),
    Ridge(),
    SGDRegressor(random_state=0),
    SVR(),
    SVR(kernel="linear"),
    SVR(kernel="poly"),
    SVR(kernel="sigmoid"),
    StackingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(random_state=0))]),
    TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
    TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), transformer=StandardScaler()),
    VotingRegressor([("a", Ridge()), ("b", Lasso(0.1))]),
]
TRANSFORMERS = [
    Binarizer(threshold=2.0),
    FunctionTransformer(),
    IncrementalPCA(2),
    KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    MaxAbsScaler(),
    MinMaxScaler(clip=True),
    Normalizer(),
    OneHotEncoder(),
    OrdinalEncoder(),
    PCA(2),
    PolynomialFeatures(3, interaction_only=True, include_bias=False),
    PowerTransformer("box-cox", standardize=False),
    RFE(LogisticRegression(), n_features_to_select=2),
    RobustScaler(),
    StandardScaler(with_mean=False),
    TruncatedSVD(2),
    VarianceThreshold(0.3),
]
CLUSTERERS = [
    BayesianGaussianMixture(n_components=2, random_state=0),
    GaussianMixture(n_components=3, random_state=0),
    KMeans(3, n_init=1, random_state=0),
    MiniBatchKMeans(3, n_init=1, random_state=0),
]
DETECTORS = [IsolationForest(n_estimators=5, random_state=0), OneClassSVM(), SGDOneClassSVM(random_state=0)]


def named(estimator: Any) -> str:
    return repr(estimator).replace("\n", "").replace(" ", "")[:70]


def fitted(estimator: Any, target: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, target)


def exact(estimator: Any, target: Any = None) -> Conversion:
    """Convert, and check that every row agrees in float64."""
    conversion = convert(fitted(estimator, target), sample=X)
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches == 0, conversion.parity.examples[:2]
    assert conversion.parity.rows["sample"] == len(X)
    assert conversion.provenance.precision == "float64", conversion.provenance.notes
    return conversion


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=named)
def test_classifier_answers_labels_and_probabilities_exactly(estimator: Any) -> None:
    signature = exact(estimator, LABELS).signature
    assert signature.task is Task.CLASSIFICATION
    assert signature.classes == (0, 1, 2)
    assert signature.prediction.type is SqlType.BIGINT
    assert signature.probabilities is not None
    assert (signature.probabilities.type, signature.probabilities.width) == (SqlType.DOUBLE_ARRAY, 3)


@pytest.mark.parametrize("estimator", LABELLERS, ids=named)
def test_classifier_without_probabilities_has_the_label_alone(estimator: Any) -> None:
    signature = exact(estimator, LABELS).signature
    assert [o.kind for o in signature.outputs] == ["prediction"]
    assert signature.classes == (0, 1, 2)


@pytest.mark.parametrize("estimator", LABELLERS, ids=named)
def test_two_classes_without_probabilities_answer_exactly(estimator: Any) -> None:
    assert exact(estimator, LABELS > 0).signature.prediction.type is SqlType.BOOLEAN


@pytest.mark.parametrize("estimator", REGRESSORS, ids=named)
def test_regressor_answers_one_exact_number(estimator: Any) -> None:
    signature = exact(estimator, NUMBERS).signature
    assert signature.task is Task.REGRESSION
    assert (signature.prediction.type, signature.prediction.width) == (SqlType.DOUBLE, 1)
    assert signature.classes is None


@pytest.mark.parametrize("estimator", TRANSFORMERS, ids=named)
def test_transformer_answers_its_vector_dense(estimator: Any) -> None:
    signature = exact(estimator, LABELS).signature
    assert signature.task is Task.TRANSFORM
    assert signature.prediction.type is SqlType.DOUBLE_ARRAY
    assert signature.prediction.width == estimator.transform(X).shape[1]


@pytest.mark.parametrize("estimator", CLUSTERERS, ids=named)
def test_clusterer_answers_the_number_of_the_cluster(estimator: Any) -> None:
    signature = exact(estimator).signature
    assert signature.task is Task.CLUSTERING
    assert signature.prediction.type in (SqlType.INTEGER, SqlType.BIGINT)
    assert len(signature.outputs) == 1


@pytest.mark.parametrize("estimator", DETECTORS, ids=named)
def test_outlier_detector_answers_one_or_minus_one(estimator: Any) -> None:
    conversion = exact(estimator)
    assert conversion.signature.task is Task.OUTLIER
    assert conversion.checks is not None
    assert set(conversion.checks.predictions) - {None} <= {-1, 1}


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
def test_two_classes_with_probabilities_from_scores_answer_exactly(loss: str) -> None:
    assert exact(SGDClassifier(loss=loss, random_state=0), LABELS > 0).signature.probabilities is not None


def test_several_regression_targets_are_one_array() -> None:
    conversion = exact(MultiOutputRegressor(Ridge()), np.c_[NUMBERS, X[:, 0], X[:, 1]])
    assert conversion.signature.prediction.type is SqlType.DOUBLE_ARRAY
    assert conversion.signature.prediction.width == 3
    assert conversion.checks is not None
    assert len(conversion.checks.predictions[0]) == 3


def test_several_classification_targets_are_an_array_of_labels_without_probabilities() -> None:
    conversion = exact(MultiOutputClassifier(LogisticRegression()), np.c_[LABELS, LABELS[::-1]])
    assert conversion.signature.prediction.type is SqlType.BIGINT_ARRAY
    assert conversion.signature.probabilities is None
    assert conversion.signature.classes is None


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int64", SqlType.BIGINT),
        ("int32", SqlType.INTEGER),
        ("int8", SqlType.SMALLINT),
        ("float64", SqlType.DOUBLE),
        ("str", SqlType.TEXT),
        ("object", SqlType.TEXT),
    ],
)
def test_label_has_the_sql_type_of_the_classes(dtype: str, expected: SqlType) -> None:
    texts = np.array(["setosa", "versicolor", "virginica"])[LABELS]
    target = texts.astype(dtype) if dtype in ("str", "object") else LABELS.astype(dtype)
    conversion = exact(LogisticRegression(), target)
    assert conversion.signature.prediction.type is expected
    assert conversion.signature.classes == tuple(np.unique(target).tolist())


def test_boolean_classes_are_python_booleans_in_classes_and_checks() -> None:
    conversion = exact(LogisticRegression(), LABELS > 0)
    assert conversion.signature.classes == (False, True)
    assert all(isinstance(c, bool) for c in conversion.signature.classes)
    assert conversion.checks is not None
    assert set(conversion.checks.predictions) - {None} == {False, True}


def test_categorical_naive_bayes_falls_back_to_float32_and_says_why() -> None:
    whole = np.round(X)
    conversion = convert(CategoricalNB().fit(whole, LABELS), sample=whole)
    assert conversion.provenance.precision == "float32"
    assert "float64 fails" in conversion.provenance.notes[0]
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches == 0
    assert conversion.parity.tolerance.relative == 1e-5


def test_mismatch_is_returned_not_raised() -> None:
    # skl2onnx interpolates isotonic calibration otherwise than scikit-learn
    model = CalibratedClassifierCV(RandomForestClassifier(n_estimators=5, random_state=0), method="isotonic")
    conversion = convert(fitted(model, LABELS), sample=X)
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches > 0
    assert 0 < len(conversion.parity.examples) <= 10
    assert set(conversion.parity.examples[0].row) == {"f0", "f1", "f2", "f3"}


def test_same_estimator_gives_the_same_bytes_twice() -> None:
    model = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=3, random_state=0)).fit(X, LABELS)
    assert convert(model, sample=X).onnx == convert(model, sample=X[:20]).onnx


def test_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, warnings; warnings.simplefilter('ignore');"
        "from sklearn.datasets import load_iris; from sklearn.pipeline import make_pipeline;"
        "from sklearn.preprocessing import StandardScaler, OneHotEncoder;"
        "from sklearn.compose import ColumnTransformer;"
        "from sklearn.linear_model import LogisticRegression; from dbscore.convert import convert;"
        "x, y = load_iris(return_X_y=True, as_frame=True); x['t'] = ['b', 'a', 'c'] * 50;"
        "c = ColumnTransformer([('n', StandardScaler(), list(x)[:4]), ('t', OneHotEncoder(), ['t'])]);"
        "m = make_pipeline(c, LogisticRegression(max_iter=5)).fit(x, y);"
        "print(hashlib.sha256(convert(m).onnx).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, dbscore.convert;"
        "print([m for m in ('sklearn', 'onnx', 'onnxruntime', 'skl2onnx', 'pandas', 'numpy') if m in sys.modules])"
    )
    env = {"PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unfitted_estimator_is_refused_by_name() -> None:
    with pytest.raises(ConversionError, match=r"LogisticRegression is not fitted") as caught:
        convert(make_pipeline(StandardScaler(), LogisticRegression()))
    assert "fit" in caught.value.remedy


def test_class_instead_of_instance_is_refused() -> None:
    with pytest.raises(ConversionError, match="Ridge is a class"):
        convert(Ridge)


@pytest.mark.parametrize(
    "estimator",
    [DBSCAN(), LocalOutlierFactor()],
    ids=named,
)
def test_estimator_without_answers_for_new_rows_is_refused(estimator: Any) -> None:
    with pytest.raises(ConversionError, match=r"predict"):
        convert(fitted(estimator), sample=X)


class OwnScaler(StandardScaler):
    """A class that no converter knows."""


def test_unknown_estimator_is_refused_with_its_class_and_a_remedy() -> None:
    model = make_pipeline(OwnScaler(), Ridge()).fit(X, NUMBERS)
    with pytest.raises(ConversionError, match="OwnScaler") as caught:
        convert(model, sample=X)
    assert "ONNX" in caught.value.remedy


def test_own_function_is_refused_with_its_name() -> None:
    model = make_pipeline(FunctionTransformer(np.cbrt), Ridge()).fit(X, NUMBERS)
    with pytest.raises(ConversionError, match="cbrt"):
        convert(model, sample=X)


def test_provenance_names_estimator_libraries_and_corrections() -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=2, random_state=0)).fit(X, LABELS)
    provenance = convert(model, sample=X).provenance
    assert provenance.source == "estimator"
    assert provenance.estimator == "sklearn.ensemble._forest.RandomForestClassifier"
    assert provenance.producer.startswith("skl2onnx ")
    assert provenance.opsets["ai.onnx.ml"] == 5
    assert {"scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy"} <= set(provenance.libraries)
    assert any(c.startswith("RandomForestClassifier:") for c in provenance.corrections)


def test_threshold_rows_are_compared_for_trees_behind_a_scaler() -> None:
    conversion = exact(make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)), LABELS)
    assert conversion.parity is not None
    assert conversion.parity.rows["threshold"] > 20


def test_model_over_the_limit_is_refused_with_its_size() -> None:
    from dbscore.errors import ArtifactError

    with pytest.raises(ArtifactError, match="more than the limit of 100"):
        convert(Ridge().fit(X, NUMBERS), sample=X, max_bytes=100)
