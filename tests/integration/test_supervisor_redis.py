# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor and its Redis: every way to reach one, every way in which one fails, and servers that lie."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

import pytest
import redis as redis_py
from contract.fence_cases import RECORDS
from contract.guard_cases import CONTRACT
from support.certificates import make_certificates
from support.redis_server import PASSWORD, RedisServer, running_redis, wait_until
from support.supervisor_process import KEYS, SHA, supervised

ALLOWED, REFUSED = RECORDS["allowed"] or "", RECORDS["not allowed"] or ""
FIELDS = CONTRACT["names"]["registration"]["fields"]
USER = "worker"
RIGHTS = (
    "+multi", "+exec", "+time", "+hset", "+del", "+expire", "+zadd", "+zrem", "+zremrangebyscore", "+client|setname",
    "+get", "~demo:*")


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    publish(server, ALLOWED)
    return server


def publish(server: RedisServer, record: str) -> None:
    with server.client() as client:
        client.set(KEYS["release"], record)
        client.publish(KEYS["events"], "changed")


def test_what_it_writes(redis: RedisServer, tmp_path: Path) -> None:
    with redis.client() as client, supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
        found = worker.registers(redis, "running")
        assert sorted(found) == sorted(FIELDS)
        assert (found["gitSha"], found["releaseId"]) == (SHA, "0123456789ab.89abcdef0123")
        assert (found["host"], found["service"], found["buildDate"]) == ("host1", "extractor", "2026-01-02T03:04:05Z")
        assert 10 < client.ttl(worker.key) <= 15
        now = client.time()[0]
        assert abs(client.zscore(KEYS["workers"], worker.member) - now) < 10
        legacy = KEYS["legacyRegistration"].replace("<service>", "extractor")
        assert sorted(client.hgetall(legacy)) == sorted(CONTRACT["names"]["registration"]["legacyFields"])
        assert 86000 < client.ttl(legacy) <= 86400
        names = {entry["name"] for entry in client.client_list()}
        assert f"demo:worker:{worker.member}" in names


def test_a_record_of_the_last_start_shows_nothing_through(redis: RedisServer, tmp_path: Path) -> None:
    with redis.client() as client:
        client.zadd(KEYS["workers"], {"extractor:long-gone": 1})
        with supervised(tmp_path, {"REDIS_URL": redis.url}) as worker:
            worker.registers(redis, "running")
            assert client.zrange(KEYS["workers"], 0, -1) == [worker.member]


@pytest.mark.parametrize("how", ["in the URL", "in a file", "in the query", "database 3"])
def test_ways_to_sign_in(redis: RedisServer, tmp_path: Path, how: str) -> None:
    environment: dict[str, str | None] = {"REDIS_URL": redis.url}
    if how == "in a file":
        environment = {"REDIS_URL": redis.bare_url, "REDIS_PASSWORD_FILE": str(redis.password_file)}
    elif how == "in the query":
        environment = {"REDIS_URL": f"{redis.bare_url}?password={quote(quote(PASSWORD, safe=''), safe='')}"}
    elif how == "database 3":
        environment = {"REDIS_URL": redis.url_for(password=PASSWORD, database=3)}
    with supervised(tmp_path, environment) as worker:
        worker.said("at work")
        with redis.client(db=3 if how == "database 3" else 0) as client:
            assert client.hget(worker.key, "state") in ("starting", "running")


@pytest.fixture
def user(redis: RedisServer) -> Iterator[Any]:
    """Gives a user of its own these rights; its URL."""
    with redis.client() as client:
        def made(*rights: str) -> str:
            client.execute_command("ACL", "SETUSER", USER, "reset", "on", ">us3r:pw", *rights)
            return redis.url_for(user=USER, password="us3r:pw")

        yield made
        client.execute_command("ACL", "DELUSER", USER)


def test_the_rights_that_the_docs_name_are_enough(redis: RedisServer, tmp_path: Path, user: Any) -> None:
    url = user(*RIGHTS, "+subscribe", "+ping", "&demo:release:events")
    with supervised(tmp_path, {"REDIS_URL": url}) as worker:
        worker.next_heartbeat(redis)
        publish(redis, REFUSED)
        worker.becomes("fenced", seconds=4)  # before the next heartbeat
        assert "NOTE: no messages" not in worker.text
        assert worker.stop() == 0


