"""Logging: set-up, formats, files, the redirected standard streams, and the fast way for lines (area log)."""

import importlib
import io
import logging
import os
import re
import subprocess
import sys
import threading
import time
import types
import warnings

import pytest

from celery import signals
from celery.app.log import Logging, TaskFormatter
from celery.app.utils import detect_settings
from celery.exceptions import CDeprecationWarning
from celery.utils import log
from celery.utils.log import (
    ColorFormatter,
    FileLineHandler,
    LoggingProxy,
    StreamLineHandler,
    flush_lines,
    get_task_logger,
    line_writer,
    mlevel,
)
from celery.utils.nodenames import set_process_index

LINE = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: INFO/MainProcess\] "
NAMES = (None, "celery", "celery.task", "celery.redirected", "multiprocessing", "celery.worker", "celery.worker.x")


@pytest.fixture
def clean():
    """All that a set-up of logging changes is put back."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    streams, environment, setup, named = (sys.stdout, sys.stderr), dict(os.environ), Logging._setup, Logging._named
    for logger in loggers:
        logger.handlers = []
    Logging._setup, Logging._named = False, None
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    for handler in list(log.line_handlers):
        handler.close()
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    sys.stdout, sys.stderr = streams
    os.environ.clear()
    os.environ.update(environment)
    Logging._setup, Logging._named = setup, named
    set_process_index(None)


def _logging(**conf):
    return Logging(types.SimpleNamespace(conf=detect_settings(conf)))


@pytest.fixture
def path(tmp_path, clean):
    return tmp_path / "w.log"


class TestSetup:
    def test_lines_of_all_loggers(self, path):
        _logging().setup("INFO", str(path))
        logging.getLogger("somewhere").info("hello %s", "x")
        get_task_logger("proj.tasks").info("in no task")
        logging.getLogger("somewhere").debug("not shown")
        first, second = path.read_text().splitlines()
        assert re.fullmatch(LINE + "hello x", first)
        assert re.fullmatch(LINE + re.escape("???[???]: in no task"), second)

    def test_environment_tells_children(self, path):
        _logging().setup("INFO", str(path), redirect_stdouts=True, redirect_level="INFO")
        told = {name: os.environ[name] for name in os.environ if name.startswith("CELERY_LOG")}
        assert told == {
            "CELERY_LOG_LEVEL": "20",
            "CELERY_LOG_FILE": str(path),
            "CELERY_LOG_REDIRECT": "1",
            "CELERY_LOG_REDIRECT_LEVEL": "INFO",
        }

    def test_is_done_once_a_process(self, path):
        first, second = _logging(), _logging()
        first.setup("INFO", str(path))
        assert second.already_setup
        assert second.setup("DEBUG", str(path)) is True
        assert logging.getLogger().level == logging.INFO

    def test_root_logger_is_taken_over(self, path):
        logging.getLogger().addHandler(logging.StreamHandler())
        _logging().setup("INFO", str(path))
        assert [type(handler) for handler in logging.getLogger().handlers] == [FileLineHandler]

    def test_a_configured_root_logger_keeps_its_handlers(self, path):
        mine = logging.StreamHandler()
        logging.getLogger().addHandler(mine)
        _logging(worker_hijack_root_logger=False).setup("INFO", str(path))
        assert logging.getLogger().handlers == [mine]

    def test_signal_takes_the_place_of_the_set_up(self, path):
        told = []

        def mine(**kwargs):
            told.append(kwargs)

        signals.setup_logging.connect(mine)
        try:
            answers = _logging().setup("INFO", str(path), redirect_stdouts=True)
        finally:
            signals.setup_logging.disconnect(mine)
        assert answers == [(mine, None)]
        assert logging.getLogger().handlers == []
        assert not isinstance(sys.stdout, LoggingProxy)
        assert {name: told[0][name] for name in ("loglevel", "logfile", "colorize")} == {
            "loglevel": 20,
            "logfile": str(path),
            "colorize": False,
        }

    def test_signals_tell_of_the_loggers(self, path):
        told = []

        def root(logger, **kwargs):
            told.append(logger.name)

        signals.after_setup_logger.connect(root)
        signals.after_setup_task_logger.connect(root)
        try:
            _logging().setup("INFO", str(path))
        finally:
            signals.after_setup_logger.disconnect(root)
            signals.after_setup_task_logger.disconnect(root)
        assert told == ["root", "celery.task"]

    def test_formats_are_settings(self, path):
        _logging(worker_log_format="%(levelname)s|%(asctime)s|%(message)s", worker_log_datefmt="%Y").setup(
            "INFO", str(path)
        )
        logging.getLogger("x").info("m")
        assert re.fullmatch(r"INFO\|\d{4}\|m\n", path.read_text())

    def test_names_of_files_are_expanded_also_in_children(self, tmp_path, clean):
        _logging().setup("INFO", str(tmp_path / "%n-%h%I.log"), hostname="w1@ho.st")
        logging.getLogger("x").info("main")
        _logging().enter_child(2)
        logging.getLogger("x").info("child")
        get_task_logger("y").info("task")
        assert len((tmp_path / "w1-ho.st.log").read_text().splitlines()) == 1
        assert len((tmp_path / "w1-ho.st-3.log").read_text().splitlines()) == 2

    def test_a_subclass_may_set_the_handlers_up(self, path):
        class Mine(Logging):
            def setup_handlers(self, logger, *args, **kwargs):
                logger.addHandler(logging.StreamHandler(io.StringIO()))

        Mine(types.SimpleNamespace(conf=detect_settings({}))).setup("INFO", str(path))
        assert [type(handler) for handler in logging.getLogger().handlers] == [logging.StreamHandler]
        assert not path.exists()

    def test_task_lines_have_their_own_format(self, path):
        conf = {"worker_task_log_format": "%(task_name)s|%(asctime)s|%(message)s", "worker_task_log_datefmt": "%Y"}
        _logging(**conf).setup("INFO", str(path))
        get_task_logger("x").info("m")
        assert re.fullmatch(r"\?\?\?\|\d{4}\|m\n", path.read_text())

    def test_deprecations_are_always_shown(self, path):
        _logging().setup("INFO", str(path))
        for _ in range(2):
            warnings.warn(CDeprecationWarning("old"), stacklevel=1)
        assert path.read_text().count("CDeprecationWarning: old") == 2

    def test_colour_only_where_asked_or_on_a_terminal(self, clean):
        app_log = _logging()
        assert not app_log.supports_color()
        assert app_log.supports_color(True)
        assert not app_log.supports_color(False)
        assert str(app_log.colored(enabled=True).red("x")) == "\x1b[1;31mx\x1b[0m"
        assert str(app_log.colored().red("x")) == "x"


class TestFormatters:
    @pytest.mark.parametrize(
        ("level", "line"),
        [
            (logging.DEBUG, "\x1b[1;34mDEBUG m a\x1b[0m"),
            (logging.INFO, "INFO m a"),
            (logging.WARNING, "\x1b[1;33mWARNING m a\x1b[0m"),
            (logging.ERROR, "\x1b[1;31mERROR m a\x1b[0m"),
            (logging.CRITICAL, "\x1b[1;35mCRITICAL m a\x1b[0m"),
        ],
    )
    def test_colours(self, level, line):
        record = logging.LogRecord("n", level, "p", 1, "m %s", ("a",), None)
        assert ColorFormatter("%(levelname)s %(message)s").format(record) == line

    @pytest.mark.parametrize("created", [0.0, 1.9999, 1700000000.001, 1700000000.9996, 1700000001.0])
    @pytest.mark.parametrize("datefmt", [None, "%H:%M"])
    def test_dates_are_the_standard_library_s(self, created, datefmt):
        fmt = "%(asctime)s"
        ours, theirs = ColorFormatter(fmt, datefmt=datefmt), logging.Formatter(fmt, datefmt)
        for offset in (0, 0.0005, 0.5, 1.2, 0):
            record = logging.makeLogRecord({"msg": "m"})
            record.created = created + offset
            record.msecs = int((record.created - int(record.created)) * 1000) + 0.0
            assert ours.format(record) == theirs.format(record)

    def test_tracebacks_are_inside_the_colour(self):
        try:
            raise ValueError("boom")
        except ValueError:
            record = logging.LogRecord("n", logging.ERROR, "p", 1, "m", (), sys.exc_info())
        line = ColorFormatter("%(message)s").format(record)
        assert line.startswith("\x1b[1;31mm\nTraceback")
        assert line.endswith("ValueError: boom\x1b[0m")

    def test_task_formatter_outside_of_tasks(self):
        record = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
        assert TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s").format(record) == "???[???]: m"


class TestFastWriter:
    """`line_writer(logger, level)` does what `logger.log(level, text)` does."""

    @pytest.fixture
    def logger(self, path):
        _logging().setup("INFO", str(path))
        return logging.getLogger("celery.worker.x")

    @pytest.mark.parametrize("text", ["plain", "100% %s %(x)s {}", "é\u2028\udc80", "two\nlines", ""])
    def test_bytes_are_the_same(self, logger, path, monkeypatch, text):
        for moment in (1700000000.0, 1700000000.9999, 1700000001.25):
            monkeypatch.setattr(time, "time", lambda moment=moment: moment)
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: int(moment * 1e9))
            write = line_writer(logger, logging.INFO)
            write(text)
            flush_lines()
            logger.info(text)
            fast, slow = path.read_bytes()[: path.stat().st_size // 2], path.read_bytes()[path.stat().st_size // 2 :]
            assert fast == slow
            path.write_bytes(b"")

    @pytest.mark.parametrize("name", ["celery.app.trace", "celery.worker.strategy"])
    def test_it_serves_the_loggers_of_every_task(self, logger, name):
        importlib.import_module("celery.worker.telling")  # what puts filters on them
        assert line_writer(logging.getLogger(name), logging.INFO) is not None

    def test_a_filter_that_might_change_a_line_is_asked(self, logger, monkeypatch):
        monkeypatch.setattr(logger, "filters", [lambda record: "secret" not in record.getMessage()])
        assert line_writer(logger, logging.INFO) is None

    def test_lines_are_held_and_written_by_flush(self, logger, path):
        write = line_writer(logger, logging.INFO)
        write("first")  # nothing was written for long: at once
        write("second")
        assert len(path.read_text().splitlines()) == 1
        flush_lines()
        assert len(path.read_text().splitlines()) == 2

    def test_ordinary_records_come_after_what_is_held(self, logger, path):
        write = line_writer(logger, logging.INFO)
        for n in range(3):
            write(f"held {n}")
        get_task_logger("proj").info("task")
        write("held again")
        logging.getLogger("other").error("other")
        said = [line.split("] ")[1] for line in path.read_text().splitlines()]
        assert said == ["held 0", "held 1", "held 2", "???[???]: task", "held again", "other"]

    def test_held_lines_are_bounded_in_size(self, logger, path):
        write = line_writer(logger, logging.INFO)
        write("x")
        for _ in range(20):
            write("y" * 10_000)
        assert path.stat().st_size > 100_000

    def test_no_line_waits_longer_than_the_hold_while_lines_come(self, logger, path, monkeypatch):
        now = [time.time()]
        monkeypatch.setattr(time, "time", lambda: now[0])
        write = line_writer(logger, logging.INFO)
        write("a")
        write("b")
        now[0] += 0.051
        write("c")
        assert len(path.read_text().splitlines()) == 3

    def test_a_forked_child_does_not_write_what_its_parent_holds(self, logger, path):
        write = line_writer(logger, logging.INFO)
        write("0")
        write("held")
        pid = os.fork()
        if not pid:
            write("child")
            flush_lines()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        flush_lines()
        assert sorted(line.split("] ")[1] for line in path.read_text().splitlines()) == ["0", "child", "held"]

    def test_lines_of_many_threads_stay_whole_and_none_is_lost(self, logger, path):
        write = line_writer(logger, logging.INFO)

        def many(name):
            for n in range(300):
                write(f"{name} {n} " + "z" * 50)
                if n % 50 == 0:
                    logger.info("%s ordinary %d", name, n)

        threads = [threading.Thread(target=many, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        flush_lines()
        lines = path.read_text().splitlines()
        assert len(lines) == 4 * (300 + 6)
        assert all(re.match(LINE, line) for line in lines)
        for name in ("t0", "t3"):
            mine = [line for line in lines if f"] {name} " in line and "ordinary" not in line]
            assert [int(line.split()[4]) for line in mine] == list(range(300))

    def test_a_moved_file_is_made_anew(self, logger, path):
        write = line_writer(logger, logging.INFO)
        write("old")
        flush_lines()
        moved = path.with_suffix(".1")
        path.rename(moved)
        write("new")
        flush_lines()
        assert moved.read_text().endswith("old\n")
        assert path.read_text().endswith("new\n")

    @pytest.mark.parametrize(
        "hinder",
        [
            lambda logger: logger.addFilter(lambda record: True),
            lambda logger: logging.getLogger().handlers[0].addFilter(lambda record: True),
            lambda logger: logging.getLogger().addHandler(logging.StreamHandler(io.StringIO())),
            lambda logger: logger.setLevel(logging.ERROR),
            lambda logger: logging.getLogger().handlers[0].setLevel(logging.ERROR),
            lambda logger: logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(message)s")),
            lambda logger: logging.getLogger().handlers[0].setFormatter(ColorFormatter("%(lineno)d %(message)s")),
            lambda logger: setattr(logger, "propagate", False),
        ],
    )
    def test_is_not_given_where_somebody_could_tell(self, logger, hinder):
        assert line_writer(logger, logging.INFO) is not None
        try:
            hinder(logger)
            assert line_writer(logger, logging.INFO) is None
        finally:
            logger.filters.clear()

    def test_is_not_given_with_another_record_factory(self, logger):
        logging.setLogRecordFactory(lambda *args, **kwargs: logging.LogRecord(*args, **kwargs))
        try:
            assert line_writer(logger, logging.INFO) is None
        finally:
            logging.setLogRecordFactory(logging.LogRecord)

    def test_notices_within_a_second_what_changes_later(self, logger, path, monkeypatch):
        now = [1700000000.5]
        monkeypatch.setattr(time, "time", lambda: now[0])
        write = line_writer(logger, logging.INFO)
        write("a")
        seen = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(seen))
        now[0] += 0.6
        write("b")
        assert seen.getvalue() == "b\n"
        assert path.read_text().count("] b\n") == 1

    @pytest.mark.process
    def test_lines_are_written_at_exit(self, tmp_path):
        program = f"""
