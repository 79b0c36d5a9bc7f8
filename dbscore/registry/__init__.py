"""Models, versions, aliases, artifacts: what is stored, and the moves that are allowed.

Every function takes a connection in a transaction, which the caller commits.
"""

from __future__ import annotations

from dbscore.registry.aliases import promote, remove_alias, rollback
from dbscore.registry.comparison import Compiled, Engine
from dbscore.registry.deployment import Deployment, deploy
from dbscore.registry.explanations import Explained, explanation
from dbscore.registry.grants import grant, revoke
from dbscore.registry.lookup import CHAMPION, artifact, find, history, models, versions
from dbscore.registry.publishing import refresh
from dbscore.registry.records import AliasMove, Model, Version
from dbscore.registry.removal import drop, forget_unused, retire
from dbscore.registry.specialisation import Specialisation, specialise

__all__ = [
    "CHAMPION",
    "AliasMove",
    "Compiled",
    "Deployment",
    "Engine",
    "Explained",
    "Model",
    "Specialisation",
    "Version",
    "artifact",
    "deploy",
    "drop",
    "explanation",
    "find",
    "forget_unused",
    "grant",
    "history",
    "models",
    "promote",
    "refresh",
    "remove_alias",
    "retire",
    "revoke",
    "rollback",
    "specialise",
    "versions",
]
