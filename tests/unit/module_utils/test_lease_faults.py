# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease when things go wrong: Redis emptied, holders killed, races, strange contents."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.lease import DeployLease
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import Owner, process_of, this_machine
from ansible_collections.driftguard.workers.plugins.module_utils.lease_text import parse_lease
from ansible_collections.driftguard.workers.plugins.module_utils.record import settled
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from hypothesis import given
from hypothesis import strategies as st
from support.leases import ALICE, BOB, expire, taken_by
from support.redis_server import RedisServer
from support.releases import release

# Redis emptied


def test_with_redis_emptied_the_holder_keeps_it_by_its_number(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease, floor=6)
    raw.flushall()
    with pytest.raises(DriftguardError, match="Redis lost it"):
        lease.renew(ALICE, first.lease.token)
    regained = lease.renew(ALICE, first.lease.token, first.lease.number)
    assert (regained.how, regained.lease.number) == ("regained", 7)
    assert raw.get("demo:generation") == "7"


def test_with_redis_emptied_and_another_there_it_is_lost(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease, floor=6)
    raw.flushall()
    second = taken_by(lease, BOB, floor=6)
    assert second.lease.number == first.lease.number, "only the token tells the two apart now"
    with pytest.raises(DriftguardError, match="went to bob@ci2"):
        lease.renew(ALICE, first.lease.token, first.lease.number)


def test_with_redis_emptied_only_the_present_holder_publishes(
    lease: DeployLease, gateway: RedisGateway, raw: Any
) -> None:
    first = taken_by(lease, floor=6).lease
    raw.flushall()
    second = taken_by(lease, BOB, floor=6).lease
    with pytest.raises(DriftguardError, match="overtaken"):
        gateway.publish_record(settled(None, "demo", release("a"), first.number), token=first.token)
    gateway.publish_record(settled(None, "demo", release("b"), second.number), token=second.token)


@pytest.mark.parametrize("floor", [6, 3], ids=["the same number", "a lower one"])
def test_with_redis_emptied_who_had_it_before_publishes_nothing_over_who_is_through(
    lease: DeployLease, gateway: RedisGateway, raw: Any, floor: int,
) -> None:
    first = taken_by(lease, floor=6).lease
    raw.flushall()
    second = taken_by(lease, BOB, floor=floor).lease
    proved = settled(None, "demo", release("b"), second.number)
    gateway.publish_record(proved, token=second.token)
    lease.release(second.token)
    with pytest.raises(DriftguardError, match="bob@ci2") as refused:
        gateway.publish_record(settled(None, "demo", release("a"), first.number), token=first.token)
    assert second.token not in str(refused.value)
    assert gateway.record("demo") == proved


def test_a_lease_that_ended_and_was_nobody_s_since_publishes(
    lease: DeployLease, gateway: RedisGateway, raw: Any
) -> None:
    own = taken_by(lease).lease
    expire(raw)
    gateway.publish_record(settled(None, "demo", release("a"), own.number), token=own.token)
    raw.flushall()
    gateway.publish_record(settled(None, "demo", release("a"), own.number), token=own.token)


def test_a_suspended_deploy_publishes_nothing_once_another_began(
    lease: DeployLease, gateway: RedisGateway, raw: Any
) -> None:
    first = taken_by(lease).lease
    expire(raw)
    taken_by(lease, BOB)
    with pytest.raises(DriftguardError, match="overtaken"):
        gateway.publish_record(settled(None, "demo", release("a"), first.number))
    assert gateway.record("demo") is None


# killed holders


@pytest.fixture
def deployer() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def owner_of(pid: int, machine: str = "") -> Owner:
    process = process_of(pid)
    assert process is not None
    return Owner("carol@here", "here", "run-c", pid, process.start, machine or this_machine())


def test_a_holder_killed_on_this_machine_is_replaced_at_once(
    lease: DeployLease, deployer: subprocess.Popen[bytes]
) -> None:
    first = taken_by(lease, owner_of(deployer.pid))
    with pytest.raises(DriftguardError, match=f"pid {deployer.pid}"):
        taken_by(lease, BOB)
    deployer.kill()
    deployer.wait()
    second = taken_by(lease, BOB)
    assert second.took_over_from == first.lease
    assert second.lease.number == 2
    with pytest.raises(DriftguardError, match="went to bob@ci2"):
        lease.renew(ALICE, first.lease.token, 1)


