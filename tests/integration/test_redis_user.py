# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_redis_user: a user that a worker can do all its work with and nothing else, made, kept and taken away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Iterator

import pytest
import redis as redis_py
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fence_run import run_fence
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Result
from ansible_collections.driftguard.workers.plugins.module_utils.record import ReleaseRef, settled
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.redis_user_plan import rules_for, url_for_user
from ansible_collections.driftguard.workers.plugins.module_utils.redis_user_run import run_redis_user
from support.launched import OLD, Launch
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer, running_redis
from support.registration_entries import register
from support.releases import release

A, B = release("a"), release("b")
AGAIN = ReleaseRef(f"{B.release_id[:-1]}1", B.sha)
USER_A, USER_B = f"demo.{A.release_id}", f"demo.{B.release_id}"


@pytest.fixture(scope="module")
def keeper() -> Iterator[RedisServer]:
    """A Redis with an ACL file."""
    with running_redis(keeps_users=True) as started:
        yield started


@pytest.fixture
def admin(keeper: RedisServer) -> Iterator[Any]:
    """A client that may do everything, of a Redis without data and without other users."""
    with keeper.client() as client:
        client.flushall()
        for user in client.execute_command("ACL USERS"):
            if user != "default":
                client.execute_command("ACL DELUSER", user)
        yield client


def run(server: RedisServer, *releases: str, check: bool = False, **options: Any) -> ModuleRun:
    return run_module("worker_redis_user", check, **{
        "fleet": "demo", "releases": list(releases), "user_password": server.password, "redis_url": server.bare_url,
        "redis_password": server.password, **options})


def users(admin: Any) -> list[str]:
    return sorted(set(admin.execute_command("ACL USERS")) - {"default"})


def as_user(server: RedisServer, user: str = USER_A) -> redis_py.Redis:
    return redis_py.Redis(
        host=server.host, port=server.port, username=user, password=server.password, decode_responses=True)


def test_made_kept_and_deleted(keeper: RedisServer, admin: Any) -> None:
    foretold = run(keeper, A.release_id, check=True).must_pass()
    assert (foretold["made"], users(admin)) == ([USER_A], [])
    made = run(keeper, A.release_id).must_pass()
    assert (made.changed, made["made"], users(admin)) == (True, [USER_A], [USER_A])
    assert keeper.password not in made.output
    assert not run(keeper, A.release_id).must_pass().changed
    keeper.restart()
    assert as_user(keeper).set("demo:x", 1), "it outlives a restart"
    for spoiled in (["off"], [">another"], ["~*"], ["+@dangerous"], ["nopass"], ["-get"], ["&*"]):
        admin.execute_command("ACL SETUSER", USER_A, *spoiled)
        assert run(keeper, A.release_id).must_pass().changed, spoiled
        assert not run(keeper, A.release_id).must_pass().changed, spoiled
    assert run(keeper, A.release_id, state="absent", check=True).must_pass()["removed"] == [USER_A]
    assert users(admin) == [USER_A]
    assert run(keeper, A.release_id, state="absent").must_pass().changed
    assert (users(admin), run(keeper, A.release_id, state="absent").must_pass().changed) == ([], False)


