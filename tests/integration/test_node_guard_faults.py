# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node guard and what can go wrong around it: Redis, its records, its port, its own thread."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support.node_worker import GUARD, NEW, OLD, NodeWorker, record, running_node
from support.redis_server import RedisServer, next_heartbeat, running_redis, wait_until

KEY, EVENTS = "demo:release", "demo:release:events"
IDLE = "console.log('application began'); setInterval(() => undefined, 1000);"
BEGAN = "application began"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for one application."""
    return tmp_path / "app"


def variables(redis: RedisServer) -> dict[str, str | None]:
    """What reaches the Redis."""
    return {"REDIS_URL": redis.bare_url, "REDIS_PASSWORD_FILE": str(redis.password_file)}


@contextmanager
def at_work(place: Path, redis: RedisServer) -> Iterator[NodeWorker]:
    """A worker that runs, on the allowed release."""
    with redis.client() as client:
        client.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(redis)) as worker:
        worker.becomes("running")
        yield worker


def registered(redis: RedisServer, worker: NodeWorker) -> bool:
    """Whether Redis has its registration."""
    with redis.client() as client:
        return bool(client.exists(worker.key))


def test_redis_restarted(place: Path, redis_server: RedisServer) -> None:
    with at_work(place, redis_server) as worker:
        redis_server.restart(lose_data=True)
        wait_until(lambda: registered(redis_server, worker), "the registration")
        with redis_server.client() as client:
            wait_until(lambda: client.pubsub_numsub(EVENTS)[0][1] == 1, "the subscription")
            next_heartbeat(client, worker.key)
            client.set(KEY, record(OLD))
            client.publish(EVENTS, "changed")
        worker.becomes("fenced", 4)  # before the next heartbeat


def test_redis_that_stops_answering(place: Path, redis_server: RedisServer) -> None:
    with at_work(place, redis_server) as worker:
        redis_server.pause()
        worker.said("Fence: no job starts until Redis answers")
        assert worker.state() == "running"
        redis_server.resume()
        worker.said("Redis answers again")


def test_redis_data_lost(place: Path, redis_server: RedisServer) -> None:
    with at_work(place, redis_server) as worker:
        redis_server.flush()
        worker.said("Fence: fleet record missing")
        wait_until(lambda: registered(redis_server, worker), "the registration")
        assert worker.state() == "running"


def test_wrong_password_waits_and_is_told_without_the_password(place: Path, redis_server: RedisServer) -> None:
    wrong = redis_server.url_for(password="wr0ng-secret")
    with running_node(place, IDLE, {"REDIS_URL": wrong}) as worker:
        worker.said("WRONGPASS")
        assert worker.state() == "starting"
        assert "wr0ng-secret" not in worker.text
        assert BEGAN not in worker.text


def test_a_user_and_a_database_of_the_url_count(place: Path, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "node", "on", ">p@ss/word", "~demo:*", "&demo:release:events", "-@all",
            "+multi", "+exec", "+time", "+get", "+hset", "+del", "+expire", "+zadd", "+zrem", "+zremrangebyscore",
            "+select", "+client|setname", "+subscribe", "+ping")
    with redis_server.client(db=3) as client:
        client.set(KEY, record(NEW))
        url = redis_server.url_for("node", "p@ss/word", 3)
        with running_node(place, IDLE, {"REDIS_URL": url}) as worker:
            worker.becomes("running")
            assert client.exists(worker.key)
            names = [row["name"] for row in client.client_list()]
            assert names.count(worker.key.removesuffix(":version")) == 2
            client.set(KEY, record(OLD))
            client.publish(EVENTS, "changed")
            worker.becomes("fenced")


def test_a_user_that_may_not_register_runs_unregistered_and_unhealthy(place: Path, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set(KEY, record(NEW))
        client.execute_command("ACL", "SETUSER", "node", "on", ">word", "~*", "&*", "+@all", "-hset")
    with running_node(place, IDLE, {"REDIS_URL": redis_server.url_for("node", "word")}) as worker:
        worker.said(BEGAN)
        worker.said("found NOPERM")
        assert worker.get("/health")[0] == 503


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, and a server's certificate of the first."""
    place = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        _openssl(place, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.crt")
    _openssl(place, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=redis", "-keyout", "server.key",
             "-out", "server.csr")
    (place / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(place, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", "names", "-out", "server.crt")
    return place


def _openssl(place: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)


@pytest.mark.parametrize(("file", "good"), [("ca.crt", True), ("other.crt", False), (None, False)])
def test_tls(file: str | None, good: bool, place: Path, authority: Path) -> None:
    with running_redis(tls=authority) as redis:
        with redis.client() as client:
            client.set(KEY, record(NEW))
        more = {"REDIS_CA_FILE": str(authority / file)} if file else {}
        with running_node(place, IDLE, {**variables(redis), **more}) as worker:
            if good:
                worker.becomes("running")
                assert registered(redis, worker)
            else:
                worker.said("certificate")
                assert worker.state() == "starting"
                assert BEGAN not in worker.text


def test_a_socket_of_the_file_system(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""], stdout=subprocess.DEVNULL,
        cwd=tmp_path)
    try:
        with running_node(place, IDLE, {"REDIS_URL": f"unix://{path}?db=2"}) as worker:
            worker.becomes("running")
            worker.said("Registered: ")
    finally:
        process.kill()
        process.wait()


ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "garbage": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
    "a line without end": lambda client: _for_ever(client, b"+" + b"x" * 65536),
    "a value without end": lambda client: _for_ever(client, b"$99999999\r\n"),
    "a list without end": lambda client: _for_ever(client, b"*999999999\r\n"),
    "nested lists": lambda client: client.sendall(b"*1\r\n" * 100_000),
    "answers to nothing": lambda client: _for_ever(client, b"+OK\r\n"),
    "always fine": lambda client: _one_by_one(client, b"+OK\r\n"),
    "always null": lambda client: _one_by_one(client, b"$-1\r\n"),
    "other times": lambda client: _one_by_one(client, b"*2\r\n$3\r\nabc\r\n$1\r\nx\r\n"),
    "a negative length": lambda client: client.sendall(b"$-5\r\n" * 5),
    "nothing": lambda client: None,
    "the end": lambda client: client.close(),
}


def _for_ever(client: socket.socket, data: bytes) -> None:
    while True:
        client.sendall(data)


def _one_by_one(client: socket.socket, data: bytes) -> None:
    """As many answers as commands; the first is read already, in part."""
    heard = b"*"
    while heard:
        # Each command is a list, and nothing else in it begins with an asterisk.
        client.sendall(data * heard.count(b"*"))
        heard = client.recv(65536)


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_that_is_no_redis(kind: str, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, ANSWERS[kind]), daemon=True).start()
        with running_node(place, IDLE, {"REDIS_URL": f"redis://127.0.0.1:{listener.getsockname()[1]}"}) as worker:
            worker.said("Redis doesn't answer: ")
            wait_until(lambda: _errors(worker) >= 2, "another try", 20)
            assert worker.state() == "starting"
            assert BEGAN not in worker.text
            assert worker.process.poll() is None
            assert _resident(worker) < 200_000


