"""Whatever row is given, SQL answers what the native estimator answers, or refuses where that one refuses."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import ThreadpoolController

from dbscore import Client
from tests.conftest import database

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]

THREADS = ThreadpoolController()
FLOAT32_MAX = float(np.finfo(np.float32).max)
QUICKLY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
PLANS = ("basic", "größer", "it's", "🙂", "")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model in the database beside the estimator it came from.

    Attributes:
        name: The model's.
        estimator: The native one.
        types: SQL types by feature.
        gaps: The features in which NULL is a missing value; in the others it makes the prediction NULL.
    """

    name: str
    estimator: Any
    types: dict[str, str]
    gaps: frozenset[str]

    def native(self, row: dict[str, Any]) -> tuple[Any, list[float]] | None:
        """Return the native label and probabilities, None where a NULL makes them NULL; its errors pass through."""
        if any(value is None and name not in self.gaps for name, value in row.items()):
            return None
        frame = pd.DataFrame({n: [_native(v, self.types[n])] for n, v in row.items()})
        # one thread: OpenMP's threads wait for each other on a busy machine
        with np.errstate(all="ignore"), THREADS.limit(limits=1):
            return self.estimator.predict(frame)[0].item(), self.estimator.predict_proba(frame)[0].tolist()


def _native(value: Any, type_: str) -> Any:
    if value is None and type_ != "text":
        return math.nan
    return float(value) if type_ == "real" and value is not None else value


@pytest.fixture(scope="module")
def models(server_url: str, template: str) -> Iterator[tuple[Connection, dict[str, Deployed]]]:
    """A database with four models, and the estimators they came from."""
    with database(server_url, template) as url, psycopg.connect(url, autocommit=True) as db, Client(url) as client:
        made = {m.name: m for m in (_linear(client), _tree(client), _boosted(client), _encoded(client))}
        yield db, made


def _numbers() -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), columns=["a", "b", "c"])
    return frame, (frame.sum(axis=1) > 0).astype(int)


def _linear(client: Client) -> Deployed:
    frame, labels = _numbers()
    estimator = LogisticRegression(C=1e-3).fit(frame, labels)
    client.deploy("linear", estimator, sample=frame, engine="onnx")
    return Deployed("linear", estimator, dict.fromkeys(frame, "double precision"), frozenset())


def _tree(client: Client) -> Deployed:
    frame, labels = _numbers()
    frame = frame.astype({"b": "float32"})
    estimator = DecisionTreeClassifier(max_depth=6, random_state=0).fit(frame, labels)
    client.deploy("tree", estimator, sample=frame, engine="onnx")
    types = {"a": "double precision", "b": "real", "c": "double precision"}
    return Deployed("tree", estimator, types, frozenset())


def _boosted(client: Client) -> Deployed:
    frame, labels = _numbers()
    frame.loc[::5, "b"] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(frame, labels)
    client.deploy("boosted", estimator, sample=frame, engine="onnx")
    types = dict.fromkeys(frame, "double precision")
    return Deployed("boosted", estimator, types, frozenset(types))


def _encoded(client: Client) -> Deployed:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "plan": pd.Series(random.choice(PLANS, 400), dtype=object),
            "city": pd.Series(random.choice(["Ulm", "Łódź", "東京", 'a"b', "\\"], 400), dtype=object),
            "tier": pd.Series(random.choice(["low", "high"], 400), dtype=object),
            "visits": random.integers(-100, 100, 400).astype(np.int32),
            "account": random.integers(-(2**62), 2**62, 400),
            "active": random.random(400) > 0.5,
            "score": random.normal(size=400),
        }
    )
    frame.loc[::6, "city"] = np.nan
    frame.loc[::7, "score"] = np.nan
    labels = np.where(frame["visits"] > 0, "it's", "größer")
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["plan"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["tier"]),
        (SimpleImputer(), ["score"]),
        remainder="passthrough",
    )
    estimator = make_pipeline(encoder, DecisionTreeClassifier(max_depth=6, random_state=0)).fit(frame, labels)
    client.deploy("encoded", estimator, sample=frame, engine="onnx")
    types = {
        "plan": "text",
        "city": "text",
        "tier": "text",
        "visits": "integer",
        "account": "bigint",
        "active": "boolean",
        "score": "double precision",
    }
    return Deployed("encoded", estimator, types, frozenset({"city", "score"}))


def _ask(db: Connection, model: Deployed, row: dict[str, Any]) -> tuple[Any, list[float]] | None:
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}::{}").format(sql.Identifier(n), sql.Placeholder(), sql.SQL(model.types[n])) for n in row
    )
    called = sql.SQL("select {}({a}), {}({a})").format(
        sql.Identifier("models", model.name), sql.Identifier("models", f"{model.name}_proba"), a=arguments
    )
    values = list(row.values())
    found = db.execute(called, values + values).fetchone()
    assert found is not None
    assert (found[0] is None) == (found[1] is None)
    return None if found[0] is None else (found[0], found[1])