def test_without_the_right_to_messages_it_goes_on_by_heartbeat(redis: RedisServer, tmp_path: Path, user: Any) -> None:
    with supervised(tmp_path, {"REDIS_URL": user(*RIGHTS)}) as worker:
        worker.said("NOTE: no messages on demo:release:events")
        worker.registers(redis, "running")
        publish(redis, REFUSED)
        worker.becomes("fenced")


@pytest.mark.parametrize("lacking", RIGHTS)
def test_a_right_that_is_lacking_is_named(redis: RedisServer, tmp_path: Path, user: Any, lacking: str) -> None:
    rights = [right for right in RIGHTS if right != lacking]
    with supervised(tmp_path, {"REDIS_URL": user(*rights)}) as worker:
        if lacking in ("+zrem", "+client|setname"):
            worker.said("at work")
        else:
            assert worker.ended() == 77
            assert "FATAL: Redis refuses this worker!" in worker.text
            assert "at work" not in worker.text
        assert "us3r" not in worker.text


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_wrong_password_ends_the_start(redis: RedisServer, tmp_path: Path, password: str) -> None:
    with supervised(tmp_path, {"REDIS_URL": redis.url_for(password=password)}) as worker:
        assert worker.ended() == 77
        assert ("FATAL: Redis refuses this worker!" in worker.text, "at work" in worker.text) == (True, False)


def test_a_user_that_is_taken_away_later_holds(redis: RedisServer, tmp_path: Path, user: Any) -> None:
    url = user(*RIGHTS, "+subscribe", "+ping", "&demo:release:events")
    with supervised(tmp_path, {"REDIS_URL": url}) as worker:
        worker.said("at work")
        with redis.client() as client:
            client.execute_command("ACL", "DELUSER", USER)
        wait_until(lambda: worker.health()[1]["fence"]["decision"] == "hold", worker.text)
        assert worker.children
        user(*RIGHTS, "+subscribe", "+ping", "&demo:release:events")
        wait_until(lambda: worker.health()[1]["fence"]["decision"] == "run", worker.text)


@pytest.fixture(scope="module")
def own() -> Iterator[RedisServer]:
    """A Redis that is stopped and started."""
    with running_redis() as started:
        yield started


@pytest.mark.parametrize("lose", [False, True], ids=["kept", "lost"])
def test_a_restarted_redis(own: RedisServer, tmp_path: Path, lose: bool) -> None:
    own.flush()
    publish(own, ALLOWED)
    with supervised(tmp_path, {"REDIS_URL": own.url}) as worker:
        worker.registers(own, "running")
        own.restart(lose_data=lose)
        worker.registers(own, "running")
        worker.said("answers again")
        problems = ["fleet record missing"] if lose else []
        wait_until(lambda: worker.health()[1]["fence"]["problems"] == problems, worker.text)
        assert worker.text.count("at work") == 1
        publish(own, REFUSED)
        worker.becomes("fenced")
        own.restart(lose_data=True)
        worker.registers(own, "fenced")
        publish(own, ALLOWED)
        worker.said("at work", 2)


def test_a_redis_that_is_silent(own: RedisServer, tmp_path: Path) -> None:
    """Hold; and what was published meanwhile counts as soon as it can be read."""
    own.flush()
    publish(own, ALLOWED)
    with supervised(tmp_path, {"REDIS_URL": own.url}) as worker:
        worker.next_heartbeat(own)  # so that none of its questions is between the two
        with own.client() as client:
            client.set(KEYS["release"], REFUSED)
            own.pause()
        wait_until(lambda: worker.health()[1]["fence"]["decision"] == "hold", worker.text)
        assert worker.children
        assert worker.health()[1]["redis"]["connected"] is False
        own.resume()
        worker.becomes("fenced")


def test_stopped_while_redis_is_silent(own: RedisServer, tmp_path: Path) -> None:
    own.flush()
    publish(own, REFUSED)
    with supervised(tmp_path, {"REDIS_URL": own.url}) as worker:
        worker.registers(own, "fenced")
        own.pause()
        begin = time.monotonic()
        assert worker.stop() == 75
        assert time.monotonic() - begin < 10, "the usual grace time"
        assert "not deregistered" in worker.text
        own.resume()


