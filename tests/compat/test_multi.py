"""The command line of `celery multi`: nodes, selectors, files (area multi). What real Celery makes of the same words is
compared in `tests/wire/test_multi_live.py`."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys

import pytest
from click.testing import CliRunner

from celery import platforms
from celery.apps import multi
from celery.apps.multi import Cluster, MultiParser, NamespacedOptionParser, Node
from celery.bin.celery import _behind_multi, celery
from celery.bin.multi import MultiTool, arrange
from celery.utils.nodenames import gethostname

HOST = gethostname()


@pytest.fixture(autouse=True)
def default_files(monkeypatch):
    monkeypatch.delenv("CELERYD_PID_FILE", raising=False)
    monkeypatch.delenv("CELERYD_LOG_FILE", raising=False)


def run(line):
    """Exit code, output and errors of `celery multi <line>`."""
    out, err = io.StringIO(), io.StringIO()
    code = MultiTool(stdout=out, stderr=err).execute_from_commandline(["multi", *shlex.split(line)])
    return code, out.getvalue(), err.getvalue()


def names(line):
    return run(f"names {line}")[1].split()


def options(line):
    """Node name without this host → its options, as words, without those that every node has."""
    found = {}
    for shown in run(f"show {line}")[1].splitlines():
        words = shlex.split(shown)
        at = words.index("--detach") + 1
        end = words.index("-n")
        found[words[end + 1].removesuffix(f"@{HOST}")] = " ".join(words[at:end])
    return found


class TestNames:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("w1 w2", [f"w1@{HOST}", f"w2@{HOST}"]),
            ("3", [f"celery{n}@{HOST}" for n in (1, 2, 3)]),
            ("2 --range-prefix=w", [f"w1@{HOST}", f"w2@{HOST}"]),
            ("3 4", [f"3@{HOST}", f"4@{HOST}"]),
            ("0", []),
            ("", []),
            ("--prefix=p_ w1 w2@h", [f"p_w1@{HOST}", "w2@h"]),
            ("--prefix=p_ 1", [f"celery1@{HOST}"]),
            ("--suffix=h w1 w2@x", ["w1@h", "w2@x"]),
            ("-n h w1", ["w1@h"]),
            ("--hostname=h 2", ["celery1@h", "celery2@h"]),
            ("-n a --hostname=b --suffix=c w1", ["w1@c"]),
            ("-n a --hostname=b w1", ["w1@b"]),
            ("""--suffix='""' w1""", ["w1@"]),
            ("foo@%h bar@%h.x", [f"foo@{HOST}", f"bar@{HOST}.x"]),
        ],
    )
    def test_nodes(self, line, expected):
        assert names(line) == expected


class TestSelectors:
    def test_ranges_and_lists_of_a_count(self):
        assert options("5 -Q:1-3 images,video -Q:4,5 data -Q default -l:4,5 DEBUG -l INFO") == {
            "celery1": "-Q images,video -l INFO",
            "celery2": "-Q images,video -l INFO",
            "celery3": "-Q images,video -l INFO",
            "celery4": "-Q data -l DEBUG",
            "celery5": "-Q data -l DEBUG",
        }

    def test_the_guides_ten(self):
        found = options("10 -A proj -l INFO -Q:1-3 images,video -Q:4,5 data -Q default -L:4,5 debug")
        assert found["celery1"] == "-l INFO -Q images,video"
        assert found["celery5"] == "-l INFO -Q data -L debug"
        assert {found[f"celery{n}"] for n in range(6, 11)} == {"-l INFO -Q default"}

    def test_names_numbers_and_whole_names(self):
        assert options("a b c -c:a 1 -c:2 2 -c:b,c 3 -E:c@" + HOST) == {"a": "-c 1", "b": "-c 2", "c": "-c 3 -E"}

    def test_the_more_exact_one_wins(self):
        assert options(f"a b -c 1 -c:a 2 -c:a@{HOST} 3") == {"a": "-c 3", "b": "-c 1"}
        assert options(f"2 -c:1-2 2 -c:celery1 3 -Q:celery1@{HOST} q") == {"celery1": "-c 3 -Q q", "celery2": "-c 2"}

    @pytest.mark.parametrize("line", ["w1 w2 -c:3 1", "w1 w2 -c:0 1", "2 -c:3 1", "w1 -c:1,2 1", "2 -c:1- 3"])
    def test_a_number_beyond_the_nodes_is_an_error(self, line):
        code, out, err = run(f"show {line}")
        assert (code, out) == (1, "")
        assert "expected" in err

    def test_ranges_and_lists_of_a_count_may_go_beyond_it(self):
        assert options("2 -c:2-9 1 -Q:1,7 q") == {"celery1": "-Q q", "celery2": "-c 1"}

    def test_a_range_among_names_is_told(self):
        code, out, err = run("show w1 w2 -c:1-2 3")
        assert code == 0
        assert "-c 3" not in out
        assert err == f"No node is meant by -c:1-2; there are w1@{HOST}, w2@{HOST}\n"


class TestOptions:
    def test_long_short_and_without_value(self):
        assert options("w1 -E -c 3 --x=1 --y= -z -9") == {"w1": "-E -c 3 --x=1 --y -z -9"}

    def test_known_long_options_take_the_next_word(self):
        assert options("w1 --concurrency 3 --task-events w2") == {
            "w1": "--concurrency=3 --task-events",
            "w2": "--concurrency=3 --task-events",
        }

    def test_options_of_celery_go_before_worker(self):
        line = run("show w1 -A proj -b redis:// -c 3 --workdir=/tmp --skip-checks -C")[1]
        assert "-m celery -C --skip-checks --workdir=/tmp -b redis:// -A proj worker --detach -c 3 -n" in line

    def test_own_options_reach_no_worker(self):
        assert options("w1 --nosplash --quiet -q --verbose --no-color -c 1") == {"w1": "-c 1"}
        assert run("show w1 -- --quiet")[1].rstrip().endswith("-- --quiet")

    def test_words_after_dashes_and_appended_ones(self):
        assert run("show w1 --append='x y' -- -c:1 a 'b c'")[1].rstrip().endswith("-- -c:1 a 'b c' x y")

    def test_values_stay_whole(self):
        [line] = run("show w1 --x='a b' -Q \"it's\"")[1].splitlines()
        assert {"--x=a b", "it's"} <= set(shlex.split(line))

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("--cmd='celery -q worker' -A p", [sys.executable, "celery", "-A", "p", "-q", "worker"]),
            ("--cmd='-m my.worker' -A p", [sys.executable, "-m", "my.worker", "-A", "p"]),
            ("--executable=/bin/x", ["/bin/x", "-m", "celery", "worker", "--detach", "--executable=/bin/x"]),
        ],
    )
    def test_another_command(self, line, expected):
        words = shlex.split(run(f"show w1 {line}")[1])
        assert words[: words.index("-n")] == expected


class TestFiles:
    def test_default(self):
        node = Node("w1@h.x")
        assert node.pidfile == "/var/run/celery/w1.pid"
        assert node.logfile == "/var/log/celery/w1%I.log"

    def test_default_of_the_environment(self, monkeypatch):
        monkeypatch.setenv("CELERYD_PID_FILE", "/r/%n.pid")
        monkeypatch.setenv("CELERYD_LOG_FILE", "~/%N.log")
        node = Node("w1@h.x")
        assert node.pidfile == "/r/w1.pid"
        assert node.logfile == os.path.expanduser("~/w1.log")
        assert Node("w1@h", options={"--pidfile": "/x"}).pidfile == "/x"

    def test_letters(self):
        node = Node("w1@h.x", options={"-p": "%n-%N-%h-%d-%p-%i%I%%", "-f": "~/%n"})
        assert node.pidfile == "w1-w1-w1@h.x-h.x-w1@h.x-%i%I%"
        assert node.logfile == os.path.expanduser("~/w1")

    def test_are_the_workers_in_its_folder(self):
        assert Node("w1@h", options={"--workdir": "/w", "--pidfile": "%n.pid"}).pidfile == "/w/w1.pid"

    def test_looking_makes_no_folders(self, tmp_path):
        assert run(f"show w1 --pidfile={tmp_path}/run/%n.pid --logfile={tmp_path}/log/%n.log")[0] == 0
        assert not list(tmp_path.iterdir())


class TestCommands:
    def test_get(self):
        code, out, _ = run(f"get w2@{HOST} w1 w2 -c 3")
        assert code == 0
        assert out.startswith(f"-m celery worker --detach -c 3 -n w2@{HOST} ")
        assert run("get w3 w1 w2")[:2] == (1, "")

    def test_expand(self):
        assert run("expand '%n at %d' w1@a.b w2@c") == (0, "w1 at a.b\nw2 at c\n", "")
        code, _, err = run("expand %z w1")
        assert code == 1
        assert "%z" in err

    def test_help_and_usage(self):
        assert "celery multi start w1 -A proj -l INFO" in run("help")[1]
        code, out, err = run("nosuch")
        assert (code, err.partition(";")[0]) == (1, "Invalid command: nosuch")
        assert out.startswith("celery multi v")
        assert "usage: multi start" in out
        assert run("")[0] == run("get")[0] == run("expand")[0] == 1

    def test_words_that_cannot_be_read(self):
        assert run("show w1 -") == (1, "", "show: expected an option or a node, got a dash alone\n")

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("-A proj multi show 2 -c 3", "multi -A proj show 2 -c 3"),
            ("--app=proj -b x -q multi names 2", "multi --app=proj -b x -q names 2"),
            ("-A multi worker", "-A multi worker"),
            ("--help multi", "--help multi"),
            ("worker multi", "worker multi"),
        ],
    )
    def test_options_before_it_go_behind_it(self, words, expected):
        assert _behind_multi(words.split()) == expected.split()

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("-A proj show 2 -c 3", "show -A proj 2 -c 3"),
            ("-A proj --nosplash expand %n 2", "expand %n -A proj --nosplash 2"),
            ("--broker x -C get w1 w1", "get w1 --broker x -C w1"),
            ("show 2 -A proj", "show 2 -A proj"),
            ("-A proj", "-A proj"),
        ],
    )
    def test_options_before_the_command_go_behind_it(self, words, expected):
        assert arrange(words.split()) == expected.split()

    def test_as_a_command(self):
        done = CliRunner().invoke(celery, ["multi", "-A", "proj", "show", "1", "--", "--x"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "celery -A proj worker" in done.output
        assert done.output.rstrip().endswith("-- --x")
        assert CliRunner().invoke(celery, ["multi", "nosuch"]).exit_code == 1
        assert "stopwait" in CliRunner().invoke(celery, ["multi", "--help"]).output

    @pytest.mark.parametrize(
        ("line", "number"),
        [
            ("w1", 15),
            ("w1 -9", 9),
            ("w1 -KILL", 9),
            ("w1 -SIGQUIT -c 3", 3),
            ("-INT w1 -E", 2),
            ("w1 -99 -FOO -Q q", 15),
        ],
    )
    def test_signals(self, line, number):
        tool = MultiTool(stdout=io.StringIO(), stderr=io.StringIO())
        parser = NamespacedOptionParser(line.split())
        parser.parse()
        assert tool._find_sig_argument(parser) == number
        assert not {"-9", "-KILL", "-SIGQUIT", "-INT"} & set(parser.options)
        assert parser.values == ["w1"]


class TestApi:
    def test_a_parser_of_words(self):
        parser = NamespacedOptionParser(["w1", "-c:1", "3", "-A", "p", "--x:w1=y", "--", "a", "b"])
        parser.parse()
        assert parser.options == {"-A": "p"}
        assert parser.values == ["w1"]
        assert parser.passthrough == "-- a b"
        assert parser.namespaces == {"1": {"-c": "3"}, "w1": {"--x": "y"}}
        assert parser.optmerge("1", {"-c": "4"}) == parser.namespaces["1"]
        [node] = MultiParser().parse(parser)
        assert node.name == f"w1@{HOST}"
        assert node.argv[:3] == ("celery -A p worker", "--x=y", "-c 3")
        assert node.argv[-1] == "-- a b"

    def test_nodes_from_names(self):
        node = Node.from_kwargs("foo@bar.com", max_tasks_per_child=30, A="proj", Q="q1,q2", O="fair")
        assert node.argv == (
            "-m celery -A proj worker --detach",
            "--max-tasks-per-child=30",
            "-Q q1,q2",
            "-O fair",
            "-n foo@bar.com",
            "--pidfile=/var/run/celery/foo.pid",
            "--logfile=/var/log/celery/foo%I.log",
            f"--executable={sys.executable}",
            "",
        )
        assert node.argv_with_executable == (sys.executable, *node.argv)
        assert node.getopt("--nope", "-Q") == "q1,q2"
        with pytest.raises(KeyError):
            node.getopt("--nope")
        assert (node.pid, node.alive(), node.send(signal.SIGTERM)) == (None, False, False)

    def test_helpers(self):
        assert multi.build_nodename("w1", "p", "s") == ("w1", "pw1@s", "s")
        assert multi.build_nodename("w1@h", "p", "s") == ("w1", "w1@h", "h")
        assert (
            multi.build_expander("foo@bar", "foo", "bar")("%n %h %N %d %p %i %I") == "foo foo@bar foo bar foo@bar %i %I"
        )
        assert [multi.format_opt("-a", 3), multi.format_opt("--a", 3), multi.format_opt("-a", None)] == [
            "-a 3",
            "--a=3",
            "-a",
        ]
        assert multi.celery_exe("a", "b") == "celery a b"

    def test_a_cluster_is_a_list_of_nodes(self):
        cluster = Cluster([Node("a@h"), Node("b@h")])
        assert [node.name for node in cluster] == ["a@h", "b@h"]
        assert cluster.find("b@h") is cluster[1]
        with pytest.raises(KeyError):
            cluster.find("b")
        with pytest.raises(TypeError, match="on_nothing"):
            Cluster([], on_nothing=print)

    def test_nodes_without_a_process_are_down(self, tmp_path):
        down = []
        node = Node("a@h", options={"--pidfile": str(tmp_path / "a.pid")})
        cluster = Cluster([node], on_node_down=down.append)
        cluster.stop()
        cluster.kill()
        cluster.stopwait()
        assert down == [node] * 3
        assert list(cluster.getpids()) == []


class TestDaemons:
    """What `detached` does is in test_platforms.py; with real workers in tests/process/test_multi.py."""

    def test_the_environment_names_an_app_for_the_workers_alone(self):
        done = CliRunner().invoke(celery, ["multi", "names", "1"], env={"APP": "nosuch"}, auto_envvar_prefix="CELERY")
        assert done.exit_code == 0, done.output
        done = CliRunner().invoke(celery, ["report"], env={"APP": "nosuch"})
        assert "nosuch" in done.output

    def test_where_there_are_no_daemons(self, monkeypatch):
        monkeypatch.setattr(platforms, "resource", None)
        with pytest.raises(RuntimeError, match="does not support detach"):
            platforms.detached()
