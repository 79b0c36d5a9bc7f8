"""The SQL part of the frame lane on servers without PL/Python: PostgreSQL's own functions under other names."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from dbscore.local.installation import find_embedded
from dbscore.schema.source import rendered
from tests.conftest import database, local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]

# dimensions, offset of the NULL bitmap, element type, length, lower bound
HEADER = np.dtype([("header", "=i4", 5)])
OIDS = {"real": 700, "double precision": 701, "bigint": 20}
DTYPES = {"real": "=f4", "double precision": "=f8", "bigint": "=i8"}


@pytest.fixture(scope="module", params=["tests", *(one.major for one in find_embedded())])
def frame_url(request: pytest.FixtureRequest, server_url: str) -> Iterator[str]:
    """A database in which nothing but the frame lane's SQL is: on the tests' server, and on each of the wheel's."""
    if request.param == "tests":
        with database(server_url) as url:
            yield _with_frame(url)
        return
    installation = next(one for one in find_embedded() if one.major == request.param)
    with local_server(installation=installation) as server:
        yield _with_frame(server.start())


def _with_frame(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("create schema dbscore_engine; set search_path = pg_catalog, pg_temp")
        # twice, as an upgrade does
        for _ in range(2):
            db.execute(rendered("010_frame.sql", owner=None, models="models"))
    return url


@pytest.fixture
def db(frame_url: str) -> Iterator[Connection]:
    with psycopg.connect(frame_url, autocommit=True) as connection:
        yield connection


def one(db: Connection, statement: str, *parameters: Any) -> Any:
    return db.execute(statement, parameters, binary=True).fetchall()[0][0]


def unpacked(frame: bytes, type_: str, width: int) -> np.ndarray:
    """Return the numbers of a frame whose arrays have no NULL, and check each array's header."""
    row = np.dtype([("header", "=i4", 4), ("lower", "=i4"), ("values", DTYPES[type_], (width,))])
    assert len(frame) % row.itemsize == 0
    rows = np.frombuffer(frame, row)
    assert (rows["header"] == [1, 0, OIDS[type_], width]).all()
    return rows["values"]


def test_the_wheel_has_servers_of_two_major_versions_besides_the_tests() -> None:
    assert {18, 16} <= {one.major for one in find_embedded()}


@pytest.mark.parametrize("type_", ["real", "double precision", "bigint"])
def test_rows_are_packed_one_behind_the_other_in_the_order_of_the_aggregate(db: Connection, type_: str) -> None:
    frame = one(
        db,
        f"select dbscore_engine.frame(array[i, -i, i * i]::{type_}[], '' order by i) from generate_series(1, 1000) i",
    )
    i = np.arange(1, 1001)
    assert (unpacked(frame, type_, 3) == np.column_stack([i, -i, i * i])).all()


def test_no_row_gives_no_frame(db: Connection) -> None:
    assert one(db, "select dbscore_engine.frame(array[1]::real[], '') from generate_series(1, 0)") is None


@pytest.mark.parametrize(("type_", "name"), [("double precision", "null_double"), ("real", "null_real")])
def test_null_is_a_nan_of_bits_that_no_other_nan_has(db: Connection, type_: str, name: str) -> None:
    values = f"null, 'NaN', 'inf'::{type_} - 'inf', -('NaN'::{type_}), 1"
    frame = one(
        db,
        f"select dbscore_engine.frame(array(select coalesce(v, dbscore_engine.{name}()) from unnest(array[{values}]::{type_}[]) v), '')",
    )
    row = unpacked(frame, type_, 5)[0]
    assert np.isnan(row).tolist() == [True] * 4 + [False]
    bits, null = {"real": ("=u4", 0x7FC00DB5), "double precision": ("=u8", 0x7FF8000000000DB5)}[type_]
    assert (row.view(bits) == null).tolist() == [True] + [False] * 4


@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("reals", "<f4", [1.5, -0.0, float("inf"), 3.4028234663852886e38]),
        ("doubles", "<f8", [1.5, 5e-324, float("-inf")]),
        ("bigints", "<i8", [2**63 - 1, -(2**63), 0]),
        ("integers", "<i4", [2**31 - 1, -(2**31), 7]),
        ("smallints", "<i2", [32767, -32768]),
        ("booleans", "?", [True, False, True]),
    ],
)
def test_raw_numbers_become_an_array(db: Connection, name: str, dtype: str, values: list[Any]) -> None:
    raw = np.array(values, dtype).tobytes()
    assert one(db, f"select dbscore_engine.{name}(%s::bytea)", raw) == values
    assert one(db, f"select dbscore_engine.{name}('')") == []
    assert one(db, f"select dbscore_engine.{name}(null) is null")
    # it is an array like any other
    assert (
        one(db, f"select (dbscore_engine.{name}(%s::bytea) || array[null]::text[]::{_type(name)}[])[2]", raw)
        == values[1]
    )
    assert one(db, f"select count(*) from unnest(dbscore_engine.{name}(%s::bytea))", raw) == len(values)


