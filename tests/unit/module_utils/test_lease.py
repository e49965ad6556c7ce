# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One holder at a time, on a real Redis: races, killed and suspended holders, lost data, strange contents."""

from __future__ import annotations

import json
import multiprocessing
import random
import subprocess
from dataclasses import replace
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.lease import (
    DeployLease,
    Standing,
    Taken,
    can_renew,
    left_behind,
    parse_lease,
)
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import Owner, process_of, this_machine
from ansible_collections.driftguard.workers.plugins.module_utils.record import settled
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from hypothesis import given
from hypothesis import strategies as st
from support.redis_server import RedisServer, running_redis, wait_until
from support.releases import release

ALICE = Owner("alice@ci1", "ci1", "run-a", 0, "", "elsewhere")
BOB = Owner("bob@ci2", "ci2", "run-b", 0, "", "elsewhere")


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.flush()
    return shared_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    with server.client() as client:
        yield client


@pytest.fixture
def gateway(server: RedisServer) -> RedisGateway:
    return RedisGateway.connect(server.url)


@pytest.fixture
def lease(gateway: RedisGateway) -> DeployLease:
    return DeployLease(gateway, "demo", 900)


def taken_by(lease: DeployLease, owner: Owner = ALICE, **options: Any) -> Taken:
    return lease.acquire(owner, **options)


# taking and giving back


def test_the_first_takes_it(lease: DeployLease, raw: Any) -> None:
    taken = taken_by(lease)
    assert (taken.how, taken.took_over_from, taken.lease.number) == ("taken", None, 1)
    assert taken.lease.owner == ALICE
    assert 899_000 < raw.pttl("demo:lock:deploy") <= 900_000
    assert raw.get("demo:generation") == "1"
    assert set(json.loads(raw.get("demo:lock:deploy"))) == {
        "token",
        "owner",
        "host",
        "pid",
        "pidStart",
        "machine",
        "runId",
        "startedAt",
        "expiresAt",
        "number",
    }


