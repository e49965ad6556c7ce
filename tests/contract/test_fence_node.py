# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node guard's fence: every decision of the contract, and every row of its table as a process with a real Redis."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contract.fence_cases import DECISIONS, FENCE
from contract.guard_cases import CONTRACT, GUARDS
from support.node_worker import NEW, OLD, NodeWorker, record, running_node
from support.redis_server import RedisServer, next_heartbeat, wait_until
from support.shared_redis import raw, server, shared_server  # noqa: F401 - fixtures

IDLE = "console.log('application began'); process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1000);"
BEGAN = "application began"
KEY, EVENTS = "demo:release", "demo:release:events"
LARGE = record({**NEW, "note": "x" * 1_000_000})
UNREADABLE = {
    "no JSON": "settled", "another fleet": record({**NEW, "fleet": "sibling"}), "larger than 64 KiB": LARGE,
    "a key twice": record(NEW).replace('"phase"', '"phase": "settled", "phase"'), "empty": "",
    "a number that isn't whole": record({**NEW, "generation": 7.0}),
}


def publish(raw: Any, text: str) -> None:  # noqa: F811
    """What a deployment does: the record, then the announcement."""
    raw.set(KEY, text)
    raw.publish(EVENTS, "changed")


def decided() -> list[dict[str, Any]]:
    """What the guard's own function makes of every row."""
    code = (
        "const { decide } = require(process.argv[1]); const rows = JSON.parse(process.argv[2]);"
        "console.log(JSON.stringify(rows.map(([before, host, fleet]) => decide(before, host, fleet))));")
    done = subprocess.run(
        ["node", "-e", code, str(GUARDS / "version-guard-fence.cjs"), json.dumps(FENCE["decisions"])], check=True,
        capture_output=True, text=True, timeout=20)
    return list(json.loads(done.stdout))


def test_decides_as_the_contract_says() -> None:
    made = decided()
    assert [(one["then"], tuple(one["problems"])) for one in made] == [(row.then, row.problems) for row in DECISIONS]
    assert len(DECISIONS) == 75


