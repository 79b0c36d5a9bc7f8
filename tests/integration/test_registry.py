"""Deploy, promote, roll back, retire, drop: what the registry keeps and what it refuses."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from dbscore import Client
from dbscore.errors import DbscoreError, InUseError, NameRefusedError, NotFoundError
from dbscore.registry import comparison, deployment

if TYPE_CHECKING:
    from types import ModuleType

    from sklearn.base import BaseEstimator


def frame(seed: int = 0, rows: int = 200) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(rows, 3)), columns=["a", "b", "c"])


def classifier(seed: int = 0) -> BaseEstimator:
    X = frame(seed)
    return LogisticRegression().fit(X, (X.sum(axis=1) > 0).astype(int))


@pytest.fixture
def tip(client: Client) -> Client:
    """A client with the model `tip` in three versions, the first its champion."""
    for seed in range(3):
        client.deploy("tip", classifier(seed), sample=frame(seed))
    return client


def test_the_first_version_becomes_the_champion_and_later_ones_do_not(tip: Client) -> None:
    assert [(v.number, v.aliases) for v in tip.versions("tip")] == [(1, ("champion",)), (2, ()), (3, ())]


def test_the_same_bytes_deployed_twice_are_one_version(client: Client, db: psycopg.Connection[Any]) -> None:
    first = client.deploy("tip", classifier(), sample=frame())
    again = client.deploy("tip", classifier(), sample=frame())
    assert again == first
    assert db.execute("select count(*) from dbscore.version").fetchone() == (1,)


def test_the_same_bytes_with_another_table_are_one_version_with_one_more_form(
    client: Client, db: psycopg.Connection[Any]
) -> None:
    db.execute("create table t (a float8, b float8, c float8); insert into t values (1, 2, 3)")
    client.deploy("tip", classifier(), sample=frame())
    assert client.deploy("tip", classifier(), sample=frame(), table="t").number == 1
    assert db.execute("select models.tip(t), models.tip_v1(t) from t").fetchone() == (1, 1)


def test_what_was_compared_is_kept_with_the_version(client: Client) -> None:
    parity = client.deploy("tip", classifier(), sample=frame()).parity
    assert parity is not None
    assert parity["rows"]["sample"] == 200
    assert parity["rows"]["database"] > 100
    assert set(parity["mismatches"].values()) == {0}


def test_bytes_shared_by_two_models_are_stored_once(client: Client, db: psycopg.Connection[Any]) -> None:
    client.deploy("one", classifier(), sample=frame())
    client.deploy("two", classifier(), sample=frame())
    assert db.execute("select count(*) from dbscore.artifact").fetchone() == (1,)
    client.drop("one", with_aliases=True)
    assert db.execute("select count(*) from dbscore.artifact").fetchone() == (1,)
    client.drop("two", with_aliases=True)
    assert db.execute("select count(*) from dbscore.artifact").fetchone() == (0,)


def test_export_gives_the_stored_bytes(tip: Client, tmp_path: Any) -> None:
    path = tmp_path / "tip.onnx"
    content = tip.export("tip:2", path)
    assert path.read_bytes() == content
    assert tip.deploy("copy", content).sha256 == tip.show("tip:2").sha256


def test_promotion_moves_the_alias_and_the_function_and_writes_history(
    tip: Client, db: psycopg.Connection[Any]
) -> None:
    tip.promote("tip:2", reason="better")
    assert tip.show("tip").number == 2
    assert (
        db.execute("select obj_description('models.tip(float8, float8, float8)'::regprocedure)")
        .fetchone()[0]
        .startswith("tip (champion) is version 2")
    )
    last = tip.history("tip")[-1]
    assert (last.action, last.alias, last.from_number, last.to_number, last.reason) == (
        "promote", "champion", 1, 2, "better",
    )  # fmt: skip
    assert last.moved_by == db.execute("select session_user").fetchone()[0]


def test_rollback_goes_back_one_promotion_at_a_time(tip: Client) -> None:
    tip.promote("tip:2")
    tip.promote("tip:3")
    assert tip.rollback("tip").number == 2
    assert tip.rollback("tip").number == 1
    with pytest.raises(NotFoundError, match="no earlier version"):
        tip.rollback("tip")


def test_rollback_passes_over_a_version_that_was_dropped(tip: Client) -> None:
    tip.promote("tip:2")
    tip.promote("tip:3")
    tip.drop("tip:2")
    assert tip.rollback("tip").number == 1


def test_a_promotion_rolled_back_with_its_transaction_leaves_no_trace(tip: Client, url: str) -> None:
    from dbscore import registry
    from dbscore.database import connect

    engine = connect(url)
    with engine.connect() as connection:
        registry.promote(connection, "tip", 2)
        connection.rollback()
    assert tip.show("tip").number == 1
    assert len(tip.history("tip")) == 1


def test_a_version_with_an_alias_is_neither_dropped_nor_retired(tip: Client) -> None:
    for action in (tip.drop, tip.retire):
        with pytest.raises(InUseError, match="champion stands for it") as caught:
            action("tip:1")
        assert "unalias" in caught.value.remedy


def test_a_retired_version_keeps_its_row_but_not_its_functions(tip: Client, db: psycopg.Connection[Any]) -> None:
    assert tip.retire("tip:2").status == "retired"
    assert db.execute("select to_regproc('models.tip_v2')").fetchone() == (None,)
    with pytest.raises(InUseError, match="retired"):
        tip.promote("tip:2")


def test_a_version_that_a_view_uses_is_not_dropped(tip: Client, db: psycopg.Connection[Any]) -> None:
    db.execute("create view v as select models.tip_v2(1, 2, 3)")
    with pytest.raises(InUseError, match=r"view public\.v"):
        tip.drop("tip:2")
    assert tip.show("tip:2").status == "active"


def test_numbers_are_not_used_again_after_a_drop(tip: Client) -> None:
    tip.drop("tip:3")
    assert tip.deploy("tip", classifier(9), sample=frame(9)).number == 4


def test_the_history_outlives_the_model(tip: Client) -> None:
    tip.drop("tip", with_aliases=True)
    assert [m.action for m in tip.history("tip")] == ["promote", "remove"]


@pytest.mark.parametrize(
    ("reference", "message", "remedy"),
    [
        ("nope", "no model 'nope'", "tip"),
        ("tip@canary", "no alias 'canary'", "champion"),
        ("tip:9", "no version 9", "1, 2, 3"),
        ("tip:x", "not a reference", "churn:3"),
    ],
)
def test_an_unknown_reference_names_those_there_are(tip: Client, reference: str, message: str, remedy: str) -> None:
    with pytest.raises(NotFoundError, match=message) as caught:
        tip.show(reference)
    assert remedy in caught.value.remedy
    assert caught.value.sqlstate == "ML001"


@pytest.mark.parametrize("name", ["Tip", "1tip", "ti-p", "", "tip!", "a" * 49, "tip_v1", 'x"; drop table y'])
def test_a_name_that_cannot_be_a_function_is_refused(client: Client, name: str) -> None:
    with pytest.raises(NameRefusedError) as caught:
        client.deploy(name, classifier(), sample=frame())
    assert caught.value.sqlstate == "ML003"
    assert client.models() == []


def test_a_name_of_48_characters_works(client: Client, db: psycopg.Connection[Any]) -> None:
    name = "a" * 48
    client.deploy(name, classifier(), sample=frame())
    assert db.execute(f"select models.{name}_v1_proba(0, 0, 0) is not null").fetchone() == (True,)


def test_an_alias_that_would_make_too_long_a_function_name_is_refused(client: Client) -> None:
    client.deploy("a" * 48, classifier(), sample=frame())
    with pytest.raises(NameRefusedError, match="63"):
        client.promote("a" * 48 + ":1", alias="challenger")
    assert client.show("a" * 48).aliases == ("champion",)


def test_a_name_that_collides_with_a_function_is_refused(client: Client, db: psycopg.Connection[Any]) -> None:
    db.execute("create function models.tip(integer) returns integer language sql return 1")
    with pytest.raises(NameRefusedError, match=r"models\.tip is there already"):
        client.deploy("tip", classifier(), sample=frame())
    assert client.models() == []


def test_a_model_cannot_take_the_name_of_another_ones_function(client: Client) -> None:
    client.deploy("tip", classifier(), sample=frame())
    with pytest.raises(NameRefusedError, match="tip_proba"):
        client.deploy("tip_proba", classifier(), sample=frame())


@pytest.mark.parametrize("alias", ["v2", "proba", "Best", "a b", ""])
def test_an_alias_that_cannot_be_told_from_a_version_or_a_result_is_refused(tip: Client, alias: str) -> None:
    with pytest.raises(NameRefusedError):
        tip.promote("tip:2", alias=alias)


def test_two_promotions_at_once_wait_for_each_other_and_both_are_recorded(tip: Client, url: str) -> None:
    from dbscore import registry
    from dbscore.database import connect

    moved = threading.Event()
    with connect(url).begin() as first:
        registry.promote(first, "tip", 2, reason="first")

        def second() -> None:
            with Client(url) as other:
                other.promote("tip:3", reason="second")
            moved.set()

        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        assert not moved.is_set()
    thread.join(timeout=20)
    assert moved.is_set()
    assert [(m.from_number, m.to_number, m.reason) for m in tip.history("tip")[1:]] == [
        (1, 2, "first"),
        (2, 3, "second"),
    ]
    assert tip.show("tip").number == 3


# while an engine is tried, and when the functions are there and the version has no alias yet
@pytest.mark.parametrize(("module", "step"), [(comparison, "verify"), (deployment, "grant_all")])
def test_a_connection_lost_in_the_middle_of_a_deployment_leaves_nothing(
    client: Client, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    def cut(connection: Any, *_: Any) -> None:
        pid = connection.connection.driver_connection.info.backend_pid
        db.execute("select pg_terminate_backend(%s)", [pid])
        connection.exec_driver_sql("select 1")

    monkeypatch.setattr(module, step, cut)
    with pytest.raises((DbscoreError, psycopg.Error)):
        client.deploy("tip", classifier(), sample=frame())
    for table in ("artifact", "model", "version", "alias", "alias_history"):
        assert db.execute(f"select count(*) from dbscore.{table}").fetchone() == (0,)
    assert db.execute("select count(*) from pg_proc where proname ~ '^tip'").fetchone() == (0,)


def test_a_promotion_to_other_features_replaces_the_functions(client: Client, db: psycopg.Connection[Any]) -> None:
    client.deploy("price", LinearRegression().fit(frame(), frame()["a"]), sample=frame())
    two = frame()[["a", "b"]]
    client.deploy("price", LinearRegression().fit(two, two["b"]), sample=two, alias="champion")
    assert db.execute("select round(models.price(1, 2)::numeric, 6)").fetchone()[0] == 2
    with pytest.raises(psycopg.errors.UndefinedFunction):
        db.execute("select models.price(1, 2, 3)")


def test_a_promotion_that_would_break_a_view_is_refused_whole(client: Client, db: psycopg.Connection[Any]) -> None:
    client.deploy("price", LinearRegression().fit(frame(), frame()["a"]), sample=frame())
    two = frame()[["a", "b"]]
    client.deploy("price", LinearRegression().fit(two, two["b"]), sample=two)
    db.execute("create view v as select models.price(1, 2, 3)")
    with pytest.raises(InUseError, match=r"view public\.v"):
        client.promote("price:2")
    assert client.show("price").number == 1
    assert len(client.history("price")) == 1


def test_a_table_that_was_made_anew_is_scored_after_the_next_move(client: Client, db: psycopg.Connection[Any]) -> None:
    make = "create table t (a float8, b float8, c float8); insert into t values (1, 2, 3)"
    db.execute(make)
    for seed in range(2):
        client.deploy("tip", classifier(seed), sample=frame(seed), table="t")
    db.execute("drop table t cascade")
    db.execute(make)
    client.promote("tip:2")
    assert db.execute("select models.tip(t), models.tip_v2(t) from t").fetchone() == (1, 1)
    client.rollback("tip")
    assert db.execute("select models.tip(t) = models.tip_v1(t) from t").fetchone() == (True,)


def test_a_table_keeps_its_form_when_it_is_renamed_and_loses_it_when_it_no_longer_fits(
    client: Client, db: psycopg.Connection[Any]
) -> None:
    db.execute("create table t (a float8, b float8, c float8); insert into t values (1, 2, 3)")
    for seed in range(2):
        client.deploy("tip", classifier(seed), sample=frame(seed), table="t")
    db.execute("alter table t rename to renamed")
    client.promote("tip:2")
    assert db.execute("select models.tip(r) from renamed r").fetchone() == (1,)
    db.execute("alter table renamed alter column b type text")
    client.rollback("tip")
    assert client.show("tip").number == 1
    with pytest.raises(psycopg.errors.UndefinedFunction):
        db.execute("select models.tip(r) from renamed r")


def test_moves_and_installations_at_once_all_succeed(tip: Client, url: str) -> None:
    failures: list[Exception] = []

    def repeat(action: str) -> None:
        try:
            with Client(url) as other:
                for number in range(6):
                    if action == "install":
                        other.install()
                    elif action == "grant":
                        other.grant("tip", "pg_monitor")
                    else:
                        other.promote(f"tip:{number % 3 + 1}")
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=[action]) for action in ("install", "promote", "promote", "grant")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tip.revoke("tip", "pg_monitor")
    assert failures == []


@pytest.mark.parametrize("metrics", [{"auc": float("nan")}, {"auc": "high"}, {"auc": None}])
def test_a_metric_that_is_no_number_is_refused(client: Client, metrics: dict[str, Any]) -> None:
    with pytest.raises(DbscoreError, match="the metric auc is"):
        client.deploy("tip", classifier(), sample=frame(), metrics=metrics)


def test_numbers_of_numpy_are_taken_and_nan_is_refused_by_predict(tip: Client) -> None:
    assert tip.predict("tip", {"a": np.float32(1), "b": np.int64(2), "c": 3})["prediction"] == 1
    with pytest.raises(DbscoreError, match="no JSON"):
        tip.predict("tip", {"a": float("nan"), "b": 2, "c": 3})
