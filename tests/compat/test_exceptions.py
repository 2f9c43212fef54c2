"""The tree of exceptions (area exc)."""

import pickle
import subprocess
import sys
import traceback
from datetime import datetime

import pytest

import celery.exceptions as exc


@pytest.mark.parametrize(
    ("child", "parents"),
    [
        (exc.TaskPredicate, (exc.CeleryError,)),
        (exc.Retry, (exc.TaskPredicate,)),
        (exc.NotRegistered, (KeyError, exc.TaskError)),
        (exc.QueueNotFound, (KeyError, exc.TaskError)),
        (exc.TimeoutError, (exc.TaskError,)),
        (exc.ChordError, (exc.TaskError,)),
        (exc.BackendStoreError, (exc.BackendError,)),
        (exc.WorkerShutdown, (SystemExit,)),
        (exc.WorkerTerminate, (SystemExit,)),
        (exc.CDeprecationWarning, (DeprecationWarning,)),
        (exc.CPendingDeprecationWarning, (PendingDeprecationWarning,)),
        (exc.AlwaysEagerIgnored, (exc.CeleryWarning,)),
        (exc.DuplicateNodenameWarning, (exc.CeleryWarning,)),
        (exc.FixupWarning, (exc.CeleryWarning,)),
        (exc.NotConfigured, (exc.CeleryWarning,)),
        (exc.SecurityWarning, (exc.CeleryWarning,)),
        (exc.Ignore, (exc.TaskPredicate,)),
        (exc.Reject, (exc.TaskPredicate,)),
        (exc.TaskError, (exc.CeleryError,)),
        (exc.IncompleteStream, (exc.TaskError,)),
        (exc.AlreadyRegistered, (exc.TaskError,)),
        (exc.MaxRetriesExceededError, (exc.TaskError,)),
        (exc.TaskRevokedError, (exc.TaskError,)),
        (exc.InvalidTaskError, (exc.TaskError,)),
        (exc.BackendGetMetaError, (exc.BackendError,)),
        (exc.ImproperlyConfigured, (Exception,)),
        (exc.SecurityError, (Exception,)),
        (exc.DuplicateTaskNameWarning, (exc.CeleryWarning, UserWarning)),
    ],
)
def test_parents(child, parents):
    assert all(issubclass(child, parent) for parent in parents)


def test_what_is_no_celery_error():
    assert not issubclass(exc.BackendError, exc.CeleryError)
    assert not issubclass(exc.TimeoutError, TimeoutError)


def test_borrowed_classes_are_the_very_ones():
    import billiard.exceptions
    import click
    import kombu.exceptions

    assert exc.OperationalError is kombu.exceptions.OperationalError
    for name in ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"):
        assert getattr(exc, name) is getattr(billiard.exceptions, name)
    assert issubclass(exc.CeleryCommandException, click.ClickException)


def test_importing_loads_none_of_them():
    program = (
        "import sys, celery.exceptions; "
        "print([m for m in ('kombu', 'billiard', 'click') if m in sys.modules], hasattr(celery.exceptions, 'nope'))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.strip() == "[] False"


def test_all_names_are_there():
    assert all(hasattr(exc, name) for name in exc.__all__)
    assert set(exc.__all__) <= set(dir(exc))
    assert exc.RetryTaskError is exc.Retry
    assert exc.SystemTerminate is exc.WorkerTerminate


@pytest.mark.parametrize(
    ("retry", "text", "human"),
    [
        (exc.Retry("msg", exc=ValueError("x"), when=10), "msg", "in 10s"),
        (exc.Retry(exc=KeyError("a")), "Retry at None: KeyError('a')", "at None"),
        (exc.Retry(None, "text", 1.5), "Retry in 1.5s: text", "in 1.5s"),
        (exc.Retry(when=datetime(2020, 1, 1)), "Retry at 2020-01-01 00:00:00", "at 2020-01-01 00:00:00"),
    ],
)
def test_retry_as_text_and_through_pickle(retry, text, human):
    for one in (retry, pickle.loads(pickle.dumps(retry))):
        assert str(one) == text
        assert one.humanize() == human
        assert (one.message, repr(one.exc), one.excs, one.when) == (
            retry.message, repr(retry.exc), retry.excs, retry.when,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (exc.Reject("why", True), "reject requeue=True: why"),
        (exc.Reject(), "reject requeue=False: None"),
        (exc.Ignore(), "Ignore()"),
        (exc.NotRegistered("foo"), "Task of kind 'foo' never registered, please make sure it's imported."),
        (exc.BackendGetMetaError("m", task_id="i"), "BackendGetMetaError('m') task_id:i"),
        (exc.BackendStoreError("m", state="S", task_id="i"), "BackendStoreError('m') state:S task_id:i"),
        (exc.MaxRetriesExceededError("a", task_args=(1,), task_kwargs={"b": 2}), "MaxRetriesExceededError('a')"),
        (exc.CeleryCommandException("m", 3), "CeleryCommandException('m')"),
    ],
)
def test_repr_and_pickle(error, text):
    other = pickle.loads(pickle.dumps(error))
    assert repr(error) == repr(other) == text
    assert vars(error) == vars(other)


def test_reraise_gives_the_traceback():
    def fails():
        raise ZeroDivisionError

    try:
        fails()
    except ZeroDivisionError as seen:
        tb = seen.__traceback__
    with pytest.raises(ValueError, match="v") as caught:
        exc.reraise(ValueError, ValueError("v"), tb)
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_tasks_say_what_they_raise():
    retry = exc.Retry("msg", ValueError("x"), 10, is_eager=True, sig="s")
    assert (retry.is_eager, retry.sig) == (True, "s")
    reject = exc.Reject("why", requeue=True)
    assert (reject.reason, reject.requeue) == ("why", True)
    spent = exc.MaxRetriesExceededError("m", task_args=(1,), task_kwargs={"a": 2})
    assert (spent.task_args, spent.task_kwargs) == ((1,), {"a": 2})
    failed = exc.CeleryCommandException("m", 3)
    assert (failed.message, failed.exit_code) == ("m", 3)
