# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner leads from any state to exactly the wanted one, touches nothing right, and then has nothing to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import Container
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_plan import (
    CREATE,
    KEEP,
    RECREATE,
    REMOVE,
    Plan,
    plan_rollout,
)
from ansible_collections.driftguard.workers.plugins.module_utils.verdicts import container_problem
from hypothesis import given
from hypothesis import strategies as st
from support.containers import PROJECT, container, wanted

OLD = {"image_id": "sha256:" + "b" * 64}
FLAWS: list[dict[str, Any]] = [
    {}, {}, {}, OLD, {"status": "exited"}, {"status": "restarting"}, {"health": "unhealthy"}, {"memory": 1},
    {"restart_policy": "no"}, {"changes": ("/work/x",)}, {"mounts": ("/opt/driftguard/guard", "/work")},
    {"environment": {"GIT_SHA": "f" * 40}}, {"labels": {"io.driftguard.spec": "old"}}, {"name": "0123456789ab_x"},
    {"project": "elsewhere"}, {"labels": {"com.docker.compose.oneoff": "True"}},
]


def plan(containers: Sequence[Container], services: dict[str, int], **options: Any) -> Plan:
    return plan_rollout(PROJECT, {name: wanted(name, count) for name, count in services.items()}, containers, **options)


def actions(made: Plan) -> list[tuple[str, str]]:
    return [(step.action, step.reason) for step in made.steps]


def test_what_is_missing_is_created() -> None:
    made = plan([], {"extractor": 2, "ocr": 1})
    assert actions(made) == [(CREATE, "missing")] * 3
    assert made.services_to_start() == ["extractor", "ocr"]
    assert made.text() == "extractor: create (missing)\nextractor: create (missing)\nocr: create (missing)\n"


def test_what_is_right_is_kept() -> None:
    made = plan([container()], {"extractor": 1})
    assert actions(made) == [(KEEP, "as wanted")]
    assert (made.changes, made.services_to_start(), made.text()) == ([], [], "")


@pytest.mark.parametrize(("changes", "reason"), [
    (OLD, "STALE: runs image bbbbbbbbbbbb (0123456), not aaaaaaaaaaaa"),
    ({"labels": {"io.driftguard.spec": "old"}}, "configuration changed"),
    ({"memory": 5}, "memory limit is 5 bytes, not 67108864"),
    ({"restart_policy": "no"}, "restart policy is no, not always"),
    ({"status": "exited"}, "STOPPED: exited (restart policy always): it may revive"),
])
def test_what_is_wrong_is_recreated_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    assert actions(plan([container(**changes)], {"extractor": 1})) == [(RECREATE, reason)]


def test_one_wrong_replica_costs_its_siblings_nothing() -> None:
    replicas = [container("a", number=1), container("b", number=2), container("c", number=3, **OLD)]
    made = plan(replicas, {"extractor": 3})
    assert [(step.action, step.container.id) for step in made.steps if step.container] == [
        (KEEP, "a"), (KEEP, "b"), (RECREATE, "c")
    ]


def test_surplus_replicas_go_from_the_end_and_wrong_ones_first() -> None:
    four = [container(name, number=number) for number, name in enumerate("abcd", 1)]
    four[0] = replace(four[0], health="unhealthy")
    made = plan(four, {"extractor": 2})
    assert [(step.action, step.container.id) for step in made.steps if step.container] == [
        (KEEP, "b"), (KEEP, "c"), (REMOVE, "d"), (REMOVE, "a")]


@pytest.mark.parametrize(("changes", "reason"), [
    ({"project": "old-project"}, "of project old-project"), ({"project": ""}, "started by hand"),
    ({"service": "gone"}, "its service isn't placed on this host"),
    ({"labels": {"com.docker.compose.oneoff": "True"}}, "made by docker compose run"),
])
def test_extras_are_reported_and_removed_only_when_asked(changes: dict[str, Any], reason: str) -> None:
    extra = container("e", **changes)
    made = plan([container(), extra], {"extractor": 1})
    assert [(step.container, step.reason) for step in made.extras] == [(extra, reason)]
    assert made.changes == []
    pruned = plan([container(), extra], {"extractor": 1}, prune="all")
    assert pruned.extras == ()
    assert [(step.action, step.container) for step in pruned.changes] == [(REMOVE, extra)]


def test_named_services_are_recreated_although_they_are_right() -> None:
    made = plan([container("a"), container("b", service="ocr")], {"extractor": 1, "ocr": 1}, forced=["ocr"])
    assert actions(made) == [(KEEP, "as wanted"), (RECREATE, "asked for")]


def test_a_release_that_is_not_built_yet_recreates_everything() -> None:
    made = plan_rollout(PROJECT, {"extractor": wanted(image_id=None, sha="f" * 40, spec=None)}, [container()])
    assert actions(made) == [(RECREATE, "STALE: new release, not built yet")]


def test_start_first_lets_what_works_wait_and_compose_count_it() -> None:
    """One is right, two work and are old, one is stopped, one is being stopped: three wanted."""
    found = [
        container("a", number=1), container("b", number=2, **OLD), container("c", number=3, **OLD),
        container("d", number=4, status="exited"), container("e", number=5, status="being stopped", **OLD),
        container("f", service="ocr", **OLD), container("g", project="elsewhere", **OLD)]
    made = plan(found, {"extractor": 3, "ocr": 1}, prune="all", start_first=["extractor"])
    assert {one.id for one in made.leaving()} == {"d", "e", "f", "g"}
    assert {one.id for one in made.leaving(late=True)} == {"b", "c"}
    assert set(made.replaced()) == {"extractor"}
    assert made.scales() == {"extractor": 5}
    assert made.services_to_start() == ["extractor", "ocr"]


