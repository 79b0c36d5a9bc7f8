"""The image: how it starts, stops, and keeps its data."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from image import DATA, Server, Volume, until
from sklearn.linear_model import LinearRegression

from dbscore import Client

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def volume() -> Iterator[str]:
    with Volume() as name:
        yield name


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A healthy server that tests read only."""
    with Server() as one:
        yield one


def deploy(server: Server) -> float:
    """Deploy a model and return what it predicts."""
    with Client(server.url) as client:
        client.deploy("double", LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0]), sample=[[1.0], [2.0]])
    return predicted(server)


def predicted(server: Server) -> float:
    with server.connect() as connection:
        return float(connection.execute("select models.double(21)").fetchone()[0])


@pytest.mark.parametrize("given", [{}, {"POSTGRES_PASSWORD": ""}])
def test_without_a_password_it_refuses_to_start_and_says_what_to_set(given: dict[str, str], volume: str) -> None:
    with Server(volume=volume, environment={"POSTGRES_PASSWORD": None, **given}, wait=False) as server:
        assert server.exit_code() == 1
        assert "set POSTGRES_PASSWORD" in server.logs


def test_a_password_and_a_file_with_one_are_refused_together() -> None:
    with Server(environment={"POSTGRES_PASSWORD_FILE": "/run/secrets/password"}, wait=False) as server:
        assert server.exit_code() == 1
        assert "set one" in server.logs


def test_the_password_may_come_from_a_file() -> None:
    # any readable file will do: its first and only line is the password
    with Server(environment={"POSTGRES_PASSWORD": None, "POSTGRES_PASSWORD_FILE": "/etc/debian_version"}) as server:
        server.settings["POSTGRES_PASSWORD"] = server.run("cat", "/etc/debian_version").strip()
        with server.connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_wrong_password_and_none_are_refused(server: Server) -> None:
    password = server.settings["POSTGRES_PASSWORD"]
    for wrong in (server.url.replace(password, "wrong"), server.url.replace(f":{password}", "")):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)


def test_inside_the_container_too_other_users_than_root_and_postgres_need_one(server: Server) -> None:
    psql = ("psql", "--username=postgres", "--command=select 1")
    assert "1 row" in server.run(*psql, user="postgres")
    with pytest.raises(RuntimeError, match="authentication failed"):
        server.run(*psql, user="nobody")
    with pytest.raises(RuntimeError, match="no password supplied"):
        server.run(*psql, "--host=127.0.0.1", "--no-password", user="postgres")


def test_passwords_are_stored_as_scram(server: Server) -> None:
    with server.connect() as connection:
        stored = connection.execute("select rolpassword from pg_authid where rolname = 'postgres'").fetchone()[0]
    assert stored.startswith("SCRAM-SHA-256$")


def test_the_engine_sees_that_it_is_healthy(server: Server) -> None:
    until(lambda: server.health != "starting", seconds=30)
    assert server.health == "healthy"


def test_the_schema_is_there_from_the_first_start_and_nothing_stands_in_the_way(server: Server) -> None:
    with server.connect() as connection:
        assert connection.execute("select * from dbscore.versions").fetchall() == []
    with Client(server.url) as client:
        status = client.status()
    assert status.problems == ()
    assert status.engines[0] == "onnx"


def test_it_is_postgresql_17_with_python_3_13(server: Server) -> None:
    with Client(server.url) as client:
        status = client.status()
    assert status.server_version.startswith("17.")
    assert status.python["python"] == "3.13"
    assert {"numpy", "onnxruntime"} <= status.python.keys()


def test_installing_again_from_a_client_changes_nothing(server: Server) -> None:
    with Client(server.url) as client:
        before = client.status()
        assert client.install() == before


def test_it_scores_what_a_client_deploys_in_one_thread_and_sends_no_telemetry() -> None:
    with Server() as server:
        assert deploy(server) == pytest.approx(42)
        with server.connect() as connection:
            connection.execute("select models.double(21)")
            status = server.run("cat", f"/proc/{connection.info.backend_pid}/status")
        # the uploader of onnxruntime would be another thread
        assert "Threads:\t1\n" in status
        assert "telemetry" not in server.logs.lower()


def test_postgres_is_process_1_and_not_root(server: Server) -> None:
    assert server.run("cat", "/proc/1/comm") == "postgres\n"
    assert server.run("stat", "--format=%U", "/proc/1") == "postgres\n"


def test_functions_in_the_server_do_not_see_the_password(server: Server) -> None:
    with server.connect() as connection:
        connection.execute(
            "create function pg_temp.settings() returns text language plpython3u as 'import os; return str(os.environ)'"
        )
        seen = connection.execute("select pg_temp.settings()").fetchone()[0]
    assert "PGDATA" in seen
    assert server.settings["POSTGRES_PASSWORD"] not in seen


