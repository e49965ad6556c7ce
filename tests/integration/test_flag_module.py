# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_flag: kill switches in Redis, each change with its audit entry, and what others wrote there."""

from __future__ import annotations

import getpass
import re
import threading
from typing import Any

import pytest
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer

NAME = "classification"


class Flag:
    """The module with the connection's options filled in."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = {"fleet": "demo", "redis_url": server.bare_url, "redis_password": server.password}

    def run(self, **options: Any) -> ModuleRun:
        return run_module("worker_flag", **{**self.redis, **options})

    def set(self, value: bool, **options: Any) -> ModuleRun:
        return self.run(**{"name": NAME, "value": value, "reason": "the model errs", "by": "alice", **options})

    def read(self, **options: Any) -> ModuleRun:
        return self.run(state="read", **options)


@pytest.fixture
def flag(server: RedisServer) -> Flag:
    return Flag(server)


def entries(raw: Any) -> list[dict[str, str]]:
    return [entry for _id, entry in raw.xrange("demo:audit")]


def test_set_keep_change_and_unset(flag: Flag, raw: Any) -> None:
    assert flag.read().must_pass()["flags"] == {}
    off = flag.set(False, run="run1").must_pass()
    assert (off.changed, off["before"], off["after"], off["flags"]) == (True, None, False, {NAME: False})
    assert off["diff"]["before"] == f"{NAME}: (not set)\n"
    assert off["diff"]["after"] == f"{NAME}: false\n"
    assert raw.hgetall("demo:flags") == {NAME: "false"}
    again = flag.set(False).must_pass()
    assert (again.changed, again["at"], "diff" in again.result) == (False, None, False)
    on = flag.set(True, by="bob").must_pass()
    assert (on.changed, on["before"], on["after"]) == (True, False, True)
    gone = flag.run(name=NAME, state="absent", reason="mended").must_pass()
    assert (gone.changed, gone["before"], gone["after"], gone["flags"]) == (True, True, None, {})
    assert not flag.run(name=NAME, state="absent", reason="mended").must_pass().changed
    first, second, third = entries(raw)
    at = off["at"]
    assert first == {"at": at, "what": "flag", "name": NAME, "from": "", "to": "false", "by": "alice",
                     "reason": "the model errs", "run": "run1"}
    assert (second["from"], second["to"], second["by"]) == ("false", "true", "bob")
    assert (third["from"], third["to"], third["reason"]) == ("true", "", "mended")
    assert third["by"].startswith(getpass.getuser())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)


def test_check_mode_foretells_and_changes_nothing(flag: Flag, raw: Any) -> None:
    check, run = flag.set(False, check=True).must_pass(), None
    assert (raw.exists("demo:flags"), raw.exists("demo:audit")) == (0, 0)
    run = flag.set(False).must_pass()
    for name in ("changed", "before", "after", "flags", "diff"):
        assert check[name] == run[name]
    assert (check["at"], run["at"] is not None) == (None, True)
    assert not flag.set(False, check=True).must_pass().changed
    check = flag.run(name=NAME, state="absent", reason="x", check=True).must_pass()
    assert (check.changed, check["flags"]) == (True, {})
    assert len(entries(raw)) == 1


NASTY = ["", "True", "1", "yes", "true ", "x" * 100_000, "\x1b[2J", "{{ x }}", "\ud800"]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value[:8]))
def test_a_value_that_is_no_flag_is_refused_until_it_is_set(flag: Flag, raw: Any, value: str) -> None:
    raw.hset("demo:flags", NAME, value.encode("utf-8", "surrogatepass"))
    run = flag.read(name=NAME).must_fail("true or false", "demo:flags")
    assert len(run["msg"]) < 500
    assert run["msg"].isprintable()
    everything = flag.read().must_pass()
    assert (everything["flags"], list(everything["malformed"])) == ({}, [NAME])
    check, mended = flag.set(True, check=True).must_pass(), flag.set(True).must_pass()
    assert (check.changed, mended.changed, mended["flags"], mended["malformed"]) == (True, True, {NAME: True}, {})
    assert check["before"] == mended["before"]
    assert len(entries(raw)[0]["from"]) <= 64


@pytest.mark.parametrize("value", NASTY[:3])
def test_a_value_that_is_no_flag_can_be_unset(flag: Flag, raw: Any, value: str) -> None:
    raw.hset("demo:flags", NAME, value)
    assert flag.run(name=NAME, state="absent", reason="x").must_pass().changed
    assert (raw.exists("demo:flags"), len(entries(raw))) == (0, 1)


def test_fields_that_are_no_flags_are_shown_and_left(flag: Flag, raw: Any) -> None:
    raw.hset("demo:flags", mapping={"Bad Name\n": "true", "ok": "true", b"\xff": "x"})
    run = flag.set(False).must_pass()
    assert (run["flags"], len(run["malformed"])) == ({"ok": True, NAME: False}, 2)
    assert raw.hget("demo:flags", "Bad Name\n") == "true"


@pytest.mark.parametrize("options", [
    {"name": ""}, {"name": "A"}, {"name": "a b"}, {"name": "a\n"}, {"name": "x" * 65}, {"name": "ž"}, {"fleet": "Demo"},
    {"reason": "a\nb"}, {"reason": "x" * 501}, {"by": "\x1b[2J"}, {"run": "x" * 501}])
def test_impossible_options(flag: Flag, raw: Any, options: dict[str, Any]) -> None:
    for check in (True, False):
        flag.set(False, check=check, **options).must_fail("option ")
    assert list(raw.scan_iter()) == []


def test_name_value_and_reason_are_needed(flag: Flag) -> None:
    for options in ({"name": NAME, "value": True}, {"name": NAME, "reason": "x"}, {"value": True, "reason": "x"},
                    {"state": "absent", "name": NAME}):
        assert flag.run(**options)["failed"]


@pytest.mark.parametrize("key", ["demo:flags", "demo:audit"])
def test_another_applications_key_is_named_and_nothing_is_changed(flag: Flag, raw: Any, key: str) -> None:
    raw.set(key, "mine")
    flag.set(False).must_fail(key, "TYPE")
    assert list(raw.scan_iter()) == [key]


def test_a_hash_that_never_ends_is_refused(flag: Flag, raw: Any) -> None:
    raw.hset("demo:flags", mapping={f"f{number}": "true" for number in range(1001)})
    flag.set(False).must_fail("at most 1000 flags")


def test_the_audit_stream_is_capped(flag: Flag, raw: Any) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in range(12_000):
        pipeline.xadd("demo:audit", {"what": "x", "name": number})
    pipeline.execute()
    flag.set(False).must_pass()
    assert 10_000 <= raw.xlen("demo:audit") < 10_200
    assert entries(raw)[-1]["what"] == "flag"


def test_of_changes_at_the_same_moment_each_has_its_entry(flag: Flag, raw: Any) -> None:
    """Every entry's ``from`` is the one before it's ``to``: change and entry are one step."""
    threads = [threading.Thread(target=flag.set, args=(number % 2 == 0,), kwargs={"by": f"p{number}"})
               for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    told = entries(raw)
    assert [entry["from"] for entry in told] == ["", *(entry["to"] for entry in told[:-1])]
    assert raw.hget("demo:flags", NAME) == told[-1]["to"]


def test_the_password_is_never_shown(flag: Flag, server: RedisServer) -> None:
    for options in ({}, {"redis_url": server.url, "redis_password": None}, {"redis_password": "wrong-but-secret"}):
        output = flag.set(False, **options).output
        assert not [secret for secret in (server.password, "t3st%2F", "wrong-but-secret") if secret in output]
