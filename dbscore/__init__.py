"""Machine-learning models that live in PostgreSQL and are called from SQL.

    from dbscore import Client

    with Client("postgresql://localhost/shop") as client:
        client.install()
        client.deploy("churn", estimator, sample=X_train, table="customers")

after which SQL has `select c.customer_id, models.churn(c) from customers c`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbscore.client import Client
    from dbscore.errors import DbscoreError
    from dbscore.experiments import Experiments, Variant
    from dbscore.jobs import JobOptions
    from dbscore.local import LocalServer
    from dbscore.settings import Settings

__all__ = ["Client", "DbscoreError", "Experiments", "JobOptions", "LocalServer", "Settings", "Variant"]

_HOMES = {
    "Client": "dbscore.client",
    "DbscoreError": "dbscore.errors",
    "Experiments": "dbscore.experiments",
    "JobOptions": "dbscore.jobs",
    "LocalServer": "dbscore.local",
    "Settings": "dbscore.settings",
    "Variant": "dbscore.experiments",
}


def __getattr__(name: str) -> object:
    # lazily: `import dbscore` costs nothing, and a server without scikit-learn can use the rest
    if name not in _HOMES:
        raise AttributeError(f"module 'dbscore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
