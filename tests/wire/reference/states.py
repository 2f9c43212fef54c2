"""What a `State` makes of events: the same program for the real Celery, which runs it, and for ours, which imports it.

As a program: reads stories (lists of steps) as JSON from stdin and writes what was seen after each.
"""

import gc
import json
import sys

from celery.events.state import State


def tell(steps, collect=lambda: None, **limits):
    """Play a story and return all that can be seen then.

    A step: `["event", {…}]`, `["clear", ready]` or `["clear_tasks", ready]`.
    """
    heard = []
    state = State(
        callback=lambda _, event: heard.append(event["type"]),
        on_node_join=lambda worker: heard.append(["join", worker.hostname]),
        on_node_leave=lambda worker: heard.append(["leave", worker.hostname]),
        **limits,
    )
    answers = [_take(state, collect, *step) for step in steps]
    return json.loads(json.dumps({"heard": heard, "answers": answers, **seen(state)}))


def _take(state, collect, what, *arguments):
    answer = state.event(dict(*arguments)) if what == "event" else getattr(state, what)(*arguments)
    collect()  # tasks that the real one has forgotten hold themselves, and are still in its sets
    if answer is None:
        return None
    (thing, created), subject = answer
    return [type(thing).__name__, getattr(thing, "uuid", thing.hostname), created, subject]


def seen(state):
    names, hosts = state.task_types(), sorted(state.workers)
    return {
        "counts": [state.event_count, state.task_count],
        "repr": repr(state),
        "types": names,
        "order": ids(state.itertasks()),
        "three": ids(state.itertasks(limit=3)),
        "tasks": {uuid: task(found) for uuid, found in list(state.itertasks())},
        "latest": ids(state.tasks_by_time()),
        "earliest": ids(state.tasks_by_time(reverse=False)),
        "latest five": ids(state.tasks_by_timestamp(limit=5)),
        "by type": {name: ids(state.tasks_by_type(name)) for name in names},
        "by type, two": {name: ids(state.tasks_by_type(name, limit=2, reverse=False)) for name in names},
        "by worker": {host: of_worker(state, host) for host in hosts},
        "of type": {name: sorted(found.uuid for found in state.tasks_by_type[name]) for name in names},
        "workers": {host: worker(state.workers[host]) for host in hosts},
        "alive": sorted(found.hostname for found in state.alive_workers()),
    }


def of_worker(state, host):
    try:
        return ids(state.tasks_by_worker(host))
    except AttributeError:  # the real one, if a task was sent and has not arrived
        return None


def ids(pairs):
    return [uuid for uuid, _ in pairs]


def task(found):
    fields = found.as_dict()
    fields["worker"] = fields["worker"] and fields["worker"].hostname
    fields["children"] = sorted(fields["children"])
    return {
        "fields": fields,
        "repr": repr(found),
        "ready": found.ready,
        "id": found.id,
        "origin": found.origin,
        "parent": found.parent and found.parent.uuid,
        "root": found.root and found.root.uuid,
        "hostname": getattr(found, "hostname", None),
        "extra": getattr(found, "extra", None),
        "info": sorted(found.info().items()),
        "some info": sorted(found.info(["state", "name", "eta"], ["uuid", "result"]).items()),
    }


def worker(found):
    return {
        "fields": {name: getattr(found, name) for name in found._fields},
        "alive": found.alive,
        "status": found.status_string,
        "id": found.id,
        "repr": repr(found),
        "expires": found.heartbeat_expires if found.heartbeats else None,
    }


if __name__ == "__main__":
    gc.freeze()  # so that collecting is quick
    json.dump([tell(story["steps"], gc.collect, **story["limits"]) for story in json.load(sys.stdin)], sys.stdout)
