# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_fence as Ansible runs it: published at once whoever deploys, and honest about who has not confirmed."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import fence_run
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fence_plan import Known, plan_fence
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, rolling, settled
from ansible_collections.driftguard.workers.plugins.module_utils.redis_fence import publish_fence, read_before
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.release_history import HistoryEntry
from support.modules import ModuleRun, run_module
from support.record_places import Place
from support.redis_server import RedisServer, wait_until
from support.registration_entries import register
from support.releases import release

A, B, C = (release(letter) for letter in "abc")
ENTRIES = [HistoryEntry(number, one, "2026-01-02T03:04:05Z", "me") for number, one in enumerate((A, B), 1)]


@pytest.fixture
def gateway(server: RedisServer) -> RedisGateway:
    """A fleet that was on A and is settled on B."""
    made = RedisGateway.connect(server.url)
    for entry in ENTRIES:
        made.publish_record(settled(None, "demo", entry.release, entry.generation), entry)
    return made


def fence(server: RedisServer, check: bool = False, **options: Any) -> ModuleRun:
    return run_module(
        "worker_fence", check, fleet="demo", redis_url=server.bare_url, redis_password=server.password,
        **{"timeout": 0, "by": "ann", "reason": "loses pages", **options})


def of_b(raw: Any, service: str, instance: str, state: str, **changes: Any) -> None:
    register(raw, service, instance, gitSha=B.sha, releaseId=B.release_id, state=state, **changes)


def now(gateway: RedisGateway) -> Record:
    record = gateway.record("demo")
    assert record is not None
    return record


def test_everything_in_one_step_without_the_lease(server: RedisServer, gateway: RedisGateway, raw: Any) -> None:
    """A deploy holds lease and number 3: the fence is above it, so that nothing of that deploy can be published."""
    raw.set("demo:lock:deploy", '{"token":"theirs"}')
    raw.set("demo:generation", "3")
    with raw.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe("demo:release:events")
        subscriber.get_message(timeout=5)
        run = fence(server).must_pass()
        announced = subscriber.get_message(timeout=5)
    assert json.loads(announced["data"])["allowed"] == [A.as_json()]
    assert run.changed
    assert now(gateway) == Record("demo", 4, "settled", A, (A,))
    assert run["record"] == now(gateway).as_result()
    newest = gateway.history("demo")[0][0]
    assert (newest.release, newest.fenced, newest.by, newest.reason) == (B, "target", "ann", "loses pages")
    ((_id, audit),) = raw.xrange("demo:audit")
    assert {**audit, "at": ""} == {
        "at": "", "by": "ann", "what": "fence", "name": B.release_id, "from": B.release_id, "to": A.release_id,
        "reason": "loses pages", "run": ""}
    with pytest.raises(DriftguardError, match="found deploy number 4"):
        gateway.publish_record(rolling(None, "demo", C, 3), token="theirs")


def test_check_mode_foretells_it_and_a_second_run_changes_nothing(
    server: RedisServer, gateway: RedisGateway, on_fleet: Place, raw: Any,
) -> None:
    of_b(raw, "ocr", "aaaaaaaaaaaa", "running")
    raw.persist("demo:worker:ocr:aaaaaaaaaaaa:version")
    before = on_fleet.contents()
    foretold = fence(server, check=True).must_pass()
    assert on_fleet.contents() == before
    run = fence(server).must_pass()
    assert (foretold.changed, foretold["record"], foretold["diff"]) == (True, run["record"], run["diff"])
    assert "1 instances would be fenced" in foretold["table"][-1]
    done = on_fleet.contents()
    again = [fence(server, release=asked) for asked in ("", B.release_id, B.sha[:7])]
    assert [one.must_pass().changed for one in again] == [False] * 3
    assert [len(one["unconfirmed"]) for one in again] == [1] * 3
    assert on_fleet.contents() == done


def test_who_has_not_confirmed_is_named(server: RedisServer, gateway: RedisGateway, raw: Any) -> None:
    of_b(raw, "ocr", "aaaaaaaaaaaa", "fenced")
    of_b(raw, "ocr", "bbbbbbbbbbbb", "draining")
    of_b(raw, "ocr", "cccccccccccc", "running", host="host2")
    of_b(raw, "ocr", "dddddddddddd", "what?")
    register(raw, "ocr", "eeeeeeeeeeee")  # of A
    register(raw, "ocr", "ffffffffffff", gitSha="x", releaseId="y")  # of nobody knows what
    raw.zadd("demo:workers", {"ocr:000000000000": 1})
    run = fence(server).must_pass()
    assert {row["instance"][0]: row["verdict"] for row in run["confirmed"] + run["unconfirmed"]} == {
        "a": "FENCED", "b": "DRAINING", "c": "RUNNING", "d": "UNKNOWN", "f": "RUNNING"}
    assert [row["instance"][0] for row in run["confirmed"]] == ["a"]
    assert all(row["remedy"] for row in run["unconfirmed"])
    assert run["gone"] == ["ocr:000000000000"]
    assert "ocr:cccccccccccc on host2 [RUNNING]" in run["silent"]
    assert "[UNCONFIRMED] 4 of 5 instances have not confirmed" in run["table"]


def test_it_waits_for_those_that_are_on_their_way(server: RedisServer, gateway: RedisGateway, raw: Any) -> None:
    of_b(raw, "ocr", "aaaaaaaaaaaa", "running", ttl_ms=600_000)
    of_b(raw, "ocr", "bbbbbbbbbbbb", "running", ttl_ms=600_000)

    def obey() -> None:
        wait_until(lambda: now(gateway).target == A, "the fence to be published")
        raw.hset("demo:worker:ocr:aaaaaaaaaaaa:version", "state", "fenced")
        raw.delete("demo:worker:ocr:bbbbbbbbbbbb:version")

    workers = threading.Thread(target=obey)
    workers.start()
    run = fence(server, timeout=60).must_pass()
    workers.join()
    assert [row["verdict"] for row in run["confirmed"]] == ["FENCED", "GONE"]
    assert run["unconfirmed"] == []
    assert run["table"][-1] == "[OK] All 2 instances are fenced or gone"


