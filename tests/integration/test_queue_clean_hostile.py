# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_queue_clean on contents that somebody else wrote, ids, keys and hashes of any kind; and with few rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.test_queue_clean import HOUR, Clean, contents, saved
from support.bull import Bull
from support.redis_server import RedisServer


@pytest.fixture
def clean(server: RedisServer, tmp_path: Path) -> Clean:
    return Clean(server, tmp_path)


@pytest.fixture
def bull(server: RedisServer) -> Bull:
    return Bull(server)


@pytest.mark.parametrize("entry", [
    "meta", "wait", "events", "id", "marker", "failed", "17", "18", "b:17", "de:x", "repeat:x", "limiter"])
def test_an_entry_that_leads_to_other_keys_takes_none_of_them(
    clean: Clean, bull: Bull, raw: Any, entry: str,
) -> None:
    """Whoever may push to a list must not get other queues' jobs, or BullMQ's own keys, removed through it."""
    bull.add("mail", {})
    bull.add("mail:b", {"opts": {"jobId": "17"}})
    raw.hset("demo:mail:17:logs", mapping={"name": "x", "timestamp": "1", "data": "{}"})
    raw.set("demo:mail:18:processed", "x")
    raw.set("demo:mail:de:x", "1")
    raw.hset("demo:mail:repeat:x", mapping={"name": "x", "every": "1"})
    raw.set("demo:mail:limiter", "1")
    raw.zadd("demo:mail:failed", {entry: 1})
    before = contents(raw)
    run = clean.remove("mail", "failed", job_id="*").must_pass()
    assert (run["removed"], run["kept"]) == (0, {"foreign": 1})
    assert contents(raw) == before


@pytest.mark.parametrize("place", ["wait", "delayed", "failed"])
def test_ids_without_a_job_go_only_when_they_are_named(clean: Clean, bull: Bull, raw: Any, place: str) -> None:
    bull.add("mail", {})
    state = "waiting" if place == "wait" else place
    if place == "wait":
        raw.lpush("demo:mail:wait", "orphan")
    else:
        raw.zadd(f"demo:mail:{place}", {"orphan": 5})
    kept = clean.remove("mail", state, older_than="0s", job_name="*", job_id="orphan").must_pass()
    assert (kept["removed"], kept["unjudged"]) == (0, 1)
    run = clean.remove("mail", state, job_ids=["orphan"]).must_pass()
    assert (run["removed"], saved(run)[0]["hash"]) == (1, [])
    assert raw.llen("demo:mail:wait") == 1


NASTY_IDS = [b"", b"\xff\xfe", b"a:b:c", b"new\nline", b"*", b"\x1b[2J", b"{x}", b"y" * 1_000_000, "ž".encode()]


def test_jobs_of_any_id_and_content_are_saved_without_loss(
    clean: Clean, bull: Bull, server: RedisServer, tmp_path: Path,
) -> None:
    with server.client(decode_responses=False) as raw:
        for job in NASTY_IDS:
            raw.hset(b"demo:mail:" + job, mapping={
                b"name": b"\x1b]0;x\x07\xff", b"timestamp": b"1", b"data": bytes(range(256)), b"opts": b"{}"})
            raw.lpush("demo:mail:wait", job)
        run = clean.remove("mail", "waiting", older_than="0s").must_pass()
        assert run["removed"] == len(NASTY_IDS)
        assert not raw.exists("demo:mail:wait")
        assert list(raw.scan_iter(b"demo:mail:*")) == [b"demo:mail:events"]
    assert all(one["id"].isprintable() and one["name"].isprintable() for one in run["sample"])
    assert all(len(line) < 500 and line.isprintable() for line in run["diff"]["before"].splitlines())


@pytest.mark.parametrize("timestamp", [b"", b"soon", b"-1", b"1e3", b"\xff", b"9" * 400, b"nan"])
def test_a_job_without_a_sound_time_is_never_old(clean: Clean, bull: Bull, raw: Any, timestamp: bytes) -> None:
    bull.add("mail", {})
    raw.hset("demo:mail:1", "timestamp", timestamp)
    run = clean.remove("mail", "waiting", older_than="0s").must_pass()
    assert (run["removed"], run["unjudged"]) == (0, 1)


