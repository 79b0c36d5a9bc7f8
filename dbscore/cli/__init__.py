"""The command line: `dbscore`.

Data goes to stdout, progress and errors to stderr. Exit codes: 0 done, 1 refused, failed or cancelled, 2 wrong usage,
3 done with rows set aside (`score`, `jobs resume`, `jobs retry`), the server does not run (`server status`), recorded
assignments differ (`experiment audit`), or p-values are not uniform (`experiment aa`).
"""

from __future__ import annotations

import sys

import typer

from dbscore.cli import analysis, demo, experiments, jobs, models, outcomes, report, schema, server, specialise
from dbscore.cli.common import notify
from dbscore.errors import DbscoreError

__all__ = ["app", "main"]

app = typer.Typer(
    name="dbscore",
    help="Machine-learning models that live in PostgreSQL and are called from SQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (schema.commands, models.commands, specialise.commands, jobs.commands, demo.commands):
    app.registered_commands += part.registered_commands
for more in (outcomes, report, analysis):
    experiments.app.registered_commands += more.commands.registered_commands
app.add_typer(jobs.app)
app.add_typer(experiments.app)
app.add_typer(server.app)


def main() -> None:
    """Run the command line; an error that dbscore knows is a message and exit code 1, not a traceback."""
    try:
        app()
    except DbscoreError as error:
        notify(f"error {error.sqlstate}: {error.message}")
        if error.remedy:
            notify(f"  {error.remedy}")
        sys.exit(1)
    except BrokenPipeError:
        # the reader of a pipe has seen enough: `dbscore sql | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        notify(f"error: {error}")
        sys.exit(1)
