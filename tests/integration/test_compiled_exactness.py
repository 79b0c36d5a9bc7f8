"""Models as SQL beside ONNX Runtime: the same labels and numbers on 100,000 rows each, for every kind of model.

Among the rows are values one step either side of each threshold of the trees, NULLs where the model takes them, zeros
of both signs, the largest and the smallest numbers there are, and logits far beyond what exp() takes.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from pyarrow import csv
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
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
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
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
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from dbscore import Client
from dbscore.convert.session import open_session, run
from dbscore.convert.trees import split_thresholds
from dbscore.local.installation import find_embedded
from dbscore.signature import NullPolicy, SqlType
from tests.conftest import database, local_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbscore.signature import Signature

Connection = psycopg.Connection[Any]

ROWS = 100_000
RELATIVE = 1e-6
# what a number may differ from 0 by
ABSOLUTE = 1e-300
FLOAT32_MAX = float(np.finfo(np.float32).max)
NUMBERS = [f"x{i}" for i in range(1, 7)]
EXTREMES = [0.0, -0.0, 5e-324, -1e-310, 1e-300, -1e-45, 16777217.0, 1e18, -FLOAT32_MAX, FLOAT32_MAX, 1e300, -1e300]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and what it is fitted on.

    Attributes:
        estimator: Not fitted yet.
        data: `numbers`, `gaps` (numbers with missing values) or `mixed` (texts, booleans, integers, reals).
        target: `two`, `three` (texts), `number` or `count`.
        rows: How many are compared.
        relative: How far numbers may be from ONNX Runtime's: more where that computes in single precision, in an order
            of its own.
    """

    estimator: Any
    data: str = "numbers"
    target: str = "two"
    rows: int = ROWS
    relative: float = RELATIVE


def mixed(*, imputer: str = "mean", last: Any) -> Any:
    numeric = make_pipeline(SimpleImputer(strategy=imputer, add_indicator=True), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer(
        [
            ("n", numeric, ["balance", "score"]),
            ("t", texts, ["plan", "region"]),
            ("p", "passthrough", ["age", "active"]),
        ]
    )
    return make_pipeline(columns, last)


def ordinal(last: Any) -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("o", encoder, ["region"])], remainder="passthrough")
    return make_pipeline(ColumnTransformer([("c", columns, ["region", "age", "score"])]), last)


LINEAR = {
    "LogisticRegression, two classes": Case(LogisticRegression(max_iter=5000)),
    "LogisticRegression, three classes": Case(LogisticRegression(max_iter=5000), target="three"),
    "LogisticRegression, steep": Case(LogisticRegression(C=1e6, max_iter=5000)),
    "LinearRegression": Case(LinearRegression(), target="number"),
    "Ridge": Case(Ridge(), target="number"),
    "Lasso": Case(Lasso(0.01), target="number"),
    "ElasticNet": Case(ElasticNet(0.01), target="number"),
    "SGDClassifier": Case(SGDClassifier(loss="log_loss", random_state=0)),
    "SGDClassifier, modified huber": Case(SGDClassifier(loss="modified_huber", random_state=0), target="three"),
    "SGDRegressor": Case(make_pipeline(StandardScaler(), SGDRegressor(random_state=0)), target="number"),
    "PoissonRegressor": Case(PoissonRegressor(), target="count"),
    "GammaRegressor": Case(GammaRegressor(), target="count"),
    "TweedieRegressor": Case(TweedieRegressor(power=1.5), target="count"),
    "Perceptron": Case(Perceptron(random_state=0), target="three"),
    "RidgeClassifier": Case(RidgeClassifier()),
    "LinearSVC": Case(LinearSVC(random_state=0), target="three"),
    "LinearSVR": Case(LinearSVR(random_state=0), target="number"),
    "LinearDiscriminantAnalysis": Case(LinearDiscriminantAnalysis(), target="three"),
    "QuadraticDiscriminantAnalysis": Case(QuadraticDiscriminantAnalysis(), target="three"),
    "GaussianNB": Case(GaussianNB(), target="three"),
    "BernoulliNB": Case(BernoulliNB(), target="three", relative=1e-5),
    "MultinomialNB": Case(make_pipeline(MinMaxScaler(clip=True), MultinomialNB()), target="three"),
    "OneVsRest": Case(OneVsRestClassifier(LogisticRegression(max_iter=5000)), target="three"),
    "Calibrated, sigmoid": Case(CalibratedClassifierCV(LogisticRegression(max_iter=5000), cv=2)),
    "MLPClassifier": Case(MLPClassifier((16, 8), max_iter=30, random_state=0), target="three"),
    "MLPClassifier, tanh": Case(MLPClassifier((8,), activation="tanh", max_iter=30, random_state=0)),
    "MLPRegressor, logistic": Case(
        MLPRegressor(hidden_layer_sizes=(8,), activation="logistic", max_iter=60, random_state=0), target="number"
    ),
    "KMeans": Case(KMeans(3, n_init=1, random_state=0), target="three"),
}