def test_numbers_and_names_are_the_contracts() -> None:
    text = (GUARDS / "version-guard-fence.cjs").read_text(encoding="utf-8")
    names = CONTRACT["names"]["registration"]
    assert f"HEARTBEAT_MS = {names['heartbeatSeconds'] * 1000};" in text
    assert f"TTL_SECONDS = {names['ttlSeconds']};" in text
    assert f"LEGACY_TTL_SECONDS = {names['legacyTtlSeconds']};" in text
    assert f"HOST_LOOK_MS = {int(FENCE['hostLookSeconds'] * 1000)};" in text
    drain = FENCE["drainSeconds"]
    assert f'variable: "{drain["variable"]}", usual: {drain["default"]}, most: {drain["most"]} ' in text
    assert f"HEALTH_PORT = {CONTRACT['names']['healthPort']};" in text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for one application."""
    return tmp_path / "app"


def variables(server: RedisServer) -> dict[str, str | None]:  # noqa: F811
    """What reaches the Redis."""
    return {"REDIS_URL": server.bare_url, "REDIS_PASSWORD_FILE": str(server.password_file)}


def test_allowed_by_both_it_starts_and_goes_on(place: Path, server: RedisServer, raw: Any) -> None:  # noqa: F811
    raw.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(server), host=record(NEW)) as worker:
        worker.said(BEGAN)
        worker.becomes("running")
        assert json.loads(worker.get("/health")[1])["problems"] == []
        found = raw.hgetall(worker.key)
        assert set(found) == set(CONTRACT["names"]["registration"]["fields"])
        assert (found["state"], found["pid"]) == ("running", str(worker.process.pid))
        assert found["gitSha"] == NEW["target"]["sha"]
        assert found["releaseId"] == NEW["target"]["releaseId"]
        assert 0 < raw.ttl(worker.key) <= 15
        assert raw.zrange("demo:workers", 0, -1) == [worker.key.removeprefix("demo:worker:").removesuffix(":version")]
        legacy = set(CONTRACT["names"]["registration"]["legacyFields"])
        assert set(raw.hgetall("demo:worker:extractor:version")) == legacy
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert not raw.exists(worker.key)
        assert raw.zcard("demo:workers") == 0


@pytest.mark.parametrize(("found", "title"), [
    (record(OLD), "This host does not allow this release!"), ("", "Host record is missing!"),
    ("{}", "Host record is malformed!"),
])
def test_host_record_at_the_start(
    found: str, title: str, place: Path, server: RedisServer, raw: Any,  # noqa: F811
) -> None:
    raw.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(server), host=found) as worker:
        assert worker.ended() == 1
        assert f"[version] FATAL: {title}" in worker.text
        assert BEGAN not in worker.text
    assert not raw.keys("demo:worker:*")


@pytest.mark.parametrize("change", ["missing", "no record", "a directory", "a named pipe"])
def test_host_record_lost_while_running_is_reported(
    change: str, place: Path, server: RedisServer, raw: Any,  # noqa: F811
) -> None:
    raw.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(server), host=record(NEW)) as worker:
        worker.becomes("running")
        _spoil(place / "record" / "guard.json", change)
        problem = "host record missing" if change == "missing" else "host record unreadable"
        worker.said(f"Fence: {problem}")
        status, body = worker.get("/health")
        assert (status, json.loads(body)["problems"]) == (200, [problem])
        assert f'record_problems{{problem="{problem}"}} 1' in worker.get("/metrics")[1]
        # It lifts nothing either: what was fenced stays so without a record.
        publish(raw, record(OLD))
        worker.becomes("fenced")
        publish(raw, record(NEW))
        assert _stays_fenced(worker)


def _stays_fenced(worker: NodeWorker) -> bool:
    """Whether it is still fenced after it was seen to read the record again."""
    beats = _beats(worker)
    wait_until(lambda: _beats(worker) > beats, "another heartbeat")
    return worker.state() == "fenced"


def _beats(worker: NodeWorker) -> int:
    lines = worker.get("/metrics")[1].splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("driftguard_worker_heartbeats_total "))


def _spoil(path: Path, change: str) -> None:
    path.unlink()
    if change == "no record":
        path.write_text("[]", encoding="utf-8")
    elif change == "a directory":
        path.mkdir()
    elif change == "a named pipe":
        subprocess.run(["mkfifo", str(path)], check=True)


def test_host_record_alone_fences(place: Path, server: RedisServer, raw: Any) -> None:  # noqa: F811
    raw.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(server), host=record(NEW)) as worker:
        worker.said(BEGAN)
        worker.publish_host(record(OLD))
        worker.becomes("fenced")
        wait_until(lambda: raw.hget(worker.key, "state") == "fenced", "the registration to say fenced")
        assert "PARKED - this host's record does not allow this release" in worker.text


def test_fleet_record_at_the_start_parks_before_the_application(
    place: Path, server: RedisServer, raw: Any,  # noqa: F811
) -> None:
    raw.set(KEY, record(OLD))
    with running_node(place, IDLE, variables(server), host=record(NEW)) as worker:
        worker.becomes("fenced")
        wait_until(lambda: raw.hget(worker.key, "state") == "fenced", "the registration to say fenced")
        assert BEGAN not in worker.text
        publish(raw, record(NEW))
        worker.said(BEGAN)
        worker.becomes("running")


@pytest.mark.parametrize("quiet", [False, True], ids=["announced", "unannounced"])
def test_fleet_record_while_running_parks(
    quiet: bool, place: Path, server: RedisServer, raw: Any,  # noqa: F811
) -> None:
    raw.set(KEY, record(NEW))
    with running_node(place, IDLE, variables(server)) as worker:
        worker.becomes("running")
        wait_until(lambda: raw.pubsub_numsub(EVENTS)[0][1] == 1, "the subscription")
        if quiet:
            raw.set(KEY, record(OLD))
            worker.becomes("fenced")
        else:
            next_heartbeat(raw, worker.key)
            publish(raw, record(OLD))
            worker.becomes("fenced", 4)  # before the next heartbeat
        wait_until(lambda: raw.hget(worker.key, "state") == "fenced", "the registration to say fenced")


@pytest.mark.parametrize("found", ["missing", *UNREADABLE])
def test_fleet_record_that_says_nothing_admits_and_is_reported(
    found: str, place: Path, server: RedisServer, raw: Any,  # noqa: F811
) -> None:
    if found != "missing":
        raw.set(KEY, UNREADABLE[found])
    problem = "fleet record missing" if found == "missing" else "fleet record unreadable"
    with running_node(place, IDLE, variables(server)) as worker:
        worker.said(BEGAN)
        worker.becomes("running")
        assert json.loads(worker.get("/health")[1])["problems"] == [problem]
        publish(raw, record(OLD))
        worker.becomes("fenced")
        # What is fenced isn't freed by a record that says nothing.
        raw.delete(KEY) if found == "missing" else publish(raw, UNREADABLE[found])
        raw.publish(EVENTS, "changed")
        worker.said(f"Fence: {problem}", times=2)
        assert worker.state() == "fenced"


def test_record_of_another_type_is_unreadable(place: Path, server: RedisServer, raw: Any) -> None:  # noqa: F811
    raw.hset(KEY, "a", "b")
    with running_node(place, IDLE, variables(server)) as worker:
        worker.said("Fence: fleet record unreadable")
        worker.said(BEGAN)


def test_redis_out_of_reach_makes_it_wait_and_a_signal_ends_it(place: Path, redis_server: RedisServer) -> None:
    redis_server.stop()
    with running_node(place, IDLE, variables(redis_server)) as worker:
        worker.said("Fence: waiting for Redis")
        assert worker.state() == "starting"
        redis_server.start()
        worker.said(BEGAN)
        worker.becomes("running")
        redis_server.stop()
        worker.said("Fence: no job starts until Redis answers")
        assert json.loads(worker.get("/health")[1])["problems"] == ["fleet record unreachable"]


@pytest.mark.parametrize("parked", [False, True], ids=["waiting", "fenced"])
def test_sigterm_ends_what_has_not_begun(
    parked: bool, place: Path, redis_server: RedisServer,
) -> None:
    if parked:
        with redis_server.client() as client:
            client.set(KEY, record(OLD))
    else:
        redis_server.stop()
    with running_node(place, IDLE, variables(redis_server)) as worker:
        worker.becomes("fenced") if parked else worker.said("Fence: waiting for Redis")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended(3) == -signal.SIGTERM
        assert BEGAN not in worker.text
    if parked:
        with redis_server.client() as client:
            assert not client.keys("demo:worker:extractor:*:version")


def test_outside_production_it_warns_and_runs(place: Path, server: RedisServer, raw: Any) -> None:  # noqa: F811
    raw.set(KEY, record(OLD))
    with running_node(place, IDLE, {**variables(server), "NODE_ENV": "test"}) as worker:
        worker.said(BEGAN)
        worker.said("the fleet's record does not allow this release (not enforced outside production)")
        worker.becomes("running")


@pytest.mark.parametrize(("name", "value"), [
    ("REDIS_URL", None), ("REDIS_URL", "http://x"), ("REDIS_URL", "redis://user:s3cret/@host"), ("REDIS_URL", "redis://h/x"),
    ("REDIS_URL", "redis://h/0?retry=1"), ("WORKER_TYPE", None), ("WORKER_FLEET", "No Fleet"),
    ("WORKER_DRAIN_SECONDS", "soon"), ("REDIS_PASSWORD_FILE", "/nowhere"), ("REDIS_CA_FILE", "/nowhere"),
])
def test_settings_that_are_wrong_are_named(name: str, value: str | None, place: Path) -> None:
    with running_node(place, IDLE, {"REDIS_URL": "redis://127.0.0.1:1/0", name: value}) as worker:
        assert worker.ended() == 2
        assert f"[version] FATAL: {name} is missing or wrong!" in worker.text
        assert "  Remedy:   " in worker.text
        assert "s3cret" not in worker.text
        assert BEGAN not in worker.text
