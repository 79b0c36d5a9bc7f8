"""Every example of the README and of docs/ is run on a real server, and prints what the page says it prints.

DBSCORE_UPDATE_EXAMPLES=1 puts the real outputs into the pages instead of failing; `git diff` then shows them.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from dbscore.local import find_installations
from tests.conftest import REPOSITORY, database
from tests.docs.runner import Reader, corrected, data_files, difference, examples, links, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
PAGES = [page for page in DOCUMENTS if examples(page)]


@pytest.fixture
def cleared(server_url: str) -> Iterator[None]:
    """Drop the databases and roles that a page makes."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        queries = {
            "database": "select datname from pg_database where not datistemplate",
            "role": "select rolname from pg_roles",
        }
        before = {kind: set(connection.execute(query).fetchall()) for kind, query in queries.items()}
        yield
        for kind, query in queries.items():
            for (name,) in set(connection.execute(query).fetchall()) - before[kind]:
                force = sql.SQL(" with (force)" if kind == "database" else "")
                connection.execute(sql.SQL(f"drop {kind} {{}}{{}}").format(sql.Identifier(name), force))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_examples_print_what_the_page_shows(
    page: Path,
    cleared: None,
    server_url: str,
    data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in data_files(page):
        shutil.copy(data(name), tmp_path)
    with database(server_url) as url:
        monkeypatch.setenv("DBSCORE_URL", url)
        monkeypatch.setenv("PATH", _path())
        monkeypatch.chdir(tmp_path)
        changes = {}
        with psycopg.connect(url, autocommit=True) as connection:
            reader = Reader(connection, environment=os.environ, directory=tmp_path)
            for example in examples(page):
                printed = reader.run(example)
                if difference(example, printed):
                    if not os.environ.get("DBSCORE_UPDATE_EXAMPLES"):
                        pytest.fail(difference(example, printed), pytrace=False)
                    changes[example.lines] = merged(example, printed)
    if changes:
        page.write_text(corrected(page.read_text(encoding="utf-8"), changes), encoding="utf-8")


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    broken = [link for link in links(page) if "://" not in link and not (page.parent / link.partition("#")[0]).exists()]
    assert broken == []


def _path() -> str:
    """Return a PATH with this environment's `dbscore` and the server's own `psql`, `pg_dump`."""
    places = [Path(sys.executable).parent, *(one.bindir for one in find_installations()[:1])]
    return os.pathsep.join([*map(str, places), os.environ["PATH"]])