import logging, types
from celery.app.log import Logging
from celery.app.utils import detect_settings
from celery.utils.log import line_writer
Logging(types.SimpleNamespace(conf=detect_settings({{}}))).setup("INFO", {str(tmp_path / "x.log")!r})
write = line_writer(logging.getLogger("celery.worker.x"), logging.INFO)
write("one"); write("two")
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
        assert len((tmp_path / "x.log").read_text().splitlines()) == 2


class TestHandlers:
    def test_a_stream_without_descriptor(self, clean):
        stream = io.StringIO()
        handler = StreamLineHandler(stream)
        handler.setFormatter(ColorFormatter("%(message)s"))
        handler.handle(logging.makeLogRecord({"msg": "x"}))
        assert stream.getvalue() == "x\n"

    def test_lines_in_a_pipe_are_not_torn(self, clean):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        handler = StreamLineHandler(os.fdopen(writer, "w"))
        handler.setFormatter(ColorFormatter("%(message)s"))
        got = []

        def drain():
            while piece := os.read(reader, 1 << 16):
                got.append(piece)

        thread = threading.Thread(target=drain)
        thread.start()
        for n in range(200):
            handler.held.lines.append(f"{n} " + "a" * 1000 + "\n")
        handler.flush()
        handler.stream.close()
        thread.join(10)
        os.close(reader)
        lines = b"".join(got).decode().splitlines()
        assert [int(line.split()[0]) for line in lines] == list(range(200))

    def test_an_error_while_writing_is_told_of_and_not_raised(self, path, capsys):
        handler = FileLineHandler(str(path))
        handler.setFormatter(ColorFormatter("%(message)s"))
        handler.handle(logging.makeLogRecord({"msg": "bad %d", "args": ("x",)}))
        assert "--- Logging error ---" in capsys.readouterr().err


