"""django-celery-results, as its users have it: a Django project that keeps results by `django-db` or `django-cache`.

Django's settings are for a whole process, so each project runs in one of its own ([backend.33]).
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = """
import sys
import django
from django.conf import settings

folder, backend = sys.argv[1:]
settings.configure(
    SECRET_KEY="x", USE_TZ=True, INSTALLED_APPS=["django_celery_results"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder + "/db.sqlite3"}},
    CACHES={"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": folder + "/c"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    CELERY_RESULT_BACKEND=backend, CELERY_CACHE_BACKEND="default", CELERY_RESULT_EXTENDED=True,
)
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)

from celery import Celery, chord, group
from celery.exceptions import ChordError
from tests.embedded import working

app = Celery("proj", broker="memory://django")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.result_chord_retry_interval = 0.05

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="total")
def total(numbers):
    return sum(numbers)

@app.task(name="fail")
def fail(*args):
    raise KeyError("oops")

how = {"timeout": 20, "interval": 0.02}
with working(app):
    assert add.delay(1, 2).get(**how) == 3
    failed = fail.delay()
    assert repr(failed.get(propagate=False, **how)) == "KeyError('oops')", failed.result
    assert failed.state == "FAILURE" and "oops" in failed.traceback
    members = group(add.s(n, n) for n in range(3))()
    assert members.get(**how) == [0, 2, 4]
    members.save()
    assert app.GroupResult.restore(members.id).get(**how) == [0, 2, 4]
    members.delete()
    assert app.GroupResult.restore(members.id) is None
    assert chord([add.s(n, n) for n in range(3)], total.s())().get(**how) == 6
    wrong = app.AsyncResult(chord([add.s(1, 1), fail.s()], total.s())().id).get(propagate=False, **how)
    assert type(wrong) is ChordError and "KeyError('oops')" in str(wrong), wrong
    if backend == "django-db":
        from django_celery_results.models import TaskResult
        row = TaskResult.objects.filter(task_name="add").first()
        assert row.status == "SUCCESS" and row.worker, vars(row)
        kept = TaskResult.objects.count()
        app.backend.forget(failed.id)
        assert TaskResult.objects.count() == kept - 1
        app.tasks["celery.backend_cleanup"].delay().get(**how)
print("well")
"""


@pytest.mark.process
@pytest.mark.parametrize("backend", ["django-db", "django-cache"])
def test_a_project_of_django(tmp_path: Path, backend: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", PROJECT, str(tmp_path), backend],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.stdout.endswith("well\n"), ran.stdout[-1000:] + ran.stderr[-4000:]
