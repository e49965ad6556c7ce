# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing a record: in the order of deployment numbers, whole or not at all."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    Record,
    render_compact,
    rolling,
    settled,
)
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import HISTORY_LENGTH, RedisGateway
from support.redis_server import RedisServer, wait_until
from support.registration_entries import entry
from support.releases import release

A, B = release("a"), release("b")
CONTAINER = "0123456789ab" + "c" * 52


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that answers bytes."""
    with server.client(decode_responses=False) as client:
        yield client


# publishing


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
    raw.set("demo:lock:deploy", '{"token":"theirs","number":3,"owner":"bob@ci2"}')
    with pytest.raises(DriftguardError, match="bob@ci2") as refused:
        gateway.publish_record(record, token="ours")
    assert "theirs" not in str(refused.value)
    assert not raw.exists("demo:release")
    raw.set("demo:lock:deploy", '{"token":"ours"}')
    gateway.publish_record(record, token="ours")


@pytest.mark.parametrize("phase", [rolling, settled])
def test_what_was_fenced_since_a_deploy_began_is_not_published_by_it(
    gateway: RedisGateway, raw: Any, phase: Callable[..., Record],
) -> None:
    """As a fence of a past release leaves it: the highest number stays."""
    gateway.publish_record(settled(None, "demo", B, 6), replace(entry(6), release=B))
    raw.set("demo:generation", "7")
    raw.lpush("demo:releases", replace(entry(7), fenced="past", reason="loses pages").as_json())
    with pytest.raises(DriftguardError, match=r"nobody fenced since deploy number 7 began; found .*loses pages"):
        gateway.publish_record(phase(None, "demo", A, 7), entry(7))
    assert gateway.record("demo") == settled(None, "demo", B, 6)
    assert [one.fenced for one in gateway.history("demo")[0]] == ["past", ""]
    gateway.publish_record(phase(None, "demo", B, 7))
    # Whoever begins later asks for it by name.
    gateway.publish_record(phase(None, "demo", A, 8), entry(8))


@pytest.mark.parametrize("lease", ["", "x", "{}", "[]", "null", '{"token":1}', '{"token":null}', "[" * 5000])
def test_an_unreadable_lease_is_another_holder_s(gateway: RedisGateway, raw: Any, lease: str) -> None:
    raw.set("demo:lock:deploy", lease)
    with pytest.raises(DriftguardError):
        gateway.publish_record(settled(None, "demo", A, 7), token="ours")


@pytest.mark.parametrize("key", [
    "demo:release", "demo:generation", "demo:releases", "demo:lock:deploy", "demo:lock:deploy:last"])
def test_a_key_of_another_type_is_left_alone_and_nothing_else_written(
    gateway: RedisGateway, raw: Any, key: str
) -> None:
    raw.hset(key, "x", "y")
    with pytest.raises(DriftguardError, match="TYPE"):
        gateway.publish_record(settled(None, "demo", A, 7), entry(7), "ours")
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