def test_the_second_is_told_by_whom_it_is_held_and_changes_nothing(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    before = raw.get("demo:lock:deploy")
    with pytest.raises(DriftguardError) as caught:
        taken_by(lease, BOB)
    for part in ("alice@ci1", "host ci1", "run run-a", first.lease.started_at, "deploy number 1", "expires in 9"):
        assert part in caught.value.found
    assert first.lease.token not in str(caught.value)
    assert raw.get("demo:lock:deploy") == before
    assert raw.get("demo:generation") == "1"


def test_given_back_it_is_free_and_the_number_grows(lease: DeployLease) -> None:
    first = taken_by(lease)
    given = lease.release(first.lease.token)
    assert given == first.lease
    second = taken_by(lease, BOB)
    assert (second.lease.number, second.took_over_from) == (2, None)


def test_giving_back_twice_or_another_s_does_nothing(lease: DeployLease) -> None:
    first = taken_by(lease)
    assert lease.release("another") is None
    assert lease.look().lease == first.lease
    assert lease.release(first.lease.token)
    assert lease.release(first.lease.token) is None
    assert lease.look().last == replace(first.lease, released=True)
    second = taken_by(lease, BOB)
    assert lease.release(first.lease.token) is None
    assert lease.look().lease == second.lease


def test_taking_it_again_with_its_token_renews_it(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    raw.pexpire("demo:lock:deploy", 5000)
    again = taken_by(lease, token=first.lease.token)
    assert (again.how, again.lease.number, again.lease.started_at) == ("renewed", 1, first.lease.started_at)
    assert raw.pttl("demo:lock:deploy") > 890_000


@pytest.mark.parametrize(
    ("counter", "record", "floor", "number"),
    [
        (None, None, 0, 1),
        ("7", None, 0, 8),
        ("7", 9, 0, 10),
        ("9", 7, 0, 10),
        ("7", 7, 12, 13),
        ("-7", None, 0, 1),
        ("x", 3, 0, 4),
        ("999999999999998", None, 0, 999_999_999_999_999),
        (None, None, -5, 1),
    ],
)
def test_the_number_is_above_all_that_is_known(
    lease: DeployLease,
    gateway: RedisGateway,
    raw: Any,
    counter: str | None,
    record: int | None,
    floor: int,
    number: int,
) -> None:
    if record is not None:
        gateway.publish_record(settled(None, "demo", release("a"), record))
    if counter is not None:
        raw.set("demo:generation", counter)
    assert lease.look(floor).next_number == number
    assert taken_by(lease, floor=floor).lease.number == number
    assert raw.get("demo:generation") == str(number)


def test_numbers_that_ran_out_are_an_error(lease: DeployLease, raw: Any) -> None:
    raw.set("demo:generation", "999999999999999")
    with pytest.raises(DriftguardError, match="demo:generation"):
        taken_by(lease)
    assert not raw.exists("demo:lock:deploy")


# running out


def expire(raw: Any) -> None:
    raw.pexpire("demo:lock:deploy", 1)
    wait_until(lambda: not raw.exists("demo:lock:deploy"), "the lease to run out")


def test_one_that_ran_out_is_taken_over_and_its_holder_named(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    expire(raw)
    second = taken_by(lease, BOB)
    assert second.took_over_from == first.lease
    assert second.lease.number == 2


def test_a_lease_runs_out_by_itself(gateway: RedisGateway) -> None:
    short = DeployLease(gateway, "demo", 0.05)
    taken_by(short)
    wait_until(lambda: short.look().lease is None, "the lease to run out")


def test_one_that_waits_gets_it_when_it_is_given_back(lease: DeployLease) -> None:
    first = taken_by(lease)
    waits: list[float] = []

    def give_back(seconds: float) -> None:
        waits.append(seconds)
        lease.release(first.lease.token)

    second = lease.acquire(BOB, wait=30, sleep=give_back)
    assert len(waits) == 1
    assert (second.lease.number, second.took_over_from) == (2, None)


def test_one_that_waits_in_vain_gives_up_naming_the_holder(lease: DeployLease) -> None:
    taken_by(lease)
    with pytest.raises(DriftguardError, match="alice@ci1"):
        lease.acquire(BOB, wait=0.05)


def test_given_back_after_it_ran_out_it_was_no_takeover(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    expire(raw)
    assert lease.release(first.lease.token) is None
    assert taken_by(lease, BOB).took_over_from is None


# keeping it


def test_renewing_moves_its_end(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    raw.pexpire("demo:lock:deploy", 5000)
    renewed = lease.renew(ALICE, first.lease.token)
    assert (renewed.how, renewed.lease.number) == ("renewed", 1)
    assert raw.pttl("demo:lock:deploy") > 890_000


def test_one_that_ran_out_is_regained_when_nobody_had_it(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    expire(raw)
    regained = lease.renew(ALICE, first.lease.token)
    assert (regained.how, regained.lease.number, regained.lease.started_at) == ("regained", 1, first.lease.started_at)
    with pytest.raises(DriftguardError, match="alice@ci1"):
        taken_by(lease, BOB)


def test_one_that_went_to_another_is_lost(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    expire(raw)
    second = taken_by(lease, BOB)
    for number in (0, 1, 99):
        with pytest.raises(DriftguardError, match="went to bob@ci2"):
            lease.renew(ALICE, first.lease.token, number)
    lease.release(second.lease.token)
    with pytest.raises(DriftguardError, match="went to bob@ci2"):
        lease.renew(ALICE, first.lease.token, 1)


def test_one_that_was_given_back_is_not_renewed(lease: DeployLease, raw: Any) -> None:
    first = taken_by(lease)
    lease.release(first.lease.token)
    with pytest.raises(DriftguardError, match="given back"):
        lease.renew(ALICE, first.lease.token, 1)
    assert not raw.exists("demo:lock:deploy")


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


# what check mode says


def test_check_mode_foretells_renewals(lease: DeployLease, server: RedisServer, raw: Any) -> None:
    chance = random.Random(7)
    outcomes = set()
    for _round in range(300):
        raw.flushall()
        tokens = [taken_by(lease).lease.token]
        for _step in range(chance.randrange(5)):
            disturb(chance, lease, raw, tokens)
        token, number = chance.choice([*tokens, "other"]), chance.randrange(4)
        foretold = can_renew(lease.look(), token, number)
        outcomes.add((foretold, renews(lease, token, number)))
    assert outcomes == {(True, True), (False, False)}


def disturb(chance: random.Random, lease: DeployLease, raw: Any, tokens: list[str]) -> None:
    things: list[Callable[[], Any]] = [
        lambda: expire(raw),
        lambda: raw.delete("demo:lock:deploy"),
        raw.flushall,
        lambda: lease.release(tokens[-1]),
        lambda: again(lease, tokens),
        lambda: raw.set("demo:generation", chance.randrange(4)),
    ]
    chance.choice(things)()


def again(lease: DeployLease, tokens: list[str]) -> None:
    if lease.look().lease is None:
        tokens.append(taken_by(lease, BOB).lease.token)


def renews(lease: DeployLease, token: str, number: int) -> bool:
    try:
        lease.renew(ALICE, token, number)
    except DriftguardError:
        return False
    return True


def test_looking_changes_nothing(lease: DeployLease, raw: Any) -> None:
    assert lease.look() == Standing(None, None, 0.0, 1, lease.look().now)
    assert raw.keys() == []


def test_left_behind(lease: DeployLease, raw: Any) -> None:
    assert left_behind(lease.look()) is None
    first = taken_by(lease)
    expire(raw)
    assert left_behind(lease.look()) == first.lease
    lease.release(first.lease.token)
    assert left_behind(lease.look()) is None