PREPARED = {
    "StandardScaler": Case(make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)), target="three"),
    "MinMaxScaler": Case(make_pipeline(MinMaxScaler(), Ridge()), target="number"),
    "MinMaxScaler, clipped": Case(make_pipeline(MinMaxScaler(clip=True), Ridge()), target="number"),
    "MaxAbsScaler": Case(make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=5000))),
    "RobustScaler": Case(make_pipeline(RobustScaler(), LogisticRegression(max_iter=5000))),
    "Normalizer, l2": Case(make_pipeline(Normalizer(), LogisticRegression(max_iter=5000))),
    "Normalizer, l1": Case(make_pipeline(Normalizer("l1"), LogisticRegression(max_iter=5000))),
    "Binarizer": Case(make_pipeline(Binarizer(threshold=0.25), LogisticRegression(max_iter=5000))),
    "KBinsDiscretizer, one hot": Case(make_pipeline(KBinsDiscretizer(5), LogisticRegression(max_iter=5000))),
    "KBinsDiscretizer, ordinal": Case(make_pipeline(KBinsDiscretizer(5, encode="ordinal"), Ridge()), target="number"),
    "PolynomialFeatures": Case(
        make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(max_iter=5000))
    ),
    "PowerTransformer": Case(make_pipeline(PowerTransformer(), LogisticRegression(max_iter=5000))),
    "PCA": Case(make_pipeline(StandardScaler(), PCA(3), LogisticRegression(max_iter=5000)), target="three"),
    "TruncatedSVD": Case(make_pipeline(TruncatedSVD(3), Ridge()), target="number"),
    "SelectKBest": Case(make_pipeline(SelectKBest(k=2), LogisticRegression(max_iter=5000))),
    "FeatureUnion": Case(
        make_pipeline(FeatureUnion([("a", PCA(2)), ("b", StandardScaler())]), LogisticRegression(max_iter=5000)),
        target="three",
    ),
    "Imputer, mean": Case(make_pipeline(SimpleImputer(), LogisticRegression(max_iter=5000)), "gaps"),
    "Imputer, median, indicator": Case(
        make_pipeline(SimpleImputer(strategy="median", add_indicator=True), LogisticRegression(max_iter=5000)),
        "gaps",
        "three",
    ),
    "Imputer, most frequent": Case(make_pipeline(SimpleImputer(strategy="most_frequent"), Ridge()), "gaps", "number"),
    "Imputer, constant": Case(
        make_pipeline(
            SimpleImputer(strategy="constant", fill_value=-1.5), StandardScaler(), LogisticRegression(max_iter=5000)
        ),
        "gaps",
    ),
    "mixed, LogisticRegression": Case(mixed(last=LogisticRegression(max_iter=5000)), "mixed", "three"),
    "mixed, Ridge": Case(mixed(imputer="median", last=Ridge()), "mixed", "number"),
    "mixed, DecisionTree": Case(mixed(last=DecisionTreeClassifier(max_depth=6, random_state=0)), "mixed", "three"),
    "mixed, OrdinalEncoder": Case(ordinal(RandomForestClassifier(5, max_depth=4, random_state=0)), "mixed"),
}

