# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_release on a fleet: history, rollbacks, lost data, and who may publish."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.record_places import Place
from support.redis_server import RedisServer
from support.releases import release

A, B, C = (release(letter).as_result() for letter in "abc")


# the fleet


def test_history_previous_and_rollback(on_fleet: Place) -> None:
    for generation, target in enumerate((A, B, C), start=1):
        on_fleet.run("rolling", target, generation=generation)
        done = on_fleet.run(
            "settled", target, generation=generation, by="alice\x1b[31m", revisions={"h1": generation}
        ).must_pass()
    assert done["previous"]["release_id"] == B["release_id"]
    assert [entry["generation"] for entry in done["history"]] == [3, 2, 1]
    assert done["history"][0]["revisions"] == {"h1": "3"}
    assert done["history"][0]["by"] == "alice\ufffd[31m"
    assert done["history"][0]["at"].endswith("Z")
    back = on_fleet.run("settled", B, generation=4).must_pass()
    assert back["previous"]["release_id"] == A["release_id"]
    read = on_fleet.run().must_pass()
    assert (read["history"], read["previous"], read["history_unreadable"]) == (back["history"], back["previous"], 0)


def test_a_rolling_release_is_not_in_the_history(on_fleet: Place) -> None:
    on_fleet.run("settled", A, generation=1)
    rolled = on_fleet.run("rolling", B, generation=2).must_pass()
    assert [entry["release_id"] for entry in rolled["history"]] == [A["release_id"]]
    back = on_fleet.run("settled", A, generation=3).must_pass()
    assert back.changed
    assert [entry["release_id"] for entry in back["history"]] == [A["release_id"]]


def test_what_was_allowed_before_is_allowed_again(on_fleet: Place) -> None:
    on_fleet.run("settled", A, generation=1)
    before = on_fleet.run("rolling", B, generation=2).must_pass()["record"]
    on_fleet.run("settled", C, generation=3)
    again = on_fleet.run("rolling", before["target"], allowed=before["allowed"], running=[C], generation=4).must_pass()
    assert again["record"] == {**before, "generation": 4}
    assert not on_fleet.run("rolling", before["target"], allowed=before["allowed"], generation=5).must_pass().changed
    refused = on_fleet.run("rolling", C, allowed=before["allowed"], generation=6).must_fail()
    assert "option allowed" in refused["msg"]


def test_another_revision_of_the_same_release_is_remembered_and_fences_nobody(on_fleet: Place) -> None:
    on_fleet.run("settled", A, generation=1, revisions={"h1": 1})
    again = {"generation": 5, "revisions": {"h1": 5}}
    for check in (True, False):
        run = on_fleet.run("settled", A, check=check, **again).must_pass()
        assert (run.changed, run["record"]["generation"]) == (True, 1)
        assert [entry["revisions"] for entry in run["history"]] == [{"h1": "5"}, {"h1": "1"}]
    assert not on_fleet.run("settled", A, **again).must_pass().changed
    assert not on_fleet.run("settled", A, generation=6).must_pass().changed


def test_after_redis_lost_its_data_what_runs_stays_allowed(on_fleet: Place, server: RedisServer) -> None:
    on_fleet.run("settled", A, generation=7)
    server.flush()
    rolled = on_fleet.run("rolling", B, generation=9, running=[A]).must_pass()
    assert rolled["record"]["allowed"] == [A, B]
    on_fleet.run("settled", B, generation=9).must_pass()
    on_fleet.run("settled", A, generation=8).must_fail("overtaken")


def test_another_s_lease_refuses(on_fleet: Place, raw: Any) -> None:
    raw.set("demo:lock:deploy", json.dumps({"token": "theirs", "number": 3, "owner": "bob@ci2"}))
    refused = on_fleet.run("settled", A, generation=3, token="ours").must_fail("another deploy's lease", "bob@ci2")
    assert "theirs" not in refused.output
    on_fleet.run("settled", A, generation=3, token="theirs").must_pass()


def test_a_mute_user_is_warned_about(on_fleet: Place, raw: Any, server: RedisServer) -> None:
    rules = "on >pw ~demo:* resetchannels +@all"
    raw.execute_command("ACL SETUSER", "mute", *rules.split())
    run = on_fleet.run("settled", A, generation=1, redis_url=server.url_for("mute", "pw"), redis_password="pw")
    assert not run.result.get("failed")
    assert "demo:release:events" in str(run["warnings"])


@pytest.mark.parametrize("value", ["x", "{}", "\x1b[2J", "[" * 9999])
def test_a_record_that_is_none_is_an_error_and_left(on_fleet: Place, raw: Any, value: str) -> None:
    raw.set("demo:release", value)
    for state, target in (("read", None), ("settled", A)):
        run = on_fleet.run(state, target, generation=1).must_fail("DEL demo:release")
        assert "\x1b" not in run["msg"]
    assert raw.get("demo:release") == value


def test_no_password_is_ever_shown(on_fleet: Place, server: RedisServer) -> None:
    secrets = (server.password, "t3st%2Fpass%3Aw%40rd%25")
    for options in (
        {},
        {"redis_url": server.url},
        {"redis_url": server.url, "redis_password": None},
        {"redis_password": "wrong-but-secret"},
    ):
        run = on_fleet.run("read", **options)
        assert not [secret for secret in (*secrets, "wrong-but-secret") if secret in run.output]


def test_redis_down(on_fleet: Place) -> None:
    on_fleet.run(redis_url="redis://127.0.0.1:1/0", redis_timeout=1).must_fail("127.0.0.1:1/0", "a server that answers")
