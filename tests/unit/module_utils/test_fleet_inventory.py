# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet over its hosts: each in exactly one batch, each service somewhere, and every mistake with its host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_inventory import FleetPlan, batched, plan_fleet
from hypothesis import given
from hypothesis import strategies as st

SERVICES: dict[str, Any] = {"extractor": {"replicas": 2}, "ocr": None, "sentinel": {"singleton": True}}
HOSTS: dict[str, Any] = {"a": None, "b": ["extractor", "ocr"], "c": ["ocr"]}


def plan(**changes: Any) -> FleetPlan:
    return plan_fleet(**{
        "fleet": "demo", "group": "workers", "hosts": HOSTS, "services": SERVICES, "defaults": {"memory": "64M"},
        "batches": ["1", "25%", "100%"], "selected": [], "single_engine": False, **changes})


def refused(**changes: Any) -> DriftguardError:
    with pytest.raises(DriftguardError) as error:
        plan(**changes)
    assert all((error.value.expected, error.value.found, error.value.remedy))
    return error.value


def test_who_runs_what_and_in_which_order() -> None:
    assert plan() == FleetPlan(
        (("a",), ("b",), ("c",)),
        {"a": ("extractor", "ocr", "sentinel"), "b": ("extractor", "ocr"), "c": ("ocr",)}, 2 + 1 + 1 + 2 + 1 + 1,
        {"sentinel": "a"})


@pytest.mark.parametrize("everything", [None, False])
def test_a_host_without_a_placement_runs_everything(everything: Any) -> None:
    assert plan(hosts={"a": everything}).placement == {"a": ("extractor", "ocr", "sentinel")}


@pytest.mark.parametrize(("changes", "subject", "said"), [
    ({"hosts": {}}, "inventory group workers", "at least one host"),
    ({"hosts": None, "group": "wrokers"}, "inventory group wrokers", "-e worker_group"),
    ({"hosts": {"a": None, "b": []}}, "fleet demo, host b, worker_placement", "at least one service"),
    ({"hosts": {"a": None, "b": ["ocrr"]}}, "fleet demo, host b, worker_placement", "'ocrr'"),
    ({"hosts": {"a": None, "b": "ocr"}}, "fleet demo, host b, worker_placement", "a list of service names"),
    ({"hosts": {"a": None, "b": [["ocr"]]}}, "fleet demo, host b, worker_placement", "a list of 1"),
    ({"hosts": {"a": True}}, "fleet demo, host a, worker_placement", "True"),
    ({"hosts": {"a": ["ocr", "sentinel"]}}, "fleet demo, service extractor", "a host that runs it"),
    ({"hosts": {"a": None, "b": None}}, "fleet demo, service sentinel", "a singleton; found a, b"),
    ({"single_engine": True}, "fleet demo", "3 hosts and no registry"),
    ({"selected": ["ocr", "nobody"]}, "fleet demo, worker_services", "nobody"),
    ({"fleet": "Demo"}, "worker_fleet", "rename the fleet"),
    ({"services": {}}, "fleet demo, worker_fleet_services", "README"),
    ({"batches": ["some"]}, "worker_batches", "'some'"),
])
def test_mistakes_are_named_with_their_place(changes: dict[str, Any], subject: str, said: str) -> None:
    error = refused(**changes)
    assert error.subject == subject
    assert said in str(error)


def test_one_host_needs_no_registry() -> None:
    assert plan(hosts={"a": None}, single_engine=True).batches == (("a",),)


@pytest.mark.parametrize(("count", "sizes", "batches"), [
    (5, [], [5]), (5, ["1"], [1, 1, 1, 1, 1]), (5, ["1", "25%", "100%"], [1, 2, 2]), (1, ["25%"], [1]),
    (8, ["1", 3], [1, 3, 3, 1]),
    (100, ["7%"], [7] * 14 + [2]), (3, ["100%"], [3]), (3, ["999%"], [3]), (3, [9], [3]), (4, [" 2 "], [2, 2]),
    (4, ["02"], [2, 2]),
    (10, ["1%"], [1] * 10), (0, ["1"], []),
])
def test_batches(count: int, sizes: list[Any], batches: list[int]) -> None:
    assert [len(batch) for batch in batched([str(number) for number in range(count)], sizes)] == batches


@pytest.mark.parametrize(
    "size", [0, "0", "0%", -1, "-1", "1.5", 1.5, "", "%", "1 %", None, True, [], {}, "٣", "1e2", "9" * 7, "all"]
)
def test_what_is_no_size_of_a_batch(size: Any) -> None:
    with pytest.raises(DriftguardError, match="worker_batches"):
        batched(["a"], ["1", size])


@given(
    st.lists(st.integers(), unique=True), st.lists(st.integers(1, 9) | st.integers(1, 200).map(lambda part: f"{part}%"))
)
def test_every_host_is_in_one_batch_and_keeps_its_place(hosts: list[int], sizes: list[Any]) -> None:
    names = [str(host) for host in hosts]
    batches = batched(names, sizes)
    assert [host for batch in batches for host in batch] == names
    assert all(batches)