TREES = {
    "DecisionTreeClassifier": Case(DecisionTreeClassifier(random_state=0), target="three"),
    "DecisionTreeClassifier, missing": Case(DecisionTreeClassifier(max_depth=7, random_state=0), "gaps", "three"),
    "DecisionTreeRegressor": Case(DecisionTreeRegressor(max_depth=8, random_state=0), target="number"),
    "RandomForestClassifier": Case(RandomForestClassifier(20, max_depth=5, random_state=0), target="three"),
    "RandomForestClassifier, missing": Case(RandomForestClassifier(10, max_depth=5, random_state=0), "gaps"),
    "RandomForestRegressor": Case(RandomForestRegressor(20, max_depth=6, random_state=0), target="number"),
    "ExtraTreesClassifier": Case(ExtraTreesClassifier(10, max_depth=6, random_state=0)),
    "ExtraTreesRegressor": Case(ExtraTreesRegressor(10, max_depth=6, random_state=0), target="number"),
    "GradientBoostingClassifier": Case(GradientBoostingClassifier(n_estimators=30, random_state=0)),
    "GradientBoostingClassifier, three": Case(
        GradientBoostingClassifier(n_estimators=10, random_state=0), target="three"
    ),
    "GradientBoostingRegressor": Case(GradientBoostingRegressor(n_estimators=30, random_state=0), target="number"),
    "HistGradientBoostingClassifier": Case(HistGradientBoostingClassifier(max_iter=30), "gaps"),
    "HistGradientBoostingClassifier, three": Case(HistGradientBoostingClassifier(max_iter=10), "gaps", "three"),
    "HistGradientBoostingRegressor, poisson": Case(
        HistGradientBoostingRegressor(max_iter=20, loss="poisson"), "gaps", "count"
    ),
    "HistGradientBoosting, categories": Case(
        HistGradientBoostingClassifier(max_iter=20, categorical_features=[0]), "codes"
    ),
    "AdaBoostClassifier": Case(AdaBoostClassifier(n_estimators=10, random_state=0), target="three"),
    "BaggingClassifier": Case(BaggingClassifier(n_estimators=5, random_state=0), target="three"),
    "BaggingRegressor": Case(BaggingRegressor(n_estimators=3, max_features=0.5, random_state=0), target="number"),
    "IsolationForest": Case(IsolationForest(n_estimators=20, max_samples=64, random_state=0)),
    "Voting, soft": Case(
        VotingClassifier(
            [
                ("a", LogisticRegression(max_iter=5000)),
                ("b", GaussianNB()),
                ("c", DecisionTreeClassifier(max_depth=5, random_state=0)),
            ],
            voting="soft",
        ),
        target="three",
    ),
    "Voting, hard": Case(
        VotingClassifier(
            [("a", LogisticRegression(max_iter=5000)), ("b", GaussianNB()), ("c", DecisionTreeClassifier(max_depth=5))]
        ),
        target="three",
    ),
    "VotingRegressor": Case(
        VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=5, random_state=0))]), target="number"
    ),
    "Stacking": Case(
        StackingClassifier(
            [("a", LogisticRegression(max_iter=5000)), ("b", DecisionTreeClassifier(max_depth=4, random_state=0))], cv=2
        )
    ),
    "Calibrated forest": Case(
        CalibratedClassifierCV(RandomForestClassifier(5, max_depth=4, random_state=0), cv=2), target="three"
    ),
    "scaled forest": Case(
        make_pipeline(StandardScaler(), RandomForestRegressor(10, max_depth=6, random_state=0)), target="number"
    ),
}

CASES = LINEAR | PREPARED | TREES
# what is compared on PostgreSQL 16 and 18 too: one of each kind of text
ELSEWHERE = [
    "LogisticRegression, two classes",
    "LogisticRegression, three classes",
    "PoissonRegressor",
    "Normalizer, l2",
    "PowerTransformer",
    "GaussianNB",
    "mixed, LogisticRegression",
    "DecisionTreeClassifier, missing",
    "RandomForestClassifier",
    "HistGradientBoostingClassifier",
    "MLPClassifier",
]


# --- data ---


