# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet spec is read whole, or refused with every problem by fleet, service and key."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import (
    READERS,
    Healthcheck,
    Service,
    network_names,
    placed,
    read_services,
)
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_values import Unfit
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_volumes import Mount
from hypothesis import given
from hypothesis import strategies as st

MEBI = 1024**2
LEAST = {"memory": "64M"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text() | st.integers() | st.sampled_from(sorted(READERS)), inner
    ),
    max_leaves=8)


def read(service: Any = None, defaults: Any = None) -> Service:
    """One service, on top of the least that is needed."""
    return read_services("demo", {"extractor": service}, {**LEAST, **(defaults or {})})["extractor"]


def refused(services: Any, defaults: Any = None, fleet: Any = "demo") -> DriftguardError:
    with pytest.raises(DriftguardError) as error:
        read_services(fleet, services, defaults)
    assert all((error.value.subject, error.value.expected, error.value.found, error.value.remedy))
    return error.value


def test_an_empty_service_has_every_default() -> None:
    assert read() == Service("extractor", memory=64 * MEBI)
    assert read() == read({})


def test_every_key_is_read() -> None:
    full = {
        "variant": "ocr", "command": ["python", "-m", "x", 5], "replicas": "2", "concurrency": 4,
        "environment": {"A": 1},
        "secrets": ["b", "a", "b"], "memory": "1G", "cpus": 0.5, "pids": 99,
        "reservations": {"memory": "512M", "cpus": 0.1},
        "healthcheck": {"test": ["true"], "interval": "5s", "timeout": 2, "retries": 1, "start_period": 0},
        "stop_grace_period": "1m", "drain_time": 50, "volumes": ["data:/data:ro"], "tmpfs": ["/scratch"],
        "networks": ["n"], "read_only": "no", "singleton": False,
        "guard": "supervise", "order": "start-first",
    }
    assert set(full) == set(READERS)
    assert read(full) == Service(
        name="extractor", variant="ocr", command=("python", "-m", "x", "5"), replicas=2, concurrency=4,
        environment={"A": "1"}, secrets=("a", "b"), memory=1024 * MEBI, cpus=0.5, pids=99, reserved_memory=512 * MEBI,
        reserved_cpus=0.1, healthcheck=Healthcheck(("true",), 5, 2, 1, 0), stop_grace_period=60, drain_time=50,
        volumes=(Mount("volume", "data", "/data", True),), tmpfs=("/scratch",), networks=("n",), read_only=False,
        singleton=False, guard="supervise", order="start-first")


def test_a_service_wins_over_the_defaults_and_environments_are_merged() -> None:
    service = read(
        {"replicas": 3, "environment": {"B": "own"}, "healthcheck": {"retries": 9}},
        {"replicas": 2, "pids": 50, "environment": {"A": "common", "B": "common"}, "healthcheck": {"interval": "5s"}})
    assert (service.replicas, service.pids, service.environment) == (3, 50, {"A": "common", "B": "own"})
    assert service.healthcheck == Healthcheck(retries=9)


def test_services_come_in_the_order_of_their_names() -> None:
    assert list(read_services("demo", {"b": None, "a-b": {}, "a": None}, LEAST)) == ["a", "a-b", "b"]


def test_no_health_check_when_it_is_false() -> None:
    assert read({"healthcheck": False}).healthcheck is None


