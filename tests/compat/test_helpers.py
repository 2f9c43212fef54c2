"""Node names, text, colours, pickling, deprecation, the system (area util)."""

import json
import pickle
import socket
import subprocess
import sys
import threading
import warnings
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from celery.utils import deprecated, nodenames, serialization, sysinfo, text, threads
from celery.utils.term import colored


class TestNodenames:
    def test_joining_and_splitting(self):
        assert nodenames.nodename("w", "h") == "w@h"
        assert [nodenames.nodesplit(name) for name in ("a@b", "a", "@b", "a@b@c")] == [
            ("a", "b"), (None, "a"), ("", "b"), ("a", "b@c"),
        ]  # fmt: skip

    def test_defaults(self, monkeypatch):
        monkeypatch.setattr(nodenames, "gethostname", lambda: "vm")
        given = (None, "", "w", "w@h", "@h", "w@")
        assert [nodenames.default_nodename(name) for name in given] == [
            "celery@vm", "celery@vm", "celery@w", "w@h", "celery@h", "w@vm",
        ]  # fmt: skip

    def test_anonymous(self, monkeypatch):
        monkeypatch.setattr("os.getpid", lambda: 7)
        assert nodenames.anon_nodename("h") == "gen7@h"
        assert nodenames.anon_nodename("h", "beat") == "beat7@h"

    @pytest.mark.parametrize(
        ("form", "name"),
        [("%n", "w1"), ("%h", "ex.com"), ("%d", "com"), ("%p", "w1@ex.com"), ("%%", "%"), ("%n%I-%i.log", "w1-0.log")],
    )
    def test_formats(self, form, name):
        assert nodenames.node_format(form, "w1@ex.com") == name

    def test_formats_in_a_child(self):
        nodenames.set_process_index(4)
        try:
            assert nodenames.node_format("%n%I %i", "w1@h") == "w1-5 5"
        finally:
            nodenames.set_process_index(None)

    def test_host_formats(self):
        assert nodenames.host_format("%n@%h.%d", "a.b.c") == "a@a.b.c.b.c"
        assert nodenames.host_format("%n-%h", "a", n="x") == "x-a"
        with pytest.raises(ValueError, match=r"Unknown format %x in '%x'"):
            nodenames.host_format("%x", "h")

    def test_direct_queue(self):
        queue = nodenames.worker_direct("w@h")
        assert (queue.name, queue.exchange.name, queue.routing_key) == ("w@h.dq2", "C.dq2", "w@h")
        assert nodenames.worker_direct(queue) is queue


class TestText:
    def test_abbreviations(self):
        assert text.abbr("hello world", 8) == "hello..."
        assert text.abbr("hello world", 8, False) == "hello wo"
        assert text.abbr(None, 3) == text.abbrtask(None, 3) == "???"
        assert [text.abbrtask("proj.tasks.add", n) for n in (3, 10, 12, 14)] == [
            "proj.ta[.]add", "proj[.]add", "proj.t[.]add", "proj.tasks.add",
        ]  # fmt: skip
        assert text.truncate("hello world foo", 12) == "hello world..."
        assert text.truncate("hi", 5) == "hi"

    def test_lines(self):
        assert text.dedent("    a\n      b\n") == "a\n  b"
        assert text.indent("a\n\nb", 2) == "  a\n\n  b"
        assert text.join(["a", "", None, "b"]) == "a\nb"
        assert text.ensure_newlines("a\n") == "a\n\n"
        assert text.ensure_sep("-", "a-b-c-") == "a-b-c-"
        assert text.fill_paragraphs("aaa bbb ccc", 7) == "aaa bbb\nccc"

    def test_words(self):
        assert [text.pluralize(n, "task") for n in (0, 1, 2)] == ["tasks", "task", "tasks"]
        assert text.str_to_list("a,b") == ["a", "b"]
        assert text.str_to_list(["a"]) == ["a"]
        assert text.simple_format("%a %%", {"a": lambda: "x"}) == "x %"
        assert text.remove_repeating_from_task("proj.tasks.add", "proj.tasks.add(2) | proj.tasks.mul(3)") == (
            "proj.tasks.add(2) | mul(3)"
        )
        assert text.pretty({"a": 1}) == "{\n 'a': 1}"
        assert text.pretty([1, 2]) == "[1, 2]"

    def test_colours(self):
        c = colored(enabled=True)
        assert str(c.red("a", c.blue("b"), "c")) == "\x1b[1;31ma\x1b[1;34mb\x1b[0mc\x1b[0m"
        assert c.red("a", c.bold("b")).no_color() == "ab"
        assert c.red("a") + c.blue("b") == "\x1b[1;31ma\x1b[0m\x1b[1;34mb\x1b[0m"
        assert str(colored(enabled=False).red("a")) == "a"
        assert str(c.ired("x")) == "\x1b[1;41mx\x1b[0m"


