# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hard fence through the playbooks: workers that obey nothing lose their Redis user, by a deploy and by a fence."""

from __future__ import annotations

from typing import Any, Iterator
from urllib.parse import urlsplit

import pytest
import redis as redis_py
from support.fleet import Fleet, FleetRedis, some_fleet, wait_for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def hard(
    tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str,
) -> Iterator[Fleet]:
    """A fleet whose releases have users of their own, in a Redis that keeps them."""
    gateway = str(urlsplit(fleet_redis.workers_url).hostname)
    redis = FleetRedis(tmp_path_factory.mktemp("redis"), gateway, keeps_users=True)
    try:
        with some_fleet(tmp_path_factory.mktemp("hard"), redis, base_reference) as made:
            made.variables["worker_redis_user_per_release"] = True
            yield made
    finally:
        redis.stop()


def users(fleet: Fleet) -> set[str]:
    return set(fleet.redis.client.execute_command("ACL USERS")) - {"default"}


def user_of(fleet: Fleet) -> str:
    """The user that its containers log in as."""
    (url,) = {value for container in fleet.containers() for value in container.attrs["Config"]["Env"]
              if value.startswith("REDIS_URL=")}
    return str(url.partition("//")[2].partition("@")[0])


class Stale:
    """A worker that nobody finds: it waits for jobs and obeys nothing."""

    def __init__(self, fleet: Fleet, user: str) -> None:
        self.client = redis_py.Redis(
            host="127.0.0.1", port=fleet.redis.port, username=user, password=fleet.redis.password)
        self._connection: Any = self.client.connection_pool.get_connection()
        send: Any = self._connection.send_command
        send("BLPOP", f"{fleet.name}:jobs", 0)

    def is_cut_off(self) -> bool:
        """Its waiting connection is gone, and there is no other."""
        with pytest.raises(redis_py.ConnectionError):
            self._connection.read_response()
        with pytest.raises(redis_py.AuthenticationError):
            self.client.ping()
        return True


def test_a_deploy_cuts_off_what_it_does_not_find(hard: Fleet) -> None:
    hard.commit()
    hard.deploy().must_pass()
    first = user_of(hard)
    assert first.startswith(f"{hard.name}.")
    assert users(hard) == {first}
    assert hard.deploy().must_pass().changed == 0
    stale = Stale(hard, first)
    hard.commit()
    hard.deploy().must_pass()
    assert users(hard) == {user_of(hard)} != {first}
    assert stale.is_cut_off()
    # As a run leaves it that was killed before it came to that: the next one finds every host as it should be.
    rights = ("on", f">{hard.redis.password}", f"~{hard.name}:*", "+@all")
    hard.redis.client.execute_command("ACL SETUSER", first, *rights)
    stale = Stale(hard, first)
    ids = hard.ids()
    hard.deploy().must_pass()
    assert hard.ids() == ids
    assert users(hard) == {user_of(hard)}
    assert stale.is_cut_off()


def test_a_fence_cuts_off_who_has_not_confirmed_and_a_rollback_has_its_user_again(hard: Fleet) -> None:
    (bad,) = hard.shas()
    user, ids = user_of(hard), hard.ids()
    stale = Stale(hard, user)
    options = ("-e", f"worker_fence_release={bad}", "-e", "worker_fence_timeout=1")
    run = hard.play("fence-workers.yml", *options).must_pass()
    assert run.output.count("[CUT OFF]") == 3
    assert users(hard) == set()
    assert stale.is_cut_off()
    assert hard.ids() == ids
    assert hard.evidence()[-1]["hosts"]["here"]["fence"]["users_removed"] == [user]
    # What died of it is refused by its host's record; what lives on elsewhere by Redis, as the stale one.
    refused = "does not allow this release"
    wait_for(lambda: all(refused in one.logs().decode() for one in hard.containers()), "them to be refused", 30)
    hard.play("rollback-workers.yml").must_pass()
    assert users(hard) == {user_of(hard)} != {user}
    hard.prove().must_pass()


def test_nothing_is_touched_where_users_would_vanish(hard: Fleet) -> None:
    hard.variables["worker_redis_url"] = hard.variables["worker_redis_url"].replace("//", "//me@")
    before = hard.ids(), users(hard)
    hard.deploy("--check").must_fail("worker_redis_url", "take the user out")
    assert (hard.ids(), users(hard)) == before