def test_who_is_gone_the_moment_it_is_published_is_told(
    gateway: RedisGateway, raw: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_b(raw, "ocr", "aaaaaaaaaaaa", "running", ttl_ms=600_000)

    def publish(*arguments: Any) -> Any:
        heard = publish_fence(*arguments)
        raw.delete("demo:worker:ocr:aaaaaaaaaaaa:version")
        return heard

    monkeypatch.setattr(fence_run, "publish_fence", publish)
    monkeypatch.setattr(fence_run, "gateway_of", lambda _module: gateway)
    options = {
        "fleet": "demo", "release": B.sha, "by": "ann", "reason": "", "run": "", "timeout": 0, "floor": 0,
        "cut_off": False}
    module = SimpleNamespace(params=options, check_mode=False, warn=pytest.fail)
    assert [row["verdict"] for row in fence_run.run_fence(module).values["confirmed"]] == ["GONE"]


def test_a_publication_in_between_is_taken_in(server: RedisServer, gateway: RedisGateway) -> None:
    """What was planned from an older record is refused, also by a deploy's number alone."""
    before = read_before(gateway, "demo")
    plan = plan_fence("demo", Known(before.record, before.history, ()), [B], before.highest, ("t", "ann", ""))
    gateway.publish_record(rolling(before.record, "demo", C, 2))
    assert publish_fence(gateway, before, plan, ("ann", "", "")) is None
    assert now(gateway).allowed == (B, C)
    assert fence(server, release=B.sha).must_pass()["record"]["allowed"] == [C.as_result()]


def test_a_number_that_was_taken_in_between_is_seen(gateway: RedisGateway, raw: Any) -> None:
    before = read_before(gateway, "demo")
    plan = plan_fence("demo", Known(before.record, before.history, ()), [B], before.highest, ("t", "ann", ""))
    raw.set("demo:generation", "3")  # a deploy took the very number that was planned
    assert publish_fence(gateway, before, plan, ("ann", "", "")) is None
    assert now(gateway).allowed == (B,)


def test_racing_fences_all_hold(server: RedisServer, gateway: RedisGateway) -> None:
    gateway.publish_record(rolling(gateway.record("demo"), "demo", C, 3))
    threads = [threading.Thread(target=fence, args=(server,), kwargs={"release": one.sha}) for one in (B, C)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert now(gateway).allowed == (A,)


@pytest.mark.parametrize("key", ["demo:audit", "demo:releases", "demo:generation"])
def test_a_key_of_another_type_leaves_everything_as_it_was(
    server: RedisServer, gateway: RedisGateway, raw: Any, on_fleet: Place, key: str,
) -> None:
    raw.delete(key)
    raw.hset(key, "x", "y")
    before = on_fleet.contents()
    fence(server).must_fail("TYPE")
    assert on_fleet.contents() == before


@pytest.mark.parametrize(("options", "said"), [
    ({"release": "fffffff"}, "name one of these"), ({"release": "a\nb"}, "option release"),
    ({"timeout": -1}, "option timeout"), ({"reason": "a\nb"}, "option reason"), ({"fleet": "No"}, "option fleet"),
])
def test_bad_options_change_nothing(
    server: RedisServer, gateway: RedisGateway, on_fleet: Place, options: dict[str, Any], said: str,
) -> None:
    before = on_fleet.contents()
    run_module("worker_fence", **{
        "fleet": "demo", "redis_url": server.bare_url, "redis_password": server.password, **options}).must_fail(said)
    assert on_fleet.contents() == before


def test_a_deploy_of_it_is_warned_of_and_lifts_it(server: RedisServer, gateway: RedisGateway, on_fleet: Place) -> None:
    fence(server).must_pass()
    assert on_fleet.run()["fenced"] == [B.as_result()]
    roll = on_fleet.run("rolling", B.as_result(), generation=9)
    assert "was fenced" in str(roll["warnings"])
    assert "loses pages" in str(roll["warnings"])
    done = on_fleet.run("settled", B.as_result(), generation=9).must_pass()
    assert (done["fenced"], done["previous"]["release_id"]) == ([], A.release_id)


def test_a_hosts_record_is_fenced_and_refuses_the_orphan_of_a_deploy(on_host: Place) -> None:
    on_host.run("settled", A.as_result(), generation=2)
    on_host.run("rolling", B.as_result(), generation=3, run="deploy")
    options: dict[str, Any] = {"target": A.as_result(), "fenced": [B.as_result()], "generation": 4}
    run = on_host.run("fenced", **options).must_pass()
    assert (run.changed, run["record"]["allowed"], run["record"]["phase"]) == (True, [A.as_result()], "rolling")
    assert not on_host.run("fenced", **options).must_pass().changed
    on_host.run("settled", B.as_result(), generation=3, run="deploy").must_fail("overtaken")
    alone = on_host.run("fenced", target=C.as_result(), fenced=[A.as_result()], generation=5).must_pass()
    assert alone["record"]["target"] == C.as_result()


def test_a_host_without_a_record_keeps_none(on_host: Place) -> None:
    run = on_host.run("fenced", target=A.as_result(), fenced=[B.as_result()], generation=4).must_pass()
    assert (run.changed, run["record"]) == (False, None)
