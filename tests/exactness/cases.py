"""The models that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

ROWS = 100_000
RELATIVE = 1e-6


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