def test_user_and_database_are_named_by_the_environment() -> None:
    with Server(environment={"POSTGRES_USER": "Ada Lovelace", "POSTGRES_DB": "the shop"}) as server:
        answer = server.run(
            "psql", "-At", "--username=Ada Lovelace", "--dbname=the shop",
            "--command=select count(*), current_user, current_database() from dbscore.models",
        )  # fmt: skip
        assert answer == "0|Ada Lovelace|the shop\n"
        # the schema is in that database only
        with pytest.raises(RuntimeError, match="does not exist"):
            server.run("psql", "--username=Ada Lovelace", "--dbname=postgres", "--command=table dbscore.models")


def test_the_database_is_named_like_the_user_unless_told_otherwise() -> None:
    with Server(environment={"POSTGRES_USER": "shop"}) as server, server.connect() as connection:
        assert connection.execute("select current_database()").fetchone() == ("shop",)


def test_arguments_go_to_postgres() -> None:
    with Server(command=["-c", "work_mem=7MB"]) as server, server.connect() as connection:
        assert connection.execute("show work_mem").fetchone() == ("7MB",)


def test_another_command_is_run_instead() -> None:
    with Server(command=["pg_config", "--version"], environment={"POSTGRES_PASSWORD": None}, wait=False) as server:
        assert server.exit_code() == 0
        assert server.logs.startswith("PostgreSQL 17")


def test_a_server_without_the_schema_is_unhealthy() -> None:
    with Server() as server:
        server.run("healthcheck")
        with server.connect() as connection:
            connection.execute("drop schema dbscore cascade")
        with pytest.raises(RuntimeError, match=r"dbscore\.models"):
            server.run("healthcheck")


def test_data_outlives_the_container(volume: str) -> None:
    with Server(volume=volume) as first:
        deploy(first)
        password = first.settings["POSTGRES_PASSWORD"]
        first.container.stop()
    # the password is in the volume too, so none has to be given
    with Server(volume=volume, environment={"POSTGRES_PASSWORD": None}) as second:
        second.settings["POSTGRES_PASSWORD"] = password
        assert predicted(second) == pytest.approx(42)
        assert "making a cluster" not in second.logs


def test_data_outlives_kill_9() -> None:
    with Server() as server:
        deploy(server)
        server.container.kill(signal="KILL")
        assert server.exit_code() == 137
        server.start_again()
        assert "automatic recovery" in server.logs
        assert predicted(server) == pytest.approx(42)


def test_docker_stop_ends_it_cleanly_within_seconds_though_clients_are_connected() -> None:
    with Server() as server, contextlib.suppress(psycopg.OperationalError), server.connect() as connection:
        connection.execute("select 1")
        began = time.monotonic()
        server.container.stop(timeout=30)
        assert time.monotonic() - began < 5
        assert server.exit_code() == 0
        assert "database system is shut down" in server.logs
        server.start_again()
        assert "automatic recovery" not in server.logs


def test_sigterm_ends_it_cleanly_once_clients_are_gone() -> None:
    with Server() as server:
        with server.connect():
            server.container.kill(signal="TERM")
            until(lambda: "smart shutdown" in server.logs, seconds=10)
        assert server.exit_code() == 0
        assert "database system is shut down" in server.logs


@pytest.mark.parametrize("said", ["making a cluster", "installing the schema"])
@pytest.mark.parametrize("signal", ["KILL", "INT"])
def test_a_first_start_cut_off_leaves_nothing_and_the_next_start_makes_everything(
    said: str, signal: str, volume: str
) -> None:
    with Server(volume=volume, wait=False) as first:
        until(lambda: said in first.logs, seconds=30, every=0)
        first.container.kill(signal=signal)
        assert first.exit_code() != 0
        assert "dbscore: done" not in first.logs
    # half a cluster does not count as one: a password is still required
    with Server(volume=volume, environment={"POSTGRES_PASSWORD": None}, wait=False) as second:
        assert second.exit_code() == 1
        assert "set POSTGRES_PASSWORD" in second.logs
    with Server(volume=volume) as third:
        with Client(third.url) as client:
            assert client.status().problems == ()
        assert third.run("ls", DATA) == "17\n"


def test_a_second_container_on_the_same_volume_is_refused(volume: str) -> None:
    with Server(volume=volume) as first, Server(volume=volume, wait=False) as second:
        assert second.exit_code() == 1
        assert "another container is running on this volume" in second.logs
        assert first.health in ("starting", "healthy")


@pytest.mark.parametrize("where", [".", "16"])
def test_a_cluster_of_another_image_is_refused_not_ignored(where: str, volume: str) -> None:
    make = f"mkdir -p {DATA}/{where} && echo 16 > {DATA}/{where}/PG_VERSION"
    with Server(volume=volume, command=["bash", "-c", make], wait=False) as first:
        assert first.exit_code() == 0
    with Server(volume=volume, wait=False) as second:
        assert second.exit_code() == 1
        assert "cluster" in second.logs
        assert "making a cluster" not in second.logs
