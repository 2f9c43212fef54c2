"""All of these read the whole package: in one process it is read once."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/architecture/"):
            item.add_marker(pytest.mark.xdist_group("architecture"))