def _serve(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    with suppress(OSError):
        while True:
            client, _address = listener.accept()
            threading.Thread(target=_answer, args=(client, answer), daemon=True).start()


def _answer(client: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    with suppress(OSError):
        client.recv(10)
        answer(client)


def _errors(worker: NodeWorker) -> int:
    family = "driftguard_worker_redis_errors_total{"
    lines = worker.get("/metrics")[1].splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(family))


def _resident(worker: NodeWorker) -> int:
    """Kilobytes."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_port_that_is_taken_is_told_and_nothing_more(place: Path, redis_server: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running_node(place, IDLE, {**variables(redis_server), "HEALTH_PORT": port}) as worker:
            worker.said(f"Health server: expected to listen on 127.0.0.1:{port}; found EADDRINUSE")
            worker.said(BEGAN)
            worker.said("Registered: ")


@pytest.mark.parametrize(("fault", "status"), [
    ("setTimeout(() => { throw new Error('broken'); }, 1500);", -9), ("setTimeout(() => process.exit(0), 1500);", 70),
    ("throw new Error('broken');", -9),
])
@pytest.mark.parametrize("allowed", [NEW, OLD], ids=["at work", "held"])
def test_a_guard_that_fails_leaves_no_worker_behind(
    allowed: dict[str, Any], fault: str, status: int, place: Path, redis_server: RedisServer,
) -> None:
    """Its thread is broken on purpose; the application must not outlive it, nor begin without it."""
    with redis_server.client() as client:
        client.set(KEY, record(allowed))
    place.mkdir()
    copy = place / "guard"
    shutil.copytree(GUARD.parent, copy)
    broken = copy / "version-guard-fence.cjs"
    broken.write_text(broken.read_text().replace("  watchSignals(fence);\n", f"  watchSignals(fence);\n  {fault}\n"))
    with running_node(place, IDLE, variables(redis_server), guard=copy / GUARD.name) as worker:
        assert worker.ended(45) in (status, 70)
        assert "[version] FATAL: The guard failed: " in worker.text


def test_health_tells_the_truth_in_the_workers_form(place: Path, redis_server: RedisServer) -> None:
    with at_work(place, redis_server) as worker:
        status, body = worker.get("/health")
        found = json.loads(body)
        assert (status, found["status"], found["redis"]["connected"]) == (200, "ok", True)
        assert found["workerId"] == worker.key.removeprefix("demo:worker:").removesuffix(":version")
        assert found["version"] == {
            "sha": NEW["target"]["sha"], "release": NEW["target"]["releaseId"], "buildDate": "2026-01-02T03:04:05Z"}
        metrics = worker.get("/metrics")[1]
        assert 'driftguard_worker_state{driftguard_worker_state="running"} 1' in metrics
        assert worker.get("/elsewhere")[0] == 404