def sample(data: str, n: int, seed: int) -> pd.DataFrame:
    """Return rows such as models are fitted on."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(n, 6)) * [1, 1, 3, 0.1, 50, 1] + [0, 1, 0, 0, 100, 0], columns=NUMBERS)
    # many rows with equal numbers, as in tables
    frame["x6"] = np.round(frame["x6"], 1)
    if data == "gaps":
        frame[NUMBERS[1:]] = frame[NUMBERS[1:]].mask(random.random((n, 5)) < 0.15)
    if data == "codes":
        frame["x1"] = random.integers(0, 9, n).astype(float)
        frame["x1"] = frame["x1"].mask(random.random(n) < 0.1)
    if data == "mixed":
        frame = pd.DataFrame(
            {
                "plan": random.choice(np.array(["basic", "pro", "größer", "it's", None], object), n),
                "region": random.choice(np.array(["north", "south", "back\\slash"], object), n),
                "age": random.integers(18, 90, n),
                "active": random.random(n) < 0.5,
                "balance": np.where(random.random(n) < 0.2, np.nan, random.normal(size=n) * 1000),
                "score": random.normal(size=n).astype(np.float32),
            }
        )
    return frame


def target(frame: pd.DataFrame, kind: str) -> np.ndarray[Any, Any]:
    numbers = frame.select_dtypes([np.number, bool]).astype(float).fillna(0.3)
    scaled = (numbers - numbers.mean()) / numbers.std()
    value = scaled.to_numpy() @ np.linspace(1, -0.7, scaled.shape[1]) + np.sin(3 * scaled.iloc[:, 0].to_numpy())
    value = value + np.random.default_rng(5).normal(size=len(frame)) * 0.3
    if kind == "two":
        return (value > 0.2).astype(int)
    if kind == "three":
        return np.array(["high", "low", "mid"])[np.searchsorted([-0.7, 0.8], value)]
    return np.round(np.exp(value / 3)) + 1 if kind == "count" else value


def compared_rows(case: Case, thresholds: Iterable[tuple[int, float]], signature: Signature) -> pd.DataFrame:
    """Return the rows that are compared: such as those fitted on, larger ones, thresholds, NULLs and extremes."""
    random = np.random.default_rng(11)
    frame = sample(case.data, case.rows, 2)
    floats = [f.name for f in signature.features if f.type in (SqlType.REAL, SqlType.DOUBLE) and f.categories is None]
    for factor, share in ((30, 0.15), (2000, 0.05)):
        chosen = random.random(case.rows) < share
        frame.loc[chosen, floats] = (frame.loc[chosen, floats] * factor).astype(frame[floats].dtypes)
    steps = list(_steps(thresholds, signature))
    random.shuffle(steps)
    places = random.choice(case.rows, min(len(steps), case.rows * 2 // 3), replace=False)
    for place, (name, value) in zip(places.tolist(), steps, strict=False):
        frame.loc[place, name] = value
    for name in floats:
        at = random.integers(0, case.rows, 30 * len(EXTREMES))
        values = (
            np.array(EXTREMES * 30).clip(-FLOAT32_MAX, FLOAT32_MAX)
            if frame[name].dtype == "float32"
            else np.array(EXTREMES * 30)
        )
        frame.loc[at, name] = values.astype(frame[name].dtype)
    for feature in signature.features:
        if feature.categories is None or (feature.type is SqlType.TEXT and feature.null_policy is NullPolicy.NAN):
            frame[feature.name] = frame[feature.name].mask(random.random(case.rows) < 0.02)
        if feature.largest is not None:
            frame[feature.name] = frame[feature.name].clip(-feature.largest, feature.largest)
        if feature.type is SqlType.REAL:
            frame[feature.name] = frame[feature.name].clip(-FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)
        if feature.type is SqlType.TEXT and feature.categories is None:
            frame.loc[random.random(case.rows) < 0.02, feature.name] = "unheard of"
    return frame


def _steps(thresholds: Iterable[tuple[int, float]], signature: Signature) -> Iterator[tuple[str, float]]:
    """Yield thresholds of trees that see the features themselves, and the numbers next to them."""
    for column, threshold in thresholds:
        single = np.float32(threshold)
        neighbours = [np.nextafter(single, np.float32(side)) for side in (-np.inf, np.inf)]
        doubles = [float(single), *map(float, neighbours), threshold]
        # halfway, where the rounding to float32 goes one way or the other
        doubles += [(float(single) + float(n)) / 2 for n in neighbours]
        for value in doubles:
            yield signature.features[column].name, value
            for side in (-np.inf, np.inf):
                yield signature.features[column].name, float(np.nextafter(value, side))


# --- what is compared ---


def native(db: Connection, sha256: str, signature: Signature, frame: pd.DataFrame) -> tuple[list[Any], np.ndarray]:
    """Return ONNX Runtime's answers, and which rows have none for a NULL."""
    content = db.execute("select bytes from dbscore.artifact where sha256 = %s", [sha256]).fetchall()[0][0]
    arrays = {}
    without = np.zeros(len(frame), bool)
    for tensor in signature.tensors:
        dtype = object if tensor.dtype == "string" else tensor.dtype
        arrays[tensor.name] = array = np.zeros((len(frame), tensor.width), dtype)
        for feature in (f for f in signature.features if f.tensor == tensor.name):
            column = frame[feature.name]
            absent = column.isna().to_numpy()
            if feature.null_policy is NullPolicy.NULL:
                without |= absent
            if dtype is object:
                array[:, feature.position] = column.where(~absent, feature.missing or "")
            elif array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    numbers = column.to_numpy(np.float64, na_value=np.nan)
                    # a real is rounded when it is stored
                    numbers = numbers.astype(np.float32).astype(np.float64) if feature.type is SqlType.REAL else numbers
                    array[:, feature.position] = numbers.astype(dtype)
            else:
                array[:, feature.position] = column.where(~absent, 0).astype(dtype)
    feeds = {t.name: arrays[t.name][:, 0] if t.rank == 1 else arrays[t.name] for t in signature.tensors}
    answers = run(open_session(bytes(content)), feeds)
    return [np.asarray(answers[o.tensor]).reshape(len(frame), -1) for o in signature.outputs], without


