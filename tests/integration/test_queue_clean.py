# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_queue_clean on real BullMQ jobs: what goes, what stays, what is in the file, and that the rest is worked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.bull import Bull
from support.modules import PROJECT, ModuleRun, run_module
from support.redis_server import RedisServer

HOUR = 3_600_000
DAY = 24 * HOUR


class Clean:
    """The module with the connection's options filled in, and a file of its own for each run."""

    def __init__(self, server: RedisServer, directory: Path) -> None:
        self.redis = {"fleet": "demo", "redis_url": server.bare_url, "redis_password": server.password}
        self._directory = directory
        self._runs = 0

    def look(self, queue: str, state: str, **options: Any) -> ModuleRun:
        return run_module("worker_queue_clean", **{**self.redis, "queue": queue, "state": state, **options})

    def remove(self, queue: str, state: str, **options: Any) -> ModuleRun:
        self._runs += 1
        dest = str(self._directory / f"removed-{self._runs}.jsonl")
        return self.look(queue, state, **{"confirm": True, "dest": dest, **options})


def saved(run: ModuleRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run["file"]).read_text().splitlines()]


@pytest.fixture
def clean(server: RedisServer, tmp_path: Path) -> Clean:
    return Clean(server, tmp_path)


@pytest.fixture
def bull(server: RedisServer) -> Bull:
    return Bull(server)


def contents(raw: Any) -> dict[str, Any]:
    """All that Redis holds, but for the streams of events."""
    readers = {
        "string": raw.get, "hash": raw.hgetall, "list": lambda key: raw.lrange(key, 0, -1), "set": raw.smembers,
        "zset": lambda key: raw.zrange(key, 0, -1, withscores=True)}
    return {key: readers[kind](key) for key in raw.scan_iter() for kind in [raw.type(key)] if kind != "stream"}


def age(raw: Any, queue: str, job: str, milliseconds: int, state: str = "wait") -> None:
    """Make a job older."""
    then = int(raw.time()[0]) * 1000 - milliseconds
    raw.hset(f"demo:{queue}:{job}", "timestamp", then)
    if state in ("completed", "failed"):
        raw.zadd(f"demo:{queue}:{state}", {job: then})


def test_old_failed_jobs_go_and_the_young_stay(clean: Clean, bull: Bull, raw: Any) -> None:
    ids = bull.finish(raw, "mail", [{"data": {"to": f"u{number}"}} for number in range(4)])
    for job in ids[:2]:
        age(raw, "mail", job, 8 * DAY, "failed")
    raw.rpush(f"demo:mail:{ids[0]}:logs", "one", "two")
    run = clean.remove("mail", "failed", older_than="7d").must_pass()
    assert (run.changed, run["removed"], run["total"], run["kept"]) == (True, 2, 4, {})
    assert raw.zrange("demo:mail:failed", 0, -1) == ids[2:]
    assert not [key for job in ids[:2] for key in raw.scan_iter(f"demo:mail:{job}*")]
    file = Path(run["file"])
    assert file.stat().st_mode & 0o777 == 0o600
    first, second = saved(run)
    assert (first["id"], first["state"], first["logs"], second["id"]) == (ids[0], "failed", ["one", "two"], ids[1])
    assert dict(first["hash"])["data"] == '{"to":"u0"}'
    assert [event["jobId"] for _id, event in raw.xrange("demo:mail:events") if event["event"] == "removed"] == ids[:2]
    again = clean.remove("mail", "failed", older_than="7d").must_pass()
    assert (again.changed, again["removed"], again["file"]) == (False, 0, None)
    assert len(list(file.parent.iterdir())) == 1


def test_check_run_without_confirm_and_run_agree(clean: Clean, bull: Bull, raw: Any, tmp_path: Path) -> None:
    ids = bull.add("mail", *[{"name": "old"}] * 30, {"name": "new"})
    before = contents(raw)
    shy = clean.look("mail", "waiting", job_name="old").must_pass()
    check = clean.remove("mail", "waiting", job_name="old", check=True).must_pass()
    assert (shy.changed, check.changed, contents(raw) == before, list(tmp_path.iterdir())) == (False, True, True, [])
    assert "confirm" in shy["msg"]
    assert shy["sample"] == check["sample"]
    assert [one["id"] for one in shy["sample"]] == ids[:20]
    assert (shy["jobs"], shy["diff"]["before"].splitlines()[-1]) == (30, "- … 10 more")
    run = clean.remove("mail", "waiting", job_name="old").must_pass()
    for name in ("jobs", "total", "sample", "kept", "unjudged", "diff"):
        assert run[name] == check[name] == shy[name]
    assert raw.lrange("demo:mail:wait", 0, -1) == ids[30:]


@pytest.mark.parametrize(("state", "place", "opts"), [
    ("waiting", "wait", {}), ("delayed", "delayed", {"delay": HOUR}), ("prioritized", "prioritized", {"priority": 3})])
