# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_queue_info on real BullMQ queues, and on keys that only look like some."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Iterator, Sequence

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.redis_queues import RedisQueues
from support.bull import Bull, refuse
from support.modules import PROJECT, ModuleRun, run_module
from support.redis_server import RedisServer

HOUR = 3_600_000


class Info:
    """The module with the connection's options filled in."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = {"fleet": "demo", "redis_url": server.bare_url, "redis_password": server.password}

    def run(self, **options: Any) -> ModuleRun:
        return run_module("worker_queue_info", **{**self.redis, **options})

    def rows(self, **options: Any) -> dict[str, dict[str, Any]]:
        run = self.run(**options).must_pass()
        assert not run.changed
        return {row["name"]: row for row in run["queues"]}


@pytest.fixture
def info(server: RedisServer) -> Info:
    return Info(server)


@pytest.fixture
def bull(server: RedisServer) -> Bull:
    return Bull(server)


def test_every_depth_is_counted(info: Info, bull: Bull, raw: Any) -> None:
    bull.finish(raw, "mail", [{}] * 3, "failed")
    bull.finish(raw, "mail", [{}] * 4, "completed")
    bull.add("mail", *[{}] * 5, *[{"opts": {"delay": HOUR}}] * 2, {"opts": {"priority": 7}})
    bull.add("mail-dead", {}, {"opts": {"delay": HOUR}})
    bull.flow({"name": "p", "queueName": "books", "data": {}, "children": [
        {"name": "c", "queueName": "pages", "data": {}}]})
    rows = info.rows()
    assert list(rows) == ["books", "mail", "pages"]
    mail = rows["mail"]
    counted = {key: mail[key] for key in ("waiting", "delayed", "prioritized", "failed", "completed", "active", "dead")}
    assert counted == {
        "waiting": 5, "delayed": 2, "prioritized": 1, "failed": 3, "completed": 4, "active": 0, "dead": 2}
    assert (mail["exists"], mail["is_paused"], mail["problems"], mail["rate_limit_ttl"]) == (True, False, [], 0)
    assert (rows["books"]["waiting_children"], rows["pages"]["waiting"]) == (1, 1)


def test_a_queue_of_dead_letters_is_shown_with_its_queue_or_on_request_or_alone(info: Info, bull: Bull) -> None:
    bull.add("mail", {})
    bull.add("mail-dead", {})
    bull.add("brain-dead", {})
    assert list(info.rows()) == ["brain-dead", "mail"]
    assert list(info.rows(dead=True)) == ["brain-dead", "mail", "mail-dead"]
    assert list(info.rows(queues=["mail-dead"])) == ["mail-dead"]
    assert list(info.rows(queues=["m*"])) == ["mail"]


def test_the_age_of_the_oldest_counts_from_either_end_and_by_the_servers_clock(
    info: Info, bull: Bull, raw: Any,
) -> None:
    fifo = bull.add("fifo", {}, {}, {})
    lifo = bull.add("lifo", *[{"opts": {"lifo": True}}] * 3)
    now = int(raw.time()[0]) * 1000
    raw.hset(f"demo:fifo:{fifo[0]}", "timestamp", now - HOUR)
    raw.hset(f"demo:lifo:{lifo[0]}", "timestamp", now - 2 * HOUR)
    rows = info.rows()
    assert 3600 <= rows["fifo"]["oldest_seconds"] < 3620
    assert 7200 <= rows["lifo"]["oldest_seconds"] < 7220
    raw.hset(f"demo:fifo:{fifo[0]}", "timestamp", "soon")
    assert info.rows()["fifo"]["oldest_seconds"] < 60


def test_pause_stall_limit_and_workers(info: Info, bull: Bull, raw: Any) -> None:
    bull.add("mail", {}, {}, {})
    bull.pause("mail")
    raw.lpush("demo:mail:active", "1", "2")
    raw.set("demo:mail:1:lock", "token")
    raw.hset("demo:mail:meta", mapping={"max": 2, "duration": 60000})
    raw.set("demo:mail:limiter", 2, px=60000)
    row = info.rows()["mail"]
    assert (row["is_paused"], row["active"], row["stalled"]) == (True, 2, 1)
    assert 50 < row["rate_limit_ttl"] <= 60
    raw.set("demo:mail:limiter", 1, px=60000)
    assert info.rows()["mail"]["rate_limit_ttl"] == 0
    rows: dict[str, Any] = {}

    def is_seen() -> bool:
        rows.update(info.rows(queues=["other", "mail"]))
        return bool(rows["other"]["workers"])

    bull.work("other", None, is_seen)
    assert (rows["other"]["workers"], rows["mail"]["workers"]) == (1, 0)


def test_names_and_patterns(info: Info, bull: Bull) -> None:
    for name in ("mail", "main", "ocr"):
        bull.add(name, {})
    assert list(info.rows(queues=["ma*"])) == ["mail", "main"]
    assert list(info.rows(queues=["ma[il]?", "ocr", "nothing"])) == ["mail", "main", "nothing", "ocr"]
    nothing = info.rows(queues=["nothing"])["nothing"]
    assert (nothing["exists"], nothing["waiting"], nothing["oldest_seconds"]) == (False, 0, None)
    assert info.rows(queues=["x*"]) == {}
    assert info.rows(prefix="other") == {}
    run = info.run(queues=["nothing"]).must_pass()
    assert run["table"][-1].endswith("no such queue")


@pytest.mark.parametrize("prefix", ["{demo}", "a:b", "de*mo", "[d]", "d?", "back\\slash", "ž"])
def test_a_prefix_stands_for_itself(info: Info, server: RedisServer, prefix: str) -> None:
    Bull(server, prefix).add("mail", {})
    Bull(server, "dexmo").add("decoy", {})
    assert list(info.rows(prefix=prefix)) == ["mail"]


@pytest.mark.parametrize("options", [
    {"prefix": ""}, {"prefix": "a\nb"}, {"queues": [""]}, {"queues": ["a\x00"]}, {"queues": ["x" * 257]},
    {"fleet": "Demo"}])
def test_impossible_options(info: Info, options: dict[str, Any]) -> None:
    info.run(**options).must_fail("option ")


NASTY_NAMES = [b"a:b", b"*", b"{x}", b"new\nline", b"\xff\xfe", b"\x1b[2J", b"x" * 5000, b" "]


def test_queues_of_any_name_are_found_and_shown_harmlessly(info: Info, raw: Any) -> None:
    for name in NASTY_NAMES:
        raw.hset(b"demo:" + name + b":meta", "opts.maxLenEvents", 10000)
        raw.lpush(b"demo:" + name + b":wait", 1)
    run = info.run().must_pass()
    assert [row["waiting"] for row in run["queues"]] == [1] * len(NASTY_NAMES)
    assert all(line.isprintable() and len(line) < 300 for line in run["table"])


def test_keys_that_only_look_like_queues_are_none(info: Info, bull: Bull, raw: Any) -> None:
    bull.add("mail", {})
    raw.set("demo:mail:de:meta", "17")
    raw.hset("demo:worker:extractor:meta", "gitSha", "x")
    raw.hset("demo::meta", "x", "y")
    assert list(info.rows()) == ["mail"]


def test_keys_of_wrong_types_are_named_and_the_rest_is_counted(info: Info, bull: Bull, raw: Any) -> None:
    bull.add("mail", {}, {"opts": {"delay": HOUR}})
    raw.delete("demo:mail:wait")
    raw.set("demo:mail:wait", "x")
    raw.sadd("demo:mail-dead:wait", "x")
    raw.lpush("demo:mail:paused", "no-such-job", b"\xff", "x" * 100_000, "meta")
    raw.lpush("demo:mail:active", "gone")
    row = info.rows()["mail"]
    assert (row["waiting"], row["delayed"], row["paused"], row["dead"], row["stalled"]) == (None, 1, 4, None, 1)
    assert any("demo:mail:wait" in problem and "wrong kind of value" in problem for problem in row["problems"])
    assert info.run()["table"][1].split()[1] == "?"


@pytest.fixture
def limited(server: RedisServer, raw: Any) -> Iterator[dict[str, str]]:
    """A user that may do what the documentation says it needs, and nothing else."""
    commands = [f"+{name}" for name in (
        "scan", "time", "llen", "zcard", "lrange", "hmget", "hget", "get", "pttl", "exists", "select")]
    raw.execute_command("ACL", "SETUSER", "looker", "on", ">secret", "resetkeys", "~demo:*", "-@all", *commands)
    yield {"redis_url": server.url_for(user="looker", password="secret"), "redis_password": ""}
    raw.execute_command("ACL", "DELUSER", "looker")


def test_the_documented_rights_are_enough(info: Info, bull: Bull, limited: dict[str, str]) -> None:
    bull.add("mail", {})
    row = info.rows(**limited)["mail"]
    assert (row["waiting"], row["workers"]) == (1, None)


@pytest.mark.parametrize("command", ["scan", "zcard", "hget", "pttl"])
def test_a_missing_right_is_named(info: Info, bull: Bull, limited: dict[str, str], raw: Any, command: str) -> None:
    bull.add("mail", {})
    raw.execute_command("ACL", "SETUSER", "looker", f"-{command}")
    info.run(**limited).must_fail(command.upper(), "ACL SETUSER")


def test_keys_out_of_reach_are_named(info: Info, server: RedisServer, limited: dict[str, str]) -> None:
    Bull(server, "other").add("mail", {})
    info.run(prefix="other", **limited).must_fail("other:mail:wait", "ACL SETUSER")


def test_nothing_is_written(info: Info, bull: Bull, raw: Any) -> None:
    bull.finish(raw, "mail", [{}], "failed")
    before = sorted(raw.scan_iter())
    raw.config_resetstat()
    info.run().must_pass()
    assert sorted(raw.scan_iter()) == before
    used = set(raw.info("commandstats"))
    assert used <= {f"cmdstat_{name}" for name in (
        "scan", "time", "llen", "zcard", "lrange", "hmget", "hget", "get", "pttl", "exists", "auth", "hello", "ping",
        "client|list", "client|setinfo", "info", "config|resetstat")}


def test_fifty_queues_take_a_handful_of_round_trips(
    server: RedisServer, raw: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(50):
        raw.hset(f"demo:q{number}:meta", "opts.maxLenEvents", 10000)
        raw.lpush(f"demo:q{number}:wait", *range(2000))
    passes: list[int] = []
    real = RedisGateway.ask

    def counted(self: RedisGateway, commands: Sequence[Sequence[Any]]) -> list[Any]:
        passes.append(len(commands))
        return real(self, commands)

    monkeypatch.setattr(RedisGateway, "ask", counted)
    queues = RedisQueues(RedisGateway.connect(server.url), b"demo")
    depths = queues.depths(queues.find())
    assert [one.counts["wait"] for one in depths] == [2000] * 50
    scans = len([size for size in passes if size == 1])
    assert (len(passes) - scans, scans) == (2, 1)


def test_a_node_worker_is_counted_by_the_name_of_its_connection(info: Info, server: RedisServer, bull: Bull) -> None:
    bull.add("mail", {})
    with server.client() as first, server.client() as second, server.client() as third:
        first.client_setname("demo:bWFpbA==")
        second.client_setname("demo:bWFpbA==:w:alice")
        third.client_setname("demo:bWFpbA==:qe")
        assert info.rows()["mail"]["workers"] == 2


def test_stalled_jobs_of_a_worker_that_was_killed(info: Info, bull: Bull, raw: Any) -> None:
    bull.add("mail", {})
    seen: list[int] = []

    async def look(job: Any, token: str) -> None:
        seen.append(info.rows()["mail"]["stalled"])
        raw.delete(f"demo:mail:{job.id}:lock")
        seen.append(info.rows()["mail"]["stalled"])
        await refuse(job, token)

    bull.work("mail", look, lambda: len(seen) == 2)
    assert seen == [0, 1]


def test_the_playbook_shows_the_table(server: RedisServer, bull: Bull, tmp_path: Path) -> None:
    bull.add("mail", {}, {})
    variables = {
        "worker_fleet": "demo", "worker_redis_url": server.bare_url, "worker_redis_password": server.password,
        "worker_become": False, "ansible_connection": "local",
        "ansible_python_interpreter": str(PROJECT / ".venv/bin/python")}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"workers": {"hosts": {"one": {}, "two": {}}, "vars": variables}}))
    done = subprocess.run(
        [str(PROJECT / ".venv/bin/ansible-playbook"), "-i", str(inventory), "playbooks/queues-workers.yml"],
        cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mail         2" in done.stdout
    assert server.password not in done.stdout