@pytest.mark.parametrize(("service", "said"), [
    ({"replcas": 2}, ["key 'replcas'", "unknown key", "replicas"]),
    ({5: 2}, ["key 5", "unknown key"]),
    ({"guard": "watch"}, ["key guard", "exec or supervise", "found 'watch'"]),
    ({"guard": ["exec"]}, ["key guard", "exec or supervise"]),
    ({"replicas": 0}, ["key replicas", "from 1 to 100", "found 0"]),
    ({"replicas": 2.5}, ["key replicas"]),
    ({"replicas": float("nan")}, ["key replicas"]),
    ({"memory": None}, ["key memory", "a size", "found None"]),
    ({"memory": "5M"}, ["key memory", "6M"]),
    ({"environment": {"GIT_SHA": "x"}}, ["environment GIT_SHA", "image alone"]),
    ({"environment": {"BUILD_DATE": "x"}}, ["environment BUILD_DATE", "image alone"]),
    ({"environment": {"REDIS_URL": "redis://x"}}, ["environment REDIS_URL", "that the collection sets"]),
    ({"stop_grace_period": "10s", "drain_time": "20s"}, ["key stop_grace_period", "drain time (20 s)", "found 10 s"]),
    ({"stop_grace_period": "10s"}, ["key stop_grace_period", "drain time (20 s)"]),
    ({"singleton": True, "replicas": 2}, ["key replicas", "singleton"]),
    ({"order": "rolling"}, ["key order", "stop-first or start-first", "found 'rolling'"]),
    ({"order": ["start-first"]}, ["key order", "stop-first or start-first"]),
    ({"singleton": True, "order": "start-first"}, ["key order", "singleton", "set order: stop-first"]),
    ({"reservations": {"memory": "65M"}}, ["key reservations", "memory limit", "65m"]),
    ({"cpus": 1, "reservations": {"cpus": 2}}, ["key reservations", "CPUs"]),
    ({"reservations": {"memory": "1X"}}, ["key reservations", "memory as a size", "'1X'"]),
    ({"reservations": {"disk": "1G"}}, ["key reservations", "memory, cpus"]),
    ({"healthcheck": {"test": ["CMD-SHELL", "true"]}}, ["key healthcheck", "test as the command alone"]),
    ({"healthcheck": {"test": ["CMD", "true"]}}, ["test as the command alone"]),
    ({"healthcheck": {"test": "true"}}, ["test as a list of arguments"]),
    ({"healthcheck": {"interval": "0s"}}, ["interval as a duration of at least 1s", "'0s'"]),
    ({"healthcheck": {"Interval": "5s"}}, ["key healthcheck", "interval"]),
    ({"healthcheck": True}, ["key healthcheck", "false, or a dictionary"]),
    ({"command": "python x.py"}, ["key command", "list of arguments"]),
    ({"volumes": ["data:/data", "/x"]}, ["key volumes", "not '/x'"]),
    ({"volumes": "data:/data"}, ["key volumes", "a list"]),
    ({"volumes": ["a:/data", "b:/data/"]}, ["mount /data", "more than one"]),
    ({"volumes": ["a:/tmp"]}, ["mount /tmp", "more than one", "tmpfs has /tmp"]),
    ({"tmpfs": ["/scratch", "/scratch/."]}, ["mount /scratch", "more than one"]),
    ({"networks": ["host"]}, ["key networks", "user-defined", "'host'"]),
    ({"networks": ["x-net"]}, ["key networks", "'x-net'"]),
    ({"networks": ["${NET}"]}, ["key networks"]),
    ({"secrets": ["../x"]}, ["key secrets", "'../x'"]),
    ({"secrets": "token"}, ["key secrets", "a list"]),
    ({"variant": "Base"}, ["key variant"]),
    ({"read_only": "on"}, ["key read_only", "true or false"]),
    ("extractor", ["a dictionary"]),
    ([], ["a dictionary", "a list of 0"]),
    (False, ["a dictionary"]),
])
def test_a_problem_names_fleet_service_and_key(service: Any, said: list[str]) -> None:
    text = str(refused({"extractor": service}, LEAST))
    assert all(part in text for part in ["fleet demo, service 'extractor'", *said]), text


@pytest.mark.parametrize(
    "name", ["Extractor", "", "-x", "x-", "x_y", "x" * 42, 5, None, True, "a\n", "ü", "a b", ("a", "b")]
)
def test_bad_names_of_services(name: Any) -> None:
    assert "rename the service" in str(refused({name: None}, LEAST))


@pytest.mark.parametrize(
    "fleet", ["", "x", "Demo", "demo-", "-demo", "de/mo", "../x", "/etc", None, 5, "d" * 33, "demo\n", ["demo"]]
)
def test_bad_names_of_fleets(fleet: Any) -> None:
    assert refused({"a": None}, LEAST, fleet).subject == "worker_fleet"


