"""For all tests: no settings from the caller's environment, and property tests that a busy machine cannot fail."""

from __future__ import annotations

import os

from hypothesis import settings

KEPT = {"CELERY_REFERENCE_PYTHON"}  # where the real Celery lives, for wire tests

for name in [n for n in os.environ if n.startswith(("CELERY", "C_STRICT", "C_WARN", "C_FORCE_ROOT")) and n not in KEPT]:
    del os.environ[name]

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
