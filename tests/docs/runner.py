"""Runs the examples of a Markdown page as its reader would, in the order in which they stand.

Fenced blocks in the languages `sql`, `python` and `console` are run; a `text` block right after one is its output, in
which `...` stands for anything. Other blocks, such as `sh` and `toml`, are not run.

sql       one connection for the page, one transaction for the block; the output is that of `psql --quiet`
python    one namespace for the page; the output is what is printed
console   lines that begin with `$ ` are typed into a shell on a terminal of 100 columns; DBSCORE_URL names the database

A comment `<!-- data: FILE -->` says that the page reads this file of real data from the current directory.
"""

from __future__ import annotations

import contextlib
import difflib
import doctest
import io
import os
import pty
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LANGUAGES = ("sql", "python", "console")
COLUMNS = 100
SECONDS = 60
# int8, int2, int4, oid, float4, float8, numeric: what psql puts to the right
RIGHT = frozenset({20, 21, 23, 26, 700, 701, 1700})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One block to run.

    Attributes:
        place: The page and the block's first line, for messages.
        language: One of LANGUAGES.
        source: What to run.
        expected: The output that the page shows; None where it shows none.
        lines: The first line of the shown output and the one after its last, from 0.
    """

    place: str
    language: str
    source: str
    expected: str | None = None
    lines: tuple[int, int] = (0, 0)


def examples(page: Path) -> list[Example]:
    """Return the examples of a page, in order."""
    tokens = [t for t in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")) if t.nesting == 0]
    found = []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        language = token.info.strip()
        if token.type != "fence" or language not in LANGUAGES:
            continue
        example = {"place": f"{page.name}:{token.map[0] + 1}", "language": language, "source": token.content}
        if after is not None and after.type == "fence" and after.info.strip() == "text":
            # without the lines of the fence itself
            example |= {"expected": after.content, "lines": (after.map[0] + 1, after.map[1] - 1)}
        found.append(Example(**example))
    return found


def links(page: Path) -> list[str]:
    """Return where a page's links lead."""
    inline = [t for t in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")) if t.children]
    return [str(c.attrs["href"]) for t in inline for c in t.children or () if c.type == "link_open"]


def data_files(page: Path) -> list[str]:
    """Return the files of real data that a page reads."""
    return re.findall(r"<!-- data: (\S+) -->", page.read_text(encoding="utf-8"))


class Reader:
    """Types a page's examples, one after the other.

    Args:
        connection: For the SQL; in autocommit mode.
        environment: For the shell.
        directory: The current directory of the shell.
    """

    def __init__(self, connection: psycopg.Connection[Any], *, environment: Mapping[str, str], directory: Path) -> None:
        self._connection = connection
        self._environment = dict(environment)
        self._directory = directory
        self._namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self, example: Example) -> str:
        """Return what the example prints; an error that the page does not show is raised."""
        run = {"sql": self._sql, "python": self._python, "console": self._console}[example.language]
        return run(example)

    def _sql(self, example: Example) -> str:
        try:
            cursor = self._connection.execute(example.source.encode())
        except psycopg.Error as error:
            if not (example.expected or "").startswith("ERROR:"):
                error.add_note(f"in {example.place}")
                raise
            hint = f"HINT:  {error.diag.message_hint}\n" if error.diag.message_hint else ""
            return f"ERROR:  {error.diag.message_primary}\n{hint}"
        shown = []
        while True:
            if cursor.description:
                shown.append(psql_table(cursor))
            if not cursor.nextset():
                return "\n".join(shown)

    def _python(self, example: Example) -> str:
        printed = io.StringIO()
        # the line numbers of a traceback are the page's
        code = "\n" * int(example.place.rpartition(":")[2]) + example.source
        with contextlib.redirect_stdout(printed):
            exec(compile(code, example.place, "exec"), self._namespace)  # noqa: S102 - the page is ours
        return printed.getvalue()

    def _console(self, example: Example) -> str:
        commands = re.findall(r"^\$ (.*(?:\\\n.*)*(?:\n> .*)*)", example.source, flags=re.MULTILINE)
        script = "\n".join(command.replace("\n> ", "\n") for command in commands)
        status, printed = on_a_terminal(script, environment=self._environment, directory=self._directory)
        if status and not (example.expected or "").startswith("error"):
            raise AssertionError(f"{example.place}: exit code {status}\n{printed}")
        return printed


def on_a_terminal(script: str, *, environment: Mapping[str, str], directory: Path) -> tuple[int, str]:
    """Run a script on a terminal, where commands print tables for people; return its exit code and its output."""
    ours, theirs = pty.openpty()
    plain = {**environment, "TERM": "xterm", "COLUMNS": str(COLUMNS), "PAGER": "cat"}
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607 - wherever the system keeps it
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=plain, cwd=directory,
    ) as process:  # fmt: skip
        os.close(theirs)
        printed = b"".join(_read(ours))
        os.close(ours)
        status = process.wait(SECONDS)
    # without colours, and without psql's empty line after a table
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).rstrip()
    return status, "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _read(descriptor: int) -> Iterator[bytes]:
    # Linux ends a terminal whose other side is closed with an error
    with contextlib.suppress(OSError):
        while piece := os.read(descriptor, 65536):
            yield piece


def psql_table(cursor: psycopg.Cursor[Any]) -> str:
    """Return a result as psql prints it."""
    result, columns = cursor.pgresult, cursor.description or []
    assert result is not None
    rows = [[(result.get_value(i, j) or b"").decode() for j in range(len(columns))] for i in range(result.ntuples)]
    widths = [max(len(c.name), *(len(row[j]) for row in rows)) if rows else len(c.name) for j, c in enumerate(columns)]
    # psql puts the odd blank to the right, Python to the left
    names = (" " * ((w - len(c.name)) // 2) + c.name for c, w in zip(columns, widths, strict=True))
    lines = ["|".join(f" {name:<{w}} " for name, w in zip(names, widths, strict=True))]
    lines.append("+".join("-" * (w + 2) for w in widths))
    for row in rows:
        cells = zip(row, widths, columns, strict=True)
        lines.append("|".join(f" {v:>{w}} " if c.type_code in RIGHT else f" {v:<{w}} " for v, w, c in cells))
    lines.append(f"({len(rows)} row{'s' * (len(rows) != 1)})")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def difference(example: Example, printed: str) -> str:
    """Return how an output differs from the one that the page shows; nothing where it does not."""
    expected = example.expected
    if expected is None or doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS):
        return ""
    lines = difflib.unified_diff(expected.splitlines(), printed.splitlines(), "the page", "the output", lineterm="")
    return "\n".join([f"{example.place} shows another output:", *lines])


def merged(example: Example, printed: str) -> str:
    """Return an output with the `...` of the page kept in the lines that still match."""
    shown, now = (example.expected or "").splitlines(keepends=True), printed.splitlines(keepends=True)
    if len(shown) != len(now):
        return printed
    checker = doctest.OutputChecker()
    return "".join(s if checker.check_output(s, n, doctest.ELLIPSIS) else n for s, n in zip(shown, now, strict=True))


def corrected(text: str, changes: Mapping[tuple[int, int], str]) -> str:
    """Return a page's text with the outputs between these lines replaced."""
    lines = text.splitlines(keepends=True)
    for (start, end), printed in sorted(changes.items(), reverse=True):
        lines[start:end] = [printed]
    return "".join(lines)