def _ask_json(db: Connection, model: Deployed, row: dict[str, Any]) -> tuple[Any, list[float]] | None:
    found = db.execute("select dbscore.predict(%s, %s::jsonb)", [model.name, json.dumps(row)]).fetchone()
    assert found is not None
    if found[0]["prediction"] is None:
        assert found[0]["probabilities"] is None
        return None
    classes = [str(c) for c in model.estimator.classes_.tolist()]
    assert set(found[0]["probabilities"]) == set(classes)
    return found[0]["prediction"], [float(found[0]["probabilities"][c]) for c in classes]


def assert_sql_answers_as_the_native_model(db: Connection, model: Deployed, row: dict[str, Any]) -> None:
    """Both ways into SQL give the native answer; ML002 where the native estimator raises; NULL for a NULL."""
    try:
        expected = model.native(row)
        refused = ""
    except ValueError as error:
        expected, refused = None, str(error)
    asked = [_ask]
    # JSON has neither NaN nor infinities
    if not any(isinstance(v, float) and not math.isfinite(v) for v in row.values()):
        asked.append(_ask_json)
    for ask in asked:
        if refused:
            with pytest.raises(psycopg.Error) as caught:
                ask(db, model, row)
            assert caught.value.sqlstate == "ML002", refused
            assert caught.value.diag.message_hint
            continue
        found = ask(db, model, row)
        if expected is None or found is None:
            assert found == expected
            continue
        assert found[0] == expected[0]
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)


SPECIAL = [
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    sys.float_info.min,
    1e-45,
    1e300,
    sys.float_info.max,
    -sys.float_info.max,
    FLOAT32_MAX,
    -FLOAT32_MAX,
    math.nan,
    math.inf,
    -math.inf,
]
DOUBLES = st.none() | st.floats() | st.sampled_from(SPECIAL) | st.floats(-4, 4)
REALS = st.none() | st.floats(width=32) | st.floats(-4, 4, width=32)
# PostgreSQL's text holds any character but NUL
TEXTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def integers(bits: int) -> st.SearchStrategy[int | None]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.none() | st.integers(low, high) | st.sampled_from([low, high, 0, -1])


Models = tuple[Connection, dict[str, Deployed]]


@QUICKLY
@given(a=DOUBLES, b=DOUBLES, c=DOUBLES)
@example(a=sys.float_info.max, b=sys.float_info.max, c=-sys.float_info.max)
def test_a_linear_model_answers_or_refuses_as_the_native_one(models: Models, a: Any, b: Any, c: Any) -> None:
    db, made = models
    assert_sql_answers_as_the_native_model(db, made["linear"], {"a": a, "b": b, "c": c})


@QUICKLY
@given(a=DOUBLES, b=REALS, c=DOUBLES)
@example(a=FLOAT32_MAX, b=FLOAT32_MAX, c=-FLOAT32_MAX)
def test_a_tree_answers_or_refuses_as_the_native_one(models: Models, a: Any, b: Any, c: Any) -> None:
    # a tree takes NaN also where it was fitted without any; dbscore asks for it to be fitted for it
    if any(value is not None and math.isnan(value) for value in (a, b, c)):
        return
    db, made = models
    assert_sql_answers_as_the_native_model(db, made["tree"], {"a": a, "b": b, "c": c})


@QUICKLY
@given(a=DOUBLES, b=DOUBLES, c=DOUBLES)
@example(a=None, b=None, c=None)
@example(a=math.nan, b=math.inf, c=-math.inf)
def test_boosted_trees_take_missing_and_infinite_numbers_as_the_native_ones(
    models: Models, a: Any, b: Any, c: Any
) -> None:
    db, made = models
    assert_sql_answers_as_the_native_model(db, made["boosted"], {"a": a, "b": b, "c": c})


@QUICKLY
@given(
    plan=st.sampled_from(PLANS) | TEXTS,
    city=st.sampled_from(["Ulm", "Łódź", "東京", 'a"b', "\\"]) | TEXTS,
    tier=st.sampled_from(["low", "high"]) | TEXTS.filter(lambda t: t is not None),
    visits=integers(32),
    account=integers(64),
    active=st.none() | st.booleans(),
    score=DOUBLES,
)
@example(plan="", city=None, tier="LOW", visits=2**31 - 1, account=2**63 - 1, active=True, score=None)
@example(plan="Basic", city="", tier="", visits=-(2**31), account=-(2**63), active=False, score=0.0)
@example(plan="basic\n", city="\n\t\\'\"", tier="$1", visits=0, account=2**53 + 1, active=True, score=1e38)
def test_encoded_texts_integers_and_booleans_answer_or_are_refused_as_natively(
    models: Models, plan: Any, city: Any, tier: Any, visits: Any, account: Any, active: Any, score: Any
) -> None:
    db, made = models
    row = {
        "plan": plan,
        "city": city,
        "tier": tier,
        "visits": visits,
        "account": account,
        "active": active,
        "score": score,
    }
    assert_sql_answers_as_the_native_model(db, made["encoded"], row)
