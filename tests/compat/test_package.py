"""What the package promises to those who install it (`pkg` of the compatibility table)."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.running import ROOT

EXTRAS = """
    arangodb azureblockblob brotli cassandra consul cosmosdbsql couchbase couchdb django dynamodb elasticsearch eventlet
    gcpubsub gcs gevent librabbitmq memcache mongodb msgpack pydantic pymemcache pyro pytest redis s3 slmq solar
    sqlalchemy sqs tblib yaml zookeeper zstd
"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def test_every_extra_is_there() -> None:
    """pip drops an unknown extra with no more than a warning, so that a missing one fails later."""
    assert set(EXTRAS.split()) <= PROJECT["optional-dependencies"].keys()


def test_the_console_script() -> None:
    assert PROJECT["scripts"] == {"celery": "celery.__main__:main"}
    assert python("-c", "from celery.__main__ import main; print(callable(main))") == "True\n"


@pytest.mark.process
def test_python_dash_m() -> None:
    assert python("-m", "celery", "--version").startswith(PROJECT["version"])


def test_versions() -> None:
    shown = python("-c", "import celery as c; print(c.__version__, c.VERSION_BANNER, c.VERSION[:3], c.version_info[0])")
    version = PROJECT["version"]
    assert shown.startswith(f"{version} {version} (")
    assert shown.endswith("(5, 8, 0) 5\n")


@pytest.mark.process
def test_importing_is_cheap() -> None:
    """No kombu, no backend, no driver before one is needed."""
    shown = python("-c", "import sys, celery; print(*(m for m in sys.modules if m.startswith(('celery.', 'kombu'))))")
    assert not {name for name in shown.split() if name.startswith(("kombu", "celery.backends", "celery.brokers"))}
    shown = python("-c", "import sys; from celery import Celery; Celery('x', broker='redis://'); print(*sys.modules)")
    assert not {"kombu", "redis", "asyncio", "multiprocessing"} & {name.split(".")[0] for name in shown.split()}


@pytest.mark.parametrize("name", ["setup_security", "map", "starmap", "routes", "bootstep"])
def test_names_that_only_old_texts_have_are_not_there(name: str) -> None:
    with pytest.raises(ImportError, match=f"cannot import name {name!r}"):
        exec(f"from celery import {name}")
    with pytest.raises(ImportError):
        __import__(f"celery.{name}")
