# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway on a real Redis: what it refuses and says, publishing in order, and contents of the worst kind."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import redis_gateway
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    Record,
    render_compact,
    rolling,
    settled,
)
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import HISTORY_LENGTH, RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.release_history import HistoryEntry
from support.redis_server import PASSWORD, RedisServer, running_redis, wait_until
from support.releases import release

A, B = release("a"), release("b")
CONTAINER = "0123456789ab" + "c" * 52


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A Redis without data, for tests that leave its configuration alone."""
    shared_server.flush()
    return shared_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    with server.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def gateway(server: RedisServer) -> RedisGateway:
    return RedisGateway.connect(server.url)


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


# publishing


def entry(generation: int) -> HistoryEntry:
    return HistoryEntry(generation, A, "2026-01-02T03:04:05Z", "me", (("host1", str(generation)),))


def test_a_record_is_stored_counted_announced_and_remembered(gateway: RedisGateway, raw: Any) -> None:
    record = settled(None, "demo", A, 7)
    with raw.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe("demo:release:events")
        subscriber.get_message(timeout=5)
        assert gateway.publish_record(record, entry(7)) == 1
        message = wait_until(lambda: subscriber.get_message(timeout=1), "the announcement")
    assert message["data"] == raw.get("demo:release") == render_compact(record).encode()
    assert raw.get("demo:generation") == b"7"
    assert gateway.record("demo") == record
    assert gateway.generation("demo") == 7
    assert gateway.history("demo") == ([entry(7)], 0)
    assert sorted(raw.keys()) == [b"demo:generation", b"demo:release", b"demo:releases"]


def test_nothing_there(gateway: RedisGateway) -> None:
    assert gateway.record("demo") is None
    assert gateway.generation("demo") == 0
    assert gateway.history("demo") == ([], 0)
    snapshot = gateway.registrations("demo")
    assert (snapshot.registrations, snapshot.dead, snapshot.malformed) == ([], [], [])


def test_an_overtaken_deploy_publishes_nothing(gateway: RedisGateway, raw: Any) -> None:
    later = settled(None, "demo", B, 8)
    gateway.publish_record(later, entry(8))
    with pytest.raises(DriftguardError, match="no deploy after number 7; found deploy number 8"):
        gateway.publish_record(settled(None, "demo", A, 7), entry(7))
    assert gateway.record("demo") == later
    assert gateway.history("demo") == ([entry(8)], 0)


def test_a_number_that_was_handed_out_counts_before_it_publishes(gateway: RedisGateway, raw: Any) -> None:
    raw.set("demo:generation", "8")
    with pytest.raises(DriftguardError, match="deploy number 8"):
        gateway.publish_record(settled(None, "demo", A, 7))
    assert not raw.exists("demo:release")


def test_numbers_are_compared_exactly(gateway: RedisGateway) -> None:
    gateway.publish_record(settled(None, "demo", B, 999_999_999_999_999))
    with pytest.raises(DriftguardError, match="deploy number 999999999999999"):
        gateway.publish_record(settled(None, "demo", A, 999_999_999_999_998))
    assert gateway.generation("demo") == 999_999_999_999_999


def test_the_same_number_may_publish_again(gateway: RedisGateway) -> None:
    first = rolling(None, "demo", A, 7)
    gateway.publish_record(first)
    gateway.publish_record(settled(first, "demo", A, 7))
    record = gateway.record("demo")
    assert record is not None
    assert record.phase == "settled"


def test_another_holder_s_lease_refuses_whatever_the_number(gateway: RedisGateway, raw: Any) -> None:
    record = settled(None, "demo", A, 7)
    raw.set("demo:lock:deploy", '{"token":"theirs"}')
    with pytest.raises(DriftguardError, match="theirs"):
        gateway.publish_record(record, token="ours")
    assert not raw.exists("demo:release")
    raw.set("demo:lock:deploy", '{"token":"ours"}')
    gateway.publish_record(record, token="ours")


@pytest.mark.parametrize("lease", ["", "x", "{}", "[]", "null", '{"token":1}', '{"token":null}', "[" * 5000])
def test_an_unreadable_lease_is_another_holder_s(gateway: RedisGateway, raw: Any, lease: str) -> None:
    raw.set("demo:lock:deploy", lease)
    with pytest.raises(DriftguardError):
        gateway.publish_record(settled(None, "demo", A, 7), token="ours")


@pytest.mark.parametrize("key", ["demo:release", "demo:generation", "demo:releases", "demo:lock:deploy"])
def test_a_key_of_another_type_is_left_alone_and_nothing_else_written(
    gateway: RedisGateway, raw: Any, key: str
) -> None:
    raw.hset(key, "x", "y")
    with pytest.raises(DriftguardError, match="TYPE"):
        gateway.publish_record(settled(None, "demo", A, 7), entry(7))
    assert raw.keys() == [key.encode()]
    assert raw.type(key) == b"hash"


def test_a_channel_that_is_not_allowed_does_not_undo_the_publication(
    server: RedisServer, raw: Any, gateway: RedisGateway
) -> None:
    rules = "on >pw ~demo:* resetchannels +@all"
    raw.execute_command("ACL SETUSER", "mute", *rules.split())
    record = settled(None, "demo", A, 7)
    assert RedisGateway.connect(server.url_for("mute", "pw")).publish_record(record) == -1
    assert gateway.record("demo") == record


def test_history_is_capped_newest_first(gateway: RedisGateway, raw: Any) -> None:
    for generation in range(1, HISTORY_LENGTH + 6):
        gateway.publish_record(settled(None, "demo", A, generation), entry(generation))
    entries, damaged = gateway.history("demo")
    assert [one.generation for one in entries] == list(range(HISTORY_LENGTH + 5, 5, -1))
    assert (damaged, raw.llen("demo:releases")) == (0, HISTORY_LENGTH)


def test_racing_publications_end_with_the_highest_number(server: RedisServer, gateway: RedisGateway) -> None:
    for start in range(1, 200, 10):
        numbers = list(range(start, start + 10))
        barrier = threading.Barrier(len(numbers))
        threads = [
            threading.Thread(target=publish_at, args=(barrier, server.url, settled(None, "demo", A, number)))
            for number in numbers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = gateway.record("demo")
        assert record is not None
        assert record.generation == numbers[-1]


def publish_at(barrier: threading.Barrier, url: str, record: Record) -> None:
    gateway = RedisGateway.connect(url)
    barrier.wait()
    with suppress(DriftguardError):
        gateway.publish_record(record)


# what others wrote

NASTY = [
    b"",
    b"\xff\xfe\x00",
    b"\x1b]0;owned\x07",
    b"a\nb\r\n",
    b"x" * 300_000,
    b"{",
    b"[" * 100_000,
    b"-1",
    b"nan",
    b"1e999",
    "\u202egnp.exe".encode(),
    b"null",
    b"[]",
    b'{"generation": -1}',
    b'{"generation": "8"}',
    b"{{ lookup('env', 'HOME') }}",
]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value[:12]))
def test_a_record_of_any_bytes_is_none_or_a_clear_error(gateway: RedisGateway, raw: Any, value: bytes) -> None:
    raw.set("demo:release", value)
    if value == b"":
        assert gateway.record("demo") is None
        return
    with pytest.raises(DriftguardError, match="DEL demo:release") as caught:
        gateway.record("demo")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value[:12]))
def test_a_counter_of_any_bytes_counts_for_nothing(gateway: RedisGateway, raw: Any, value: bytes) -> None:
    raw.set("demo:generation", value)
    assert gateway.generation("demo") == 0
    gateway.publish_record(settled(None, "demo", A, 7))
    assert raw.get("demo:generation") == b"7"


def test_a_history_of_any_bytes_can_be_read(gateway: RedisGateway, raw: Any) -> None:
    raw.rpush("demo:releases", entry(1).as_json(), *NASTY)
    assert gateway.history("demo") == ([entry(1)], len(NASTY))


def register(raw: Any, service: str, instance: str, ttl_ms: int = 15_000, **changes: Any) -> None:
    fields = {
        "gitSha": A.sha,
        "buildDate": "2026-01-02T03:04:05Z",
        "startedAt": "2026-01-02T03:04:05Z",
        "pid": "1",
        "host": "host1",
        "service": service,
        "containerId": instance.ljust(64, "c"),
        "releaseId": A.release_id,
        "state": "running",
        "heartbeatAt": "2026-01-02T03:04:05Z",
        **changes,
    }
    key = f"demo:worker:{service}:{instance}:version"
    raw.hset(key, mapping=fields)
    raw.pexpire(key, ttl_ms)
    raw.zadd("demo:workers", {f"{service}:{instance}": 1.5})


def test_registrations_come_with_their_time_to_live_sorted(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "ocr", "aaaaaaaaaaaa")
    register(raw, "extractor", "bbbbbbbbbbbb", ttl_ms=5000)
    register(raw, "extractor", "aaaaaaaaaaaa")
    snapshot = gateway.registrations("demo")
    assert [found.member for found in snapshot.registrations] == [
        "extractor:aaaaaaaaaaaa",
        "extractor:bbbbbbbbbbbb",
        "ocr:aaaaaaaaaaaa",
    ]
    assert [found.problems for found in snapshot.registrations] == [(), (), ()]
    assert 4000 < snapshot.registrations[1].ttl_ms <= 5000
    assert abs(snapshot.at - gateway.time()) < 5


def test_dead_and_strange_members_are_named_and_left(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "extractor", "aaaaaaaaaaaa", ttl_ms=1)
    wait_until(lambda: not raw.exists("demo:worker:extractor:aaaaaaaaaaaa:version"), "the registration to expire")
    raw.zadd("demo:workers", {b"\xff\x00\n": 1, "nonsense": 2, "ocr:x": 3, "ocr:y": 4})
    raw.set("demo:worker:ocr:x:version", "a string")
    snapshot = gateway.registrations("demo")
    assert snapshot.registrations == []
    assert snapshot.dead == ["extractor:aaaaaaaaaaaa", "ocr:y"]
    assert len(snapshot.malformed) == 3
    assert all(text.isprintable() for text in snapshot.malformed)
    assert [text for text in snapshot.malformed if text.startswith("ocr:x: WRONGTYPE")]
    assert raw.zcard("demo:workers") == 5


def test_a_registration_that_never_expires_is_a_problem(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "extractor", "aaaaaaaaaaaa")
    raw.persist("demo:worker:extractor:aaaaaaaaaaaa:version")
    assert gateway.registrations("demo").registrations[0].problems == ("it has no time to live, so it proves no life",)


def test_fields_of_any_bytes_are_problems(gateway: RedisGateway, raw: Any) -> None:
    for number, value in enumerate(NASTY):
        register(raw, "extractor", f"{number:012x}", gitSha=value, host=value, state=value, startedAt=value)
    raw.hset(
        "demo:worker:extractor:000000000000:version", mapping={f"field{number}": "x" * 1000 for number in range(1000)}
    )
    snapshot = gateway.registrations("demo")
    assert len(snapshot.registrations) == len(NASTY)
    for found in snapshot.registrations:
        assert len(found.problems) >= 3
        assert all(text.isprintable() and len(text) < 300 for text in (*found.problems, found.host))


def test_more_than_one_chunk(gateway: RedisGateway, raw: Any) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in range(2 * redis_gateway.CHUNK + 3):
        register(pipeline, "extractor", f"{number:012x}")
    pipeline.execute()
    snapshot = gateway.registrations("demo")
    assert [found.instance for found in snapshot.registrations] == [
        f"{n:012x}" for n in range(2 * redis_gateway.CHUNK + 3)
    ]
    assert not [found for found in snapshot.registrations if found.problems]


def test_an_index_without_end_is_refused(gateway: RedisGateway, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_gateway, "MAX_REGISTRATIONS", 5)
    raw.zadd("demo:workers", {f"ocr:{number}": number for number in range(5)})
    assert len(gateway.registrations("demo").dead) == 5
    raw.zadd("demo:workers", {"ocr:5": 5})
    with pytest.raises(DriftguardError, match="at most 5"):
        gateway.registrations("demo")


def test_an_index_of_another_type_is_an_error(gateway: RedisGateway, raw: Any) -> None:
    raw.set("demo:workers", "x")
    with pytest.raises(DriftguardError, match="demo:workers"):
        gateway.registrations("demo")


def test_no_scan_of_the_keyspace(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "extractor", "aaaaaaaaaaaa")
    raw.config_resetstat()
    gateway.registrations("demo")
    used = set(raw.info("commandstats"))
    assert not {"cmdstat_keys", "cmdstat_scan", "cmdstat_hgetall", "cmdstat_smembers"} & used
    assert raw.info("commandstats")["cmdstat_zrange"]["calls"] == 1


@pytest.mark.parametrize("fleet", ["", "Demo", "a", "demo:", "demo*", "demo\n", "x" * 40])
def test_no_other_name_becomes_a_key(gateway: RedisGateway, fleet: str) -> None:
    for ask in (gateway.record, gateway.registrations, gateway.history, gateway.generation):
        with pytest.raises(DriftguardError, match="option fleet"):
            ask(fleet)


def test_clients_are_listed_by_name(gateway: RedisGateway, server: RedisServer) -> None:
    with server.client(client_name="bull:ZXh0cmFjdG9y") as other:
        other.ping()
        assert [client for client in gateway.clients() or () if client.name == "bull:ZXh0cmFjdG9y"]


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