@pytest.mark.parametrize("score", ["inf", "-inf", "-1", "1e300"])
def test_a_score_that_is_no_time_is_never_old(clean: Clean, bull: Bull, raw: Any, score: str) -> None:
    bull.finish(raw, "mail", [{}], "failed")
    raw.zadd("demo:mail:failed", {"1": score})
    assert clean.remove("mail", "failed", older_than="0s").must_pass()["removed"] == 0
    assert clean.remove("mail", "failed", job_name="*").must_pass()["sample"][0]["since"] is None


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff", b"null", b"1" * 10_000, b'{"evidenceId": 1e999}'])
def test_data_that_is_no_json_has_no_evidence(clean: Clean, bull: Bull, raw: Any, data: bytes) -> None:
    bull.add("mail", {})
    raw.hset("demo:mail:1", "data", data)
    run = clean.remove("mail", "waiting", evidence={"field": "data.evidenceId", "existing": ["e1"]}).must_pass()
    assert (run["removed"], run["unjudged"]) == (0, 1)


def test_a_parent_that_is_named_by_a_hostile_job(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.add("mail", *[{}] * 5)
    raw.set("other:secret", "x")
    raw.hset("demo:mail:1", "parentKey", "other:secret")
    raw.hset("demo:mail:2", mapping={"parentKey": "other:secret", "parent": "[" * 5000})
    raw.hset("demo:mail:3", mapping={"parentKey": "other:secret", "parent": '{"id": 1, "queueKey": {}}'})
    raw.hset("demo:mail:4", "parentKey", "gone")
    run = clean.remove("mail", "waiting", older_than="0s").must_pass()
    assert (run["removed"], run["kept"]) == (2, {"child": 3})
    assert raw.get("other:secret") == "x"


def test_places_of_wrong_types_are_named(clean: Clean, raw: Any) -> None:
    raw.set("demo:mail:wait", "x")
    clean.remove("mail", "waiting", older_than="0s").must_fail("demo:mail:wait")
    raw.lpush("demo:mail:failed", "x")
    clean.remove("mail", "failed", older_than="0s").must_fail("demo:mail:failed")


@pytest.mark.parametrize("missing", ["@write", "del", "lset", "lrem", "zrem", "eval"])
def test_a_right_that_is_missing_is_named_and_costs_no_job(
    clean: Clean, bull: Bull, server: RedisServer, raw: Any, missing: str,
) -> None:
    bull.add("mail", *[{}] * 3)
    rights = ["-@all", "+@read", "+@write", "+@scripting", "+time", "+ping", "+select", f"-{missing}"]
    raw.execute_command("ACL", "SETUSER", "cleaner", "reset", "on", ">secret", "~demo:*", *rights)
    before = contents(raw)
    try:
        clean.redis.update(redis_url=server.url_for(user="cleaner", password="secret"), redis_password="")
        clean.remove("mail", "waiting", older_than="0s").must_fail("ACL SETUSER")
        assert contents(raw) == before
        raw.execute_command("ACL", "SETUSER", "cleaner", f"+{missing}")
        assert clean.remove("mail", "waiting", older_than="0s").must_pass()["removed"] == 3
    finally:
        raw.execute_command("ACL", "DELUSER", "cleaner")


def test_the_waiting_jobs_of_a_paused_queue_of_older_bullmq(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.add("mail", {}, {}, {"opts": {"delay": HOUR}})
    raw.rename("demo:mail:wait", "demo:mail:paused")
    raw.rpush("demo:mail:paused", "0:123")
    run = clean.remove("mail", "waiting", older_than="0s").must_pass()
    assert ([job["state"] for job in saved(run)], raw.lrange("demo:mail:paused", 0, -1)) == (["paused"] * 2, ["0:123"])
