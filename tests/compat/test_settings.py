"""`app.conf`: layers, styles, namespaces, environment, checks, introspection (area conf)."""

import copy
import logging
import pickle
import threading
from pathlib import Path

import pytest

from celery.app.defaults import DEFAULTS, NAMESPACES, Option, find, find_deprecated_settings, flatten
from celery.app.utils import PendingConfiguration, Settings, detect_settings, filter_hidden_settings, sanitize_url
from celery.exceptions import CDeprecationWarning, ImproperlyConfigured
from celery.settings import BY_NAME, OURS, SETTINGS, nearest


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.delenv(f"CELERY_{name}", raising=False)


def test_both_styles_read_and_write_the_same_setting():
    conf = detect_settings({"CELERY_TASK_SERIALIZER": "yaml", "BROKER_URL": "redis://h"})
    assert conf.task_serializer == conf["CELERY_TASK_SERIALIZER"] == "yaml"
    conf.task_serializer = "json"
    assert conf.CELERY_TASK_SERIALIZER == "json"
    conf.CELERY_TASK_SERIALIZER = "pickle"
    assert conf["task_serializer"] == "pickle"
    assert conf.CELERY_RESULT_SERIALIZER == conf.result_serializer == "json"


@pytest.mark.parametrize(
    ("source", "rename"),
    [
        ({"task_serializer": 1, "CELERY_TIMEZONE": "UTC"}, "CELERY_TIMEZONE "),
        ({"task_serializer": 1, "CELERY_TIMEZONE": "UTC", "BROKER_URL": "x"}, "task_serializer "),
    ],
)
def test_mixed_styles_are_refused_and_the_minority_is_named(source, rename):
    with pytest.raises(ImproperlyConfigured, match=rename):
        detect_settings(source)


def test_namespace_reads_any_of_its_styles_and_is_never_mixed():
    conf = detect_settings(
        {
            "CELERY_TASK_SERIALIZER": "yaml",
            "CELERY_FOO_BAR": 2,
            "task_default_queue": "q",
            "CELERY_TASK_RESULT_EXPIRES": 5,
        },
        prefix="CELERY",
    )
    assert (conf.task_serializer, conf.foo_bar, conf.CELERY_FOO_BAR) == ("yaml", 2, 2)
    assert (conf.task_default_queue, conf.result_expires) == ("q", 5)


def test_layers_in_order():
    conf = detect_settings({"task_serializer": "source"}, {"result_serializer": "preset"})
    assert conf.task_serializer == "source"
    conf.add_defaults({"task_serializer": "added", "event_serializer": "added", "result_serializer": "added"})
    conf.add_defaults(lambda: {"event_serializer": "later", "mine": 1})
    assert conf.task_serializer == "added"  # as Celery 5.7 has it: above the source, whatever they are called
    assert conf.event_serializer == "later"
    assert conf.result_serializer == "preset"
    assert conf.mine == 1
    conf.update(task_serializer="runtime")
    assert conf.task_serializer == "runtime"
    conf.clear()
    assert conf.task_serializer == conf.result_serializer == "added"


def test_a_live_source_is_read_each_time():
    source = {"task_serializer": "a"}
    conf = detect_settings(source)
    assert conf.task_serializer == "a"
    source["task_serializer"] = "b"
    assert conf.task_serializer == "b"


def test_built_in_defaults_belong_to_one_app_only():
    detect_settings({}).broker_transport_options["x"] = 1
    assert detect_settings({}).broker_transport_options == {}


def test_every_write_gives_another_version():
    one, two = detect_settings({}), detect_settings({})
    seen = {one.version, two.version}
    for write in (
        lambda: setattr(one, "timezone", "UTC"),
        lambda: one.update(a=1),
        lambda: one.add_defaults({}),
        lambda: one.pop("a"),
        lambda: two.clear(),
    ):
        write()
        seen |= {one.version, two.version}
    assert len(seen) == 7


def _pending(source):
    before, loads = {}, []

    def load():
        loads.append(1)
        return detect_settings(source, before)

    return Settings(PendingConfiguration(before, load)), loads


def test_writes_do_not_load_and_reads_do():
    conf, loads = _pending({"task_serializer": "source", "timezone": "Asia/Tokyo"})
    conf.timezone = "Europe/Oslo"
    conf["a"] = 1
    conf.setdefault("b", 2)
    conf.update(c=3)
    assert "timezone" in conf
    assert loads == []
    assert conf.task_serializer == "source"
    assert loads == [1]
    assert (conf.timezone, conf.a, conf.b, conf.c) == ("Europe/Oslo", 1, 2, 3)
    conf.timezone = "UTC"
    assert conf.timezone == "UTC"
    assert loads == [1]


def test_asking_for_special_attributes_loads_nothing():
    conf, loads = _pending({})
    assert not hasattr(conf, "__wrapped__")
    assert loads == []


