# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_release on a real Redis and a real directory: what it predicts, what it does, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import render_env, render_json, settled
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer, running_redis
from support.releases import release

A, B, C = (release(letter).as_result() for letter in "abc")


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


class Place:
    """The fleet's record or a host's, behind the same module."""

    def __init__(self, root: Path, scope: str, redis: dict[str, str], raw: Any) -> None:
        self.root = root
        self._scope = scope
        self._redis = redis
        self._raw = raw

    def run(self, state: str = "read", target: dict[str, str] | None = None, **options: Any) -> ModuleRun:
        given = {
            "fleet": "demo",
            "root": str(self.root),
            "scope": self._scope,
            "state": state,
            **self._redis,
            **options,
        }
        return run_module("worker_release", **given, **({"target": target} if target else {}))

    def contents(self) -> dict[str, Any]:
        """Everything that there is but the lock files, to see whether anything changed."""
        paths = [path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("lock")]
        keys = list(self._raw.scan_iter())
        return {**{str(path): path.read_bytes() for path in paths}, **{key: self._raw.dump(key) for key in keys}}


@pytest.fixture
def host(tmp_path: Path, raw: Any) -> Place:
    return Place(tmp_path, "host", {}, raw)


@pytest.fixture
def fleet(tmp_path: Path, server: RedisServer, raw: Any) -> Place:
    return Place(tmp_path, "fleet", {"redis_url": server.bare_url, "redis_password": server.password}, raw)


