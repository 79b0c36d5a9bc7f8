"""The image's own tests are collected by `make test-docker` alone (tests/docker/__main__.py), which builds the image."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("DBSCORE_TEST_IMAGE") else ["test_image.py"]