def test_tls_verifies_the_server(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        make_certificates(tmp_path / name)
    ca = {"REDIS_CA_FILE": str(tmp_path / "own" / "ca.crt")}
    with running_redis(tls=tmp_path / "own") as tls:
        publish(tls, ALLOWED)
        named = tls.url.replace("127.0.0.1", "localhost")
        good: list[dict[str, str | None]] = [
            {"REDIS_URL": tls.url, **ca}, {"REDIS_URL": f"{named}?ssl_check_hostname=false", **ca},
            {"REDIS_URL": f"{tls.url}?ssl_ca_certs={ca['REDIS_CA_FILE']}"},
            {"REDIS_URL": f"{tls.url}?ssl_cert_reqs=none"}]
        for number, environment in enumerate(good):
            with supervised(tmp_path / str(number), environment) as worker:
                worker.said("at work")
                worker.next_heartbeat(tls)
                publish(tls, REFUSED)
                worker.becomes("fenced", seconds=4)  # before the next heartbeat
                publish(tls, ALLOWED)
        bad: list[tuple[dict[str, str | None], str]] = [
            ({"REDIS_URL": tls.url}, "certificate"),
            ({"REDIS_URL": tls.url, "REDIS_CA_FILE": str(tmp_path / "other" / "ca.crt")}, "certificate"),
            ({"REDIS_URL": named, **ca}, "mismatch"),
            ({"REDIS_URL": tls.url.replace("rediss", "redis")}, "connection")]
        for number, (environment, said) in enumerate(bad):
            with supervised(tmp_path / f"bad{number}", environment) as worker:
                assert said in worker.said("WARNING: Redis at ").lower()
                assert (worker.health()[1]["state"], worker.children) == ("starting", [])


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""],
                          stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(path.exists, "the socket")
            client = redis_py.Redis(unix_socket_path=str(path), db=2)
            client.set(KEYS["release"], ALLOWED)
            with supervised(tmp_path / "worker", {"REDIS_URL": f"unix://{path}?db=2"}) as worker:
                worker.said("at work")
                assert client.hget(worker.key, "gitSha") == SHA.encode()
        finally:
            server.kill()


class Liar:
    """A server that answers everything with the same bytes, once or for ever.

    :param forever: repeat the answer; :param slowly: a byte every half second.
    """

    def __init__(self, answer: bytes, forever: bool = False, slowly: bool = False) -> None:
        self._answer, self._forever, self._slowly = answer, forever, slowly
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.sent = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._lie, args=(link,), daemon=True).start()

    def _lie(self, link: socket.socket) -> None:
        with suppress(OSError), link:
            while link.recv(65536):
                while True:
                    if self._slowly:
                        for byte in self._answer:
                            link.sendall(bytes([byte]))
                            time.sleep(0.5)
                    else:
                        link.sendall(self._answer)
                    self.sent += len(self._answer)
                    if not self._forever:
                        break


@contextmanager
def lying(answer: bytes, **how: bool) -> Iterator[Liar]:
    server = Liar(answer, **how)
    yield server
    server.close()


LIES: dict[str, tuple[bytes, dict[str, bool]]] = {
    "nothing": (b"", {}),
    "another protocol": (b"HTTP/1.1 400 Bad Request\r\n\r\n", {}),
    "bytes": (bytes(range(256)) * 8, {}),
    "a line without an end": (b"+" + b"x" * 65536, {"forever": True}),
    "parts without an end": (b"*1000000000\r\n", {}),
    "lists in lists": (b"*1\r\n" * 5000, {}),
    "a huge length": (b"$99999999999999999999999999\r\n", {}),
    "a length that is large": (b"$1000000000\r\n", {}),
    "a negative length": (b"$-5\r\n", {}),
    "a length that isn't true": (b"$3\r\nabcdef\r\n", {}),
    "no number": (b":\xd9\xa3\r\n", {}),
    "one byte after the other": (b"+" + b"x" * 1000, {"slowly": True}),
    "always fine": (b"+OK\r\n", {}),
    "always null": (b"$-1\r\n", {}),
    "lists of nothing": (b"*0\r\n", {}),
    "errors in another language": ("-ПОМИЛКА \x1b[31m\r\n".encode(), {}),
    "other times": (b"*2\r\n$3\r\nabc\r\n$1\r\nx\r\n", {}),
    "endless times": (b"*2\r\n:999999999999999999\r\n:1\r\n", {}),
}


