"""The image's own tests: collected by `make test-docker` alone, which builds the image (tests/docker/__main__.py)."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("DBSCORE_TEST_IMAGE") else ["test_image.py"]