def _type(name: str) -> str:
    return {
        "reals": "real",
        "doubles": "double precision",
        "bigints": "bigint",
        "integers": "integer",
        "smallints": "smallint",
        "booleans": "boolean",
    }[name]


@pytest.mark.parametrize("name", ["reals", "doubles", "bigints", "integers", "smallints", "booleans"])
def test_any_bytes_become_an_array_or_are_refused_and_the_server_lives(db: Connection, name: str) -> None:
    size = {"reals": 4, "doubles": 8, "bigints": 8, "integers": 4, "smallints": 2, "booleans": 1}[name]
    random = np.random.default_rng(0)
    for length in (1, 2, 3, 7, 8, 13, 4096, 4099, 100_003):
        raw = random.bytes(length)
        if length % size:
            with pytest.raises(psycopg.Error, match=f"{length} bytes are no whole number") as caught:
                db.execute(f"select dbscore_engine.{name}(%s::bytea)", [raw])
            assert caught.value.sqlstate == "ML002"
        else:
            # looked at, compared, sorted, written as text
            statement = f"select a::text, cardinality(a), a = a, array(select unnest(a) order by 1) is null from dbscore_engine.{name}(%s::bytea) a"
            found = db.execute(statement, [raw]).fetchall()[0]
            assert found[1:] == (length // size, True, False)
    # a frame's own header among the numbers means nothing
    header = np.array([1, 0, 701, 2**31 - 1, 1, 0, 0, 0], np.int32).tobytes()
    assert one(db, f"select cardinality(dbscore_engine.{name}(%s::bytea))", header) == 32 // size


@pytest.mark.parametrize("storage", ["extended", "external", "main", "plain"])
def test_toasted_and_compressed_arrays_are_packed_as_what_they_are(db: Connection, storage: str) -> None:
    width = 900 if storage == "plain" else 20_000
    db.execute("drop table if exists big; create table big (id int, a double precision[])")
    db.execute(f"alter table big alter a set storage {storage}")
    # half of them compress well
    db.execute(
        f"insert into big select i, array(select case when i % 2 = 0 then i else sqrt(j * i) end from generate_series(1, {width}) j) from generate_series(1, 6) i"
    )
    j = np.arange(1, width + 1)
    expected = np.array([np.full(width, i) if i % 2 == 0 else np.sqrt(j * i) for i in range(1, 7)])
    frame = one(db, "select dbscore_engine.frame(a, '' order by id) from big")
    assert (unpacked(frame, "double precision", width) == expected).all()
    added = one(db, "select dbscore_engine.frame(a || array[0]::double precision[], '' order by id) from big")
    assert (unpacked(added, "double precision", width + 1)[:, :-1] == expected).all()


def test_an_array_with_a_null_is_told_by_its_header(db: Connection) -> None:
    frame = one(db, "select dbscore_engine.frame(array[1, null, 3]::real[], '')")
    header = np.frombuffer(frame[:20], HEADER)["header"][0].tolist()
    assert header[0] == 1
    assert header[1] != 0
    assert header[2:] == [700, 3, 1]


def test_parallel_workers_pack_all_rows(db: Connection) -> None:
    db.execute(
        "drop table if exists many; create table many as select i from generate_series(1, 200000) i; analyze many"
    )
    db.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
    frame = one(db, "select dbscore_engine.frame(array[i, i]::double precision[], '') from many")
    assert np.array_equal(np.sort(unpacked(frame, "double precision", 2)[:, 0]), np.arange(1, 200_001))


def test_a_frame_over_a_gigabyte_is_postgresqls_own_error(db: Connection) -> None:
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        db.execute(
            "select octet_length(dbscore_engine.frame(array_fill(i::real, array[2000000]), '')) from generate_series(1, 200) i"
        )
    assert one(db, "select 1") == 1


def test_only_a_superuser_may_take_bytes_for_arrays(db: Connection) -> None:
    found = db.execute(
        "select p.oid::regprocedure::text, coalesce(p.proacl::text, '') from pg_proc p where pronamespace = 'dbscore_engine'::regnamespace and prolang = (select oid from pg_language where lanname = 'internal')"
    ).fetchall()
    # aggregates are among them
    assert len(found) == 13
    assert not [name for name, rights in found if re.search(r"[{,]=X", rights) or not rights]
    role = f"packer_{secrets.token_hex(4)}"
    db.execute(f"create role {role}; grant usage on schema dbscore_engine to {role}")
    db.execute(f"grant execute on function dbscore_engine.doubles(bytea) to {role}; set role {role}")
    try:
        assert one(db, "select dbscore_engine.doubles('\\x000000000000f03f')") == [1.0]
        for call in ("adopt_doubles('', '')", "adopt_booleans('', '')", "reals('')", "frame(array[1]::real[], '')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"select dbscore_engine.{call}")
    finally:
        db.execute(f"reset role; drop owned by {role}; drop role {role}")