def test_start_first_with_the_new_ones_there_has_only_old_ones_to_let_go() -> None:
    """As a run leaves it that was killed while the new ones had to stand."""
    found = [container("a", number=1, **OLD), container("b", number=2, **OLD), container("c", number=3),
             container("d", number=4)]
    made = plan(found, {"extractor": 2}, start_first=["extractor"])
    assert [one.id for one in made.leaving(late=True)] == ["a", "b"]
    assert (made.leaving(), made.services_to_start(), made.scales()) == ([], [], {})


def test_start_first_has_nothing_to_wait_for_on_a_first_deploy() -> None:
    made = plan([], {"extractor": 2}, start_first=["extractor"])
    assert (made.leaving(late=True), made.scales()) == ([], {})


def test_a_step_is_plain_data() -> None:
    made = plan([container()], {"extractor": 2})
    assert [step.to_dict() for step in made.steps] == [
        {"action": KEEP, "service": "extractor", "reason": "as wanted", "container": "demo-workers-extractor-1",
         "id": "c" * 12},
        {"action": CREATE, "service": "extractor", "reason": "missing", "container": "", "id": ""}]


def _found(entries: list[tuple[str, int, dict[str, Any]]]) -> list[Container]:
    made = [
        container(f"{place:064x}", service=service, number=number, **flaw)
        for place, (service, number, flaw) in enumerate(entries)]
    return [replace(one, name=f"{one.name}-{place}") for place, one in enumerate(made)]  # an engine has no name twice


CONTAINERS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "gone"]), st.integers(1, 4), st.sampled_from(FLAWS)), max_size=8).map(_found)
SERVICES = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 3), min_size=1)


def _instances(containers: Sequence[Container], service: str) -> list[Container]:
    return [one for one in containers if one.project == PROJECT and one.service == service and not one.one_off]


def _applied(made: Plan, containers: Sequence[Container], services: dict[str, int]) -> list[Container]:
    """What is there afterwards: removals by id, then compose fills up each service that lacks instances."""
    going = {step.container.id for step in made.steps if step.container and step.action in (REMOVE, RECREATE)}
    left = [one for one in containers if one.id not in going]
    for service in made.services_to_start():
        for number in range(services[service] - len(_instances(left, service))):
            left.append(container(f"new-{service}-{number}", service=service, number=90 + number))
    return left


@given(CONTAINERS, SERVICES, st.sampled_from(["none", "project", "all"]))
def test_the_plan_leads_to_exactly_what_is_wanted(
    containers: list[Container], services: dict[str, int], prune: str,
) -> None:
    after = _applied(plan(containers, services, prune=prune), containers, services)
    for service, count in services.items():
        instances = _instances(after, service)
        assert len(instances) == count
        assert all(container_problem(one, wanted(service)) is None and one.spec == "spec1" for one in instances)
    others = [one for one in after if not any(one in _instances(after, service) for service in services)]
    extras = [step.container for step in plan(containers, services).extras if step.container]
    left = {"none": extras, "project": [one for one in extras if one.project != PROJECT], "all": []}[prune]
    assert others == [one for one in containers if one in left]
    again = plan(after, services, prune=prune)
    assert (again.changes, again.services_to_start()) == ([], [])


@given(CONTAINERS, SERVICES, st.sets(st.sampled_from(["a", "b", "gone"])))
def test_the_order_changes_when_containers_go_and_never_which(
    containers: list[Container], services: dict[str, int], first: set[str],
) -> None:
    """And once compose has scaled up, each service has its new instances next to the old ones that still work."""
    made, before = (plan(containers, services, prune="all", start_first=order) for order in (first, ()))
    assert made.steps == before.steps
    early, late = made.leaving(), made.leaving(late=True)
    assert sorted(one.id for one in (*early, *late)) == sorted(one.id for one in before.leaving())
    assert all(one.service in first and one.status == "running" and one.project == PROJECT for one in late)
    for service, count in made.scales().items():
        left = [one for one in _instances(containers, service) if one not in early]
        assert all(one.status == "running" for one in left), "compose starts what it finds stopped"
        assert count == services[service] + sum(one.service == service for one in late)
        assert count > len(left)


@given(CONTAINERS, SERVICES)
def test_a_right_container_is_touched_only_when_there_are_too_many(
    containers: list[Container], services: dict[str, int],
) -> None:
    made = plan(containers, services)
    for service, count in services.items():
        alone = [one for one in _instances(containers, service) if plan([one], {service: 1}).changes == []]
        kept = [step.container for step in made.steps if step.action == KEEP and step.service == service]
        assert len(kept) == min(count, len(alone))
        assert all(one in alone for one in kept)


@given(CONTAINERS, SERVICES)
def test_every_container_is_in_the_plan_exactly_once(containers: list[Container], services: dict[str, int]) -> None:
    made = plan(containers, services)
    named = [step.container.id for step in (*made.steps, *made.extras) if step.container]
    assert sorted(named) == sorted(one.id for one in containers)
    assert plan(list(reversed(containers)), services).changes == made.changes