def stored(db: Connection, table: str, signature: Signature, frame: pd.DataFrame) -> None:
    columns = ", ".join(f"{f.name} {f.type}" for f in signature.features)
    db.execute(f"create table {table} (key integer, {columns})")
    frame = frame[[f.name for f in signature.features]].reset_index(names="key")
    for feature in signature.features:
        if feature.type in (SqlType.BIGINT, SqlType.INTEGER, SqlType.SMALLINT):
            frame[feature.name] = frame[feature.name].astype("Int64")
        elif feature.type is SqlType.BOOLEAN:
            frame[feature.name] = frame[feature.name].astype("boolean")
    buffer = io.BytesIO()
    csv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), buffer, csv.WriteOptions(include_header=False))
    with db.cursor().copy(f"copy {table} from stdin (format csv)") as copy:
        copy.write(buffer.getbuffer())


def assert_exact(db: Connection, url: str, name: str, case: Case) -> None:
    fitting = sample(case.data, 600, 1)
    fitted = case.estimator.fit(fitting, target(fitting, case.target))
    with Client(url) as client:
        version = client.deploy("m", fitted, sample=fitting, engine="sql")
    signature = version.signature
    frame = compared_rows(case, split_thresholds(fitted), signature)
    compare(db, name, signature, version.sha256, frame, relative=case.relative)