@pytest.fixture(params=["host", "fleet"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


# on either


def test_nothing_there(place: Place) -> None:
    found = place.run().must_pass()
    assert (found.changed, found["before"], found["record"], found["generation_next"]) == (False, None, None, 1)


DEPLOYS: list[tuple[str, dict[str, str], list[dict[str, str]]]] = [
    ("rolling", A, [A]),
    ("settled", A, [A]),
    ("rolling", B, [A, B]),
    ("settled", B, [B]),
    ("settled", A, [A]),
]


def test_check_run_check_run_agree_through_a_life(place: Place) -> None:
    for generation, (state, target, allowed) in enumerate(DEPLOYS, start=1):
        asked = {"state": state, "target": target, "generation": generation, "run": f"run{generation}", "by": "me"}
        before = place.contents()
        foretold = place.run(check=True, **asked).must_pass()
        assert place.contents() == before
        done = place.run(**asked).must_pass()
        for run in (foretold, done):
            assert run.changed
            assert run["record"] == {
                "fleet": "demo",
                "generation": generation,
                "phase": state,
                "target": target,
                "allowed": allowed,
            }
        assert {**foretold.result, "generation_next": 0, "history": 0, "previous": 0} == {
            **done.result,
            "generation_next": 0,
            "history": 0,
            "previous": 0,
            "invocation": foretold["invocation"],
        }
        assert place.contents() != before
        after = place.contents()
        for check in (True, False):
            again = place.run(check=check, **{**asked, "generation": generation}).must_pass()
            assert (again.changed, again["before"], again["record"]) == (False, done["record"], done["record"])
            assert "diff" not in again.result
        assert place.contents() == after
        assert place.run().must_pass()["record"] == done["record"]


def test_the_diff_is_the_record_before_and_after(place: Place) -> None:
    place.run("settled", A, generation=1)
    diff = place.run("rolling", B, generation=2).must_pass()["diff"]
    assert json.loads(diff["before"])["allowed"] == [release("a").as_json()]
    assert json.loads(diff["after"])["allowed"] == [release("a").as_json(), release("b").as_json()]


def test_a_redeploy_leaves_the_generation(place: Place) -> None:
    place.run("settled", A, generation=1)
    for state in ("rolling", "settled"):
        again = place.run(state, A, generation=9).must_pass()
        assert (again.changed, again["record"]["generation"]) == (False, 1)


def test_what_runs_decides_what_stays_allowed(place: Place) -> None:
    place.run("settled", A, generation=1)
    place.run("rolling", B, generation=2)
    kept = place.run("rolling", C, generation=3, running=[A, B], check=True).must_pass()
    assert kept["record"]["allowed"] == [A, B, C]
    dropped = place.run("rolling", C, generation=3, running=[A]).must_pass()
    assert dropped["record"]["allowed"] == [A, C]


@pytest.mark.parametrize("check", [True, False])
def test_an_overtaken_deploy_is_refused(place: Place, check: bool) -> None:
    place.run("settled", A, generation=7, run="late").must_pass()
    before = place.contents()
    place.run("rolling", B, generation=6, run="early", check=check).must_fail("number 6", "number 7", "overtaken")
    assert place.contents() == before


@pytest.mark.parametrize("generation", [0, -1, 10**15 + 1])
def test_an_impossible_number_is_refused(place: Place, generation: int) -> None:
    place.run("settled", A, generation=generation).must_fail("option generation")
    assert place.contents() == {}


@pytest.mark.parametrize(
    "target",
    [
        {"release_id": "latest", "sha": A["sha"]},
        {"release_id": A["release_id"], "sha": B["sha"]},
        {"release_id": A["release_id"], "sha": A["sha"][:7]},
        {"release_id": "", "sha": ""},
        {"release_id": A["release_id"] + "\n", "sha": A["sha"]},
    ],
)
def test_what_is_no_release_is_refused(place: Place, target: dict[str, str]) -> None:
    place.run("rolling", target, generation=1).must_fail("option target")
    place.run("rolling", A, generation=1, running=[target]).must_fail("option running")
    assert place.contents() == {}


@pytest.mark.parametrize("name", ["../demo", "Demo", "", "d", "demo*"])
def test_what_is_no_fleet_is_refused(place: Place, name: str) -> None:
    place.run("settled", A, generation=1, fleet=name).must_fail("option fleet")
    assert place.contents() == {}


@pytest.mark.parametrize(
    "options",
    [
        {"state": "rolling"},
        {"state": "settled", "generation": 1},
        {"state": "rolling", "target": A},
        {"state": "gone"},
    ],
)
def test_half_a_question_is_refused(place: Place, options: dict[str, Any]) -> None:
    run = place.run(**options)
    assert run["failed"]
    assert "Traceback" not in run.output


def test_the_fleet_s_record_needs_a_redis(host: Place) -> None:
    run = host.run(scope="fleet")
    assert run["failed"]
    assert "redis_url" in run["msg"]


# a host


def test_a_host_s_files_are_what_the_guards_read(host: Place) -> None:
    host.run("settled", A, generation=3).must_pass()
    record = settled(None, "demo", release("a"), 3)
    guard = host.root / "demo" / "guard"
    assert {path.name: path.read_text() for path in guard.iterdir()} == {
        "guard.json": render_json(record),
        "guard.env": render_env(record),
    }
    assert (host.root / "demo" / "state" / "fence").read_text() == "3 \n"


def test_a_no_op_still_keeps_earlier_deploys_out(host: Place) -> None:
    host.run("settled", A, generation=3, run="first").must_pass()
    assert not host.run("settled", A, generation=5, run="second").must_pass().changed
    host.run("settled", B, generation=4, run="third").must_fail("number 5 was there")


def test_another_deploy_with_the_same_number_is_refused(host: Place) -> None:
    host.run("settled", A, generation=3, run="first").must_pass()
    host.run("settled", B, generation=3, run="second").must_fail("first's")


@pytest.mark.parametrize(
    "damage", ["", "{", "\0", render_json(settled(None, "demo", release("c"), 1)).replace("demo", "x1")]
)
def test_a_damaged_record_is_reported_and_mended(host: Place, damage: str) -> None:
    host.run("settled", A, generation=1)
    path = host.root / "demo" / "guard" / "guard.json"
    path.write_text(damage)
    found = host.run().must_pass()
    assert (found.changed, found["record"]) == (False, None)
    assert "guard.json" in found["problem"]
    assert path.read_text() == damage
    mended = host.run("settled", A, generation=2).must_pass()
    assert mended.changed
    assert "guard.json" in mended["problem"]
    assert not host.run("settled", A, generation=2).must_pass().changed
    assert host.run()["problem"] == ""


def test_files_that_disagree_are_mended_although_the_record_stays(host: Place) -> None:
    host.run("settled", A, generation=1)
    env = host.root / "demo" / "guard" / "guard.env"
    before = env.read_text()
    env.write_text(before.replace("a", "b"))
    assert "guard.env" in host.run().must_pass()["problem"]
    for check in (True, False):
        run = host.run("settled", A, generation=2, check=check).must_pass()
        assert (run.changed, run["record"]["generation"]) == (True, 1)
    assert env.read_text() == before
    assert not host.run("settled", A, generation=2).must_pass().changed


def test_a_host_that_another_run_works_on_is_waited_for_and_its_holder_named(host: Place) -> None:
    with HostRecords(host.root, "demo").lock("the other run", 0):
        host.run("settled", A, generation=1, lock_wait=0.2).must_fail("run the other run", "within 0.2 s")
    host.run("settled", A, generation=1, lock_wait=0.2).must_pass()


def test_a_root_that_cannot_be_written(host: Place) -> None:
    (host.root / "demo").write_text("a file where the directory should be")
    host.run("settled", A, generation=1).must_fail(str(host.root / "demo"))


def test_a_host_needs_no_redis_library(host: Place) -> None:
    """The module is sent to hosts that reach no Redis and have no library for it."""
    run = host.run("settled", A, generation=1)
    assert not run.must_pass()["invocation"]["module_args"]["redis_url"]


# the fleet


def test_history_previous_and_rollback(fleet: Place) -> None:
    for generation, target in enumerate((A, B, C), start=1):
        fleet.run("rolling", target, generation=generation)
        done = fleet.run(
            "settled", target, generation=generation, by="alice\x1b[31m", revisions={"h1": generation}
        ).must_pass()
    assert done["previous"]["release_id"] == B["release_id"]
    assert [entry["generation"] for entry in done["history"]] == [3, 2, 1]
    assert done["history"][0]["revisions"] == {"h1": "3"}
    assert done["history"][0]["by"] == "alice\ufffd[31m"
    assert done["history"][0]["at"].endswith("Z")
    back = fleet.run("settled", B, generation=4).must_pass()
    assert back["previous"]["release_id"] == A["release_id"]
    read = fleet.run().must_pass()
    assert (read["history"], read["previous"], read["history_unreadable"]) == (back["history"], back["previous"], 0)


def test_a_rolling_release_is_not_in_the_history(fleet: Place) -> None:
    fleet.run("settled", A, generation=1)
    rolled = fleet.run("rolling", B, generation=2).must_pass()
    assert [entry["release_id"] for entry in rolled["history"]] == [A["release_id"]]
    back = fleet.run("settled", A, generation=3).must_pass()
    assert back.changed
    assert [entry["release_id"] for entry in back["history"]] == [A["release_id"]]


def test_another_revision_of_the_same_release_is_remembered_and_fences_nobody(fleet: Place) -> None:
    fleet.run("settled", A, generation=1, revisions={"h1": 1})
    again = {"generation": 5, "revisions": {"h1": 5}}
    for check in (True, False):
        run = fleet.run("settled", A, check=check, **again).must_pass()
        assert (run.changed, run["record"]["generation"]) == (True, 1)
        assert [entry["revisions"] for entry in run["history"]] == [{"h1": "5"}, {"h1": "1"}]
    assert not fleet.run("settled", A, **again).must_pass().changed
    assert not fleet.run("settled", A, generation=6).must_pass().changed


def test_after_redis_lost_its_data_what_runs_stays_allowed(fleet: Place, server: RedisServer) -> None:
    fleet.run("settled", A, generation=7)
    server.flush()
    rolled = fleet.run("rolling", B, generation=9, running=[A]).must_pass()
    assert rolled["record"]["allowed"] == [A, B]
    fleet.run("settled", B, generation=9).must_pass()
    fleet.run("settled", A, generation=8).must_fail("overtaken")


def test_another_s_lease_refuses(fleet: Place, raw: Any) -> None:
    raw.set("demo:lock:deploy", json.dumps({"token": "theirs", "number": 3}))
    fleet.run("settled", A, generation=3, token="ours").must_fail("theirs")
    fleet.run("settled", A, generation=3, token="theirs").must_pass()


def test_a_mute_user_is_warned_about(fleet: Place, raw: Any, server: RedisServer) -> None:
    rules = "on >pw ~demo:* resetchannels +@all"
    raw.execute_command("ACL SETUSER", "mute", *rules.split())
    run = fleet.run("settled", A, generation=1, redis_url=server.url_for("mute", "pw"), redis_password="pw")
    assert not run.result.get("failed")
    assert "demo:release:events" in str(run["warnings"])


@pytest.mark.parametrize("value", ["x", "{}", "\x1b[2J", "[" * 9999])
def test_a_record_that_is_none_is_an_error_and_left(fleet: Place, raw: Any, value: str) -> None:
    raw.set("demo:release", value)
    for state, target in (("read", None), ("settled", A)):
        run = fleet.run(state, target, generation=1).must_fail("DEL demo:release")
        assert "\x1b" not in run["msg"]
    assert raw.get("demo:release") == value


def test_no_password_is_ever_shown(fleet: Place, server: RedisServer) -> None:
    secrets = (server.password, "t3st%2Fpass%3Aw%40rd%25")
    for options in (
        {},
        {"redis_url": server.url},
        {"redis_url": server.url, "redis_password": None},
        {"redis_password": "wrong-but-secret"},
    ):
        run = fleet.run("read", **options)
        assert not [secret for secret in (*secrets, "wrong-but-secret") if secret in run.output]


def test_redis_down(fleet: Place) -> None:
    fleet.run(redis_url="redis://127.0.0.1:1/0", redis_timeout=1).must_fail("127.0.0.1:1/0", "a server that answers")
