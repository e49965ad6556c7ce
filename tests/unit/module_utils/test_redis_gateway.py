# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what others wrote to Redis, of the worst kind; and all registrations in one pass."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import redis_gateway
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    settled,
)
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import RedisServer, wait_until
from support.registration_entries import entry, register
from support.releases import release

A, B = release("a"), release("b")
CONTAINER = "0123456789ab" + "c" * 52


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that answers bytes."""
    with server.client(decode_responses=False) as client:
        yield client


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


def test_huge_contents_stay_in_redis(gateway: RedisGateway, raw: Any) -> None:
    huge = b"x" * 3_000_000
    register(raw, "extractor", "aaaaaaaaaaaa", host=huge, more=huge, evenMore=huge)
    raw.set("demo:release", huge)
    raw.rpush("demo:releases", huge)
    before = raw.info("stats")["total_net_output_bytes"]
    gateway.registrations("demo")
    gateway.history("demo")
    with pytest.raises(DriftguardError):
        gateway.record("demo")
    assert raw.info("stats")["total_net_output_bytes"] - before < 300_000


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