def test_environment_wins_over_attributes(monkeypatch):
    conf = detect_settings({"broker_url": "redis://a", "result_backend": "redis://b"})
    assert conf.broker_read_url == conf.broker_write_url == "redis://a"
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "cache+memory://")
    assert conf.broker_url == conf.broker_read_url == "memory://"
    assert conf.result_backend == "cache+memory://"
    assert conf["broker_url"] == "redis://a"
    monkeypatch.setenv("CELERY_BROKER_WRITE_URL", "redis://w")
    assert (conf.broker_read_url, conf.broker_write_url) == ("memory://", "redis://w")


def test_derived_defaults():
    conf = detect_settings({"task_default_queue": "q"})
    assert conf.task_default_exchange == conf.task_default_routing_key == "q"
    conf.task_default_exchange = "x"
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ("x", "q")
    assert detect_settings({"TIME_ZONE": "Asia/Tokyo"}).timezone == "Asia/Tokyo"


def test_values_that_cannot_work_are_refused_where_they_are_written():
    with pytest.raises(ImproperlyConfigured, match="Setting broker_pool_limit: expected a number, got str 'x'"):
        detect_settings({"BROKER_POOL_LIMIT": "x"})
    conf = detect_settings({})
    with pytest.raises(ImproperlyConfigured, match="broker_pool_limit"):
        conf.broker_pool_limit = "x"
    assert conf.broker_pool_limit == 10


def test_misspelt_keys_are_told_of_and_kept(caplog):
    with caplog.at_level(logging.WARNING, "celery.app.utils"):
        conf = detect_settings(
            {"CELERY_TASK_SERIALISER": "yaml", "CELERY_SOMETHING_ELSE": 1, "DEBUG": True}, prefix="CELERY"
        )
    assert [record.getMessage() for record in caplog.records] == [
        "Unknown setting 'CELERY_TASK_SERIALISER': did you mean 'CELERY_TASK_SERIALIZER'?"
    ]
    assert conf.task_serialiser == "yaml"


def test_pickle_and_deepcopy_keep_values_and_leave_out_what_cannot_be_pickled():
    conf = detect_settings({"task_serializer": "yaml", "helper": lambda: 1, "os": logging})
    conf.timezone = "UTC"
    for other in (pickle.loads(pickle.dumps(conf)), copy.deepcopy(conf)):
        assert (other.task_serializer, other.timezone, other.result_serializer) == ("yaml", "UTC", "json")
        other.timezone = "Asia/Tokyo"
    assert conf.timezone == "UTC"
    pending, _ = _pending({"task_serializer": "yaml"})
    assert pickle.loads(pickle.dumps(pending)).task_serializer == "yaml"


def test_unknown_attributes_and_items():
    conf = detect_settings({})
    with pytest.raises(AttributeError, match="'Settings' object has no attribute 'nope'"):
        conf.nope  # noqa: B018
    with pytest.raises(KeyError):
        conf["nope"]
    assert conf.get("nope", 7) == 7
    assert conf.first("nope", "timezone", "task_serializer") == "json"


def test_introspection():
    conf = detect_settings(
        {"broker_url": "redis://u:pw@h:1/0", "CUSTOM_API_KEY": "k", "_private": 1, "logging": logging}
    )
    assert conf.find_option("serializer", "task").namespace == "task"
    assert conf.find_value_for_key("serializer", "result") == "json"
    assert conf.get_by_parts("task", "", "serializer") == "json"
    assert conf.value_set_for("broker_url")
    assert not conf.value_set_for("timezone")
    assert conf.table() == {"broker_url": "redis://u:********@h:1/0", "CUSTOM_API_KEY": "********"}
    assert conf.table(censored=False)["CUSTOM_API_KEY"] == "k"
    assert conf.table(with_defaults=True)["task_serializer"] == "json"
    assert conf.humanize() == "CUSTOM_API_KEY: '********'\nbroker_url: 'redis://u:********@h:1/0'" or set(
        conf.humanize().splitlines()
    ) == {"CUSTOM_API_KEY: '********'", "broker_url: 'redis://u:********@h:1/0'"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p@h/1", "redis://:********@h/1"),
        ("redis://u:p/a@b@h/1", "redis://u:********@h/1"),
        ("amqp://a:b@c;amqp://d:e@f", "amqp://a:********@c;amqp://d:********@f"),
        ("redis://h/1", "redis://h/1"),
        (
            "azureblockblob://AccountName=n;AccountKey=kk==;E=c",
            "azureblockblob://AccountName=n;AccountKey=********;E=c",
        ),
    ],
)
def test_urls_lose_their_passwords(url, shown):
    assert sanitize_url(url) == shown


def test_secrets_are_starred_however_deep():
    shown = filter_hidden_settings({"a": {"password": "x", "l": ["redis://u:p@h"]}, "SIGNATURE": "y", 3: 4})
    assert shown == {"a": {"password": "********", "l": ["redis://u:********@h"]}, "SIGNATURE": "********", 3: 4}


def test_deprecated_settings_warn():
    conf = detect_settings({"task_acks_on_failure_or_timeout": True})
    with pytest.warns(CDeprecationWarning, match="task_acks_on_failure_or_timeout"):
        assert not conf.maybe_warn_deprecated_settings()
    conf = detect_settings({"BROKER_URL": "x"})
    with pytest.warns(CDeprecationWarning, match="'BROKER_URL'.*broker_url"):
        assert conf.maybe_warn_deprecated_settings()


