"""Domain. The one table of all settings: name, type, default, old name and meaning (`[settings.1]` ff.)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["BY_NAME", "NEW_NAME", "OLD_NAME", "OURS", "SETTINGS", "Setting", "complaint", "nearest"]

DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

#: First words that stand for a group of settings (`broker_…`, `task_…`), in the order in which they are listed.
GROUPS = (
    "beat", "broker", "cache", "cassandra", "s3", "azureblockblob", "gcs", "control", "couchbase", "arangodb",
    "mongodb", "cosmosdbsql", "event", "redis", "result", "elasticsearch", "security", "database", "task", "worker",
)  # fmt: skip

#: Settings that Celery does not have.
OURS = frozenset(
    {
        "dead_letter_max_age", "dead_letter_max_count", "dead_letter_max_size", "task_acks_first",
        "task_chord_embed_limit", "task_max_deaths", "task_publish_timeout", "worker_shutdown_grace",
        "worker_stuck_after", "worker_unknown_task_grace",
    }
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
        "accept_content",
        "list",
        ("json",),
        "CELERY_ACCEPT_CONTENT",
        "Content types (names or MIME types) that are read from messages; with signing, auth alone.",
    ),
    Setting(
        "result_accept_content",
        "list",
        None,
        "RESULT_ACCEPT_CONTENT",
        "Content types read from results; None: as accept_content.",
    ),
    Setting("enable_utc", "bool", True, "ENABLE_UTC", "Dates in messages are in UTC."),
    Setting("imports", "tuple", (), "CELERY_IMPORTS", "Modules that a worker imports, before those of include."),
    Setting("include", "tuple", (), "CELERY_INCLUDE", "Further modules that a worker imports."),
    Setting(
        "timezone",
        "string",
        None,
        "CELERY_TIMEZONE",
        "Name of the time zone of schedules and local dates; None: UTC, or local if enable_utc is off.",
    ),
    Setting(
        "beat_enable_remote_control",
        "bool",
        False,
        "CELERYBEAT_ENABLE_REMOTE_CONTROL",
        "Beat answers remote control commands.",
    ),
    Setting(
        "beat_remote_control_max_tick_age",
        "float",
        None,
        "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
        "Seconds without a tick after which beat no longer answers a ping.",
    ),
    Setting(
        "beat_max_loop_interval",
        "float",
        0,
        "CELERYBEAT_MAX_LOOP_INTERVAL",
        "Longest sleep of beat in seconds; 0: the scheduler decides (300).",
    ),
    Setting("beat_schedule", "dict", {}, "CELERYBEAT_SCHEDULE", "Periodic tasks by name."),
    Setting(
        "beat_scheduler",
        "string",
        "celery.beat:PersistentScheduler",
        "CELERYBEAT_SCHEDULER",
        "Path or entry-point name of the scheduler class.",
    ),
    Setting(
        "beat_schedule_filename",
        "string",
        "celerybeat-schedule",
        "CELERYBEAT_SCHEDULE_FILENAME",
        "File in which beat keeps when what ran last.",
    ),
    Setting(
        "beat_sync_every",
        "int",
        0,
        "CELERYBEAT_SYNC_EVERY",
        "Tasks after which beat writes that file; 0: every 180 seconds.",
    ),
    Setting(
        "beat_cron_starting_deadline",
        "int",
        None,
        "CELERYBEAT_CRON_STARTING_DEADLINE",
        "Seconds by which a crontab task may be late and still be run at the start of beat.",
    ),
    Setting(
        "broker_url",
        "string",
        None,
        "BROKER_URL",
        "URL of the broker, or several (a list, or `;` between them); None: amqp://guest@localhost//.",
    ),
    Setting("broker_read_url", "string", None, "BROKER_READ_URL", "URL to consume from; None: broker_url."),
    Setting("broker_write_url", "string", None, "BROKER_WRITE_URL", "URL to publish to; None: broker_url."),
    Setting("broker_transport", "string", None, "BROKER_TRANSPORT", "Name of the transport, where no URL gives it."),
    Setting(
        "broker_transport_options",
        "dict",
        {},
        "BROKER_TRANSPORT_OPTIONS",
        "Options of the transport, as kombu names them.",
    ),
    Setting(
        "broker_connection_timeout",
        "float",
        4,
        "BROKER_CONNECTION_TIMEOUT",
        "Seconds in which a connection must come about.",
    ),
    Setting(
        "broker_connection_retry", "bool", True, "BROKER_CONNECTION_RETRY", "Connect again after a connection was lost."
    ),
    Setting(
        "broker_connection_retry_on_startup",
        "bool",
        None,
        "BROKER_CONNECTION_RETRY_ON_STARTUP",
        "Try again if the first connection fails; None: as broker_connection_retry.",
    ),
    Setting(
        "broker_connection_max_retries",
        "int",
        100,
        "BROKER_CONNECTION_MAX_RETRIES",
        "Tries to connect before giving up; None or 0: for ever.",
    ),
    Setting(
        "broker_channel_error_retry",
        "bool",
        False,
        "BROKER_CHANNEL_ERROR_RETRY",
        "Connect again also after an error of the channel.",
    ),
    Setting(
        "broker_failover_strategy",
        "string",
        None,
        "BROKER_FAILOVER_STRATEGY",
        "How the next of several URLs is chosen: round-robin or shuffle.",
    ),
    Setting("broker_heartbeat", "int", 120, "BROKER_HEARTBEAT", "Seconds between heartbeats; 0: none."),
    Setting(
        "broker_heartbeat_checkrate",
        "int",
        3.0,
        "BROKER_HEARTBEAT_CHECKRATE",
        "How often in that time heartbeats are looked at.",
    ),
    Setting("broker_login_method", "string", None, "BROKER_LOGIN_METHOD", "AMQP login method."),
    Setting(
        "broker_native_delayed_delivery_queue_type",
        "string",
        "quorum",
        "BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE",
        "Type of the queues that delay messages in RabbitMQ: quorum or classic.",
    ),
    Setting(
        "broker_pool_limit",
        "int",
        10,
        "BROKER_POOL_LIMIT",
        "Connections that publishers may hold; None or 0: one for each publish.",
    ),
    Setting(
        "broker_pool_acquire_timeout",
        "float",
        None,
        "BROKER_POOL_ACQUIRE_TIMEOUT",
        "Seconds to wait for a free connection; None: without end.",
    ),
    Setting("broker_use_ssl", "bool", False, "BROKER_USE_SSL", "TLS to the broker: True, or a dict of options."),
    Setting("broker_host", "string", None, "BROKER_HOST", "Host, where no URL gives it."),
    Setting("broker_port", "int", None, "BROKER_PORT", "Port, where no URL gives it."),
    Setting("broker_user", "string", None, "BROKER_USER", "User, where no URL gives it."),
    Setting("broker_password", "string", None, "BROKER_PASSWORD", "Password, where no URL gives it."),
    Setting("broker_vhost", "string", None, "BROKER_VHOST", "Virtual host, where no URL gives it."),
    Setting("cache_backend", "string", None, "CELERY_CACHE_BACKEND", "URL of the cache for results."),
    Setting("cache_backend_options", "dict", {}, "CELERY_CACHE_BACKEND_OPTIONS", "Options of the cache's client."),
    Setting("cassandra_entry_ttl", "float", None, "CASSANDRA_ENTRY_TTL", "Seconds that a result is kept."),
    Setting("cassandra_keyspace", "string", None, "CASSANDRA_KEYSPACE", "Keyspace of the results."),
    Setting("cassandra_port", "string", None, "CASSANDRA_PORT", "Port of the servers."),
    Setting("cassandra_read_consistency", "string", None, "CASSANDRA_READ_CONSISTENCY", "Consistency level of reads."),
    Setting("cassandra_servers", "list", None, "CASSANDRA_SERVERS", "Hosts of the servers."),
    Setting(
        "cassandra_bundle_path",
        "string",
        None,
        "CASSANDRA_BUNDLE_PATH",
        "Declared, but never read: see cassandra_secure_bundle_path.",
    ),
    Setting("cassandra_table", "string", None, "CASSANDRA_TABLE", "Table of the results."),
    Setting(
        "cassandra_write_consistency", "string", None, "CASSANDRA_WRITE_CONSISTENCY", "Consistency level of writes."
    ),
    Setting(
        "cassandra_auth_provider", "string", None, "CASSANDRA_AUTH_PROVIDER", "Class in cassandra.auth that logs in."
    ),
    Setting("cassandra_auth_kwargs", "string", None, "CASSANDRA_AUTH_KWARGS", "Arguments of that class."),
    Setting("cassandra_options", "dict", {}, "CASSANDRA_OPTIONS", "Options of the driver's cluster."),
    Setting("s3_access_key_id", "string", None, "S3_ACCESS_KEY_ID", "Access key."),
    Setting("s3_secret_access_key", "string", None, "S3_SECRET_ACCESS_KEY", "Secret of the access key."),
    Setting("s3_bucket", "string", None, "S3_BUCKET", "Bucket of the results."),
    Setting("s3_base_path", "string", None, "S3_BASE_PATH", "What object names begin with."),
    Setting(
        "s3_endpoint_url", "string", None, "S3_ENDPOINT_URL", "URL of a server that speaks S3, if it is not Amazon's."
    ),
    Setting("s3_region", "string", None, "S3_REGION", "Region of the bucket."),
    Setting(
        "azureblockblob_container_name",
        "string",
        "celery",
        "AZUREBLOCKBLOB_CONTAINER_NAME",
        "Container of the results.",
    ),
    Setting(
        "azureblockblob_retry_initial_backoff_sec",
        "int",
        2,
        "AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC",
        "Seconds before the first retry.",
    ),
    Setting(
        "azureblockblob_retry_increment_base",
        "int",
        2,
        "AZUREBLOCKBLOB_RETRY_INCREMENT_BASE",
        "What the wait grows by at each retry.",
    ),
    Setting("azureblockblob_retry_max_attempts", "int", 3, "AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS", "Tries in all."),
    Setting("azureblockblob_base_path", "string", "", "AZUREBLOCKBLOB_BASE_PATH", "What blob names begin with."),
    Setting(
        "azureblockblob_connection_timeout",
        "int",
        20,
        "AZUREBLOCKBLOB_CONNECTION_TIMEOUT",
        "Seconds in which a connection must come about.",
    ),
    Setting(
        "azureblockblob_read_timeout",
        "int",
        120,
        "AZUREBLOCKBLOB_READ_TIMEOUT",
        "Seconds in which an answer must come.",
    ),
    Setting("gcs_bucket", "string", None, "GCS_BUCKET", "Bucket of the results."),
    Setting("gcs_project", "string", None, "GCS_PROJECT", "Project of the bucket."),
    Setting("gcs_base_path", "string", "", "GCS_BASE_PATH", "What object names begin with."),
    Setting("gcs_ttl", "float", 0, "GCS_TTL", "Seconds that a result is kept; 0: the bucket's own rules."),
    Setting(
        "control_queue_ttl",
        "float",
        300.0,
        "CONTROL_QUEUE_TTL",
        "Seconds that a control message may wait in a node's queue.",
    ),
    Setting(
        "control_queue_expires",
        "float",
        10.0,
        "CONTROL_QUEUE_EXPIRES",
        "Seconds after which an unused control queue is deleted.",
    ),
    Setting(
        "control_queue_exclusive",
        "bool",
        True,
        "CONTROL_QUEUE_EXCLUSIVE",
        "Control queues belong to one connection; not together with durable.",
    ),
    Setting(
        "control_queue_durable",
        "bool",
        False,
        "CONTROL_QUEUE_DURABLE",
        "Control queues survive a restart of the broker.",
    ),
    Setting("control_exchange", "string", "celery", "CONTROL_EXCHANGE", "Name of the control exchange."),
    Setting(
        "couchbase_backend_settings",
        "dict",
        None,
        "CELERY_COUCHBASE_BACKEND_SETTINGS",
        "Host, bucket, login of Couchbase.",
    ),
    Setting(
        "arangodb_backend_settings",
        "dict",
        None,
        "CELERY_ARANGODB_BACKEND_SETTINGS",
        "Host, database, collection, login of ArangoDB.",
    ),
    Setting(
        "mongodb_backend_settings",
        "dict",
        None,
        "CELERY_MONGODB_BACKEND_SETTINGS",
        "Database, collections, login and options of MongoDB.",
    ),
    Setting("cosmosdbsql_database_name", "string", "celerydb", "COSMOSDBSQL_DATABASE_NAME", "Database of the results."),
    Setting(
        "cosmosdbsql_collection_name",
        "string",
        "celerycol",
        "COSMOSDBSQL_COLLECTION_NAME",
        "Collection of the results.",
    ),
    Setting(
        "cosmosdbsql_consistency_level",
        "string",
        "Session",
        "COSMOSDBSQL_CONSISTENCY_LEVEL",
        "Consistency level of reads and writes.",
    ),
    Setting(
        "cosmosdbsql_max_retry_attempts",
        "int",
        9,
        "COSMOSDBSQL_MAX_RETRY_ATTEMPTS",
        "Retries of a request that was turned down for load.",
    ),
    Setting(
        "cosmosdbsql_max_retry_wait_time",
        "int",
        30,
        "COSMOSDBSQL_MAX_RETRY_WAIT_TIME",
        "Seconds that all of its retries may take.",
    ),
    Setting(
        "event_queue_expires",
        "float",
        60.0,
        "CELERY_EVENT_QUEUE_EXPIRES",
        "Seconds after which an unused event queue is deleted.",
    ),
    Setting(
        "event_queue_ttl",
        "float",
        5.0,
        "CELERY_EVENT_QUEUE_TTL",
        "Seconds that an event may wait in a receiver's queue.",
    ),
    Setting(
        "event_queue_prefix",
        "string",
        "celeryev",
        "CELERY_EVENT_QUEUE_PREFIX",
        "What names of event queues begin with.",
    ),
    Setting(
        "event_queue_exclusive",
        "bool",
        True,
        "CELERY_EVENT_QUEUE_EXCLUSIVE",
        "Event queues belong to one connection; not together with durable.",
    ),
    Setting(
        "event_queue_durable",
        "bool",
        False,
        "CELERY_EVENT_QUEUE_DURABLE",
        "Event queues survive a restart of the broker.",
    ),
    Setting("event_serializer", "string", "json", "CELERY_EVENT_SERIALIZER", "Serializer of events."),
    Setting("event_exchange", "string", "celeryev", "CELERY_EVENT_EXCHANGE", "Name of the event exchange."),
    Setting("redis_backend_use_ssl", "dict", None, "CELERY_REDIS_BACKEND_USE_SSL", "TLS to Redis: a dict of options."),
    Setting("redis_db", "int", None, "CELERY_REDIS_DB", "Number of the database, where no URL gives it."),
    Setting("redis_host", "string", None, "CELERY_REDIS_HOST", "Host, where no URL gives it."),
    Setting(
        "redis_max_connections",
        "int",
        None,
        "CELERY_REDIS_MAX_CONNECTIONS",
        "Connections that the result backend may hold; None: no limit.",
    ),
    Setting("redis_username", "string", None, "CELERY_REDIS_USERNAME", "User, where no URL gives it."),
    Setting("redis_password", "string", None, "CELERY_REDIS_PASSWORD", "Password, where no URL gives it."),
    Setting("redis_port", "int", None, "CELERY_REDIS_PORT", "Port, where no URL gives it."),
    Setting(
        "redis_socket_timeout", "float", 120.0, "CELERY_REDIS_SOCKET_TIMEOUT", "Seconds in which an answer must come."
    ),
    Setting(
        "redis_socket_connect_timeout",
        "float",
        None,
        "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT",
        "Seconds in which a connection must come about.",
    ),
    Setting(
        "redis_retry_on_timeout",
        "bool",
        False,
        "CELERY_REDIS_RETRY_ON_TIMEOUT",
        "Send a command again if no answer came in time.",
    ),
    Setting("redis_socket_keepalive", "bool", False, "CELERY_REDIS_SOCKET_KEEPALIVE", "TCP keep-alive."),
    Setting(
        "result_backend",
        "string",
        None,
        "CELERY_RESULT_BACKEND",
        "URL, alias or class of the result backend; None: results are not kept.",
    ),
    Setting(
        "result_cache_max",
        "int",
        -1,
        "CELERY_MAX_CACHED_RESULTS",
        "Results that a client keeps in memory; -1: none, 0 or None: no limit.",
    ),
    Setting(
        "result_compression",
        "string",
        None,
        "CELERY_RESULT_COMPRESSION",
        "Compression of stored results, in the backends that have it.",
    ),
    Setting(
        "result_exchange", "string", "celeryresults", "CELERY_RESULT_EXCHANGE", "Exchange of results sent as messages."
    ),
    Setting("result_exchange_type", "string", "direct", "CELERY_RESULT_EXCHANGE_TYPE", "Type of that exchange."),
    Setting(
        "result_expires",
        "float",
        timedelta(days=1),
        "CELERY_TASK_RESULT_EXPIRES",
        "Seconds (or timedelta) that a result is kept; None or 0: for ever.",
    ),
    Setting(
        "result_chord_expires",
        "float",
        None,
        "CELERY_RESULT_CHORD_EXPIRES",
        "Seconds that the parts of a chord are kept; None: as result_expires.",
    ),
    Setting(
        "result_failure_expires",
        "float",
        None,
        "CELERY_RESULT_FAILURE_EXPIRES",
        "Seconds that a failure is kept (Redis only); None: as result_expires.",
    ),
    Setting(
        "result_persistent",
        "bool",
        None,
        "CELERY_RESULT_PERSISTENT",
        "Results sent as messages survive a restart of the broker.",
    ),
    Setting(
        "result_extended",
        "bool",
        False,
        "CELERY_RESULT_EXTENDED",
        "Results hold name, arguments, worker, retries and queue as well.",
    ),
    Setting("result_serializer", "string", "json", "CELERY_RESULT_SERIALIZER", "Serializer of results."),
    Setting(
        "result_backend_transport_options",
        "dict",
        {},
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
        "Options of the result backend.",
    ),
    Setting(
        "result_chord_retry_interval",
        "float",
        1.0,
        "CELERY_RESULT_CHORD_RETRY_INTERVAL",
        "Seconds between looks at an unfinished chord, in backends that must look.",
    ),
    Setting(
        "result_chord_join_timeout",
        "float",
        3.0,
        "CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        "Seconds in which a chord's results must be read.",
    ),
    Setting(
        "result_backend_max_sleep_between_retries_ms",
        "int",
        10000,
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        "Longest wait before storing again, in milliseconds.",
    ),
    Setting(
        "result_backend_max_retries",
        "float",
        math.inf,
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
        "Tries to store a result again.",
    ),
    Setting(
        "result_backend_base_sleep_between_retries_ms",
        "int",
        10,
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        "First wait before storing again, in milliseconds.",
    ),
    Setting(
        "result_backend_always_retry",
        "bool",
        False,
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        "Store and read again after errors that may pass.",
    ),
    Setting(
        "elasticsearch_retry_on_timeout",
        "bool",
        None,
        "CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT",
        "Ask again if no answer came in time.",
    ),
    Setting("elasticsearch_max_retries", "int", None, "CELERY_ELASTICSEARCH_MAX_RETRIES", "Retries of a request."),
    Setting(
        "elasticsearch_timeout", "float", None, "CELERY_ELASTICSEARCH_TIMEOUT", "Seconds in which an answer must come."
    ),
    Setting(
        "elasticsearch_save_meta_as_text",
        "bool",
        True,
        "CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT",
        "Store results as text, not as JSON objects.",
    ),
    Setting(
        "security_certificate",
        "string",
        None,
        "CELERY_SECURITY_CERTIFICATE",
        "File of the certificate that belongs to the key.",
    ),
    Setting(
        "security_cert_store",
        "string",
        None,
        "CELERY_SECURITY_CERT_STORE",
        "Directory (or pattern) of the certificates that are trusted.",
    ),
    Setting("security_key", "string", None, "CELERY_SECURITY_KEY", "File of the private key that signs messages."),
    Setting("security_key_password", "bytes", None, "CELERY_SECURITY_KEY_PASSWORD", "Password of the private key."),
    Setting("security_digest", "string", "sha256", "CELERY_SECURITY_DIGEST", "Hash that signatures are made with."),
    Setting(
        "database_url", "string", None, "CELERY_RESULT_DBURI", "URL of the database of the results, as after `db+`."
    ),
    Setting(
        "database_engine_options",
        "dict",
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "CELERY_RESULT_ENGINE_OPTIONS",
        "Arguments of SQLAlchemy's create_engine.",
    ),
    Setting("database_engine_callback", "any", None, "DATABASE_ENGINE_CALLBACK", "Called with each new engine."),
    Setting(
        "database_short_lived_sessions",
        "bool",
        False,
        "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
        "A new database session for each request.",
    ),
    Setting("database_table_schemas", "dict", None, "DATABASE_TABLE_SCHEMAS", "Schemas of the tables: task and group."),
    Setting(
        "database_table_names", "dict", None, "CELERY_RESULT_DB_TABLENAMES", "Names of the tables: task and group."
    ),
    Setting(
        "database_create_tables_at_setup",
        "bool",
        True,
        "DATABASE_CREATE_TABLES_AT_SETUP",
        "Create the tables when the backend is made, not when first used.",
    ),
    Setting("task_acks_late", "bool", False, "CELERY_ACKS_LATE", "Acknowledge a message after its run, not before."),
    Setting(
        "task_acks_on_failure_or_timeout",
        "bool",
        True,
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        "Late acknowledgement also after failures and time limits.",
        deprecate_by="6.0",
        remove_by="7.0",
        alt="task_acks_on_failure and task_acks_on_timeout",
    ),
    Setting(
        "task_acks_on_failure",
        "bool",
        None,
        "CELERY_ACKS_ON_FAILURE",
        "Late acknowledgement also after failures; None: by the combined setting.",
    ),
    Setting(
        "task_acks_on_timeout",
        "bool",
        None,
        "CELERY_ACKS_ON_TIMEOUT",
        "Late acknowledgement also after time limits; None: by the combined setting.",
    ),
    Setting(
        "task_always_eager",
        "bool",
        False,
        "CELERY_ALWAYS_EAGER",
        "Calls run the task at once, in the caller's process.",
    ),
    Setting(
        "task_annotations",
        "any",
        None,
        "CELERY_ANNOTATIONS",
        "Attributes to set on tasks: a dict by task name, or objects.",
    ),
    Setting("task_compression", "string", None, "CELERY_MESSAGE_COMPRESSION", "Compression of messages."),
    Setting(
        "task_create_missing_queues",
        "bool",
        True,
        "CELERY_CREATE_MISSING_QUEUES",
        "Declare queues that are named but not in task_queues.",
    ),
    Setting(
        "task_create_missing_queue_type",
        "string",
        "classic",
        "CELERY_CREATE_MISSING_QUEUE_TYPE",
        "Type of those queues: classic or quorum.",
    ),
    Setting(
        "task_create_missing_queue_exchange_type",
        "string",
        None,
        "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE",
        "Type of their exchanges; None: the default exchange type.",
    ),
    Setting(
        "task_inherit_parent_priority",
        "bool",
        False,
        "CELERY_INHERIT_PARENT_PRIORITY",
        "Calls made by a task have its priority.",
    ),
    Setting(
        "task_default_delivery_mode", "string", 2, "CELERY_DEFAULT_DELIVERY_MODE", "2 or persistent, 1 or transient."
    ),
    Setting(
        "task_default_queue",
        "string",
        "celery",
        "CELERY_DEFAULT_QUEUE",
        "Queue of tasks that nothing routes elsewhere.",
    ),
    Setting(
        "task_default_queue_type",
        "string",
        "classic",
        "CELERY_DEFAULT_QUEUE_TYPE",
        "Type of the default queue: classic or quorum.",
    ),
    Setting(
        "task_default_exchange",
        "string",
        None,
        "CELERY_DEFAULT_EXCHANGE",
        "Exchange of the default queue; None: its name.",
    ),
    Setting(
        "task_default_exchange_type",
        "string",
        "direct",
        "CELERY_DEFAULT_EXCHANGE_TYPE",
        "Type of the default exchange.",
    ),
    Setting(
        "task_default_routing_key",
        "string",
        None,
        "CELERY_DEFAULT_ROUTING_KEY",
        "Routing key of the default queue; None: its name.",
    ),
    Setting(
        "task_default_rate_limit",
        "string",
        None,
        "CELERY_DEFAULT_RATE_LIMIT",
        "Rate limit of all tasks, such as 100/m.",
    ),
    Setting("task_default_priority", "string", None, "CELERY_DEFAULT_PRIORITY", "Priority of all tasks."),
    Setting(
        "task_eager_propagates",
        "bool",
        False,
        "CELERY_EAGER_PROPAGATES_EXCEPTIONS",
        "Eager calls raise what the task raised.",
    ),
    Setting("task_ignore_result", "bool", False, "CELERY_IGNORE_RESULT", "Store no results."),
    Setting("task_store_eager_result", "bool", False, "CELERY_STORE_EAGER_RESULT", "Store results of eager calls too."),
    Setting(
        "task_protocol", "int", 2, "CELERY_TASK_PROTOCOL", "Version of the message protocol that is written: 1 or 2."
    ),
    Setting(
        "task_publish_retry", "bool", True, "CELERY_TASK_PUBLISH_RETRY", "Publish again if the connection is lost."
    ),
    Setting(
        "task_publish_retry_policy",
        "dict",
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
        "How often, and after what waits.",
    ),
    Setting("task_queues", "dict", None, "CELERY_QUEUES", "Queues to consume from: kombu Queues, or a dict by name."),
    Setting("task_queue_max_priority", "int", None, "CELERY_QUEUE_MAX_PRIORITY", "x-max-priority of all queues."),
    Setting(
        "task_reject_on_worker_lost",
        "bool",
        None,
        "CELERY_REJECT_ON_WORKER_LOST",
        "Give a late-acknowledged message back if the process that ran it died.",
    ),
    Setting(
        "task_retry_on_worker_lost",
        "bool",
        False,
        "CELERY_RETRY_ON_WORKER_LOST",
        "Retry a task if the process that ran it died.",
    ),
    Setting(
        "task_remote_tracebacks",
        "bool",
        False,
        "CELERY_REMOTE_TRACEBACKS",
        "Exceptions from get() show the worker's traceback (needs tblib).",
    ),
    Setting(
        "task_repr_maxlevels",
        "int",
        3,
        "CELERY_REPR_MAXLEVELS",
        "Depth to which arguments are shown in the argsrepr and kwargsrepr headers.",
    ),
    Setting(
        "task_routes",
        "any",
        None,
        "CELERY_ROUTES",
        "Routes: a dict by name or pattern, a list of pairs, functions, or their paths.",
    ),
    Setting("task_send_sent_event", "bool", False, "CELERY_SEND_TASK_SENT_EVENT", "Publishers send task-sent events."),
    Setting("task_serializer", "string", "json", "CELERY_TASK_SERIALIZER", "Serializer of messages."),
    Setting(
        "task_soft_time_limit",
        "float",
        None,
        "CELERYD_TASK_SOFT_TIME_LIMIT",
        "Seconds after which a task is told by SoftTimeLimitExceeded to stop.",
    ),
    Setting(
        "task_time_limit",
        "float",
        None,
        "CELERYD_TASK_TIME_LIMIT",
        "Seconds after which the process that runs a task is killed.",
    ),
    Setting(
        "task_store_errors_even_if_ignored",
        "bool",
        False,
        "CELERY_STORE_ERRORS_EVEN_IF_IGNORED",
        "Store failures of tasks whose results are ignored.",
    ),
    Setting("task_track_started", "bool", False, "CELERY_TRACK_STARTED", "Store STARTED when a task begins."),
    Setting(
        "task_allow_error_cb_on_chord_header",
        "bool",
        False,
        "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
        "Error callbacks of a chord are linked to the tasks of its header too.",
    ),
    Setting("worker_agent", "string", None, "CELERYD_AGENT", "Class of an agent that runs beside the worker."),
    Setting(
        "worker_autoscaler",
        "string",
        "celery.worker.autoscale:Autoscaler",
        "CELERYD_AUTOSCALER",
        "Class that adds and removes processes.",
    ),
    Setting(
        "worker_cancel_long_running_tasks_on_connection_loss",
        "bool",
        False,
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        "Stop late-acknowledged tasks when the connection is lost.",
    ),
    Setting(
        "worker_soft_shutdown_timeout",
        "float",
        0.0,
        "CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        "Seconds that a cold shutdown waits for tasks first; 0: none.",
    ),
    Setting(
        "worker_enable_soft_shutdown_on_idle",
        "bool",
        False,
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        "Do so also when nothing runs.",
    ),
    Setting(
        "worker_concurrency",
        "any",
        None,
        "CELERYD_CONCURRENCY",
        "Processes or threads that run tasks; None or auto: as many as processors.",
    ),
    Setting(
        "worker_consumer", "string", "celery.worker.consumer:Consumer", "CELERYD_CONSUMER", "Class of the consumer."
    ),
    Setting("worker_direct", "bool", False, "CELERY_WORKER_DIRECT", "Consume also from a queue of the worker's own."),
    Setting(
        "worker_disable_rate_limits", "bool", False, "CELERY_DISABLE_RATE_LIMITS", "Take no notice of rate limits."
    ),
    Setting(
        "worker_deduplicate_successful_tasks",
        "bool",
        False,
        "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        "Do not run a redelivered task whose result is SUCCESS.",
    ),
    Setting(
        "worker_enable_remote_control", "bool", True, "CELERY_ENABLE_REMOTE_CONTROL", "Answer remote control commands."
    ),
    Setting(
        "worker_hijack_root_logger",
        "bool",
        True,
        "CELERYD_HIJACK_ROOT_LOGGER",
        "Remove the handlers that the root logger had.",
    ),
    Setting("worker_log_color", "bool", None, "CELERYD_LOG_COLOR", "Coloured log lines; None: on a terminal."),
    Setting("worker_log_datefmt", "string", None, "CELERYD_LOG_DATEFMT", "Format of dates in log lines."),
    Setting(
        "worker_log_format",
        "string",
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        "CELERYD_LOG_FORMAT",
        "Format of log lines.",
    ),
    Setting(
        "worker_lost_wait",
        "float",
        10.0,
        "CELERYD_WORKER_LOST_WAIT",
        "Seconds to wait for the result of a process that died.",
    ),
    Setting(
        "worker_max_memory_per_child",
        "int",
        None,
        "CELERYD_MAX_MEMORY_PER_CHILD",
        "Kibibytes that a process may use before it is replaced.",
    ),
    Setting(
        "worker_max_tasks_per_child",
        "int",
        None,
        "CELERYD_MAX_TASKS_PER_CHILD",
        "Tasks that a process may run before it is replaced.",
    ),
    Setting(
        "worker_pool",
        "string",
        "prefork",
        "CELERYD_POOL",
        "Kind of pool: prefork, solo, threads, gevent, eventlet, or a class.",
    ),
    Setting(
        "worker_pool_putlocks",
        "bool",
        True,
        "CELERYD_POOL_PUTLOCKS",
        "Hand over no more tasks than there are processes.",
    ),
    Setting("worker_pool_restarts", "bool", False, "CELERYD_POOL_RESTARTS", "Enables the pool_restart command."),
    Setting(
        "worker_pool_start_method",
        "string",
        "fork",
        "CELERYD_POOL_START_METHOD",
        "How processes are made: fork or spawn.",
    ),
    Setting(
        "worker_proc_alive_timeout",
        "float",
        4.0,
        "CELERYD_PROC_ALIVE_TIMEOUT",
        "Seconds in which a new process must be ready.",
    ),
    Setting(
        "worker_prefetch_multiplier",
        "int",
        4,
        "CELERYD_PREFETCH_MULTIPLIER",
        "Messages held for each process; 0: no limit.",
    ),
    Setting(
        "worker_eta_task_limit",
        "int",
        None,
        "CELERYD_ETA_TASK_LIMIT",
        "Tasks with an ETA that a worker may hold; None: no limit.",
    ),
    Setting(
        "worker_enable_prefetch_count_reduction",
        "bool",
        True,
        "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        "Fetch less after a lost connection until old tasks are done.",
    ),
    Setting(
        "worker_disable_prefetch",
        "bool",
        False,
        "CELERYD_DISABLE_PREFETCH",
        "Fetch a message only when a process is free (Redis).",
    ),
    Setting("worker_redirect_stdouts", "bool", True, "CELERY_REDIRECT_STDOUTS", "What tasks print goes into the log."),
    Setting(
        "worker_redirect_stdouts_level",
        "string",
        "WARNING",
        "CELERY_REDIRECT_STDOUTS_LEVEL",
        "Level of what tasks print.",
    ),
    Setting("worker_send_task_events", "bool", False, "CELERY_SEND_EVENTS", "Send events about tasks."),
    Setting("worker_state_db", "string", None, "CELERYD_STATE_DB", "File that keeps revoked tasks over restarts."),
    Setting(
        "worker_task_log_datefmt", "string", None, "CELERYD_TASK_LOG_DATEFMT", "Format of dates in log lines of tasks."
    ),
    Setting(
        "worker_task_log_format",
        "string",
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        "CELERYD_TASK_LOG_FORMAT",
        "Format of log lines of tasks.",
    ),
    Setting("worker_timer", "string", None, "CELERYD_TIMER", "Class of the timer."),
    Setting(
        "worker_timer_precision", "float", 1.0, "CELERYD_TIMER_PRECISION", "Longest sleep of the timer in seconds."
    ),
    Setting(
        "worker_detect_quorum_queues", "bool", True, "CELERYD_DETECT_QUORUM_QUEUES", "Adapt by itself to quorum queues."
    ),
    Setting("beat_executable", "string", None, "", "Python that a detached beat runs with.", declared=False),
    Setting("beat_gid", "string", None, "", "Group of a detached beat.", declared=False),
    Setting("beat_logfile", "string", None, "", "Log file of beat.", declared=False),
    Setting("beat_pidfile", "string", None, "", "Pid file of beat.", declared=False),
    Setting("beat_uid", "string", None, "", "User of a detached beat.", declared=False),
    Setting("beat_umask", "string", None, "", "Umask (octal) of a detached beat.", declared=False),
    Setting(
        "events_executable", "string", None, "", "Python that a detached events program runs with.", declared=False
    ),
    Setting("events_gid", "string", None, "", "Group of a detached events program.", declared=False),
    Setting("events_logfile", "string", None, "", "Log file of the events program.", declared=False),
    Setting("events_pidfile", "string", None, "", "Pid file of the events program.", declared=False),
    Setting("events_uid", "string", None, "", "User of a detached events program.", declared=False),
    Setting("events_umask", "string", None, "", "Umask (octal) of a detached events program.", declared=False),
    Setting("worker_executable", "string", None, "", "Python that a detached worker runs with.", declared=False),
    Setting("worker_gid", "string", None, "", "Group of a detached worker.", declared=False),
    Setting("worker_logfile", "string", None, "", "Log file of the worker.", declared=False),
    Setting("worker_pidfile", "string", None, "", "Pid file of the worker.", declared=False),
    Setting("worker_uid", "string", None, "", "User of a detached worker.", declared=False),
    Setting("worker_umask", "string", None, "", "Umask (octal) of a detached worker.", declared=False),
    Setting(
        "dead_letter_max_age",
        "float",
        30 * 86400,
        "",
        "Seconds (or a timedelta) for which a dead letter is kept.",
        declared=False,
    ),
    Setting("dead_letter_max_count", "int", 10_000, "", "Dead letters kept of each queue.", declared=False),
    Setting("dead_letter_max_size", "int", 100 << 20, "", "Bytes of dead letters kept of each queue.", declared=False),
    Setting(
        "task_chord_embed_limit",
        "int",
        None,
        "",
        "Bytes of a chord's body that each member of its header carries; a larger one is kept once, in the result "
        "backend, which workers of Celery's cannot read. None: members carry all, as Celery's do.",
        declared=False,
    ),
    Setting(
        "task_acks_first",
        "bool",
        False,
        "",
        "Tasks without late acknowledgement run only once the broker has confirmed it: at most once, and slower.",
        declared=False,
    ),
    Setting(
        "task_max_deaths",
        "int",
        3,
        "",
        "Deaths of its processes after which a task is not run again but kept as a dead letter; 0: never.",
        declared=False,
    ),
    Setting(
        "task_publish_timeout",
        "float",
        None,
        "",
        "Seconds after which a call that has not been published raises, whatever takes so long. 0 or None: some ten.",
        declared=False,
    ),
    Setting(
        "worker_shutdown_grace",
        "float",
        None,
        "",
        "Seconds that a warm shutdown waits for running tasks; None: as long as they take.",
        declared=False,
    ),
    Setting(
        "worker_stuck_after",
        "float",
        30.0,
        "",
        "Seconds without an answer of its loop or of a process of its pool after which a worker says so instead of "
        "pong; 0: never.",
        declared=False,
    ),
    Setting(
        "worker_unknown_task_grace",
        "float",
        None,
        "",
        "Seconds that messages of unknown tasks stay for workers that know them. None: 600 where other workers are or "
        "were, else 0.",
        declared=False,
    ),
    Setting(
        "cassandra_secure_bundle_path",
        "string",
        None,
        "",
        "Bundle that connects to Astra; not together with cassandra_servers.",
        declared=False,
    ),
    Setting("dynamodb_endpoint_url", "string", None, "", "URL of a server that speaks DynamoDB.", declared=False),
    Setting(
        "firestore_project",
        "string",
        None,
        "",
        "Project of the counters of chords; unset: gcs_project.",
        declared=False,
    ),
    Setting("gcs_threadpool_maxsize", "int", 10, "", "Results that are fetched at once.", declared=False),
    Setting("override_backends", "dict", {}, "", "Backend classes by alias, before the built-in ones.", declared=False),
    Setting(
        "redis_backend_credential_provider",
        "any",
        None,
        "",
        "Object or path of a class that gives login data; user and password are then not used.",
        declared=False,
    ),
    Setting(
        "redis_backend_health_check_interval",
        "int",
        None,
        "",
        "Seconds between checks of an idle connection.",
        declared=False,
    ),
    Setting(
        "redis_client_name",
        "string",
        None,
        "",
        "Name that connections give themselves (CLIENT SETNAME).",
        declared=False,
    ),
    Setting("result_backend_thread_safe", "bool", False, "", "Threads share one backend.", declared=False),
    Setting(
        "CELERY_DB_REUSE_MAX",
        "int",
        None,
        "",
        "Tasks after which Django's database connections are closed.",
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
    with the same first or last three letters. Of two that are equally near, the one as long as what was written.

    None if the name is known, or is like no other.
    """
    if name in BY_NAME or name in NEW_NAME:
        return None
    candidates = _by_ends(name.isupper())
    best: str | None = None
    least = (3, 0)
    for candidate in sorted({*candidates.get(name[:3], ()), *candidates.get(name[-3:], ())}):
        longer = abs(len(candidate) - len(name))
        if longer <= least[0]:
            distance = (_edits(name, candidate, least[0]), longer)
            if distance < least:
                best, least = candidate, distance
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
