# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_version_info with hosts: who registers from a host that isn't the fleet's any more."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.version_list import list_versions
from support.registration_entries import A, register


@pytest.mark.parametrize(("hosts", "found"), [
    (["host1"], ["gone"]), (["host1", "gone"], []), ([], ["host1", "gone"]), (None, [])])
def test_hosts_that_are_not_listed(gateway: RedisGateway, raw: Any, hosts: Any, found: list[str]) -> None:
    register(raw, "alpha", "here")
    register(raw, "beta", "there", host="gone", state="fenced")
    register(raw, "beta", "nowhere", host="")
    values = list_versions("demo", gateway, hosts).values
    assert [row["host"] for row in values["strangers"]] == found
    assert values["homeless"] == ["beta:nowhere"]
    assert ("gone: service beta, beta:there" in values["strangers_told"]) == ("gone" in found)
    assert (f"commit {A.sha[:7]}, fenced" in values["strangers_told"]) == ("gone" in found)


def test_what_expires_is_waited_for(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "alpha", "there", 1500, host="gone")
    assert list_versions("demo", gateway, ["host1"]).values["strangers"]
    assert list_versions("demo", gateway, ["host1"], wait=60).values["strangers"] == []


def test_many_are_told_shortly(gateway: RedisGateway, raw: Any) -> None:
    for number in range(30):
        register(raw, "alpha", f"i{number:02}", host="gone")
    said = list_versions("demo", gateway, ["host1"]).values["strangers_told"]
    assert said.endswith("; and 20 more")
    assert said.isprintable()


def test_they_are_refused_where_that_is_asked(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "alpha", "here")
    assert list_versions("demo", gateway, ["host1"], refuse=True).values["strangers"] == []
    register(raw, "beta", "there", 1500, host="gone")
    with pytest.raises(DriftguardError, match="gone: service beta, beta:there") as caught:
        list_versions("demo", gateway, ["host1"], refuse=True)
    assert "-p demo-workers down" in caught.value.remedy
    assert list_versions("demo", gateway, None, refuse=True).values["strangers"] == []
    assert list_versions("demo", gateway, ["host1"], wait=60, refuse=True).values["strangers"] == []


@pytest.mark.parametrize(("row", "is_refused"), [
    ({}, False), ({"host": "host2"}, True), ({"host": "host2", "state": "fenced"}, False), ({"host": "gone"}, False)])
def test_a_singleton_on_another_host_is_refused(
    gateway: RedisGateway, raw: Any, row: dict[str, Any], is_refused: bool,
) -> None:
    register(raw, "beta", "one", **row)
    register(raw, "alpha", "many", host="host2")

    def listed() -> Any:
        return list_versions("demo", gateway, ["host1", "host2"], singletons={"beta": "host1"})

    if is_refused:
        with pytest.raises(DriftguardError, match="host2: service beta, beta:one") as caught:
            listed()
        assert "host1 alone" in caught.value.expected
        assert "rm --stop --force beta" in caught.value.remedy
    else:
        assert listed().values["registrations"]


def test_one_that_expires_is_waited_for_too(gateway: RedisGateway, raw: Any) -> None:
    register(raw, "beta", "one", 1500, host="host2")
    assert list_versions("demo", gateway, ["host1", "host2"], wait=60, singletons={"beta": "host1"})
