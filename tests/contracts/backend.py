"""What every `ResultBackend` does (`celery.ports`), whatever it is made of."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from celery.outcome import Record
from celery.ports import Watching
from tests.contracts.processes import Child, in_child

if TYPE_CHECKING:
    from celery.ports import ResultBackend

    class MakeBackend(Protocol):
        def __call__(self, expires: float | None = None) -> ResultBackend:
            """A new backend on the test's own fresh storage, each time the same; closed after the test."""

    class PassTime(Protocol):
        def __call__(self, seconds: float) -> None:
            """Let that much time pass for the expiry of records."""


DEADLINE = 20.0


def record(id: str, state: str = "SUCCESS", meta: bytes = b"{}") -> Record:
    """A record whose document says the state, as all do (a backend may read it there), and `meta` as result."""
    return Record(id, state, b'{"status": "%s", "result": "%s"}' % (state.encode(), meta))


def results(documents: list[bytes | None]) -> list[bytes | None]:
    """What `record` was given as `meta`."""
    return [document and document.partition(b'"result": "')[2][:-2] for document in documents]


def results_by_id(documents: dict[str, bytes]) -> dict[str, bytes]:
    return {id: document.partition(b'"result": "')[2][:-2] for id, document in documents.items()}


class BackendContract:
    """Subclass it and override `make_backend` and `pass_time`."""

    #: False: the records live and die with one process.
    crosses_processes = True

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        raise NotImplementedError

    @pytest.fixture
    def pass_time(self) -> PassTime:
        """Moves the clock that expiry goes by (of every backend that `make_backend` made)."""
        raise NotImplementedError

    @pytest.fixture
    def backend(self, make_backend: MakeBackend) -> ResultBackend:
        return make_backend()

    @pytest.fixture
    def other(self, make_backend: MakeBackend) -> ResultBackend:
        return make_backend()

    # ------------------------------------------------------------------------------------------- save, load, forget

    def test_save_and_load(self, backend: ResultBackend, other: ResultBackend) -> None:
        backend.save([record("a", meta=b"1"), record("b", "FAILURE", b"2")])
        backend.save([record("c", "STARTED", b"3")])
        assert results(other.load(["b", "nobody", "a", "c", "a"])) == [b"2", None, b"1", b"3", b"1"]
        assert results(backend.load([])) == []

    def test_saving_nothing(self, backend: ResultBackend) -> None:
        backend.save([])

    @pytest.mark.parametrize(
        "meta",
        [b"", b"\x00\xff\r\n" * 50, "ü ❤ 𝄞".encode(), b"x" * 2_000_000],
        ids=["nothing", "bytes", "text", "large"],
    )
    def test_bytes_are_kept_untouched(self, backend: ResultBackend, meta: bytes) -> None:
        backend.save([Record("täsk-❤", "SUCCESS", meta)])
        assert backend.load(["täsk-❤"]) == [meta]

    def test_newer_states_replace_older_ones(self, backend: ResultBackend) -> None:
        for state in ("STARTED", "RETRY", "FAILURE", "STARTED", "REVOKED", "OWN"):
            backend.save([record("a", state, state.encode())])
            assert results(backend.load(["a"])) == [state.encode()]

    def test_the_last_of_a_batch_counts(self, backend: ResultBackend) -> None:
        backend.save([record("a", "STARTED", b"1"), record("a", "FAILURE", b"2")])
        assert results(backend.load(["a"])) == [b"2"]

    def test_success_is_final(self, backend: ResultBackend, other: ResultBackend) -> None:
        """[state.10]"""
        backend.save([record("a", "SUCCESS", b"first")])
        for state in ("FAILURE", "STARTED", "SUCCESS", "REVOKED"):
            other.save([record("a", state, b"later"), record(f"b-{state}", state, b"fine")])
            assert results(other.load(["a", f"b-{state}"])) == [b"first", b"fine"]

    def test_success_is_final_within_a_batch(self, backend: ResultBackend) -> None:
        backend.save([record("a", "SUCCESS", b"first"), record("a", "FAILURE", b"later")])
        assert results(backend.load(["a"])) == [b"first"]

    def test_forget(self, backend: ResultBackend, other: ResultBackend) -> None:
        backend.save([record("a"), record("b")])
        other.forget(["a", "nobody"])
        other.forget([])
        assert results(backend.load(["a", "b"])) == [None, b"{}"]
        backend.save([record("a", "FAILURE", b"anew")])  # not even its success is remembered
        assert results(backend.load(["a"])) == [b"anew"]

    @pytest.mark.slow
    def test_ten_thousand(self, backend: ResultBackend) -> None:
        names = [f"id-{i:05}" for i in range(10_000)]
        backend.save([record(name, meta=name.encode()) for name in names])
        assert results(backend.load(names)) == [name.encode() for name in names]
        assert results_by_id(backend.wait(names, 0)) == {name: name.encode() for name in names}
        backend.forget(names)
        assert results(backend.load(names)) == [None] * 10_000
        assert backend.wait(names, 0) == {}

    # -------------------------------------------------------------------------------------------------------- expiry

    def test_expiry(self, make_backend: MakeBackend, pass_time: PassTime) -> None:
        """[state.13]"""
        backend, keeper = make_backend(expires=2), make_backend(expires=None)
        backend.save([record("a", "SUCCESS", b"first")])
        keeper.save([record("k", "SUCCESS", b"kept")])
        assert results(backend.load(["a", "k"])) == [b"first", b"kept"]
        pass_time(2.1)
        assert results(backend.load(["a", "k"])) == [None, b"kept"]
        assert backend.wait(["a"], 0) == {}
        backend.save([record("a", "FAILURE", b"anew")])
        assert results(backend.load(["a"])) == [b"anew"]

    def test_saving_again_renews_the_expiry(self, make_backend: MakeBackend, pass_time: PassTime) -> None:
        backend = make_backend(expires=2)
        backend.save([record("a", "STARTED", b"1")])
        pass_time(1.2)
        backend.save([record("a", "FAILURE", b"2")])
        pass_time(1.2)
        assert results(backend.load(["a"])) == [b"2"]

    # ------------------------------------------------------------------------------------------------------- waiting

    def test_wait_for_what_is_there(self, backend: ResultBackend) -> None:
        backend.save([record("a", meta=b"1"), record("b", "FAILURE", b"2"), record("c", "REVOKED", b"3")])
        backend.save([record("d", "STARTED"), record("e", "RETRY"), record("f", "OWN")])
        ready = backend.wait(["a", "b", "c", "d", "e", "f", "g"], None)
        assert results_by_id(ready) == {"a": b"1", "b": b"2", "c": b"3"}

    @pytest.mark.slow
    def test_wait_times_out(self, backend: ResultBackend) -> None:
        backend.save([record("a", "STARTED")])
        begin = time.monotonic()
        assert backend.wait(["a", "b"], 0.15) == {}
        assert time.monotonic() - begin >= 0.14
        assert backend.wait(["a"], 0) == {}

    def test_wait_for_nothing(self, backend: ResultBackend) -> None:
        assert backend.wait([], 0.01) == {}

    def test_states_on_the_way_do_not_end_the_wait(self, backend: ResultBackend, other: ResultBackend) -> None:
        seen: list[dict[str, bytes]] = []
        thread = threading.Thread(target=lambda: seen.append(results_by_id(backend.wait(["a"], DEADLINE))))
        thread.start()
        for state in ("STARTED", "RETRY", "STARTED", "SUCCESS"):
            other.save([record("a", state, state.encode())])
        thread.join(DEADLINE)
        assert seen == [{"a": b"SUCCESS"}]

    def test_many_threads_wait(self, backend: ResultBackend, other: ResultBackend) -> None:
        """Each for its own, and all for one that they share."""
        seen: dict[str, dict[str, bytes]] = {}
        shared: list[dict[str, bytes]] = []

        def wait(name: str) -> None:
            seen[name] = results_by_id(backend.wait([name, f"never-{name}"], DEADLINE))
            shared.append(results_by_id(backend.wait(["shared"], DEADLINE)))

        names = [f"n{i}" for i in range(20)]
        threads = [threading.Thread(target=wait, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for name in names:
            other.save([record(name, meta=name.encode())])
        other.save([record("shared", "FAILURE", b"s")])
        for thread in threads:
            thread.join(DEADLINE)
        assert seen == {name: {name: name.encode()} for name in names}
        assert shared == [{"shared": b"s"}] * 20

    def test_wait_after_a_timeout(self, backend: ResultBackend, other: ResultBackend) -> None:
        """A wait that ended with nothing leaves nothing behind that hides the answer later."""
        assert backend.wait(["a"], 0.02) == {}
        other.save([record("a", meta=b"1")])
        assert results_by_id(backend.wait(["a"], DEADLINE)) == {"a": b"1"}
        other.forget(["a"])
        assert backend.wait(["a"], 0.02) == {}
        other.save([record("a", meta=b"2")])
        assert results_by_id(backend.wait(["a"], DEADLINE)) == {"a": b"2"}

    # ------------------------------------------------------------------------------------------------------ watching

    def test_watch_tells_each_state(self, backend: ResultBackend, other: ResultBackend) -> None:
        """[call.10]: in the thread that watches, each before the next is stored here, so that none may be lost."""
        assert isinstance(backend, Watching)
        steps = iter([("PROGRESS", b"1"), ("PROGRESS", b"2"), ("STARTED", b"3"), ("FAILURE", b"4")])
        heard: list[bytes | None] = []

        def hear(document: bytes) -> None:
            heard.append(results([document])[0])
            assert threading.current_thread() is threading.main_thread()
            for state, text in steps:
                other.save([record("a", state, text)])
                return

        threading.Timer(0.05, lambda: other.save([record("a", "STARTED", b"0")])).start()
        final = backend.watch("a", DEADLINE, hear)
        assert heard == [b"0", b"1", b"2", b"3", b"4"]
        assert results([final]) == [b"4"]

    def test_watch_what_is_final(self, backend: ResultBackend) -> None:
        assert isinstance(backend, Watching)
        heard: list[bytes | None] = []
        backend.save([record("a", "SUCCESS", b"1"), record("b", "STARTED", b"2")])
        assert results([backend.watch("a", DEADLINE, heard.append)]) == [b"1"]
        assert results(heard) == [b"1"]
        assert backend.watch("b", 0.05, heard.append) is None
        assert backend.watch("nobody", 0, heard.append) is None
        assert len(heard) == 1

    # ----------------------------------------------------------------------------------- connections and processes

    def test_closed_backend_connects_anew(self, backend: ResultBackend) -> None:
        backend.save([record("a", meta=b"1")])
        backend.close()
        backend.close()
        assert results(backend.load(["a"])) == [b"1"]
        backend.save([record("b", meta=b"2")])
        assert results_by_id(backend.wait(["b"], DEADLINE)) == {"b": b"2"}

    def test_wakes_across_processes(self, backend: ResultBackend, make_backend: MakeBackend) -> None:
        self._needs_processes()

        def answer() -> object:
            mine = make_backend()
            assert mine.wait(["question"], DEADLINE)
            mine.save([record("answer", meta=b"yes")])
            return mine

        child = Child(answer)
        try:
            backend.save([record("question")])
            assert results_by_id(backend.wait(["answer"], DEADLINE)) == {"answer": b"yes"}
            child.done()
        finally:
            child.kill()

    def test_a_fork_has_connections_of_its_own(self, backend: ResultBackend) -> None:
        self._needs_processes()
        backend.save([record("a", meta=b"1")])
        assert results_by_id(backend.wait(["a"], DEADLINE)) == {"a": b"1"}

        def use() -> None:
            backend.save([record("b", meta=b"2")])
            assert results(backend.load(["a", "b"])) == [b"1", b"2"]
            assert results_by_id(backend.wait(["b"], DEADLINE)) == {"b": b"2"}
            backend.close()

        in_child(use)
        assert results(backend.load(["a", "b"])) == [b"1", b"2"]
        backend.save([record("c", meta=b"3")])
        assert results_by_id(backend.wait(["c"], DEADLINE)) == {"c": b"3"}

    def _needs_processes(self) -> None:
        if not self.crosses_processes:
            pytest.skip("lives in one process")
