"""For tests of logging: pytest's own handlers are out of the way, so that ours are alone as in a worker."""

import logging

import pytest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if not type(handler).__module__.startswith("_pytest")]
    if "clean" not in item.fixturenames:
        return (yield)
    pytests, root.handlers = root.handlers, ours
    try:
        return (yield)
    finally:
        root.handlers = [handler for handler in pytests if handler not in ours] + root.handlers
