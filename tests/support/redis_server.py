# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Redis for one test: its own process, directory and port, with a password, gone when the test ends."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

import pytest
import redis as redis_py

__all__ = ["RedisServer", "next_heartbeat", "redis_server", "running_redis", "wait_until"]

HOST = "127.0.0.1"
PASSWORD = "t3st/pass:w@rd%"  # characters that a URL has to escape
DEADLINE_SECONDS = 30.0
# How many times longer everything may take than on a machine with nothing else to do: tests run beside each other, and
# what is too late fails all the same, only later.
BUSY = 10


def wait_until(condition: Any, what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Ask ``condition`` until it answers something true.

    :param seconds: after which a machine with nothing else to do would be late.
    :returns: that answer.
    :raises AssertionError: it didn't in time; says ``what`` was waited for.
    """
    end = time.monotonic() + seconds * BUSY
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"still waiting after {seconds * BUSY:g} s: {what}"
        time.sleep(0.02)


def next_heartbeat(client: Any, key: str) -> bool:
    """Wait for a worker's next heartbeat: the one after it is then a whole period away.

    :param client: of the Redis that has the registration.
    :param key: key of the registration.
    """
    before = client.hget(key, "heartbeatAt")
    return bool(wait_until(lambda: client.hget(key, "heartbeatAt") not in (before, None), "another heartbeat"))


class RedisServer:
    """One ``redis-server``; started, stopped and disturbed at will.

    :param directory: for its configuration and data.
    :param host: address to listen on; the engine's bridge for containers.
    :param keeps_users: whether it has an ACL file.
    :param tls: directory with ``ca.crt``, ``server.crt`` and ``server.key``; then the port speaks TLS.
    """

    def __init__(self, directory: Path, password: str = PASSWORD, tls: Path | None = None, host: str = HOST,
                 keeps_users: bool = False) -> None:
        self._keeps_users = keeps_users
        self.host = host
        self.port = _free_port()
        self.password = password
        self._tls = tls
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL with the password in it."""
        return self.url_for(password=self.password)

    @property
    def bare_url(self) -> str:
        """URL without credentials, for users that have the password in a file."""
        return self.url_for()

    @property
    def password_file(self) -> Path:
        """A file with the password and a newline, as an operator would write it."""
        path = self._directory / "password"
        path.write_text(f"{self.password}\n", encoding="utf-8")
        path.chmod(0o400)
        return path

    def url_for(self, user: str = "", password: str = "", database: int = 0) -> str:
        """URL for a user and a database."""
        scheme = "rediss" if self._tls else "redis"
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        return f"{scheme}://{credentials}{self.host}:{self.port}/{database}"

    def client(self, **arguments: Any) -> redis_py.Redis:
        """A client of the test's own that decodes answers."""
        tls = {"ssl": True, "ssl_ca_certs": str(self._tls / "ca.crt")} if self._tls else {}
        options = {"password": self.password, "decode_responses": True, **tls, **arguments}
        return redis_py.Redis(host=self.host, port=self.port, **options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "redis.conf").write_text(self._configuration(), encoding="utf-8")
        users = self._directory / "users.acl"
        if self._keeps_users and not users.exists():
            users.write_text(f"user default on >{self.password} ~* &* +@all\n", encoding="utf-8")
        log = self._directory / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["redis-server", str(self._directory / "redis.conf")], stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, f"redis-server to answer; its log: {log}")

    def stop(self) -> None:
        """Stop it in order; what it held is kept."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; what it held is kept up to the last second."""
        self._end(signal.SIGKILL)

    def restart(self, lose_data: bool = False) -> None:
        """Stop and start it on the same port, with or without what it held."""
        self.stop()
        if lose_data:
            shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)
        self.start()

    def flush(self) -> None:
        """Forget everything while it runs."""
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """Stop it answering; connections stay open, new ones are accepted by the kernel."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._running().send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        self._process.wait(DEADLINE_SECONDS * BUSY)
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "redis-server isn't running"
        return self._process

    def _answers(self) -> bool:
        assert self._running().poll() is None, (self._directory / "redis.log").read_text(encoding="utf-8")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis_py.ConnectionError:
            return False

    def _configuration(self) -> str:
        return "".join(f"{line}\n" for line in [*self._ports(), *self._keeping(), f'requirepass "{self.password}"'])

    def _ports(self) -> list[str]:
        if self._tls is None:
            return [f"bind {self.host}", f"port {self.port}"]
        return [
            f"bind {self.host}",
            "port 0",
            f"tls-port {self.port}",
            f"tls-cert-file {self._tls / 'server.crt'}",
            f"tls-key-file {self._tls / 'server.key'}",
            f"tls-ca-cert-file {self._tls / 'ca.crt'}",
            "tls-auth-clients no",
        ]

    def _keeping(self) -> list[str]:
        return [f"dir {self._directory}", 'save ""', "appendonly yes", "maxmemory-policy noeviction",
                *(["aclfile users.acl"] if self._keeps_users else [])]


@contextmanager
def running_redis(**arguments: Any) -> Iterator[RedisServer]:
    """A running Redis; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="driftguard-redis-"))
    server = RedisServer(directory, **arguments)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """An empty Redis of the test's own."""
    with running_redis() as server:
        yield server


def _free_port() -> int:
    # Below the range from which the kernel serves outgoing connections: a free port stays free until it is used.
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError("no free port between 20000 and 32000")