class Unpicklable(Exception):
    def __init__(self, *args):
        super().__init__(*args)
        self.what = lambda: 1


class UnpicklableChild(ValueError):
    def __init__(self, a, b, c):
        super().__init__("child", a)


class TestSerialization:
    def test_picklable_exceptions_pass(self):
        error = KeyError("k")
        assert serialization.get_pickleable_exception(error) is error

    def test_others_become_their_base(self):
        other = serialization.get_pickleable_exception(UnpicklableChild(1, 2, 3))
        assert (type(other), other.args) == (ValueError, ("child", 1))

    def test_others_are_wrapped_and_restored_by_name(self):
        wrapped = serialization.get_pickleable_exception(Unpicklable("x", lambda: 1))
        restored = serialization.get_pickled_exception(pickle.loads(pickle.dumps(wrapped)))
        assert (type(restored).__name__, type(restored).__module__) == ("Unpicklable", __name__)
        assert restored.args[0] == "x"
        assert "function" in restored.args[1]
        assert "Unpicklable('x'" in str(wrapped)

    def test_classes(self):
        class Local(Exception):
            pass

        assert serialization.get_pickleable_etype(KeyError) is KeyError
        assert serialization.get_pickleable_etype(Local) is Exception
        made = serialization.create_exception_cls("Made", "some.where", KeyError)
        assert (made.__name__, made.__module__, made.__bases__) == ("Made", "some.where", (KeyError,))

    @pytest.mark.parametrize(("word", "truth"), [("true", True), ("OFF", False), ("1", True), (None, None), (3, 3)])
    def test_strtobool(self, word, truth):
        assert serialization.strtobool(word) == truth

    def test_strtobool_refuses(self):
        with pytest.raises(TypeError, match="Cannot coerce 'x'"):
            serialization.strtobool("x")

    def test_jsonify(self):
        moment = datetime(2020, 1, 1, 1, 1, 1, 123456, tzinfo=UTC)
        value = {"a": (1, None, "x"), "b": moment, "c": date(2020, 1, 1), "d": time(1, 2), "e": timedelta(days=1)}
        assert serialization.jsonify(value) == {
            "a": [1, None, "x"], "b": "2020-01-01T01:01:01.123Z", "c": "2020-01-01", "d": "01:02:00",
            "e": "1 day, 0:00:00",
        }  # fmt: skip
        with pytest.raises(ValueError, match="parent: k"):
            serialization.jsonify({"k": b"x"})
        assert serialization.jsonify({"k": b"x"}, unknown_type_filter=repr) == {"k": "b'x'"}
        assert serialization.jsonify({"k": 1, "l": 2}, keyfilter="k".__eq__) == {"k": 1}

    def test_small_ones(self):
        assert serialization.b64decode(serialization.b64encode("é")) == "é".encode()
        assert serialization.ensure_serializable([1, b"x"], json.dumps) == (1, "b'x'")
        try:
            raise KeyError
        except KeyError:
            with pytest.raises(ValueError, match="v") as caught:
                serialization.raise_with_context(ValueError("v"))
        assert isinstance(caught.value.__cause__, KeyError)


class TestDeprecated:
    def test_warnings_point_to_the_user(self):
        @deprecated.Callable(deprecation="1", removal="2", alternative="Use y.")
        def old(a):
            return a

        class Owner:
            @deprecated.Property(removal="2", description="the prop")
            def prop(self):
                return self.kept

            @prop.setter
            def prop(self, value):
                self.kept = value

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert old(3) == 3
            owner = Owner()
            owner.prop = 1
            assert owner.prop == 1
            deprecated.warn("direct", removal="3")
        assert [one.category for one in seen] == [CPendingDeprecationWarning] + [CDeprecationWarning] * 3
        assert {one.filename for one in seen} == {__file__}
        assert "removal in version 2. Use y." in str(seen[0].message)
        assert "the prop is deprecated" in str(seen[1].message)


