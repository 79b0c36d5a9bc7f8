"""A private PostgreSQL server of dbscore's own, for the demo, tests and notebooks; never the system's."""

from __future__ import annotations

from dbscore.local.cluster import LocalServer, ServerStatus
from dbscore.local.installation import Installation, find_installations
from dbscore.local.provision import EnsuredServer, ensure_server
from dbscore.remedy import server_packages_remedy

__all__ = [
    "EnsuredServer",
    "Installation",
    "LocalServer",
    "ServerStatus",
    "ensure_server",
    "find_installations",
    "server_packages_remedy",
]