class TestProxy:
    @pytest.fixture
    def records(self):
        kept = []
        logger = logging.Logger("proxy")
        handler = logging.Handler()
        handler.emit = lambda record: kept.append((record.levelname, record.getMessage()))
        logger.addHandler(handler)
        return logger, kept

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("abc\n", ["abc"]),
            ("  lead", ["  lead"]),
            ("\n", []),
            ("", []),
            ("a\nb\n", ["a\nb"]),
            ("%s %d", ["%s %d"]),
            (b"bytes\n", ["bytes"]),
        ],
    )
    def test_text_becomes_records(self, records, written, said):
        logger, kept = records
        LoggingProxy(logger, "INFO").write(written)
        assert kept == [("INFO", text) for text in said]

    def test_print(self, records):
        logger, kept = records
        print("one", 2, file=LoggingProxy(logger, logging.WARNING))
        assert [text for _, text in kept] == ["one", " ", "2"]

    def test_a_handler_that_prints_does_not_loop(self, records, capfd, monkeypatch):
        logger, kept = records
        proxy = LoggingProxy(logger, "INFO")
        monkeypatch.setattr(sys, "__stderr__", os.fdopen(os.dup(2), "w"))
        logger.handlers[0].emit = lambda record: (kept.append(record.getMessage()), proxy.write("again"))
        proxy.write("once")
        sys.__stderr__.close()
        assert kept == ["once"]
        assert capfd.readouterr().err == "again\n"

    def test_nothing_after_close(self, records):
        logger, kept = records
        proxy = LoggingProxy(logger)
        assert proxy.loglevel == logging.ERROR
        proxy.close()
        proxy.writelines(["a"])
        proxy.flush()
        assert kept == []
        assert proxy.isatty() is False

    def test_redirected_streams(self, path):
        _logging().setup("INFO", str(path), redirect_stdouts=True)
        print("to the log")
        print("and this", file=sys.stderr)
        assert [line.split(": ", 1)[1] for line in path.read_text().splitlines()] == [
            "WARNING/MainProcess] to the log",
            "WARNING/MainProcess] and this",
        ]


class TestNames:
    def test_reserved_names(self):
        for name in ("celery", "celery.task"):
            with pytest.raises(RuntimeError, match="reserved"):
                get_task_logger(name)

    def test_task_loggers_have_one_parent(self):
        assert get_task_logger("a.b.c.d").parent.name == "celery.task"

    @pytest.mark.parametrize(("level", "number"), [("info", 20), ("WARN", 30), (10, 10), (None, None), (0, 0)])
    def test_mlevel(self, level, number):
        assert mlevel(level) == number

    def test_mlevel_unknown(self):
        with pytest.raises(KeyError):
            mlevel("bogus")
