# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connecting: what a Redis may refuse, and that the failure says it, names the place and no password."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import redis_gateway
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    settled,
)
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import PASSWORD, RedisServer, running_redis, wait_until
from support.registration_entries import entry, register
from support.releases import release

A, B = release("a"), release("b")
CONTAINER = "0123456789ab" + "c" * 52


def refusal(url: str, **options: Any) -> DriftguardError:
    with pytest.raises(DriftguardError) as caught:
        RedisGateway.connect(url, **options)
    assert PASSWORD not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


# connecting


def test_the_url_s_password_and_the_option(server: RedisServer) -> None:
    RedisGateway.connect(server.url)
    RedisGateway.connect(server.bare_url, password=server.password)
    RedisGateway.connect(server.url_for(password="wrong"), password=server.password)


def test_the_url_s_user_and_database(server: RedisServer, raw: Any) -> None:
    raw.acl_setuser("deployer", enabled=True, passwords=["+pw@1"], keys=["*"], commands=["+@all"])
    RedisGateway.connect(server.url_for("deployer", "pw@1", 5)).publish_record(settled(None, "demo", A, 1))
    with server.client(db=5) as five:
        assert five.exists("demo:release")
    assert not raw.exists("demo:release")


def test_no_password(server: RedisServer) -> None:
    error = refusal(server.bare_url)
    assert error.expected == "a password that it accepts"
    assert f"127.0.0.1:{server.port}/0" in error.subject


def test_wrong_password(server: RedisServer) -> None:
    error = refusal(server.bare_url, password="s3cr3t")
    assert error.expected == "a user and password that it accepts"
    assert "s3cr3t" not in str(error)


def test_a_password_that_is_not_wanted(server: RedisServer, raw: Any) -> None:
    raw.config_set("requirepass", "")
    try:
        assert refusal(server.url).expected == "to need no password"
    finally:
        raw.config_set("requirepass", server.password)


def test_a_renamed_auth_does_not_repeat_the_password() -> None:
    with answering(b"-ERR unknown command 'AUTH', with args beginning with: 's3cr3t' \r\n") as url:
        assert "s3cr3t" not in str(refusal(url, password="s3cr3t"))


def test_nobody_there(server: RedisServer) -> None:
    for host in ("127.0.0.1:1", "no-such-host.invalid:6379", "a..b:6379", "x" * 70 + ":6379"):
        error = refusal(f"redis://user:s3cr3t@{host}/0", timeout=1)
        assert error.expected == "a server that answers"
        assert "s3cr3t" not in str(error)


def test_nobody_answers(redis_server: RedisServer) -> None:
    gateway = RedisGateway.connect(redis_server.url, timeout=0.2)
    redis_server.pause()
    try:
        assert refusal(redis_server.url, timeout=0.2).expected == "a server that answers"
        with pytest.raises(DriftguardError, match="a server that answers"):
            gateway.record("demo")
    finally:
        redis_server.resume()


def test_a_server_that_went_away_and_came_back(redis_server: RedisServer) -> None:
    gateway = RedisGateway.connect(redis_server.url)
    redis_server.stop()
    with pytest.raises(DriftguardError, match="a server that answers"):
        gateway.time()
    redis_server.start()
    assert gateway.time() > 0


def test_loading() -> None:
    with answering(b"-LOADING Redis is loading the dataset in memory\r\n") as url:
        assert "loading its data" in refusal(url).remedy


def test_something_that_is_no_redis() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert refusal(url).subject.startswith("Redis 127.0.0.1:")


def test_no_permission(server: RedisServer, raw: Any) -> None:
    raw.acl_setuser("nobody", enabled=True, passwords=["+pw"], commands=["-@all"])
    gateway = RedisGateway.connect(server.url_for("nobody", "pw"))
    for ask in (
        gateway.time,
        gateway.preflight,
        lambda: gateway.record("demo"),
        lambda: gateway.registrations("demo"),
        lambda: gateway.history("demo"),
        lambda: gateway.publish_record(settled(None, "demo", A, 1)),
    ):
        with pytest.raises(DriftguardError, match="ACL SETUSER"):
            ask()
    assert gateway.clients() is None


def test_no_permission_for_the_keys(server: RedisServer, raw: Any) -> None:
    raw.acl_setuser("stranger", enabled=True, passwords=["+pw"], keys=["other:*"], commands=["+@all"])
    gateway = RedisGateway.connect(server.url_for("stranger", "pw"))
    for ask in (lambda: gateway.record("demo"), lambda: gateway.publish_record(settled(None, "demo", A, 1))):
        with pytest.raises(DriftguardError, match="ACL SETUSER"):
            ask()