@pytest.mark.parametrize("name", LIES)
def test_a_server_that_lies_starts_nothing_and_breaks_nothing(tmp_path: Path, name: str) -> None:
    answer, how = LIES[name]
    with lying(answer, **how) as liar, supervised(tmp_path, {"REDIS_URL": liar.url}) as worker:
        worker.said("WARNING: Redis at ")
        worker.said("fleet record unreachable")
        status, content = worker.health()
        assert (status, content["state"], worker.children) == (503, "starting", [])
        resident = Path(f"/proc/{worker.process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
        assert int(resident) < 60_000
        assert worker.stop() == 0
        assert ("Traceback" in worker.text, "at work" in worker.text, "\x1b" in worker.text) == (False,) * 3


WRONG: dict[str, tuple[dict[str, str | None], str]] = {
    "no URL": ({"REDIS_URL": None}, "REDIS_URL"),
    "another scheme": ({"REDIS_URL": "http://user:s3cret@x/"}, "REDIS_URL"),
    "no host": ({"REDIS_URL": "redis:///0"}, "REDIS_URL"),
    "a slash in the password": ({"REDIS_URL": "redis://user:s3cret/x@host:6379/0"}, "REDIS_URL"),
    "a database that is none": ({"REDIS_URL": "redis://x/zero"}, "REDIS_URL"),
    "an unknown option": ({"REDIS_URL": "redis://x/0?retry=1&password=s3cret"}, "REDIS_URL"),
    "TLS options without TLS": ({"REDIS_URL": "redis://x/0?ssl_cert_reqs=none"}, "REDIS_URL"),
    "an option that TLS refuses": ({"REDIS_URL": "rediss://x/0?ssl_cert_reqs=perhaps"}, "REDIS_URL"),
    "a missing password file": ({"REDIS_PASSWORD_FILE": "/nowhere"}, "REDIS_PASSWORD_FILE"),
    "an empty password file": ({"REDIS_PASSWORD_FILE": "/dev/null"}, "REDIS_PASSWORD_FILE"),
    "an endless password file": ({"REDIS_PASSWORD_FILE": "/dev/zero"}, "REDIS_PASSWORD_FILE"),
    "a CA without TLS": ({"REDIS_CA_FILE": "/etc/ssl/certs/ca-certificates.crt"}, "REDIS_CA_FILE"),
    "a missing CA": ({"REDIS_URL": "rediss://x", "REDIS_CA_FILE": "/nowhere"}, "REDIS_CA_FILE"),
    "a CA that is none": ({"REDIS_URL": "rediss://x", "REDIS_CA_FILE": "/etc/passwd"}, "REDIS_CA_FILE"),
    "no service": ({"WORKER_TYPE": None}, "WORKER_TYPE"),
    "a service with a colon": ({"WORKER_TYPE": "a:b"}, "WORKER_TYPE"),
    "no fleet": ({"WORKER_FLEET": ""}, "WORKER_FLEET"),
    "a fleet with a newline": ({"WORKER_FLEET": "demo\n"}, "WORKER_FLEET"),
    "a drain time that is none": ({"WORKER_DRAIN_SECONDS": "1.5"}, "WORKER_DRAIN_SECONDS"),
    "a drain time of days": ({"WORKER_DRAIN_SECONDS": "86401"}, "WORKER_DRAIN_SECONDS"),
    "a port that is none": ({"HEALTH_PORT": "65536"}, "HEALTH_PORT"),
    "an address that is none": ({"HEALTH_HOST": "localhost"}, "HEALTH_HOST"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_variables_end_the_start(tmp_path: Path, name: str) -> None:
    environment, variable = WRONG[name]
    with supervised(tmp_path, {"REDIS_URL": "redis://127.0.0.1:1/0", **environment}) as worker:
        assert worker.ended() == 2
        assert f"FATAL: {variable} can't be used!" in worker.text
        assert all(word in worker.text for word in ("  Expected: ", "  Found: ", "  Remedy: "))
        assert ("Traceback" in worker.text, "s3cret" in worker.text, "at work" in worker.text) == (False,) * 3


def test_all_wrong_variables_are_named_at_once(tmp_path: Path) -> None:
    with supervised(tmp_path, {"WORKER_TYPE": "", "HEALTH_PORT": "x", "REDIS_URL": "x"}) as worker:
        assert worker.ended() == 2
        assert worker.text.count("FATAL: ") == 3


def test_a_port_in_use_is_no_reason_to_end(redis: RedisServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with supervised(tmp_path, {"REDIS_URL": redis.url, "HEALTH_PORT": str(port)}) as worker:
            worker.said("at work")
            assert f"WARNING: no /health and /metrics on 127.0.0.1:{port}: Address already in use" in worker.text