@pytest.mark.parametrize("services", [None, {}, [], "x", 5, [{"extractor": None}]])
def test_a_fleet_needs_services(services: Any) -> None:
    assert refused(services, LEAST).subject == "fleet demo, worker_fleet_services"


@pytest.mark.parametrize("defaults", [[], "", "x", 5, False])
def test_defaults_are_a_dictionary(defaults: Any) -> None:
    assert "worker_service_defaults: expected a dictionary" in str(refused({"a": LEAST}, defaults))


def test_a_memory_limit_is_demanded_of_each_service() -> None:
    error = refused({"a": None, "b": None}, {})
    assert error.subject == "fleet spec, 2 problems"
    assert error.found.count("key memory: expected a memory limit; found none") == 2
    assert error.remedy.count("set memory here") == 1


def test_what_could_not_be_read_is_not_also_called_missing() -> None:
    assert refused(
        {"a": None, "b": None}, {"memory": "lots"}
    ).subject == "fleet demo, worker_service_defaults, key memory"
    assert refused({"a": {"memory": "lots"}}).subject == "fleet demo, service 'a', key memory"


def test_every_problem_is_named_at_once_up_to_a_number() -> None:
    text = str(refused({f"s{number}": {"bad": 1} for number in range(10, 60)}, LEAST))
    assert "fleet spec, 50 problems" in text
    assert "service 's10'" in text
    assert "and 30 more" in text
    assert text.count("mend its spelling") == 1


@pytest.mark.parametrize("service", [
    {"environment": {"DB_PASSWORD": ["s3cret-value"]}}, {"environment": ["DB_PASSWORD=s3cret-value"]}, ["s3cret-value"],
    {"environment": {"DB PASSWORD": "s3cret-value"}}, {"environment": {"GIT_SHA": "s3cret-value"}},
])
def test_no_value_of_an_environment_is_shown(service: Any) -> None:
    assert "s3cret-value" not in str(refused({"a": service}, LEAST))
    assert "s3cret-value" not in str(refused({"a": None}, service))


def test_networks_of_the_fleet_are_read_as_those_of_a_service() -> None:
    assert network_names(["b", "a", "b"]) == ("a", "b")
    with pytest.raises(Unfit):
        network_names(["a b"])


@pytest.mark.parametrize(
    ("placement", "names"), [(None, ["a", "b", "c"]), (["c", "a"], ["a", "c"]), (["b", "b"], ["b"]), ([], [])]
)
def test_placement(placement: Any, names: list[str]) -> None:
    services = read_services("demo", {"a": None, "b": None, "c": None}, LEAST)
    assert list(placed("demo", services, placement)) == names


@pytest.mark.parametrize("placement", ["a", {"a": None}, 5, True, ["d"], ["a", None], ["a", ["b"]], [{}], [5], ["A"]])
def test_bad_placement(placement: Any) -> None:
    with pytest.raises(DriftguardError, match="worker_placement"):
        placed("demo", read_services("demo", {"a": None}, LEAST), placement)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_anything_is_read_or_refused(fleet: Any, services: Any, defaults: Any) -> None:
    with suppress(DriftguardError):
        read_services(fleet, services, defaults)


@given(st.dictionaries(st.sampled_from(sorted(READERS)), ANYTHING))
def test_any_value_of_a_known_key_is_read_or_refused(service: Any) -> None:
    with suppress(DriftguardError):
        read(service)
    with suppress(DriftguardError):
        read({}, service)


def test_a_volume_is_external_for_all_or_for_none() -> None:
    services = {"a": {"memory": "64M", "volumes": ["v:/v:external"]}, "b": {"memory": "64M", "volumes": ["v:/v"]}}
    with pytest.raises(DriftguardError, match="volume v: expected external in each service"):
        read_services("demo", services, {})
    assert read_services("demo", {"a": services["a"]}, {})["a"].volumes[0].external
