"""What analysts SELECT: forms, types, NULLs, values that a model cannot take, parallel plans."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dbscore.errors import FeatureError
from tests.conftest import both_engines, onnx_only

if TYPE_CHECKING:
    from dbscore import Client

pytestmark = both_engines

Connection = psycopg.Connection[Any]


def numbers(rows: int = 300, columns: int = 3) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(rows, columns))
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(columns)])


def sign(frame: pd.DataFrame) -> pd.Series:
    return (frame.sum(axis=1) > 0).astype(int)


def one(db: Connection, statement: str, *parameters: Any) -> Any:
    return db.execute(statement, parameters).fetchone()[0]


@pytest.fixture
def logistic(client: Client, db: Connection) -> LogisticRegression:
    """`tip` over the table `trips`, whose column `note` is no feature."""
    frame = numbers()
    db.execute("create table trips (id int primary key, x0 float8, x1 numeric, x2 real, note text)")
    with db.cursor().copy("copy trips (id, x0, x1, x2) from stdin") as copy:
        for i, row in enumerate(frame.itertuples(index=False)):
            copy.write_row((i, *row))
    model = LogisticRegression().fit(frame, sign(frame))
    client.deploy("tip", model, sample=frame.astype({"x2": "float32"}), table="trips")
    return model


def test_a_row_an_array_named_arguments_json_and_the_virtual_column_agree(
    logistic: LogisticRegression, db: Connection, engine: str
) -> None:
    db.execute("set search_path = public, models")
    rows = db.execute(
        """select models.tip_score(t), models.tip_score(array[t.x0, t.x1, t.x2]),
                  models.tip_score(x2 => t.x2, x0 => t.x0, x1 => t.x1), t.tip_score,
                  (models.tip_proba(t))[2],
                  (dbscore.predict('tip', jsonb_build_object('x0', x0, 'x1', x1, 'x2', x2)) -> 'probabilities' ->> '1')::float8
           from trips t"""
    ).fetchall()
    assert len(rows) == 300
    for row in rows:
        assert len(set(row[:-1])) == 1
        # JSON goes through PL/Python where it is there, whatever the engine
        assert row[-1] == (pytest.approx(row[0], rel=1e-12) if engine == "sql" else row[0])


def test_every_row_equals_the_native_model_joined_on_the_key(logistic: LogisticRegression, db: Connection) -> None:
    frame = pd.DataFrame(
        db.execute("select id, x0, x1::float8, x2::float8, models.tip(t), models.tip_score(t) from trips t").fetchall(),
        columns=["id", "x0", "x1", "x2", "label", "score"],
    ).set_index("id")
    features = frame[["x0", "x1", "x2"]]
    assert (logistic.predict(features) == frame.label).all()
    np.testing.assert_allclose(frame.score, logistic.predict_proba(features)[:, 1], rtol=1e-9, atol=1e-12)


@onnx_only
def test_the_call_is_inlined_and_the_model_is_pinned_when_planned(logistic: LogisticRegression, db: Connection) -> None:
    plan = "\n".join(r[0] for r in db.execute("explain verbose select models.tip(t) from trips t").fetchall())
    assert "dbscore_engine.tip_v1('" in plan
    assert "models." not in plan


@pytest.mark.parametrize("missing", ["x0", "x1", "x2"])
def test_a_null_feature_gives_a_null_prediction(logistic: LogisticRegression, db: Connection, missing: str) -> None:
    arguments = ", ".join(f"{c} => {'null' if c == missing else '1'}" for c in ("x0", "x1", "x2"))
    assert db.execute(
        f"select models.tip({arguments}), models.tip_proba({arguments}), models.tip_score({arguments})"
    ).fetchone() == (None, None, None)
    row = {c: None if c == missing else 1 for c in ("x0", "x1", "x2")}
    answer = one(db, "select dbscore.predict('tip', %s)", json.dumps(row))
    assert answer == {"model": "tip", "version": 1, "prediction": None, "probabilities": None}


def test_a_missing_value_that_the_model_was_trained_with_is_scored(client: Client, db: Connection) -> None:
    frame = numbers()
    labels = sign(frame)
    frame.loc[::7, "x1"] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20).fit(frame, labels)
    client.deploy("tip", model, sample=frame)
    expected = model.predict_proba(pd.DataFrame({"x0": [0.5], "x1": [np.nan], "x2": [-0.1]}))[0, 1]
    assert one(db, "select models.tip_score(0.5, null, -0.1)") == pytest.approx(expected, rel=1e-12)
    assert one(db, "select models.tip_score(0.5, 'nan', -0.1)") == pytest.approx(expected, rel=1e-12)
    assert one(db, "select models.tip_score(array[0.5, null, -0.1])") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "sql_type"),
    [
        (np.array([False, True]), "boolean"),
        (np.array([0, 1], dtype=np.int16), "smallint"),
        (np.array([0, 1], dtype=np.int32), "integer"),
        (np.array([0, 7_000_000_000]), "bigint"),
        (np.array(["no", "yes, it's"]), "text"),
    ],
)
def test_a_prediction_has_the_labels_own_type(
    client: Client, db: Connection, labels: np.ndarray, sql_type: str
) -> None:
    frame = numbers()
    model = LogisticRegression().fit(frame, labels[sign(frame)])
    client.deploy("tip", model, sample=frame)
    kind, value = db.execute(
        "select pg_typeof(p)::text, p from (select models.tip(x0 => 3, x1 => 3, x2 => 3) as p) as q"
    ).fetchone()
    assert kind == sql_type
    assert value == labels[1].item()


def test_text_and_null_text_equal_the_native_model(client: Client, db: Connection) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"plan": rng.choice(["basic", "gold", "o'neil"], 200).astype(object), "age": rng.normal(size=200)}
    )
    frame.loc[::9, "plan"] = np.nan
    target = ((frame.plan == "gold") ^ (frame.age > 0)).astype(int)
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    model = make_pipeline(make_column_transformer((texts, ["plan"]), (StandardScaler(), ["age"])), LogisticRegression())
    model.fit(frame, target)
    client.deploy("churn", model, sample=frame)
    for plan in ("basic", "o'neil", None, "never seen"):
        expected = model.predict_proba(pd.DataFrame({"plan": [np.nan if plan is None else plan], "age": [0.3]}))[0, 1]
        assert one(db, "select models.churn_score(plan => %s, age => 0.3)", plan) == pytest.approx(expected, rel=1e-9)


def test_a_category_that_the_encoder_refuses_is_refused_with_ml002_and_the_known_ones(
    client: Client, db: Connection
) -> None:
    frame = pd.DataFrame({"plan": ["basic", "gold"] * 50, "age": np.linspace(0, 1, 100)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough"), LogisticRegression()
    )
    client.deploy("churn", model.fit(frame, [0, 1] * 50), sample=frame)
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select models.churn(plan => 'platinum', age => 1)")
    assert caught.value.sqlstate == "ML002"
    assert "'platinum'" in caught.value.diag.message_primary
    assert "'basic', 'gold'" in caught.value.diag.message_hint


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused_where_the_native_model_refuses_them(
    logistic: LogisticRegression, db: Connection, value: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select models.tip(1, %s, 1)", [value])
    assert caught.value.sqlstate == "ML002"
    assert "x1 is " + value in caught.value.diag.message_primary
    assert caught.value.diag.message_hint


def test_infinity_is_scored_where_the_native_model_takes_it(client: Client, db: Connection) -> None:
    frame = numbers()
    model = HistGradientBoostingClassifier(max_iter=10).fit(frame, sign(frame))
    client.deploy("tip", model, sample=frame)
    expected = model.predict_proba(pd.DataFrame({"x0": [np.inf], "x1": [0.0], "x2": [-np.inf]}))[0, 1]
    assert one(db, "select models.tip_score('inf', 0, '-inf')") == pytest.approx(expected, rel=1e-12)


def test_a_number_too_large_for_the_trees_float32_is_refused_as_the_native_model_does(
    client: Client, db: Connection
) -> None:
    frame = numbers()
    model = DecisionTreeClassifier(max_depth=3).fit(frame, sign(frame))
    with pytest.raises(ValueError, match="too large"), np.errstate(over="ignore"):
        model.predict(pd.DataFrame({"x0": [1e300], "x1": [0.0], "x2": [0.0]}))
    client.deploy("tip", model, sample=frame)
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select models.tip(1e300, 0, 0)")
    assert caught.value.sqlstate == "ML002"
    assert "1e+300" in caught.value.diag.message_primary


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ('{"x0": 1, "x1": 2}', "x2 is missing"),
        ('{"x0": 1, "x1": 2, "x2": 3, "x9": 4}', "'x9' is unknown"),
        ('{"x0": 1, "x1": "2", "x2": 3}', 'x1 is "2", not of type'),
        ('{"x0": 1, "x1": true, "x2": 3}', "x1 is true, not of type"),
        ("[1, 2, 3]", "not a JSON object"),
    ],
)
def test_wrong_json_is_refused_with_ml002(
    logistic: LogisticRegression, db: Connection, features: str, message: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select dbscore.predict('tip', %s)", [features])
    assert caught.value.sqlstate == "ML002"
    assert message in caught.value.diag.message_primary
    assert caught.value.diag.message_hint


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("nope", "no model 'nope'", "tip"),
        ("tip@canary", "no alias 'canary'", "champion"),
        ("tip:9", "no version 9", "1"),
        ("tip:", "not a reference", "churn:3"),
    ],
)
def test_an_unknown_reference_is_refused_with_ml001(
    logistic: LogisticRegression, db: Connection, reference: str, message: str, hint: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select dbscore.predict(%s, '{}')", [reference])
    assert caught.value.sqlstate == "ML001"
    assert message in caught.value.diag.message_primary
    assert hint in caught.value.diag.message_hint


@pytest.mark.parametrize("array", ["array[1, 2]", "array[1, 2, 3, 4]", "array[[1, 2, 3]]", "'{}'"])
def test_an_array_of_the_wrong_shape_is_refused(logistic: LogisticRegression, db: Connection, array: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"select models.tip({array}::float8[])")
    assert caught.value.sqlstate == "ML002"


def test_a_wrong_type_or_a_missing_argument_is_postgresqls_own_error(
    logistic: LogisticRegression, db: Connection
) -> None:
    for call in ("models.tip(1, 2)", "models.tip(x0 => 1, x1 => 2, y => 3)", "models.tip(1, now(), 2)"):
        with pytest.raises(psycopg.errors.UndefinedFunction):
            db.execute(f"select {call}")


def test_multi_output_regression_gives_an_array(client: Client, db: Connection) -> None:
    frame = numbers()
    targets = np.column_stack([frame.x0 * 2, frame.x1 + frame.x2])
    client.deploy("pair", LinearRegression().fit(frame, targets), sample=frame)
    assert one(db, "select models.pair(1, 2, 3)") == pytest.approx([2, 5])
    assert one(db, "select models.pair(1, null, 3)") is None


def test_a_transformer_gives_its_vector_a_clusterer_its_label_an_outlier_detector_its_verdict(
    client: Client, db: Connection
) -> None:
    frame = numbers()
    pca, means, forest = (
        PCA(2).fit(frame),
        KMeans(3, n_init=1, random_state=0).fit(frame),
        IsolationForest(n_estimators=10, random_state=0).fit(frame),
    )
    row = pd.DataFrame([[0.5, -1.0, 2.0]], columns=frame.columns)
    for name, model in (("space", pca), ("segment", means), ("odd", forest)):
        client.deploy(name, model, sample=frame)
    assert one(db, "select models.space(0.5, -1, 2)") == pytest.approx(pca.transform(row)[0], rel=1e-6)
    assert one(db, "select models.segment(0.5, -1, 2)") == means.predict(row)[0]
    assert one(db, "select models.odd(0.5, -1, 2)") == forest.predict(row)[0]
    assert one(db, "select models.odd(50, -100, 200)") == -1


def test_an_embedding_is_one_array_argument(client: Client, db: Connection) -> None:
    frame = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(frame, (frame[:, 0] > 0).astype(int))
    client.deploy("topic", model, sample=frame, embedding="embedding")
    expected = model.predict(frame[:1])[0]
    assert one(db, "select models.topic(embedding => %s::real[])", frame[0].tolist()) == expected
    with pytest.raises(psycopg.Error, match="array of 2 elements") as caught:
        db.execute("select models.topic(embedding => array[1, 2]::real[])")
    assert caught.value.sqlstate == "ML002"


@pytest.mark.parametrize("columns", [99, 100, 101, 300])
def test_models_at_and_above_the_limit_of_arguments_take_rows_arrays_and_json(
    client: Client, db: Connection, columns: int
) -> None:
    frame = numbers(200, columns)
    model = LogisticRegression().fit(frame, sign(frame))
    db.execute(f"create table wide ({', '.join(f'{c} float8' for c in frame.columns)})")
    values = frame.iloc[0].tolist()
    db.execute(f"insert into wide values ({', '.join(['%s'] * columns)})", values)
    client.deploy("wide", model, sample=frame, table="wide")
    expected = pytest.approx(model.predict_proba(frame.iloc[:1])[0, 1], rel=1e-9)
    assert one(db, "select models.wide_score(w) from wide w") == expected
    assert one(db, "select models.wide_score(%s::float8[])", values) == expected
    answer = one(db, "select dbscore.predict('wide', to_jsonb(w)) from wide w")
    assert answer["probabilities"]["1"] == expected
    if columns <= 100:
        named = ", ".join(f"{c} => %s" for c in frame.columns)
        assert one(db, f"select models.wide_score({named})", *values) == expected


def test_a_wide_model_with_text_takes_rows_and_json(client: Client, db: Connection) -> None:
    frame = numbers(200, 120)
    frame.insert(60, "plan", ["a", "b", "c", "d"] * 50)
    encoded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    model = make_pipeline(encoded, LogisticRegression()).fit(frame, sign(frame.drop(columns="plan")))
    kinds = ", ".join(f"{c} {'text' if c == 'plan' else 'float8'}" for c in frame.columns)
    db.execute(f"create table wide ({kinds})")
    db.execute(f"insert into wide values ({', '.join(['%s'] * 121)})", frame.iloc[1].tolist())
    client.deploy("wide", model, sample=frame, table="wide")
    expected = pytest.approx(model.predict_proba(frame.iloc[1:2])[0, 1], rel=1e-9)
    assert one(db, "select models.wide_score(w) from wide w") == expected
    assert one(db, "select dbscore.predict('wide', to_jsonb(w)) from wide w")["probabilities"]["1"] == expected


def test_scikit_learns_own_feature_names_become_identifiers(client: Client, db: Connection) -> None:
    frame = numbers().rename(columns={"x0": "sepal length (cm)", "x1": "Größe", "x2": "order"})
    client.deploy("tip", LogisticRegression().fit(frame, sign(frame)), sample=frame)
    assert one(db, """select models.tip(sepal_length_cm => 1, größe => 1, "order" => 1)""") == 1


def test_features_that_collide_as_identifiers_are_refused(client: Client) -> None:
    frame = numbers().rename(columns={"x0": "a b", "x1": "a-b"})
    with pytest.raises(FeatureError, match="both become"):
        client.deploy("tip", LogisticRegression().fit(frame, sign(frame)), sample=frame)


def test_a_date_column_is_refused_with_the_way_to_extract_a_number(client: Client, db: Connection) -> None:
    frame = numbers()
    db.execute("create table trips (x0 float8, x1 float8, x2 timestamptz)")
    with pytest.raises(FeatureError, match="x2") as caught:
        client.deploy("tip", LogisticRegression().fit(frame, sign(frame)), sample=frame, table="trips")
    assert "extract(" in caught.value.remedy


def test_a_table_without_a_feature_is_refused_and_nothing_is_deployed(client: Client, db: Connection) -> None:
    frame = numbers()
    db.execute("create table trips (x0 float8, x1 float8)")
    with pytest.raises(FeatureError, match="x2"):
        client.deploy("tip", LogisticRegression().fit(frame, sign(frame)), sample=frame, table="trips")
    assert client.models() == []


def test_a_generated_column_and_an_expression_index_use_the_version(
    logistic: LogisticRegression, db: Connection
) -> None:
    db.execute(
        "create table scored (x0 float8, x1 float8, x2 real, tip float8 generated always as (models.tip_v1_score(x0, x1, x2)) stored)"
    )
    db.execute("insert into scored values (1, 2, 3)")
    assert one(db, "select tip = models.tip_score(1, 2, 3) from scored")
    db.execute("create index on trips (models.tip_v1_score(x0, x1::float8, x2))")
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="IMMUTABLE"):
        db.execute("create index on trips (models.tip_score(x0, x1::float8, x2))")


def test_parallel_workers_score_with_the_same_answers(logistic: LogisticRegression, db: Connection) -> None:
    version = int(one(db, "show server_version_num"))
    forced = "debug_parallel_query" if version >= 160000 else "force_parallel_mode"
    serial = one(db, "select sum(models.tip_score(t)) from trips t")
    db.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
    db.execute("alter table trips set (parallel_workers = 2)")
    plan = db.execute("explain (analyze, verbose) select avg(models.tip_score(t)) from trips t").fetchall()
    assert any("Workers Launched: 2" in line for (line,) in plan)
    assert one(db, "select sum(models.tip_score(t)) from trips t") == pytest.approx(serial, rel=1e-12)
    db.execute(f"set {forced} = on")
    assert one(db, "select sum(models.tip_score(t)) from trips t") == pytest.approx(serial, rel=1e-12)
    assert one(db, "select count(models.tip_proba(t)) from trips t") == 300


def test_a_statement_sees_one_version_whatever_is_promoted_meanwhile(
    logistic: LogisticRegression, client: Client, db: Connection
) -> None:
    frame = numbers()
    client.deploy("tip", LogisticRegression(C=0.001).fit(frame, sign(frame)), sample=frame)
    with db.cursor("scan") as cursor, db.transaction():
        cursor.itersize = 10
        cursor.execute("select models.tip_score(t), models.tip_v1_score(t) from trips t")
        first = cursor.fetchmany(10)
        client.promote("tip:2")
        rest = cursor.fetchall()
    assert all(a == b for a, b in first + rest)
    assert one(db, "select models.tip_score(t) = models.tip_v2_score(t) from trips t limit 1")


def test_prepared_statements_follow_a_promotion(logistic: LogisticRegression, client: Client, db: Connection) -> None:
    frame = numbers()
    client.deploy("tip", LogisticRegression(C=0.001).fit(frame, sign(frame)), sample=frame)
    db.execute("prepare p as select models.tip_score(1, 2, 3)")
    before = one(db, "execute p")
    client.promote("tip:2")
    assert one(db, "execute p") == one(db, "select models.tip_v2_score(1, 2, 3)") != before


@onnx_only
def test_the_session_cache_is_bounded_in_bytes_and_shown(client: Client, db: Connection, url: str) -> None:
    frame = numbers()
    for i in range(3):
        client.deploy(f"m{i}", LogisticRegression(C=i + 1).fit(frame, sign(frame)), sample=frame)
    with psycopg.connect(url, autocommit=True) as fresh:
        for i in range(3):
            fresh.execute(f"select models.m{i}(1, 2, 3)")
        loaded = fresh.execute("select reference, calls, bytes from dbscore.sessions()").fetchall()
        assert [(r, c) for r, c, _ in loaded] == [("m0:1", 1), ("m1:1", 1), ("m2:1", 1)]
    with psycopg.connect(url, autocommit=True) as fresh:
        fresh.execute("set dbscore.session_cache = '1kB'")
        for i in range(3):
            fresh.execute(f"select models.m{i}(1, 2, 3)")
        assert fresh.execute("select reference from dbscore.sessions()").fetchall() == [("m2:1",)]
        # an evicted model comes back
        assert one(fresh, "select models.m0(1, 2, 3) is not null")


@onnx_only
def test_a_damaged_file_in_the_data_directory_is_written_anew(
    logistic: LogisticRegression, db: Connection, url: str
) -> None:
    sha256 = one(db, "select sha256 from dbscore.versions")
    damage = "copy (select 'garbage') to program %s"
    path = one(db, "show data_directory") + f"/dbscore/{sha256}.onnx"
    db.execute(damage.replace("%s", f"'cat > {path}'"))
    with psycopg.connect(url, autocommit=True) as fresh:
        assert one(fresh, "select models.tip(1, 2, 3)") == 1
        db.execute(f"copy (select 1) to program 'cat > /dev/null; rm {path}'")
        assert one(fresh, "select models.tip(1, 2, 3)") == 1
    with psycopg.connect(url, autocommit=True) as fresh:
        assert one(fresh, "select models.tip(1, 2, 3)") == 1


@onnx_only
def test_an_artifact_that_was_altered_is_not_run(logistic: LogisticRegression, db: Connection, url: str) -> None:
    sha256 = one(db, "select sha256 from dbscore.versions")
    db.execute("update dbscore.artifact set bytes = set_byte(bytes, 10, get_byte(bytes, 10) # 1)")
    db.execute(
        f"copy (select 1) to program 'cat > /dev/null; rm {one(db, 'show data_directory')}/dbscore/{sha256}.onnx'"
    )
    with psycopg.connect(url, autocommit=True) as fresh, pytest.raises(psycopg.Error, match="have the hash") as caught:
        fresh.execute("select models.tip(1, 2, 3)")
    assert caught.value.sqlstate == "ML005"


def test_a_nan_answer_is_nan_and_not_an_error(client: Client, db: Connection) -> None:
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Log", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "log",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    client.deploy("log", model.SerializeToString())
    assert math.isnan(one(db, "select models.log(-1)"))
    assert one(db, "select models.log(1)") == 0
    assert one(db, """select dbscore.predict('log', '{"x": -1}')""")["prediction"] == "nan"


def test_an_index_is_built_by_parallel_workers_and_a_setting_that_is_no_size_is_only_warned_of(
    logistic: LogisticRegression, db: Connection, url: str
) -> None:
    db.execute(
        "create table many as select i::float8 as x0, 1::float8 as x1, 1::real as x2 from generate_series(1, 3000) i"
    )
    db.execute("alter table many set (parallel_workers = 2)")
    with psycopg.connect(url, autocommit=True) as fresh:
        fresh.execute("set dbscore.session_cache = 'abc'")
        fresh.execute(
            "set max_parallel_maintenance_workers = 2; set maintenance_work_mem = '256MB'; set min_parallel_table_scan_size = 0"
        )
        fresh.execute("create index on many (models.tip_v1_score(x0, x1, x2))")
        fresh.execute("create index concurrently on many (models.tip_v1_score(x0, x2, x2))")
        assert one(fresh, "select count(*) from many where models.tip_v1_score(x0, x1, x2) >= 0") == 3000


def test_the_same_bytes_under_two_signatures_answer_each_in_its_own_way(client: Client, db: Connection) -> None:
    frame = numbers()
    content = client.export(
        client.deploy("named", LogisticRegression().fit(frame, sign(frame)), sample=frame).reference
    )
    client.deploy("packed", content)
    assert db.execute(
        "select models.named(1, 2, 3), models.packed(array[1, 2, 3]::float8[]), models.named(null, 2, 3), models.packed(null)"
    ).fetchone() == (1, 1, None, None)
