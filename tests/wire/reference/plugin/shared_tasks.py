"""Tasks that the project's apps include."""

from celery import Task, current_app, shared_task


class Own(Task):
    """The task class of the project's apps."""

    kind = "own"


@shared_task
def include(x):
    return [x, current_app.main]


class Classy(Task):
    """For `celery_class_tasks`."""

    name = "classy"

    def run(self, x):
        return x * 2