def test_each_state_by_age(
    clean: Clean, bull: Bull, raw: Any, state: str, place: str, opts: dict[str, int],
) -> None:
    old, young = bull.add("mail", {"opts": opts}, {"opts": opts})
    age(raw, "mail", old, 2 * HOUR)
    run = clean.remove("mail", state, older_than="1h").must_pass()
    assert [(job["id"], job["state"]) for job in saved(run)] == [(old, place)]
    left = raw.lrange("demo:mail:wait", 0, -1) if place == "wait" else raw.zrange(f"demo:mail:{place}", 0, -1)
    assert left == [young]


def test_dead_letters(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.add("mail", {})
    letters = [{"data": {"queue": "mail", "jobId": str(number), "data": {"evidenceId": f"e{number}"}}}
               for number in range(3)]
    bull.add("mail-dead", *letters, {**letters[0], "opts": {"delay": HOUR}})
    run = clean.remove(
        "mail", "dead", evidence={"field": "data.data.evidenceId", "existing": ["e1"]}).must_pass()
    assert (run["queue"], run["removed"], run["total"]) == ("mail-dead", 3, 4)
    assert (raw.llen("demo:mail-dead:wait"), raw.zcard("demo:mail-dead:delayed")) == (1, 0)
    assert raw.llen("demo:mail:wait") == 1


def test_by_ids_by_pattern_and_all_criteria_together(clean: Clean, bull: Bull, raw: Any, tmp_path: Path) -> None:
    ids = [f"import-{number}" for number in range(6)]
    bull.add("mail", *({"name": "a" if number % 2 else "b", "opts": {"jobId": job}} for number, job in enumerate(ids)))
    assert clean.look("mail", "waiting", job_id="import-[0-2]")["jobs"] == 3
    assert clean.look("mail", "waiting", job_id="import-*", job_name="a")["jobs"] == 3
    assert clean.look("mail", "waiting", job_id="import")["jobs"] == 0
    for text in ("import-1\nimport-2\r\n\n  import-9\n", '["import-1", "import-2", 7]'):
        (tmp_path / "ids").write_text(text)
        assert clean.look("mail", "waiting", job_ids_file=str(tmp_path / "ids"))["jobs"] == 2
    run = clean.remove("mail", "waiting", job_ids=["import-0", "import-1"], job_name="a").must_pass()
    assert [job["id"] for job in saved(run)] == ["import-1"]


def test_evidence_that_is_gone(clean: Clean, bull: Bull, raw: Any, tmp_path: Path) -> None:
    data: list[Any] = [{"evidenceId": "e1"}, {"evidenceId": "gone"}, {"evidenceId": 7}, {"evidenceId": 8}, {}, "text",
                       {"evidenceId": None}, {"evidenceId": True}, {"evidenceId": ["e1"]}]
    ids = bull.add("mail", *({"data": one} for one in data))
    options = {"evidence": {"field": "data.evidenceId", "existing": ["e1", 7]}}
    run = clean.remove("mail", "waiting", **options).must_pass()
    assert [job["id"] for job in saved(run)] == [ids[1], ids[3]]
    assert run["unjudged"] == 5
    (tmp_path / "list").write_text("e1\n")
    assert clean.look("mail", "waiting", evidence={
        "field": "data.evidenceId", "existing_file": str(tmp_path / "list")}).must_pass()["jobs"] == 1


def test_a_list_of_something_else_is_refused(clean: Clean, bull: Bull, raw: Any) -> None:
    bull.add("mail", {"data": {"evidenceId": "e1"}}, {"data": {"evidenceId": "e2"}})
    before = contents(raw)
    wrong = {"field": "data.evidenceId", "existing": ["invoice-1", "invoice-2"]}
    clean.remove("mail", "waiting", evidence=wrong).must_fail("none of them", "2 jobs", "all_gone")
    assert contents(raw) == before
    assert clean.remove("mail", "waiting", evidence={**wrong, "all_gone": True}).must_pass()["removed"] == 2


EVIDENCE = {"field": "data.evidenceId"}


@pytest.mark.parametrize("options", [
    {"job_ids": []}, {"job_ids": [None]}, {"job_ids": [""]}, {"job_ids": [{"id": 1}]}, {"job_ids": [1.5]},
    {"job_ids": [True]}, {"job_ids": ["a\nb"]}, {"job_ids": ["x" * 5000]},
    {"evidence": {**EVIDENCE, "existing": []}}, {"evidence": {**EVIDENCE, "existing": [{"id": "e1"}]}},
    {"evidence": {**EVIDENCE, "existing": [None]}}, {"evidence": {**EVIDENCE, "existing": ["e1", ["e2"]]}},
    {"evidence": {"field": "evidenceId", "existing": ["e1"]}}, {"evidence": {"field": "data", "existing": ["e1"]}},
    {"evidence": {"field": "data..x", "existing": ["e1"]}},
    {"older_than": "7"}, {"older_than": "-1d"}, {"older_than": "7d "}, {"older_than": "1d2h"},
    {"older_than": "\u0667d"}, {"older_than": "0s", "limit": 0}, {"older_than": "0s", "limit": -1},
    {"older_than": "0s", "queue": "a\nb"}, {"older_than": "0s", "queue": ""},
])
def test_what_cant_be_meant_removes_nothing(
    clean: Clean, bull: Bull, raw: Any, tmp_path: Path, options: dict[str, Any],
) -> None:
    bull.add("mail", {"data": {"evidenceId": "e1"}})
    before = contents(raw)
    clean.remove(**{"queue": "mail", "state": "waiting", **options}).must_fail("option ")
    assert (contents(raw), list(tmp_path.iterdir())) == (before, [])


@pytest.mark.parametrize("text", [None, "", " \n\n", "[]", "{}", "[1,", '{"a": 1}', '[["e1"]]', "a\x00b", "[" * 99999])
def test_a_file_of_ids_that_is_none(clean: Clean, bull: Bull, raw: Any, tmp_path: Path, text: str | None) -> None:
    bull.add("mail", {"data": {"evidenceId": "e1"}})
    file = tmp_path / "ids"
    if text is not None:
        file.write_text(text)
    clean.look("mail", "waiting", job_ids_file=str(file)).must_fail(str(file))
    clean.look("mail", "waiting", evidence={**EVIDENCE, "existing_file": str(file)}).must_fail(str(file))
    file.write_bytes(b"\xff\n")
    clean.look("mail", "waiting", job_ids_file=str(file)).must_fail(str(file))


def test_some_criterion_is_needed_and_a_file_to_remove(clean: Clean) -> None:
    assert "one of the following is required" in clean.look("mail", "waiting")["msg"]
    assert "dest" in clean.look("mail", "waiting", older_than="1d", confirm=True)["msg"]
    assert "state" in clean.look("mail", "active", older_than="1d")["msg"]


def test_the_limit_takes_the_oldest_and_says_how_many_more(clean: Clean, bull: Bull, raw: Any) -> None:
    ids = bull.add("mail", *[{}] * 5)
    run = clean.remove("mail", "waiting", older_than="0s", limit=2).must_pass()
    assert ([job["id"] for job in saved(run)], run["beyond_limit"]) == (ids[:2], 3)


def test_the_rest_is_worked_and_what_was_removed_is_not(clean: Clean, bull: Bull, raw: Any) -> None:
    ids = bull.add("mail", *({"name": "a" if number % 3 else "b"} for number in range(30)))
    rest = [job for number, job in enumerate(ids) if number % 3 == 0]
    clean.remove("mail", "waiting", job_name="a").must_pass()
    done = bull.work("mail", None, lambda: raw.zcard("demo:mail:completed") == len(rest))
    assert sorted(done) == sorted(rest)
    new = bull.add("mail", {})
    assert bull.work("mail", None, lambda: raw.zcard("demo:mail:completed") == len(rest) + 1) == new


def restore(server: RedisServer, file: str) -> None:
    """Run the program that docs/queues.md shows."""
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/queues.md").read_text(encoding="utf-8"), re.DOTALL)
    (program,) = [block for block in blocks if "sys.argv" in block]
    exec(
        compile(program.replace("sys.argv[1:]", repr([server.url, file])), "docs/queues.md", "exec"), {})


def test_what_was_removed_can_be_put_back_as_it_was(clean: Clean, bull: Bull, server: RedisServer, raw: Any) -> None:
    bull.finish(raw, "mail", [{"data": {"n": 1}}, {}], "failed")
    bull.finish(raw, "mail", [{}] * 2, "completed")
    bull.add("mail", *({"data": {"n": number}} for number in range(5)), {"opts": {"delay": HOUR}},
             {"opts": {"priority": 9}}, {"opts": {"deduplication": {"id": "once", "ttl": HOUR}}})
    with server.client(decode_responses=False) as client:
        client.hset(b"demo:mail:5", mapping={b"data": b"\xff\xfe", b"\xc3\x28": b"\x00\n\"\\"})
        client.rpush(b"demo:mail:5:logs", b"\xff", "ž".encode())
    before = contents(server.client(encoding_errors="surrogateescape"))
    files = [clean.remove("mail", state, older_than="0s").must_pass()["file"] for state in (
        "waiting", "delayed", "prioritized", "failed", "completed")]
    assert not raw.exists("demo:mail:wait", "demo:mail:5", "demo:mail:5:logs", "demo:mail:delayed", "demo:mail:de:once")
    for file in files:
        restore(server, file)
    after = contents(server.client(encoding_errors="surrogateescape"))
    assert {key: value for key, value in after.items() if key != "demo:mail:marker"} == {
        key: value for key, value in before.items() if key != "demo:mail:marker"}
    with server.client(decode_responses=False) as client:
        client.hdel("demo:mail:5", b"\xc3\x28")
        client.hset("demo:mail:5", "data", "{}")
    bull.work("mail", None, lambda: raw.zcard("demo:mail:completed") == 2 + 7)
    assert (raw.llen("demo:mail:wait"), raw.zcard("demo:mail:failed")) == (0, 2)
