"""Suites that every adapter of a port passes; an adapter's own tests subclass them and provide the fixtures."""

import pytest

pytest.register_assert_rewrite("tests.contracts.broker", "tests.contracts.backend", "tests.contracts.pool")
