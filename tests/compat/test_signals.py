"""Signals and their dispatcher (area signal, 1 and 2, and the names)."""

import gc
import logging
import threading

import pytest

from celery import signals
from celery.local import PromiseProxy
from celery.utils.dispatch import Signal
from celery.utils.dispatch.signal import _Persistent

DECLARED = {
    "before_task_publish": "body declare exchange headers properties retry_policy routing_key",
    "task_failure": "args einfo exception kwargs task_id traceback",
    "task_internal_error": "args einfo exception kwargs request task_id traceback",
    "task_postrun": "args kwargs retval task task_id",
    "task_revoked": "expired request signum terminated",
    "celeryd_init": "conf instance options",
    "setup_logging": "colorize format logfile loglevel",
    "worker_ready": "",
    "import_modules": "",
}


@pytest.fixture
def signal():
    return Signal(name="tried", providing_args=["a"])


def receiver(**named):
    return named


def test_all_signals_are_there_with_their_arguments():
    assert len([name for name in vars(signals).values() if isinstance(name, Signal)]) == 34
    assert len(signals.__all__) == 31
    for name, arguments in DECLARED.items():
        assert getattr(signals, name).providing_args == set(arguments.split())
        assert getattr(signals, name).name == name


def test_receivers_get_sender_signal_and_arguments(signal):
    signal.connect(receiver)
    assert signal.send("s", a=1) == [(receiver, {"sender": "s", "signal": signal, "a": 1})]
    assert signal.send(sender=None) == [(receiver, {"sender": None, "signal": signal})]


def test_nobody_is_nothing(signal):
    assert signal.receivers == []
    assert signal.send("s") == []


def test_a_receiver_is_connected_once_and_can_be_disconnected(signal):
    assert signal.connect(receiver) is receiver
    signal.connect(receiver)
    assert len(signal.send(None)) == 1
    assert signal.disconnect(receiver) is True
    assert signal.disconnect(receiver) is False
    assert signal.receivers == []


def test_decorator_forms(signal):
    @signal.connect
    def one(**kw):
        return 1

    @signal.connect()
    def two(**kw):
        return 2

    @signal.connect(sender="s", weak=False)
    def three(**kw):
        return 3

    assert [answer for _, answer in signal.send("s")] == [1, 2, 3]
    assert [answer for _, answer in signal.send("t")] == [1, 2]


def test_sender_is_a_name_or_an_object(signal):
    task = object()
    signal.connect(receiver, sender="proj." + "add")
    assert signal.has_listeners("proj.add")
    assert not signal.has_listeners("proj.mul")
    assert not signal.has_listeners(task)
    signal.connect(receiver, sender=task)
    assert len(signal.send(task)) == 1
    assert signal.send(object()) == []
    assert signal.disconnect(receiver, sender=task)
    assert not signal.has_listeners(task)


def test_an_error_is_logged_and_returned_and_the_others_are_called(signal, caplog):
    def bad(**kw):
        raise ValueError("bad")

    signal.connect(bad)
    signal.connect(receiver)
    with caplog.at_level(logging.ERROR):
        (_, error), (_, answer) = signal.send("s")
    assert repr(error) == "ValueError('bad')"
    assert answer["sender"] == "s"
    assert "raised: ValueError('bad')" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.slow
def test_receivers_are_held_weakly_unless_asked(signal):
    def weak(**kw):
        pass

    def strong(**kw):
        pass

    signal.connect(weak)
    signal.connect(strong, weak=False)
    del weak, strong
    gc.collect()
    assert [function.__name__ for function, _ in signal.send(None)] == ["strong"]
    assert len(signal.receivers) == 1


@pytest.mark.slow
def test_methods_live_as_long_as_their_objects(signal):
    class Owner:
        def method(self, **kw):
            return "m"

    owner = Owner()
    signal.connect(owner.method)
    gc.collect()
    assert [answer for _, answer in signal.send(None)] == ["m"]
    assert signal.disconnect(owner.method)
    signal.connect(owner.method)
    del owner
    gc.collect()
    assert signal.receivers == []


def test_dispatch_uid_stands_for_the_function(signal):
    signal.connect(lambda **kw: 1, weak=False, dispatch_uid="u")
    signal.connect(lambda **kw: 2, weak=False, dispatch_uid="u")
    assert [answer for _, answer in signal.send(None)] == [1]
    assert signal.disconnect(dispatch_uid="u")
    assert signal.receivers == []


def test_functions_without_kwargs_are_refused(signal):
    def narrow(sender):
        pass

    with pytest.raises(ValueError, match="must accept keyword arguments"):
        signal.connect(narrow)


def test_a_receiver_may_disconnect_itself_while_called(signal):
    calls = []

    def once(**kw):
        calls.append(1)
        signal.disconnect(once)

    signal.connect(once)
    signal.connect(receiver)
    assert len(signal.send(None)) == 2
    assert len(signal.send(None)) == 1
    assert calls == [1]


def test_retry_goes_on_until_it_succeeds(caplog):
    tries, pauses = [], []

    def flaky(**kw):
        tries.append(1)
        if len(tries) < 20:
            raise OSError("away")
        return "ok"

    with caplog.at_level(logging.ERROR):
        assert _Persistent(flaky, sleep=pauses.append)(sender=None) == "ok"
    assert pauses[:3] == [2.0, 4.0, 6.0]
    assert pauses[-1] == 30.0
    assert "Retrying in 2.00 seconds" in caplog.text


def test_retry_is_asked_for_when_connecting(signal):
    signal.connect(receiver, retry=True)
    assert [answer["sender"] for _, answer in signal.send("s")] == ["s"]


def test_a_declared_task_is_connected_once_it_is_made(signal):
    task = object()
    promise = PromiseProxy(lambda: task)
    signal.connect(receiver, sender=promise)
    assert signal.receivers == []
    promise.__evaluate__()
    assert len(signal.send(task)) == 1
    assert signal.disconnect(receiver, sender=promise)


def test_connecting_from_many_threads_loses_nobody(signal):
    kept = [lambda n=n, **kw: n for n in range(200)]
    threads = [threading.Thread(target=lambda part=kept[n::8]: [signal.connect(f) for f in part]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answer for _, answer in signal.send(None)) == list(range(200))
