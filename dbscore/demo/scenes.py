"""What the demonstration shows: the statements that analysts type, and the rows that they get."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from dbscore.client import Client
    from dbscore.demo.data import Data
    from dbscore.registry import Version

__all__ = ["Scenes", "quoted"]


class Scenes:
    """The statements of the demonstration, run one after the other and printed with their rows.

    Args:
        client: What promotes and rolls back.
        connection: What the statements are run on.
        data: The rows.
        table: Their table's qualified name.
        models: The schema of the generated functions, quoted.
        say: Told each statement and each row.
    """

    def __init__(
        self,
        client: Client,
        connection: psycopg.Connection[Any],
        *,
        data: Data,
        table: str,
        models: str,
        say: Callable[[str], None],
    ) -> None:
        self.client = client
        self.connection = connection
        self.model = data.name
        self.data = data
        self.table = table
        self.models = models
        self.say = say

    def play(self, versions: Sequence[Version]) -> None:
        """Show predictions as columns, two versions side by side, JSON, a promotion and a rollback."""
        models, model, table = self.models, self.model, self.table
        target = quoted(self.connection, self.data.target_column)
        probability = ""
        if "auc" in versions[0].metrics:
            second = (versions[0].signature.classes or ("", ""))[1]
            alias = quoted(self.connection, f"p_{second}")
            probability = f", round({models}.{model}_score(t)::numeric, 4) as {alias}"
        self.say("\nA prediction is a column:")
        self._show(
            f"select t.row_id, t.{target}, {models}.{model}(t) as predicted{probability}\n"
            f"from {table} t order by t.row_id limit 5"
        )
        self.say("\nTwo versions side by side:")
        if self.data.is_classification:
            self._show(
                f"select {models}.{model}(t) as champion, {models}.{model}_challenger(t) as challenger, count(*)\n"
                f"from {table} t group by 1, 2 order by 1, 2"
            )
        else:
            self._show(
                f"select avg(abs({models}.{model}(t) - t.{target})) as champion_error,\n"
                f"       avg(abs({models}.{model}_challenger(t) - t.{target})) as challenger_error\nfrom {table} t"
            )
        self.say("\nAny version, JSON in and out:")
        self._show(
            f"select dbscore.predict('{model}@challenger', to_jsonb(t) - {self._no_features(versions[-1])}) as answer\n"
            f"from {table} t where t.row_id = 0"
        )
        self.say(f"\nPromote version 2, in one transaction:  dbscore promote {model}:2")
        self.client.promote(f"{model}:2", reason="demo: the tree model is next")
        self._show(f"select alias, version from dbscore.aliases where model = '{model}' order by alias")
        self.say(f"\nAnd back again:  dbscore rollback {model}")
        self.client.rollback(model, reason="demo: back to the first")
        self._show(
            "select reference, aliases, estimator, metrics, mismatches\n"
            f"from dbscore.versions where model = '{model}' order by version"
        )

    def _show(self, statement: str) -> None:
        self.say(f"\n{statement};")
        cursor = self.connection.execute(statement.encode())
        columns = [c.name for c in cursor.description or ()]
        cells = [columns, *[[_shown(v) for v in row] for row in cursor.fetchall()]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for number, row in enumerate(cells):
            self.say("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
            if number == 0:
                self.say("  " + "  ".join("-" * w for w in widths))

    def _no_features(self, version: Version) -> str:
        """Return the table's columns that are not the version's features, as a SQL array."""
        features = {f.name for f in version.signature.features}
        query = "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum"
        names = [name for (name,) in self.connection.execute(query, [self.table]) if name not in features]
        return f"array[{', '.join(map(_literal, names))}]"


def quoted(connection: psycopg.Connection[Any], name: str) -> str:
    """Return a name as SQL writes it, in quotes only where it needs them."""
    row = connection.execute("select quote_ident(%s)", [name]).fetchone()
    return str(row[0]) if row else name


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return "{" + ", ".join(map(str, value)) + "}"
    return "" if value is None else str(value)