class TestSysinfo:
    def test_budget_is_the_smaller(self, monkeypatch):
        monkeypatch.setattr(sysinfo, "available_cpu_count", lambda: 8)
        monkeypatch.setattr(sysinfo, "cgroup_cpu_quota", lambda: 1.5)
        assert sysinfo.cpu_budget() == (2, 8, 1.5)
        assert sysinfo.cpu_budget(use_cgroup_quota=False) == (8, 8, None)

    @pytest.mark.parametrize(
        ("file", "line", "own", "above", "quota"),
        [
            ("cpu.max", "0::/a/b", "max 100000", "50000 100000", 0.5),
            ("cpu.max", "0::/a/b", "150000 100000", "max 100000", 1.5),
            ("cpu.max", "0::/a/b", "max 100000", "max 100000", None),
        ],
    )
    def test_quota_of_any_group_above_counts(self, tmp_path, monkeypatch, file, line, own, above, quota):
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b" / file).write_text(own)
        (tmp_path / "a" / file).write_text(above)
        (tmp_path / "self").write_text(line + "\n")
        monkeypatch.setattr(sysinfo, "CGROUP_ROOT", str(tmp_path))
        monkeypatch.setattr(sysinfo, "PROC_SELF_CGROUP", str(tmp_path / "self"))
        assert sysinfo.cgroup_cpu_quota() == quota

    def test_first_version_of_groups(self, tmp_path, monkeypatch):
        group = tmp_path / "cpu,cpuacct/x"
        group.mkdir(parents=True)
        (group / "cpu.cfs_quota_us").write_text("200000")
        (group / "cpu.cfs_period_us").write_text("100000")
        (tmp_path / "self").write_text("4:cpu,cpuacct:/x\n")
        monkeypatch.setattr(sysinfo, "CGROUP_ROOT", str(tmp_path))
        monkeypatch.setattr(sysinfo, "PROC_SELF_CGROUP", str(tmp_path / "self"))
        assert sysinfo.cgroup_cpu_quota() == 2.0

    def test_words_and_numbers(self):
        assert [sysinfo.is_auto_concurrency(value) for value in ("auto", " AUTO ", 0, None, "4")] == [
            True, True, False, False, False,
        ]  # fmt: skip
        assert len(sysinfo.load_average()) == 3
        assert 0 < sysinfo.df(Path("/")).available <= sysinfo.df("/").total_blocks
        assert 0 <= sysinfo.df("/").capacity <= 100


class TestThreads:
    def test_a_thread_goes_round_until_it_is_stopped(self) -> None:
        class Counting(threads.bgThread):
            rounds = 0
            enough = threading.Event()

            def body(self) -> None:
                self.rounds += 1
                self.enough.wait(0.001)

        thread = Counting()
        assert (thread.daemon, thread.name, Counting(name="x").name) == (True, "Counting", "x")
        thread.start()
        while thread.rounds < 3:
            assert thread.is_alive()
            thread.enough.wait(0.001)
        thread.stop()
        assert not thread.is_alive()
        assert thread.rounds >= 3

    def test_a_thread_that_crashes_ends_the_process(self) -> None:
        script = (
            "import time\nfrom celery.utils.threads import bgThread\n"
            "class T(bgThread):\n    def body(self): raise ValueError('told')\n"
            "T(name='mine').start(); time.sleep(30)"
        )
        done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, timeout=30)
        assert done.returncode == 1
        assert "'mine' crashed: ValueError('told')" in done.stderr
        assert "Traceback" in done.stderr

    def test_sockets_have_a_timeout_meanwhile(self) -> None:
        before = socket.getdefaulttimeout()
        with threads.default_socket_timeout(3.5):
            assert socket.getdefaulttimeout() == 3.5
        assert socket.getdefaulttimeout() == before

    def test_a_manager_empties_its_storages(self) -> None:
        stack, space = threads.LocalStack[int](), threads.Local()
        manager = threads.LocalManager([stack, space])
        stack.push(1)
        stack.push(2)
        space.x = 1
        manager.cleanup()
        assert (stack.top, hasattr(space, "x"), manager.get_ident()) == (None, False, threading.get_ident())
        assert threads.LocalManager().locals == []
        assert threads.LocalManager(stack).locals == [stack]