def test_its_rights_end_at_its_fleet(keeper: RedisServer, admin: Any) -> None:
    services = {"ocr": {"environment": {"BULLMQ_PREFIX": "bull"}, "memory": "64M"}}
    run(keeper, A.release_id, services=services).must_pass()
    with as_user(keeper) as client:
        assert client.set("demo:x", 1)
        assert client.set("bull:x", 1)
        assert client.info("server")
        assert client.publish("demo:release:events", "x") == 0
        for denied in (
            ["GET", "demo2:x"], ["GET", "other"], ["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["ACL", "LIST"],
            ["PUBLISH", "other", "x"], ["SHUTDOWN"], ["CLIENT", "KILL", "TYPE", "normal"], ["SWAPDB", "0", "1"],
        ):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.execute_command(*denied)


def test_a_connection_that_waits_is_cut_and_can_not_come_back(keeper: RedisServer, admin: Any) -> None:
    run(keeper, A.release_id, B.release_id).must_pass()
    with as_user(keeper) as stays, as_user(keeper, USER_B) as waits:
        stays.ping()
        connection = waits.connection_pool.get_connection()
        connection.send_command("BLPOP", "demo:jobs", 0)
        run(keeper, B.release_id, state="absent").must_pass()
        with pytest.raises(redis_py.ConnectionError):
            connection.read_response()
        with pytest.raises(redis_py.AuthenticationError):
            waits.ping()
        assert stays.ping()


def test_only_releases_that_the_record_does_not_allow_are_pruned(keeper: RedisServer, admin: Any) -> None:
    admin.execute_command("ACL SETUSER", "demo.somebody")
    admin.execute_command("ACL SETUSER", f"other.{B.release_id}")
    run(keeper, A.release_id, B.release_id).must_pass()
    run(keeper, state="pruned").must_fail("the fleet's record")
    RedisGateway.connect(keeper.url).publish_record(settled(None, "demo", A, 7))
    register(admin, "ocr", "aaaaaaaaaaaa", ttl_ms=1500, gitSha=B.sha, releaseId=B.release_id)
    services = {"ocr": {"drain_time": "60s", "stop_grace_period": "70s", "memory": "64M"}}
    assert run(keeper, state="pruned", services=services).must_pass()["removed"] == [USER_B]
    assert not admin.exists("demo:worker:ocr:aaaaaaaaaaaa:version"), "its last instance had the time to end"
    assert users(admin) == sorted([USER_A, "demo.somebody", f"other.{B.release_id}"])
    assert not run(keeper, state="pruned").must_pass().changed


def test_an_instance_that_stays_is_cut_when_its_drain_time_is_over(keeper: RedisServer, admin: Any) -> None:
    run(keeper, A.release_id, B.release_id).must_pass()
    RedisGateway.connect(keeper.url).publish_record(settled(None, "demo", A, 7))
    register(admin, "ocr", "aaaaaaaaaaaa", ttl_ms=60_000, gitSha=B.sha, releaseId=B.release_id)
    services = {"ocr": {"drain_time": "1s", "memory": "64M"}}
    assert run(keeper, state="pruned", services=services).must_pass()["removed"] == [USER_B]
    assert admin.exists("demo:worker:ocr:aaaaaaaaaaaa:version")


def pruned_while(keeper: RedisServer, admin: Any, later: int) -> Result:
    """What deploy 7, which went to A, prunes when B is published again while it waits for an instance of B to end."""
    gateway = RedisGateway.connect(keeper.url)
    run(keeper, A.release_id, B.release_id).must_pass()
    gateway.publish_record(settled(None, "demo", A, 7))
    register(admin, "ocr", "aaaaaaaaaaaa", ttl_ms=600_000, gitSha=B.sha, releaseId=B.release_id)

    def meanwhile(_seconds: float) -> None:
        gateway.publish_record(settled(None, "demo", B, later))
        admin.delete("demo:worker:ocr:aaaaaaaaaaaa:version")

    options = {
        "fleet": "demo", "state": "pruned", "services": {"ocr": {"drain_time": "60s", "stop_grace_period": "70s"}},
        "defaults": {"memory": "64M"}, "generation": 7, "redis_url": keeper.bare_url,
        "redis_password": keeper.password, "redis_ca_file": None, "redis_timeout": 5.0}
    return run_redis_user(SimpleNamespace(params=options, check_mode=False, no_log_values=set()), meanwhile)


def test_a_release_that_is_back_when_the_wait_is_over_keeps_its_user(keeper: RedisServer, admin: Any) -> None:
    found = pruned_while(keeper, admin, later=7)  # by the same number: the record alone tells it
    assert (found.changed, found.values["removed"], users(admin)) == (False, [], sorted([USER_A, USER_B]))


def test_a_deploy_that_is_overtaken_while_it_waits_deletes_no_user(keeper: RedisServer, admin: Any) -> None:
    with pytest.raises(DriftguardError, match="no deploy after number 7; found deploy number 8"):
        pruned_while(keeper, admin, later=8)
    assert users(admin) == sorted([USER_A, USER_B])


def test_a_number_overtakes_before_a_record_says_what_it_is_for(keeper: RedisServer, admin: Any) -> None:
    run(keeper, A.release_id, B.release_id).must_pass()
    RedisGateway.connect(keeper.url).publish_record(settled(None, "demo", A, 7))
    admin.set("demo:generation", 8)
    for check in (True, False):
        run(keeper, state="pruned", generation=7, check=check).must_fail("deploy number 8", "no user was deleted")
    assert users(admin) == sorted([USER_A, USER_B])
    assert run(keeper, state="pruned", generation=8).must_pass()["removed"] == [USER_B]


@pytest.mark.parametrize("back", [B, AGAIN], ids=["the release", "its commit, built anew"])
def test_a_fence_cuts_off_nothing_that_is_allowed_again(keeper: RedisServer, admin: Any, back: ReleaseRef) -> None:
    gateway = RedisGateway.connect(keeper.url)
    run(keeper, B.release_id).must_pass()
    gateway.publish_record(settled(None, "demo", B, 7))
    register(admin, "ocr", "aaaaaaaaaaaa", ttl_ms=600_000, gitSha=B.sha, releaseId=B.release_id)

    def meanwhile(_seconds: float) -> None:
        gateway.publish_record(settled(None, "demo", back, 9))
        register(admin, "ocr", "aaaaaaaaaaaa", ttl_ms=600_000, gitSha=back.sha, releaseId=back.release_id)

    options = {
        "fleet": "demo", "release": B.release_id, "by": "ann", "reason": "", "run": "", "timeout": 0.2, "floor": 0,
        "cut_off": True, "redis_url": keeper.bare_url, "redis_password": keeper.password, "redis_ca_file": None,
        "redis_timeout": 5.0}
    module = SimpleNamespace(params=options, check_mode=False, no_log_values=set(), warn=pytest.fail)
    found = run_fence(module, meanwhile).values
    assert (found["users_removed"], users(admin)) == ([], [USER_B])
    assert [row["verdict"] for row in found["unconfirmed"]] == ["RUNNING"]


def test_a_server_that_forgets_its_users_is_refused(redis_server: RedisServer) -> None:
    for check in (True, False):
        run(redis_server, A.release_id, check=check).must_fail("an ACL file", "set aclfile")
    with redis_server.client() as client:
        assert client.execute_command("ACL USERS") == ["default"]


@pytest.mark.parametrize("rules", ["+@all -acl", "+@all -@admin", "+@all -config"])
def test_a_control_user_that_may_not_manage_users_is_refused(keeper: RedisServer, admin: Any, rules: str) -> None:
    admin.execute_command("ACL SETUSER", "control", "on", f">{keeper.password}", "~*", "&*", *rules.split())
    found = run(keeper, A.release_id, redis_url=keeper.url_for().replace("//", "//control@"))
    found.must_fail("may manage users", "worker_redis_control_url")
    assert users(admin) == ["control"]


@pytest.mark.parametrize(("options", "said"), [
    ({"releases": ["latest"]}, "option releases"), ({"fleet": "No"}, "option fleet"),
    ({"user_password": ""}, "worker_redis_password"),
    ({"services": {"ocr": {"memory": "64M", "environment": {"BULLMQ_PREFIX": "*"}}}}, "BULLMQ_PREFIX"),
])
def test_bad_options_make_no_user(keeper: RedisServer, admin: Any, options: dict[str, Any], said: str) -> None:
    run(keeper, A.release_id, **options).must_fail(said)
    assert users(admin) == []


@pytest.mark.parametrize("prefix", ["*", "a*b", "a?", "[a]", "", "a b", "~x", "a\n"])
def test_a_prefix_that_is_a_pattern_is_refused(prefix: str) -> None:
    with pytest.raises(DriftguardError, match="BULLMQ_PREFIX"):
        rules_for("demo", A.release_id, [prefix], "password")


def test_the_url_gets_the_user_and_no_second_one() -> None:
    assert url_for_user("demo", "rediss://h:1/2?db=3", A.release_id) == f"rediss://{USER_A}@h:1/2?db=3"
    with pytest.raises(DriftguardError, match="worker_redis_url"):
        url_for_user("demo", "redis://me@h:1/2", A.release_id)


def test_the_runtime_works_and_parks_as_that_user(keeper: RedisServer, admin: Any, tmp_path: Any) -> None:
    """Admission, jobs, events, registration and parking, with the rights of the user alone."""
    run(keeper, OLD.release_id).must_pass()
    host = Launch(tmp_path, keeper)
    host.publish(OLD)
    url = keeper.bare_url.replace("//", f"//demo.{OLD.release_id}@")
    with host.worker(REDIS_URL=url, REDIS_PASSWORD_FILE=str(keeper.password_file)) as worker:
        host.until("running")
        assert host.result(host.add({"x": 1}))["did"] == {"x": 1}
        host.publish(release("c"))
        host.until("fenced")
        assert "NOPERM" not in worker.text
        assert "permission" not in worker.text
