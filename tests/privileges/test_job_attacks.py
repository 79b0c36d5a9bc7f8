"""What a role with one model granted, or with none, tries in order to run something with another's rights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pandas as pd
import psycopg
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression

from dbscore import Client, JobOptions
from dbscore.errors import InUseError, PrivilegeError, SchemaError
from dbscore.runtime.model import open_session
from tests.conftest import both_engines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = both_engines

Connection = psycopg.Connection[Any]


@pytest.fixture
def eve(
    client: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> tuple[str, Connection]:
    """A role that may score the model `sum2`, read `readings`, and create in `public`."""
    db.execute("create table readings (id integer primary key, a float8, b float8)")
    db.execute("insert into readings select i, i, 1 from generate_series(1, 500) i; analyze readings")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    client.deploy("sum2", LinearRegression().fit(frame, frame["a"] + frame["b"]), sample=frame, table="readings")
    name = role()
    client.grant("sum2", name)
    db.execute(f"grant select on readings to {name}; grant create on schema public to {name}")
    return name, as_role(name)


def is_superuser(db: Connection, name: str) -> bool:
    row = db.execute("select rolsuper from pg_roles where rolname = %s", [name]).fetchone()
    return bool(row and row[0])


OPTIONS = JobOptions(key="id", into="scores", source="readings")


def test_a_forged_job_of_a_role_that_may_not_write_there_stands_in_nobodys_way(
    client: Client, db: Connection, eve: tuple[str, Connection]
) -> None:
    name, hers = eve
    client.score("sum2", OPTIONS)
    hers.execute(
        """insert into dbscore.job (model, version, source_kind, source, key_columns, key_types, into_table, mode, incremental, primary_key,
                                    runs_on, chunk_rows, workers, max_errors, search_path, rows_planned)
           values ('sum2', 1, 'table', 'public.readings', '{id}', '{integer}', 'public.scores', 'replace', false, true, 'server', 100, 1, 0, 'public', 1)"""
    )
    assert client.score("sum2", replace(OPTIONS, mode="replace")).status == "done"
    db.execute(f"grant insert on scores to {name}")
    with pytest.raises(InUseError):
        client.score("sum2", replace(OPTIONS, mode="replace"))


def test_a_forged_job_is_not_executed_by_whoever_scores_into_the_same_table(
    client: Client, db: Connection, eve: tuple[str, Connection]
) -> None:
    name, hers = eve
    hers.execute(
        """insert into dbscore.job (model, version, source_kind, source, key_columns, key_types, into_table, mode, incremental, primary_key,
                                    runs_on, chunk_rows, workers, max_errors, search_path, rows_planned)
           values ('sum2', 1, 'table', 'public.readings', '{id}', '{integer}', 'public.scores', 'replace', false, true, 'server', 100, 1, 0, 'public', 1)"""
    )
    hers.execute("update dbscore.job set staging_table = 'pg_temp.x; alter role " + name + " superuser'")
    with pytest.raises(InUseError):
        client.score("sum2", OPTIONS)
    assert not is_superuser(db, name)


def test_a_role_can_set_neither_a_jobs_number_nor_its_owner(eve: tuple[str, Connection]) -> None:
    _, hers = eve
    for column, value in (("job_id", "7"), ("run_by", "'postgres'"), ("created_at", "now()")):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            hers.execute(f"insert into dbscore.job ({column}) overriding system value values ({value})")


def test_functions_planted_in_public_do_not_run_when_another_scores(
    client: Client, db: Connection, eve: tuple[str, Connection]
) -> None:
    name, hers = eve
    hers.execute(
        f"""create table public.trace (who text); grant insert on public.trace to public;
            create function public.unnest(integer[]) returns setof integer language plpgsql as
            $$ begin insert into public.trace values (current_user); return query select i from pg_catalog.unnest($1) i; end $$;
            create function public.cardinality(double precision[]) returns integer language plpgsql as
            $$ begin insert into public.trace values (current_user); return pg_catalog.cardinality($1); end $$;
            create aggregate public.array_agg(integer) (sfunc = array_append, stype = integer[], initcond = '{{}}');
            grant execute on all functions in schema public to public; select '{name}'"""
    )
    client.score("sum2", OPTIONS)
    db.execute("call dbscore.score_table('sum2', 'readings', 'id', 'scores2')")
    db.execute("select * from models.sum2_batch('select * from readings', 'id')")
    client.score("sum2", JobOptions(key="id", into="scores3", source="readings", runs_on="client"))
    assert db.execute("select * from public.trace").fetchall() == []


def test_a_table_that_waits_for_rows_with_errors_is_not_anothers(
    client: Client, db: Connection, eve: tuple[str, Connection]
) -> None:
    _, hers = eve
    hers.execute("create table public.scores_errors (id integer, reason text, version integer, job_id integer)")
    with pytest.raises(PrivilegeError, match="belongs to another role"):
        client.score("sum2", JobOptions(key="id", into="scores", source="readings", max_errors=5))
    assert db.execute("select to_regclass('public.scores')").fetchone() == (None,)


def test_a_model_that_names_a_file_of_the_server_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret!!")
    tensor = TensorProto(name="leak", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret"), ("offset", "0"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = helper.make_graph(
        [helper.make_node("Gather", ["leak", "i"], ["o"], axis=0)],
        "leak",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("o", TensorProto.UINT8, ["n"])],
        [tensor],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(Exception, match="External data path"):
        open_session(model.SerializeToString())


@pytest.mark.parametrize("schema", ["dbscore_engine", "models"])
def test_a_schema_that_another_role_has_prepared_is_not_installed_into(
    empty_url: str, role: Callable[[], str], schema: str
) -> None:
    name = role()
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(f"create schema {schema} authorization {name}")
    with Client(empty_url) as client, pytest.raises(SchemaError, match=f"{schema}.* belongs to"):
        client.install()