def compare(
    db: Connection, name: str, signature: Signature, sha256: str, frame: pd.DataFrame, *, relative: float = RELATIVE
) -> None:
    """Assert that SQL answers for every row what ONNX Runtime answers."""
    expected, without = native(db, sha256, signature, frame)
    stored(db, "rows", signature, frame)
    arguments = sql.SQL(", ").join(sql.Identifier(f.name) for f in signature.features)
    suffixes = ["" if o.kind == "prediction" else "_proba" for o in signature.outputs]
    calls = sql.SQL(", ").join(
        sql.SQL("{}({})").format(sql.Identifier("models", "m" + suffix), arguments) for suffix in suffixes
    )
    statement = sql.SQL("select {} from rows order by key").format(calls)
    found = list(zip(*db.execute(statement, binary=True).fetchall(), strict=True))
    worst = 0.0
    for suffix, answers, numbers in zip(suffixes, found, expected, strict=True):
        nulls = np.array([a is None for a in answers])
        wrong = np.flatnonzero(nulls != without)
        assert not len(wrong), (
            f"{name}{suffix}: {len(wrong)} rows NULL or not: {frame.loc[wrong[:3]].to_dict('records')}"
        )
        kept = np.flatnonzero(~nulls)
        if numbers.dtype.kind == "f":
            got = np.array([answers[i] for i in kept], np.float64).reshape(len(kept), -1)
            far = distances(got, numbers[kept].astype(np.float64))
            wrong, worst = (far > relative).any(axis=1), max(worst, float(far.max(initial=0.0)))
        else:
            got = np.array([answers[i] for i in kept]).reshape(len(kept), -1)
            wrong = (got != numbers[kept]).any(axis=1)
        at = kept[wrong]
        examples = [(frame.loc[i].to_dict(), g, numbers[i]) for i, g in zip(at[:3], got[wrong][:3], strict=True)]
        assert not len(at), f"{name}{suffix}: {len(at)} of {len(kept)} rows differ, relative {worst:.3g}: {examples}"
    print(f"{name}: {len(frame)} rows, largest relative difference {worst:.3g}")  # noqa: T201 - what is achieved


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the differences as shares of what is expected."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
        relative = np.where(same | (gap <= ABSOLUTE), 0.0, gap / np.abs(expected))
    return np.where(np.isnan(relative), np.inf, relative)


# how well they are fitted is nothing to compare
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_model_answers_in_sql_as_onnx_runtime_does(db: Connection, url: str, name: str) -> None:
    assert_exact(db, url, name, CASES[name])


@pytest.mark.parametrize("data", ["numbers", "gaps"])
@pytest.mark.parametrize("kind", ["two", "three", "number"])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
@pytest.mark.filterwarnings("ignore")
def test_boosted_trees_of_other_libraries_answer_in_sql_as_onnx_runtime_does(
    db: Connection, url: str, library: str, kind: str, data: str
) -> None:
    module, tools = importlib.import_module(library), importlib.import_module("onnxmltools")
    fitting = sample(data, 600, 1).astype(np.float32)
    answers = target(fitting, kind)
    if kind == "three":
        answers = np.unique(answers, return_inverse=True)[1]
    types = [("x", tools.convert.common.data_types.FloatTensorType([None, len(NUMBERS)]))]
    if library == "lightgbm":
        options = {"n_estimators": 20, "verbose": -1, "n_jobs": 1}
        fitted = (module.LGBMRegressor if kind == "number" else module.LGBMClassifier)(**options).fit(fitting, answers)
        converted = tools.convert_lightgbm(fitted, initial_types=types, zipmap=False, target_opset=15)
        splits = fitted.booster_.trees_to_dataframe().dropna(subset=["threshold"])
        thresholds = zip(splits["split_feature"].map(NUMBERS.index), splits["threshold"].astype(float), strict=True)
    else:
        options = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1}
        fitted = (module.XGBRegressor if kind == "number" else module.XGBClassifier)(**options)
        fitted.fit(fitting.to_numpy(), answers)
        converted = tools.convert_xgboost(fitted, initial_types=types, target_opset=15)
        splits = fitted.get_booster().trees_to_dataframe().dropna(subset=["Split"])
        thresholds = zip(splits["Feature"].str[1:].astype(int), splits["Split"], strict=True)
    with Client(url) as client:
        version = client.deploy("m", converted.SerializeToString(), sample=fitting, engine="sql")
    frame = compared_rows(Case(None, data, kind), thresholds, version.signature)
    compare(db, f"{library}, {kind}, {data}", version.signature, version.sha256, frame)


@pytest.fixture(scope="module", params=[one.major for one in find_embedded()])
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    installation = next(one for one in find_embedded() if one.major == request.param)
    with local_server(installation=installation) as server:
        yield server.start()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_versions_of_postgresql_without_python_answer_the_same(other_server: str, name: str) -> None:
    with database(other_server) as url, Client(url) as client, psycopg.connect(url, autocommit=True) as db:
        client.install()
        assert_exact(db, url, name, replace(CASES[name], rows=ROWS // 5))
