# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One holder at a time, on a real Redis: taking, keeping, giving back, running out."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.lease import (
    DeployLease,
    Standing,
    can_renew,
    left_behind,
)
from ansible_collections.driftguard.workers.plugins.module_utils.record import settled
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.leases import ALICE, BOB, expire, taken_by
from support.redis_server import RedisServer, wait_until
from support.releases import release

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
