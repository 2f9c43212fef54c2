"""Microseconds of each step of a job's walk in one process, memory broker: `python steps.py` prints one JSON object."""

import json
import os
import timeit

os.environ.update(BENCH_BROKER="memory://", BENCH_BACKEND="memory://")

import bench_celery

from celery.message import Message
from celery.producer import Call
from celery.routing import QueueSpec

NUMBER, ROUNDS = 5000, 7
app, add = bench_celery.app, bench_celery.add
add.delay(2, 3)
consumer = app.assembly.broker.consume([QueueSpec("celery")])
(delivery,) = consumer.fetch(1, 0)
envelope = delivery.message.to_envelope()
producer, runner = app.assembly.producer, app.assembly.runner("bench@here")
tracer = runner.run.__self__
call = Call("bench_celery.add", (2, 3), {}, {}, add._get_current_object())
sketch = producer.lay_out(call)
message = Message.whole(envelope)
plan = tracer._plan("bench_celery.add")
run = tracer._read(plan.task, message)


def write_envelope():
    made = producer.encode(sketch).message
    made.to_envelope()


STEPS = {
    "call: lay out headers and properties": lambda: producer.lay_out(call),
    "call: encode body and envelope": write_envelope,
    "main process: read the envelope": lambda: Message.from_envelope(envelope),
    "child: read the envelope whole": lambda: Message.whole(envelope),
    "child: decode arguments, make the request": lambda: tracer._read(plan.task, message),
    "child: encode the record": lambda: tracer._record(run, 5),
    "child: everything of a run": lambda: runner.run(Message.whole(envelope)),
}
print(
    json.dumps(
        {name: min(timeit.repeat(step, number=NUMBER, repeat=ROUNDS)) / NUMBER * 1e6 for name, step in STEPS.items()}
    )
)
