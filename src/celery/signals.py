"""Application. The signals that Celery sends, and what each is sent with (`[signal.3]` to `[signal.24]`)."""

from celery.utils.dispatch import Signal

__all__ = (
    "after_setup_logger", "after_setup_task_logger", "after_task_publish", "beat_embedded_init", "beat_init",
    "before_task_publish", "celeryd_after_setup", "celeryd_init", "eventlet_pool_apply", "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown", "eventlet_pool_started", "heartbeat_sent", "setup_logging", "task_failure",
    "task_internal_error", "task_postrun", "task_prerun", "task_received", "task_rejected", "task_retry",
    "task_revoked", "task_success", "task_unknown", "worker_before_create_process", "worker_init",
    "worker_process_init", "worker_process_shutdown", "worker_ready", "worker_shutdown", "worker_shutting_down",
)  # fmt: skip


def _signal(name: str, arguments: str = "") -> Signal:
    return Signal(providing_args=arguments.split(), name=name)


# Publishing; the sender is the task's name.
before_task_publish = _signal(
    "before_task_publish", "body exchange routing_key headers properties declare retry_policy"
)
after_task_publish = _signal("after_task_publish", "body exchange routing_key")
#: Deprecated, sent only if somebody is connected.
task_sent = _signal("task_sent", "task_id task args kwargs eta taskset")

# Life of a task in the worker; the sender is the task, or the consumer where no task is known yet.
task_received = _signal("task_received", "request")
task_prerun = _signal("task_prerun", "task_id task args kwargs")
task_postrun = _signal("task_postrun", "task_id task args kwargs retval")
task_success = _signal("task_success", "result runtime")
task_retry = _signal("task_retry", "request reason einfo")
task_failure = _signal("task_failure", "task_id exception args kwargs traceback einfo")
task_internal_error = _signal("task_internal_error", "task_id args kwargs request exception traceback einfo")
task_revoked = _signal("task_revoked", "request terminated signum expired")
task_rejected = _signal("task_rejected", "message exc")
task_unknown = _signal("task_unknown", "message exc name id")

# The program.
import_modules = _signal("import_modules")
user_preload_options = _signal("user_preload_options", "app options")

# Life of a worker.
celeryd_init = _signal("celeryd_init", "instance conf options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance conf")
worker_init = _signal("worker_init")
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown")
worker_ready = _signal("worker_ready")
worker_shutdown = _signal("worker_shutdown")
worker_shutting_down = _signal("worker_shutting_down")
heartbeat_sent = _signal("heartbeat_sent")

# Logging. A receiver of the first takes the place of Celery's own configuration.
setup_logging = _signal("setup_logging", "loglevel logfile format colorize")
after_setup_logger = _signal("after_setup_logger", "logger loglevel logfile format colorize")
after_setup_task_logger = _signal("after_setup_task_logger", "logger loglevel logfile format colorize")

# Beat.
beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")

# The eventlet pool.
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target args kwargs")