def test_the_permissions_that_the_remedy_names_are_enough(server: RedisServer, raw: Any) -> None:
    rules = "on >pw ~demo:* &demo:* +@read +@write +@scripting +publish +ping +time +info"
    raw.execute_command("ACL SETUSER", "driver", *rules.split())
    gateway = RedisGateway.connect(server.url_for("driver", "pw"))
    register(raw, "extractor", CONTAINER[:12])
    assert len(gateway.registrations("demo").registrations) == 1
    assert gateway.publish_record(settled(None, "demo", A, 1), entry(1)) == 0
    assert gateway.record("demo") == settled(None, "demo", A, 1)
    assert gateway.history("demo") == ([entry(1)], 0)
    assert gateway.preflight()["version"]
    assert gateway.time() > 0


def test_library_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_gateway, "MISSING", "No module named 'redis'")
    assert "python3-redis" in refusal("redis://127.0.0.1").remedy


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none(server: RedisServer, timeout: float) -> None:
    assert "redis_timeout" in refusal(server.url, timeout=timeout).subject


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for 127.0.0.1, and another CA that signed nothing."""
    directory = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        openssl(
            directory, f"req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.crt -days 2 -subj /CN={name}"
        )
    openssl(directory, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=redis")
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san",
    )
    return directory


def openssl(directory: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tls_server(certificates: Path) -> Iterator[RedisServer]:
    with running_redis(tls=certificates) as server:
        yield server


def test_tls_with_its_ca(tls_server: RedisServer, certificates: Path) -> None:
    assert RedisGateway.connect(tls_server.url, ca_file=str(certificates / "ca.crt")).time() > 0


@pytest.mark.parametrize("ca_file", [None, "other.crt"])
def test_tls_with_a_ca_that_is_not_known(tls_server: RedisServer, certificates: Path, ca_file: str | None) -> None:
    error = refusal(tls_server.url, ca_file=str(certificates / ca_file) if ca_file else None)
    assert "certificate can be verified" in error.expected


def test_tls_with_a_certificate_for_another_name(tls_server: RedisServer, certificates: Path) -> None:
    error = refusal(tls_server.url.replace("127.0.0.1", "localhost"), ca_file=str(certificates / "ca.crt"))
    assert "certificate can be verified" in error.expected


def test_tls_asked_of_a_port_without(server: RedisServer) -> None:
    # Redis waits for the rest of what it takes for a command, so all there is to see is silence.
    assert "redis:// or rediss://" in refusal(server.url.replace("redis:", "rediss:"), timeout=0.3).remedy


def test_a_port_with_tls_asked_without(tls_server: RedisServer) -> None:
    assert "rediss://" in refusal(tls_server.url.replace("rediss:", "redis:")).remedy


def test_a_ca_file_that_is_missing_or_none(tls_server: RedisServer, tmp_path: Path) -> None:
    assert "redis_ca_file" in refusal(tls_server.url, ca_file=str(tmp_path / "none")).subject
    (tmp_path / "none").write_text("no certificate")
    assert "certificate" in refusal(tls_server.url, ca_file=str(tmp_path / "none")).expected


def test_a_ca_file_for_a_url_without_tls(server: RedisServer, certificates: Path) -> None:
    assert "redis_url" in refusal(server.url, ca_file=str(certificates / "ca.crt")).subject


# preflight


def test_a_good_server_passes(gateway: RedisGateway) -> None:
    assert gateway.preflight()["policy"] == "noeviction"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "volatile-random"])
def test_a_server_that_evicts_is_refused(redis_server: RedisServer, policy: str) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", policy)
    with pytest.raises(DriftguardError, match=f"expected maxmemory_policy noeviction; found {policy}"):
        RedisGateway.connect(redis_server.url).preflight()


def test_a_replica_is_refused(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.replicaof("127.0.0.1", "1")
    gateway = RedisGateway.connect(redis_server.url)
    with pytest.raises(DriftguardError, match="point redis_url to the primary"):
        gateway.preflight()
    with pytest.raises(DriftguardError, match="point it to the primary"):
        gateway.publish_record(settled(None, "demo", A, 1))


def test_cluster_mode_is_refused(tmp_path: Path, server: RedisServer) -> None:
    port = server.port + 1
    command = ["redis-server", "--port", str(port), "--cluster-enabled", "yes", "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            with pytest.raises(DriftguardError, match="redis_mode standalone"):
                connected(f"redis://127.0.0.1:{port}").preflight()
        finally:
            process.terminate()


def test_a_full_server_is_told_apart(redis_server: RedisServer) -> None:
    gateway = RedisGateway.connect(redis_server.url)
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(DriftguardError, match="raise maxmemory"):
            gateway.publish_record(settled(None, "demo", A, 1), entry(1))
        client.config_set("maxmemory", "0")
        assert client.keys() == []


def connected(url: str) -> RedisGateway:
    def attempt() -> RedisGateway | None:
        try:
            return RedisGateway.connect(url)
        except DriftguardError:
            return None

    found: RedisGateway = wait_until(attempt, f"a server at {url}")
    return found


@contextmanager
def answering(said: bytes) -> Iterator[str]:
    """The URL of a server that says the same to whatever is asked."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                self.request.sendall(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
