"""Domain. The one table of all settings: name, type, default, old name and meaning (`[settings.1]` ff.)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["BY_NAME", "NEW_NAME", "OLD_NAME", "SETTINGS", "Setting", "complaint", "nearest"]

DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

#: First words that stand for a group of settings (`broker_…`, `task_…`), in the order in which they are listed.
GROUPS = (
    "beat", "broker", "cache", "cassandra", "s3", "azureblockblob", "gcs", "control", "couchbase", "arangodb",
    "mongodb", "cosmosdbsql", "event", "redis", "result", "elasticsearch", "security", "database", "task", "worker",
)  # fmt: skip

#: Begins with the name of a group, but stands by itself.
_UNGROUPED = frozenset({"result_accept_content"})


class Setting(NamedTuple):
    """What there is to know about one setting."""

    name: str
    #: "string", "int", "float", "bool", "dict", "tuple", "list", "bytes", "str" or "any": what a command line's text
    #: is cast to. It is a hint: several settings take more than that.
    type: str
    default: Any
    #: The name it had before 4.0; "" where it never had one.
    old: str
    description: str
    deprecate_by: str | None = None
    remove_by: str | None = None
    #: What to use instead of a deprecated one.
    alt: str | None = None
    #: False: read with `conf.get`, so that its absence is visible; not among the defaults (`[drift.15]`).
    declared: bool = True

    @property
    def group(self) -> str:
        """First word of the name if that is a group's, else ""."""
        word = self.name.partition("_")[0]
        return word if word in GROUPS and self.name not in _UNGROUPED else ""


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "accept_content", "list", ("json",), "CELERY_ACCEPT_CONTENT", "names or MIME types; auth alone when signing"
    ),
    Setting("result_accept_content", "list", None, "RESULT_ACCEPT_CONTENT", ""),
    Setting("enable_utc", "bool", True, "ENABLE_UTC", "message dates in UTC"),
    Setting("imports", "tuple", (), "CELERY_IMPORTS", "imported before include"),
    Setting("include", "tuple", (), "CELERY_INCLUDE", ""),
    Setting("timezone", "string", None, "CELERY_TIMEZONE", "None = UTC or local by enable_utc; TIME_ZONE as fallback"),
    Setting("beat_enable_remote_control", "bool", False, "CELERYBEAT_ENABLE_REMOTE_CONTROL", ""),
    Setting("beat_remote_control_max_tick_age", "float", None, "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE", ""),
    Setting("beat_max_loop_interval", "float", 0, "CELERYBEAT_MAX_LOOP_INTERVAL", "0 = scheduler decides (300 s)"),
    Setting("beat_schedule", "dict", {}, "CELERYBEAT_SCHEDULE", ""),
    Setting(
        "beat_scheduler",
        "string",
        "celery.beat:PersistentScheduler",
        "CELERYBEAT_SCHEDULER",
        "class path or entry-point name",
    ),
    Setting("beat_schedule_filename", "string", "celerybeat-schedule", "CELERYBEAT_SCHEDULE_FILENAME", ""),
    Setting("beat_sync_every", "int", 0, "CELERYBEAT_SYNC_EVERY", "0 = timer only (180 s)"),
    Setting("beat_cron_starting_deadline", "int", None, "CELERYBEAT_CRON_STARTING_DEADLINE", ""),
    Setting(
        "broker_url",
        "string",
        None,
        "BROKER_URL",
        "env CELERY_BROKER_URL wins; list or `;` for failover; unset means amqp://guest@localhost//",
    ),
    Setting(
        "broker_read_url",
        "string",
        None,
        "BROKER_READ_URL",
        "falls back to broker_url; env CELERY_BROKER_READ_URL wins",
    ),
    Setting(
        "broker_write_url",
        "string",
        None,
        "BROKER_WRITE_URL",
        "falls back to broker_url; env CELERY_BROKER_WRITE_URL wins",
    ),
    Setting("broker_transport", "string", None, "BROKER_TRANSPORT", ""),
    Setting("broker_transport_options", "dict", {}, "BROKER_TRANSPORT_OPTIONS", ""),
    Setting("broker_connection_timeout", "float", 4, "BROKER_CONNECTION_TIMEOUT", ""),
    Setting("broker_connection_retry", "bool", True, "BROKER_CONNECTION_RETRY", ""),
    Setting(
        "broker_connection_retry_on_startup",
        "bool",
        None,
        "BROKER_CONNECTION_RETRY_ON_STARTUP",
        "None = use broker_connection_retry (warns)",
    ),
    Setting("broker_connection_max_retries", "int", 100, "BROKER_CONNECTION_MAX_RETRIES", "None or 0 = forever"),
    Setting("broker_channel_error_retry", "bool", False, "BROKER_CHANNEL_ERROR_RETRY", ""),
    Setting("broker_failover_strategy", "string", None, "BROKER_FAILOVER_STRATEGY", ""),
    Setting("broker_heartbeat", "int", 120, "BROKER_HEARTBEAT", "seconds; 0 off"),
    Setting("broker_heartbeat_checkrate", "int", 3.0, "BROKER_HEARTBEAT_CHECKRATE", "docs claim 2.0"),
    Setting("broker_login_method", "string", None, "BROKER_LOGIN_METHOD", ""),
    Setting(
        "broker_native_delayed_delivery_queue_type",
        "string",
        "quorum",
        "BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE",
        "quorum or classic",
    ),
    Setting("broker_pool_limit", "int", 10, "BROKER_POOL_LIMIT", "None/0 disables the pool"),
    Setting("broker_pool_acquire_timeout", "float", None, "BROKER_POOL_ACQUIRE_TIMEOUT", ""),
    Setting("broker_use_ssl", "bool", False, "BROKER_USE_SSL", ""),
    Setting("broker_host", "string", None, "BROKER_HOST", ""),
    Setting("broker_port", "int", None, "BROKER_PORT", ""),
    Setting("broker_user", "string", None, "BROKER_USER", ""),
    Setting("broker_password", "string", None, "BROKER_PASSWORD", ""),
    Setting("broker_vhost", "string", None, "BROKER_VHOST", ""),
    Setting("cache_backend", "string", None, "CELERY_CACHE_BACKEND", ""),
    Setting("cache_backend_options", "dict", {}, "CELERY_CACHE_BACKEND_OPTIONS", ""),
    Setting("cassandra_entry_ttl", "float", None, "CASSANDRA_ENTRY_TTL", ""),
    Setting("cassandra_keyspace", "string", None, "CASSANDRA_KEYSPACE", ""),
    Setting("cassandra_port", "string", None, "CASSANDRA_PORT", ""),
    Setting("cassandra_read_consistency", "string", None, "CASSANDRA_READ_CONSISTENCY", ""),
    Setting("cassandra_servers", "list", None, "CASSANDRA_SERVERS", ""),
    Setting("cassandra_bundle_path", "string", None, "CASSANDRA_BUNDLE_PATH", "declared but not read"),
    Setting("cassandra_table", "string", None, "CASSANDRA_TABLE", ""),
    Setting("cassandra_write_consistency", "string", None, "CASSANDRA_WRITE_CONSISTENCY", ""),
    Setting("cassandra_auth_provider", "string", None, "CASSANDRA_AUTH_PROVIDER", ""),
    Setting("cassandra_auth_kwargs", "string", None, "CASSANDRA_AUTH_KWARGS", ""),
    Setting("cassandra_options", "dict", {}, "CASSANDRA_OPTIONS", ""),
    Setting("s3_access_key_id", "string", None, "S3_ACCESS_KEY_ID", ""),
    Setting("s3_secret_access_key", "string", None, "S3_SECRET_ACCESS_KEY", ""),
    Setting("s3_bucket", "string", None, "S3_BUCKET", ""),
    Setting("s3_base_path", "string", None, "S3_BASE_PATH", ""),
    Setting("s3_endpoint_url", "string", None, "S3_ENDPOINT_URL", ""),
    Setting("s3_region", "string", None, "S3_REGION", ""),
    Setting("azureblockblob_container_name", "string", "celery", "AZUREBLOCKBLOB_CONTAINER_NAME", ""),
    Setting("azureblockblob_retry_initial_backoff_sec", "int", 2, "AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC", ""),
    Setting("azureblockblob_retry_increment_base", "int", 2, "AZUREBLOCKBLOB_RETRY_INCREMENT_BASE", ""),
    Setting("azureblockblob_retry_max_attempts", "int", 3, "AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS", ""),
    Setting("azureblockblob_base_path", "string", "", "AZUREBLOCKBLOB_BASE_PATH", ""),
    Setting("azureblockblob_connection_timeout", "int", 20, "AZUREBLOCKBLOB_CONNECTION_TIMEOUT", ""),
    Setting("azureblockblob_read_timeout", "int", 120, "AZUREBLOCKBLOB_READ_TIMEOUT", ""),
    Setting("gcs_bucket", "string", None, "GCS_BUCKET", ""),
    Setting("gcs_project", "string", None, "GCS_PROJECT", ""),
    Setting("gcs_base_path", "string", "", "GCS_BASE_PATH", ""),
    Setting("gcs_ttl", "float", 0, "GCS_TTL", ""),
    Setting("control_queue_ttl", "float", 300.0, "CONTROL_QUEUE_TTL", ""),
    Setting("control_queue_expires", "float", 10.0, "CONTROL_QUEUE_EXPIRES", ""),
    Setting(
        "control_queue_exclusive", "bool", True, "CONTROL_QUEUE_EXCLUSIVE", "True since 5.7; conflicts with durable"
    ),
    Setting("control_queue_durable", "bool", False, "CONTROL_QUEUE_DURABLE", ""),
    Setting("control_exchange", "string", "celery", "CONTROL_EXCHANGE", ""),
    Setting("couchbase_backend_settings", "dict", None, "CELERY_COUCHBASE_BACKEND_SETTINGS", ""),
    Setting("arangodb_backend_settings", "dict", None, "CELERY_ARANGODB_BACKEND_SETTINGS", ""),
    Setting("mongodb_backend_settings", "dict", None, "CELERY_MONGODB_BACKEND_SETTINGS", ""),
    Setting("cosmosdbsql_database_name", "string", "celerydb", "COSMOSDBSQL_DATABASE_NAME", ""),
    Setting("cosmosdbsql_collection_name", "string", "celerycol", "COSMOSDBSQL_COLLECTION_NAME", ""),
    Setting("cosmosdbsql_consistency_level", "string", "Session", "COSMOSDBSQL_CONSISTENCY_LEVEL", ""),
    Setting("cosmosdbsql_max_retry_attempts", "int", 9, "COSMOSDBSQL_MAX_RETRY_ATTEMPTS", ""),
    Setting("cosmosdbsql_max_retry_wait_time", "int", 30, "COSMOSDBSQL_MAX_RETRY_WAIT_TIME", ""),
    Setting("event_queue_expires", "float", 60.0, "CELERY_EVENT_QUEUE_EXPIRES", ""),
    Setting("event_queue_ttl", "float", 5.0, "CELERY_EVENT_QUEUE_TTL", ""),
    Setting("event_queue_prefix", "string", "celeryev", "CELERY_EVENT_QUEUE_PREFIX", ""),
    Setting(
        "event_queue_exclusive", "bool", True, "CELERY_EVENT_QUEUE_EXCLUSIVE", "True since 5.7; conflicts with durable"
    ),
    Setting("event_queue_durable", "bool", False, "CELERY_EVENT_QUEUE_DURABLE", ""),
    Setting("event_serializer", "string", "json", "CELERY_EVENT_SERIALIZER", ""),
    Setting("event_exchange", "string", "celeryev", "CELERY_EVENT_EXCHANGE", ""),
    Setting("redis_backend_use_ssl", "dict", None, "CELERY_REDIS_BACKEND_USE_SSL", ""),
    Setting("redis_db", "int", None, "CELERY_REDIS_DB", ""),
    Setting("redis_host", "string", None, "CELERY_REDIS_HOST", ""),
    Setting("redis_max_connections", "int", None, "CELERY_REDIS_MAX_CONNECTIONS", ""),
    Setting("redis_username", "string", None, "CELERY_REDIS_USERNAME", ""),
    Setting("redis_password", "string", None, "CELERY_REDIS_PASSWORD", ""),
    Setting("redis_port", "int", None, "CELERY_REDIS_PORT", ""),
    Setting("redis_socket_timeout", "float", 120.0, "CELERY_REDIS_SOCKET_TIMEOUT", "seconds"),
    Setting("redis_socket_connect_timeout", "float", None, "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT", ""),
    Setting("redis_retry_on_timeout", "bool", False, "CELERY_REDIS_RETRY_ON_TIMEOUT", ""),
    Setting("redis_socket_keepalive", "bool", False, "CELERY_REDIS_SOCKET_KEEPALIVE", ""),
    Setting(
        "result_backend", "string", None, "CELERY_RESULT_BACKEND", "env CELERY_RESULT_BACKEND wins; None = disabled"
    ),
    Setting("result_cache_max", "int", -1, "CELERY_MAX_CACHED_RESULTS", "-1 off, 0/None unlimited"),
    Setting("result_compression", "string", None, "CELERY_RESULT_COMPRESSION", "only some backends (5.7)"),
    Setting("result_exchange", "string", "celeryresults", "CELERY_RESULT_EXCHANGE", ""),
    Setting("result_exchange_type", "string", "direct", "CELERY_RESULT_EXCHANGE_TYPE", ""),
    Setting("result_expires", "float", timedelta(days=1), "CELERY_TASK_RESULT_EXPIRES", "None or 0 keeps forever"),
    Setting("result_chord_expires", "float", None, "CELERY_RESULT_CHORD_EXPIRES", "falls back to result_expires"),
    Setting("result_failure_expires", "float", None, "CELERY_RESULT_FAILURE_EXPIRES", "redis only (5.7)"),
    Setting("result_persistent", "bool", None, "CELERY_RESULT_PERSISTENT", "rpc messages"),
    Setting(
        "result_extended", "bool", False, "CELERY_RESULT_EXTENDED", "adds name, args, kwargs, worker, retries, queue"
    ),
    Setting("result_serializer", "string", "json", "CELERY_RESULT_SERIALIZER", ""),
    Setting("result_backend_transport_options", "dict", {}, "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS", ""),
    Setting("result_chord_retry_interval", "float", 1.0, "CELERY_RESULT_CHORD_RETRY_INTERVAL", ""),
    Setting("result_chord_join_timeout", "float", 3.0, "CELERY_RESULT_CHORD_JOIN_TIMEOUT", ""),
    Setting(
        "result_backend_max_sleep_between_retries_ms",
        "int",
        10000,
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        "",
    ),
    Setting(
        "result_backend_max_retries",
        "float",
        math.inf,
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
        "database backend defaults to 3",
    ),
    Setting(
        "result_backend_base_sleep_between_retries_ms",
        "int",
        10,
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        "",
    ),
    Setting(
        "result_backend_always_retry",
        "bool",
        False,
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        "database backend defaults to True",
    ),
    Setting("elasticsearch_retry_on_timeout", "bool", None, "CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT", ""),
    Setting("elasticsearch_max_retries", "int", None, "CELERY_ELASTICSEARCH_MAX_RETRIES", ""),
    Setting("elasticsearch_timeout", "float", None, "CELERY_ELASTICSEARCH_TIMEOUT", ""),
    Setting("elasticsearch_save_meta_as_text", "bool", True, "CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT", ""),
    Setting("security_certificate", "string", None, "CELERY_SECURITY_CERTIFICATE", ""),
    Setting("security_cert_store", "string", None, "CELERY_SECURITY_CERT_STORE", "directory or glob"),
    Setting("security_key", "string", None, "CELERY_SECURITY_KEY", ""),
    Setting("security_key_password", "bytes", None, "CELERY_SECURITY_KEY_PASSWORD", ""),
    Setting("security_digest", "string", "sha256", "CELERY_SECURITY_DIGEST", ""),
    Setting("database_url", "string", None, "CELERY_RESULT_DBURI", "same as db+ URL"),
    Setting(
        "database_engine_options",
        "dict",
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "CELERY_RESULT_ENGINE_OPTIONS",
        "",
    ),
    Setting("database_engine_callback", "any", None, "DATABASE_ENGINE_CALLBACK", ""),
    Setting("database_short_lived_sessions", "bool", False, "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS", ""),
    Setting("database_table_schemas", "dict", None, "DATABASE_TABLE_SCHEMAS", ""),
    Setting("database_table_names", "dict", None, "CELERY_RESULT_DB_TABLENAMES", ""),
    Setting("database_create_tables_at_setup", "bool", True, "DATABASE_CREATE_TABLES_AT_SETUP", ""),
    Setting("task_acks_late", "bool", False, "CELERY_ACKS_LATE", ""),
    Setting(
        "task_acks_on_failure_or_timeout",
        "bool",
        True,
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        "deprecated 6.0, removed 7.0",
        deprecate_by="6.0",
        remove_by="7.0",
        alt="task_acks_on_failure and task_acks_on_timeout",
    ),
    Setting("task_acks_on_failure", "bool", None, "CELERY_ACKS_ON_FAILURE", "falls back to the combined flag"),
    Setting("task_acks_on_timeout", "bool", None, "CELERY_ACKS_ON_TIMEOUT", "falls back to the combined flag"),
    Setting("task_always_eager", "bool", False, "CELERY_ALWAYS_EAGER", ""),
    Setting("task_annotations", "any", None, "CELERY_ANNOTATIONS", "dict, list or objects"),
    Setting("task_compression", "string", None, "CELERY_MESSAGE_COMPRESSION", ""),
    Setting("task_create_missing_queues", "bool", True, "CELERY_CREATE_MISSING_QUEUES", ""),
    Setting(
        "task_create_missing_queue_type", "string", "classic", "CELERY_CREATE_MISSING_QUEUE_TYPE", "classic or quorum"
    ),
    Setting("task_create_missing_queue_exchange_type", "string", None, "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE", ""),
    Setting("task_inherit_parent_priority", "bool", False, "CELERY_INHERIT_PARENT_PRIORITY", ""),
    Setting(
        "task_default_delivery_mode", "string", 2, "CELERY_DEFAULT_DELIVERY_MODE", "2 or persistent / 1 or transient"
    ),
    Setting("task_default_queue", "string", "celery", "CELERY_DEFAULT_QUEUE", ""),
    Setting("task_default_queue_type", "string", "classic", "CELERY_DEFAULT_QUEUE_TYPE", ""),
    Setting("task_default_exchange", "string", None, "CELERY_DEFAULT_EXCHANGE", "falls back to task_default_queue"),
    Setting("task_default_exchange_type", "string", "direct", "CELERY_DEFAULT_EXCHANGE_TYPE", ""),
    Setting(
        "task_default_routing_key", "string", None, "CELERY_DEFAULT_ROUTING_KEY", "falls back to task_default_queue"
    ),
    Setting("task_default_rate_limit", "string", None, "CELERY_DEFAULT_RATE_LIMIT", "e.g. '100/m'"),
    Setting("task_default_priority", "string", None, "CELERY_DEFAULT_PRIORITY", ""),
    Setting("task_eager_propagates", "bool", False, "CELERY_EAGER_PROPAGATES_EXCEPTIONS", ""),
    Setting("task_ignore_result", "bool", False, "CELERY_IGNORE_RESULT", ""),
    Setting("task_store_eager_result", "bool", False, "CELERY_STORE_EAGER_RESULT", ""),
    Setting("task_protocol", "int", 2, "CELERY_TASK_PROTOCOL", "1 or 2"),
    Setting("task_publish_retry", "bool", True, "CELERY_TASK_PUBLISH_RETRY", ""),
    Setting(
        "task_publish_retry_policy",
        "dict",
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
        "docs claim interval_max 0.2",
    ),
    Setting("task_queues", "dict", None, "CELERY_QUEUES", ""),
    Setting("task_queue_max_priority", "int", None, "CELERY_QUEUE_MAX_PRIORITY", "x-max-priority for all queues"),
    Setting("task_reject_on_worker_lost", "bool", None, "CELERY_REJECT_ON_WORKER_LOST", ""),
    Setting("task_retry_on_worker_lost", "bool", False, "CELERY_RETRY_ON_WORKER_LOST", "5.7, undocumented"),
    Setting("task_remote_tracebacks", "bool", False, "CELERY_REMOTE_TRACEBACKS", ""),
    Setting("task_repr_maxlevels", "int", 3, "CELERY_REPR_MAXLEVELS", "undocumented"),
    Setting("task_routes", "any", None, "CELERY_ROUTES", "dict, list, callable, string"),
    Setting("task_send_sent_event", "bool", False, "CELERY_SEND_TASK_SENT_EVENT", ""),
    Setting("task_serializer", "string", "json", "CELERY_TASK_SERIALIZER", ""),
    Setting("task_soft_time_limit", "float", None, "CELERYD_TASK_SOFT_TIME_LIMIT", ""),
    Setting("task_time_limit", "float", None, "CELERYD_TASK_TIME_LIMIT", ""),
    Setting("task_store_errors_even_if_ignored", "bool", False, "CELERY_STORE_ERRORS_EVEN_IF_IGNORED", ""),
    Setting("task_track_started", "bool", False, "CELERY_TRACK_STARTED", ""),
    Setting("task_allow_error_cb_on_chord_header", "bool", False, "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER", ""),
    Setting("worker_agent", "string", None, "CELERYD_AGENT", ""),
    Setting("worker_autoscaler", "string", "celery.worker.autoscale:Autoscaler", "CELERYD_AUTOSCALER", ""),
    Setting(
        "worker_cancel_long_running_tasks_on_connection_loss",
        "bool",
        False,
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        "",
    ),
    Setting("worker_soft_shutdown_timeout", "float", 0.0, "CELERYD_SOFT_SHUTDOWN_TIMEOUT", "0 = off"),
    Setting("worker_enable_soft_shutdown_on_idle", "bool", False, "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE", ""),
    Setting("worker_concurrency", "any", None, "CELERYD_CONCURRENCY", "None = CPU count; auto (5.7)"),
    Setting("worker_consumer", "string", "celery.worker.consumer:Consumer", "CELERYD_CONSUMER", ""),
    Setting("worker_direct", "bool", False, "CELERY_WORKER_DIRECT", "queue <host>.dq2 on C.dq2"),
    Setting("worker_disable_rate_limits", "bool", False, "CELERY_DISABLE_RATE_LIMITS", ""),
    Setting("worker_deduplicate_successful_tasks", "bool", False, "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS", ""),
    Setting("worker_enable_remote_control", "bool", True, "CELERY_ENABLE_REMOTE_CONTROL", "removes mailbox when False"),
    Setting("worker_hijack_root_logger", "bool", True, "CELERYD_HIJACK_ROOT_LOGGER", ""),
    Setting("worker_log_color", "bool", None, "CELERYD_LOG_COLOR", "None = detect tty"),
    Setting("worker_log_datefmt", "string", None, "CELERYD_LOG_DATEFMT", ""),
    Setting(
        "worker_log_format",
        "string",
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        "CELERYD_LOG_FORMAT",
        "",
    ),
    Setting("worker_lost_wait", "float", 10.0, "CELERYD_WORKER_LOST_WAIT", "seconds"),
    Setting("worker_max_memory_per_child", "int", None, "CELERYD_MAX_MEMORY_PER_CHILD", "KiB"),
    Setting("worker_max_tasks_per_child", "int", None, "CELERYD_MAX_TASKS_PER_CHILD", ""),
    Setting("worker_pool", "string", "prefork", "CELERYD_POOL", ""),
    Setting("worker_pool_putlocks", "bool", True, "CELERYD_POOL_PUTLOCKS", ""),
    Setting("worker_pool_restarts", "bool", False, "CELERYD_POOL_RESTARTS", "enables pool_restart command"),
    Setting("worker_pool_start_method", "string", "fork", "CELERYD_POOL_START_METHOD", "fork or spawn (5.7)"),
    Setting("worker_proc_alive_timeout", "float", 4.0, "CELERYD_PROC_ALIVE_TIMEOUT", "seconds to start a child"),
    Setting("worker_prefetch_multiplier", "int", 4, "CELERYD_PREFETCH_MULTIPLIER", "0 = unlimited"),
    Setting("worker_eta_task_limit", "int", None, "CELERYD_ETA_TASK_LIMIT", "caps prefetch growth by ETA tasks"),
    Setting("worker_enable_prefetch_count_reduction", "bool", True, "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION", ""),
    Setting("worker_disable_prefetch", "bool", False, "CELERYD_DISABLE_PREFETCH", "redis only"),
    Setting("worker_redirect_stdouts", "bool", True, "CELERY_REDIRECT_STDOUTS", ""),
    Setting("worker_redirect_stdouts_level", "string", "WARNING", "CELERY_REDIRECT_STDOUTS_LEVEL", ""),
    Setting("worker_send_task_events", "bool", False, "CELERY_SEND_EVENTS", ""),
    Setting("worker_state_db", "string", None, "CELERYD_STATE_DB", "same as --statedb"),
    Setting("worker_task_log_datefmt", "string", None, "CELERYD_TASK_LOG_DATEFMT", ""),
    Setting(
        "worker_task_log_format",
        "string",
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        "CELERYD_TASK_LOG_FORMAT",
        "",
    ),
    Setting("worker_timer", "string", None, "CELERYD_TIMER", ""),
    Setting("worker_timer_precision", "float", 1.0, "CELERYD_TIMER_PRECISION", "seconds"),
    Setting("worker_detect_quorum_queues", "bool", True, "CELERYD_DETECT_QUORUM_QUEUES", ""),
    Setting(
        "beat_executable",
        "string",
        None,
        "",
        "not in defaults table; daemon option default for `celery beat --executable`",
        declared=False,
    ),
    Setting("beat_gid", "string", None, "", "not in defaults table; same for --gid", declared=False),
    Setting("beat_logfile", "string", None, "", "not in defaults table; same for --logfile", declared=False),
    Setting("beat_pidfile", "string", None, "", "not in defaults table; same for --pidfile", declared=False),
    Setting("beat_uid", "string", None, "", "not in defaults table; same for --uid", declared=False),
    Setting("beat_umask", "string", None, "", "not in defaults table; same for --umask (octal text)", declared=False),
    Setting(
        "events_executable",
        "string",
        None,
        "",
        "not in defaults table; daemon option default for `celery events`",
        declared=False,
    ),
    Setting("events_gid", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("events_logfile", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("events_pidfile", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("events_uid", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("events_umask", "string", None, "", "not in defaults table; as above", declared=False),
    Setting(
        "worker_executable",
        "string",
        None,
        "",
        "not in defaults table; daemon option default for `celery worker`",
        declared=False,
    ),
    Setting("worker_gid", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("worker_logfile", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("worker_pidfile", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("worker_uid", "string", None, "", "not in defaults table; as above", declared=False),
    Setting("worker_umask", "string", None, "", "not in defaults table; as above", declared=False),
    Setting(
        "cassandra_secure_bundle_path",
        "string",
        None,
        "",
        "not in defaults table; the one the backend reads (excludes cassandra_servers)",
        declared=False,
    ),
    Setting(
        "dynamodb_endpoint_url",
        "string",
        None,
        "",
        "not in defaults table; read by the backend, undocumented",
        declared=False,
    ),
    Setting(
        "firestore_project",
        "string",
        None,
        "",
        "not in defaults table; chord counters of the GCS backend",
        declared=False,
    ),
    Setting("gcs_threadpool_maxsize", "int", 10, "", "not in defaults table; parallel fetches", declared=False),
    Setting("override_backends", "dict", {}, "", "not in defaults table; alias to backend path", declared=False),
    Setting(
        "redis_backend_credential_provider",
        "any",
        None,
        "",
        "not in defaults table; drops user and password",
        declared=False,
    ),
    Setting("redis_backend_health_check_interval", "int", None, "", "not in defaults table; seconds", declared=False),
    Setting("redis_client_name", "string", None, "", "not in defaults table; CLIENT SETNAME", declared=False),
    Setting(
        "result_backend_thread_safe",
        "bool",
        False,
        "",
        "not in defaults table; share one backend between threads",
        declared=False,
    ),
    Setting(
        "CELERY_DB_REUSE_MAX",
        "int",
        None,
        "",
        "not in defaults table; Django fixup, read with its old name",
        declared=False,
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
#: Old name → new name, and back (`[conf.2]`).
NEW_NAME: dict[str, str] = {setting.old: setting.name for setting in SETTINGS if setting.old}
OLD_NAME: dict[str, str] = {setting.name: setting.old for setting in SETTINGS if setting.old}

#: Settings of type float, int or dict that take more than their type says.
_ALSO: dict[str, tuple[type, ...]] = {
    "task_queues": (list, tuple, set, frozenset),
    "redis_backend_use_ssl": (bool,),
}


def complaint(setting: Setting, value: Any) -> str | None:
    """Say what is wrong with a value: expected, came, what to do. None: it may be used.

    Only what could never have worked is refused: text where a number is needed, a number or text where a mapping is.
    """
    if value is None or callable(value) or isinstance(value, _ALSO.get(setting.name, ())):
        return None
    kind = setting.type
    if kind in ("int", "float"):
        if _is_number(value) or isinstance(value, timedelta):
            return None
        return _complain(setting, "a number", value)
    if kind == "dict":
        if isinstance(value, Mapping) or not isinstance(value, (str, bytes, int, float)) or not value:
            return None
        return _complain(setting, "a dict", value)
    wrong = {"list": (str, bytes, int, float), "tuple": (bytes, int, float)}.get(kind, ())
    return _complain(setting, f"a {kind}", value) if isinstance(value, wrong) else None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _complain(setting: Setting, expected: str, value: Any) -> str:
    shown = f"{value!r:.60}" if not _is_secret(setting.name) else "a value that is not shown here"
    return (
        f"Setting {setting.name}: expected {expected}, got {type(value).__name__} {shown}. "
        f"The default is {setting.default!r}; {setting.description[:1].lower()}{setting.description[1:]}"
    ).rstrip("; ")


def _is_secret(name: str) -> bool:
    return any(word in name for word in ("key", "pass", "secret", "token", "url"))


def nearest(name: str) -> str | None:
    """The known setting that a misspelt name most likely means: within two edits, in the same style (old or new),
    with the same first or last three letters.

    None if the name is known, or is like no other.
    """
    if name in BY_NAME or name in NEW_NAME:
        return None
    candidates = _by_ends(name.isupper())
    best: str | None = None
    best_distance = 3
    for candidate in {*candidates.get(name[:3], ()), *candidates.get(name[-3:], ())}:
        if abs(len(candidate) - len(name)) < best_distance:
            distance = _edits(name, candidate, best_distance - 1)
            if distance < best_distance:
                best, best_distance = candidate, distance
    return best


@lru_cache
def _by_ends(old: bool) -> dict[str, list[str]]:
    """Names by their first and by their last three letters: a whole Django module is looked through."""
    ends: dict[str, list[str]] = {}
    for name in NEW_NAME if old else BY_NAME:
        for end in (name[:3], name[-3:]):
            ends.setdefault(end, []).append(name)
    return ends


def _edits(a: str, b: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours from `a` to `b`; `limit + 1` if there are more."""
    two_back: list[int] = []
    one_back = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(one_back[j] + 1, row[j - 1] + 1, one_back[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, two_back[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
        two_back, one_back = one_back, row
    return one_back[-1]
