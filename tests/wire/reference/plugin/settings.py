"""conftest.py of the project that both Celeries' plugins run: overrides, and the notes that are compared."""

import json
import os

import pytest
import shared_tasks  # noqa: F401 - not first by an app of a test: 5.7 forgets its tasks afterwards

pytest_plugins = ("celery.contrib.pytest",)


@pytest.fixture(scope="session")
def celery_config():
    return {"result_expires": 77}


@pytest.fixture(scope="session")
def celery_parameters():
    return {"strict_typing": False, "task_cls": "shared_tasks:Own"}


@pytest.fixture(scope="session")
def celery_includes():
    return ["shared_tasks"]


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ("celery", "side"), "shutdown_timeout": 7}


@pytest.fixture
def note(request):
    """Write down what this test saw."""

    def write(name, value):
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps([request.node.name, name, value], default=str) + "\n")

    return write