def test_observers_and_swap():
    conf, told = detect_settings({}), []
    conf.bind_to(lambda *args, **kwargs: told.append((args, kwargs)))
    conf.update({"a": 1}, b=2)
    assert told == [(({"a": 1},), {"b": 2})]
    other = detect_settings({"task_serializer": "yaml"})
    conf.swap_with(other)
    assert conf.task_serializer == "yaml"


def test_writes_from_many_threads_all_arrive():
    conf = detect_settings({})
    threads = [threading.Thread(target=lambda n=n: conf.update({f"k{n}": n})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [conf[f"k{n}"] for n in range(20)] == list(range(20))


class TestDefaults:
    def test_namespaces_hold_options(self):
        option = NAMESPACES["task"]["acks_late"]
        assert isinstance(option, Option)
        assert (option.type, option.default, option.old) == ("bool", False, {"celery_acks_late"})
        assert repr(option) == "<Option: type->bool default->False>"
        assert dict(flatten(NAMESPACES))["task_acks_late"] is option
        assert len(dict(flatten(NAMESPACES))) == len(DEFAULTS) == 207

    @pytest.mark.parametrize(
        ("args", "found"),
        [
            (("concurrency",), ("worker", "concurrency")),
            (("CONCURRENCY",), ("worker", "concurrency")),
            (("broker_url",), (None, "broker_url")),
            (("serializer", "result"), ("result", "serializer")),
        ],
    )
    def test_find(self, args, found):
        assert find(*args)[:2] == found

    def test_find_unknown(self):
        with pytest.raises(KeyError):
            find("nope")

    @pytest.mark.parametrize(
        ("type", "text", "value"),
        [("bool", "true", True), ("bool", "0", False), ("int", "3", 3), ("float", "3", 3.0), ("any", "x", "x")],
    )
    def test_casting(self, type, text, value):
        assert Option(type=type).to_python(text) == value

    def test_deprecated(self):
        assert list(find_deprecated_settings({"task_acks_on_failure_or_timeout": True})) == [
            "task_acks_on_failure_or_timeout"
        ]


def _golden():
    """Name, type, default and old name of every setting, as Celery 5.7 has them."""
    lines = (Path(__file__).parent / "golden" / "settings.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines]


def test_every_setting_has_celerys_default_and_is_read_by_both_names():
    conf, wrong = detect_settings({}), []
    for name, _, default, old in _golden():
        if repr(conf.get(name, BY_NAME[name].default)) != default and name != "firestore_project":
            wrong.append((name, conf.get(name), default))
        if old:
            wrong += [(old, conf[old])] if conf[old] != conf[name] and conf[name] == conf[name] else []
            wrong += [(old, "unread")] if detect_settings({old: conf[name]})[name] != conf[name] else []
    assert len(_golden()) == len(BY_NAME) - len(OURS) == 235
    assert wrong == []


def test_every_setting_has_a_type():
    alias = {"str": "string", "str/obj": "any"}
    assert {(name, alias.get(kind, kind)) for name, kind, *_ in _golden()} == {
        (s.name, s.type) for s in SETTINGS if s.name not in OURS
    }


def _slips(name):
    """The name with one letter in another's place, at each position; `_` stays, since groups hang on it."""
    for at, letter in enumerate(name):
        if letter != "_":
            yield name[:at] + ("x" if letter != "x" else "q") + name[at + 1 :]


@pytest.mark.slow
def test_one_wrong_letter_refuses_the_start_and_names_the_right_setting():
    """Of every setting, at every letter of the short ones and every fourth of the others: pain 41."""
    slips = [(name, slip) for name in BY_NAME for slip in [*_slips(name)][:: 1 if len(name) < 12 else 4]]
    wrong = {slip for name, slip in slips if nearest(slip) != name}
    assert wrong == {"beat_xid", "events_xid", "worker_xid"}  # as near to beat_gid as to beat_uid
    for name in [name for name in BY_NAME if name.islower()][::9]:
        slip = next(_slips(name))
        for prefix, key, written in (("", slip, name), ("CELERY", f"CELERY_{slip.upper()}", f"CELERY_{name.upper()}")):
            with pytest.raises(ImproperlyConfigured, match=f"Unknown setting '{key}': did you mean '{written}'?"):
                detect_settings({key: None}, prefix=prefix or None, strict=True)


def test_strict_settings_name_every_key_that_is_none(caplog):
    """But not the modules, functions and names in capitals that stand beside settings in a module."""
    source = {"redbeat_lock_key": "x", "task_serialiser": "yaml", "DEBUG": True, "os": logging, "helper": print}
    with pytest.raises(ImproperlyConfigured) as told:
        detect_settings(source, strict=True)
    assert "Unknown setting 'redbeat_lock_key': no setting has a name like it" in str(told.value)
    assert "did you mean 'task_serializer'" in str(told.value)
    assert not any(name in str(told.value) for name in ("DEBUG", "'os'", "helper"))
    assert detect_settings(source).get("redbeat_lock_key") == "x"
    assert len(caplog.records) == 1
