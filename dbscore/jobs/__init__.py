"""Whole tables scored in chunks, each in one transaction: jobs that are planned, run, resumed and cancelled.

Functions that take a connection are part of the caller's transaction; those that take an engine open connections of
their own.
"""

from __future__ import annotations

from dbscore.jobs.bookkeeping import cancel, create, jobs, retry, show
from dbscore.jobs.records import ChunkResult, Job, JobOptions, Progress
from dbscore.jobs.running import RETRY_SECONDS, run

__all__ = [
    "RETRY_SECONDS",
    "ChunkResult",
    "Job",
    "JobOptions",
    "Progress",
    "cancel",
    "create",
    "jobs",
    "retry",
    "run",
    "show",
]