def test_a_holder_killed_elsewhere_is_waited_for(lease: DeployLease, deployer: subprocess.Popen[bytes]) -> None:
    taken_by(lease, owner_of(deployer.pid, "another machine"))
    deployer.kill()
    deployer.wait()
    with pytest.raises(DriftguardError, match="carol@here"):
        taken_by(lease, BOB)


def test_a_dead_holder_s_lease_is_replaced_by_one_only(
    lease: DeployLease, deployer: subprocess.Popen[bytes], server: RedisServer, raw: Any
) -> None:
    owner = owner_of(deployer.pid)
    deployer.kill()
    deployer.wait()
    for _round in range(10):
        raw.flushall()
        taken_by(lease, owner)
        assert len(race(server.url, 4)) == 1


# races


def contend(url: str, name: str, barrier: Any, results: Any) -> None:
    lease = DeployLease(RedisGateway.connect(url), "demo", 900)
    barrier.wait()
    try:
        results.put((name, lease.acquire(Owner(name, "h", "r", 0, "", "")).lease.number))
    except DriftguardError as error:
        results.put((name, str(error)))


def race(url: str, count: int) -> list[int]:
    """The numbers of those who got it, of several processes that try at the same time."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(count), context.Queue()
    racers = [context.Process(target=contend, args=(url, f"racer{n}", barrier, results)) for n in range(count)]
    for racer in racers:
        racer.start()
    ends = [results.get(timeout=30)[1] for _racer in racers]
    for racer in racers:
        racer.join()
    assert all(isinstance(end, int) or "held by racer" in end for end in ends), ends
    return [end for end in ends if isinstance(end, int)]


def test_of_two_that_race_exactly_one_gets_it_and_numbers_only_grow(server: RedisServer, raw: Any) -> None:
    for expected in range(1, 101):
        assert race(server.url, 2) == [expected]
        raw.delete("demo:lock:deploy")


# what others wrote


NASTY = [
    "x",
    "{}",
    "[]",
    "null",
    '{"token":""}',
    '{"token":1,"number":1}',
    '{"token":"t","number":-1}',
    '{"token":"t"}',
    "[" * 50_000,
    "\x1b[2J\n",
    '{"token":"t","number":1e999}',
    "x" * 300_000,
]


@pytest.mark.parametrize("value", [*NASTY, b"\xff\xfe"], ids=lambda value: repr(value[:15]))
def test_a_lock_key_of_any_content_is_held_by_nobody_known(lease: DeployLease, raw: Any, value: Any) -> None:
    raw.set("demo:lock:deploy", value)
    standing = lease.look()
    assert (standing.lease, standing.unreadable, standing.expires_in) == (None, True, None)
    with pytest.raises(DriftguardError) as caught:
        taken_by(lease)
    assert "never expires" in caught.value.found
    assert "DEL" in caught.value.remedy
    assert str(caught.value).isprintable()
    with pytest.raises(DriftguardError):
        lease.renew(ALICE, "another", 1)
    assert lease.release("other") is None


@pytest.mark.parametrize("value", [*NASTY, b"\xff\xfe"], ids=lambda value: repr(value[:15]))
def test_a_last_holder_of_any_content_is_nobody(lease: DeployLease, raw: Any, value: Any) -> None:
    raw.set("demo:lock:deploy:last", value)
    assert taken_by(lease).took_over_from is None


def test_a_holder_s_name_is_shown_without_control_characters(lease: DeployLease) -> None:
    taken_by(lease, Owner("a\nb\x1b[31m" + "x" * 500, "h\n", "r\n", 0, "", ""))
    with pytest.raises(DriftguardError) as caught:
        taken_by(lease, BOB)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize("key", ["demo:lock:deploy", "demo:lock:deploy:last", "demo:generation", "demo:release"])
def test_a_key_of_another_type_is_left_alone(lease: DeployLease, raw: Any, key: str) -> None:
    raw.hset(key, "x", "y")
    for attempt in (lease.look, lambda: taken_by(lease), lambda: lease.renew(ALICE, "t", 1)):
        with pytest.raises(DriftguardError, match="TYPE"):
            attempt()
    assert raw.keys() == [key]


@given(
    st.text() | st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())).map(json.dumps)
)
def test_any_text_is_a_lease_or_none(text: str) -> None:
    found = parse_lease(text)
    assert found is None or str(found).isprintable()
