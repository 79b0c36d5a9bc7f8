"""The report of an experiment as one HTML file, which needs no network."""

from __future__ import annotations

from dbscore.experiments.page.make import make
from dbscore.experiments.page.render import Page

__all__ = ["Page", "make"]
