# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of worker_compose_adopt that need no Compose: translation, comparison, what is written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.adopt_changes import changes, normal
from ansible_collections.driftguard.workers.plugins.module_utils.adopt_service import (
    adopt_service,
    fleet_name,
    plain,
    seconds,
)
from ansible_collections.driftguard.workers.plugins.module_utils.compose_yaml import Unsafe, to_yaml
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import read_services
from hypothesis import given
from hypothesis import strategies as st


def spec(**service: Any) -> dict[str, Any]:
    adopted = adopt_service("w", service, {"volumes": {"v": {"name": "shop_v"}}, "networks": {}}, "64M", {})
    assert read_services("shop", {"w": adopted.spec}, {})
    return adopted.spec


@pytest.mark.parametrize(("service", "said"), [
    ({}, {"memory": "64M"}),
    ({"mem_limit": "67108864"}, {"memory": "64M"}),
    ({"mem_limit": "67108865"}, {"memory": "67108865"}),
    ({"mem_limit": "1024"}, {"memory": "64M"}),
    ({"entrypoint": ["a"], "command": ["b", "c"]}, {"command": ["a", "b", "c"]}),
    ({"scale": 3}, {"replicas": 3}), ({"deploy": {"replicas": 0}}, {}), ({"deploy": {"replicas": 5000}}, {}),
    ({"stop_grace_period": "1m30s"}, {"stop_grace_period": "90s"}),
    ({"stop_grace_period": "500ms"}, {"stop_grace_period": "1s", "drain_time": "0s"}),
    ({"stop_grace_period": "10s"}, {"stop_grace_period": "10s", "drain_time": "6s"}),
    ({"stop_grace_period": "999h0m0s"}, {}),
    ({"healthcheck": {"disable": True}}, {"healthcheck": False}),
    ({"healthcheck": {"test": ["CMD-SHELL", "a b"], "timeout": "1.5s"}},
     {"healthcheck": {"test": ["sh", "-c", "a b"], "timeout": "2s"}}),
    ({"volumes": [{"type": "volume", "source": "v", "target": "/d", "read_only": True}]},
     {"volumes": ["shop_v:/d:ro,external"]}),
    ({"volumes": [{"type": "bind", "source": "/s", "target": "/d"}]}, {"volumes": ["/s:/d"]}),
    ({"volumes": [{"type": "bind", "source": "/s", "target": "/tmp"}]}, {"volumes": ["/s:/tmp"], "tmpfs": []}),
    ({"volumes": [{"type": "bind", "source": "/run/docker.sock", "target": "/d"}]}, {}),
    ({"volumes": [{"type": "volume", "target": "/d"}]}, {}),
    ({"working_dir": "/w", "volumes": [{"type": "bind", "source": "/s", "target": "/w"}]}, {}),
    ({"tmpfs": ["/a:size=1m", "/tmp"]}, {"tmpfs": ["/tmp", "/a"]}),
    ({"environment": {"A": "1", "B-C": "2", "GIT_SHA": "x", "NODE_ENV": "y", "N": None}}, {"environment": {"A": "1"}}),
    ({"environment": {"P_TOKEN": "abcdefgh", "X": "has abcdefgh"}},
     {"secrets": ["p_token"], "environment": {"P_TOKEN_FILE": "/run/secrets/p_token", "X": "has ********"}}),
    ({"networks": {"host": None, "back": None}}, {"networks": ["back"]}),
    ({"deploy": {"resources": {"limits": {"memory": "67108864"}, "reservations": {"memory": "134217728"}}}}, {}),
])
def test_services_are_said_in_the_fleet_specs_words(service: dict[str, Any], said: dict[str, Any]) -> None:
    assert spec(**service) == {"memory": "64M", **said}


@pytest.mark.parametrize(("text", "number"), [
    ("1h1m1s", 3661), ("90s", 90), ("1.2s", 2), ("10ms", 1), ("0s", 0), ("", None), ("soon", None), ("1s!", None)])
def test_durations(text: str, number: int | None) -> None:
    assert seconds(text) == number


TEXTS = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["/data", "${A}", "hunter2hunter2", "a://b:c@d"]))
PATHS = st.sampled_from(["/data", "/app", "/", "/a:b", "/x/../y", "/var/run/docker.sock", "/proc/x", "rel", "/tmp"])
MOUNTS = st.lists(st.fixed_dictionaries(
    {"type": st.sampled_from(["bind", "volume", "tmpfs", "npipe"]), "target": PATHS},
    optional={"source": PATHS | st.sampled_from(["v", "", "a b"]), "read_only": st.booleans()}), max_size=3)
ANYTHING: dict[str, st.SearchStrategy[Any]] = {
    "environment": st.dictionaries(
        st.sampled_from(["A", "GIT_SHA", "X_TOKEN", "X_TOKEN_FILE", "B-C", "REDIS_URL", "WORKER_CONCURRENCY"]), TEXTS),
    "command": st.none() | st.lists(st.text(max_size=6), max_size=3), "volumes": MOUNTS,
    "tmpfs": st.lists(PATHS.map(lambda path: f"{path}:size=1m"), max_size=2),
    "stop_grace_period": st.sampled_from(["0s", "1m", "100h0m0s", "1ns", "x"]),
    "mem_limit": st.sampled_from(["0", "1", "67108864", "-1", "9" * 30]), "pids_limit": st.integers(),
    "scale": st.integers(), "cpus": st.floats(allow_nan=False) | st.none(),
    "healthcheck": st.fixed_dictionaries({}, optional={
        "test": st.lists(st.sampled_from(["CMD", "CMD-SHELL", "NONE", "x", ""]), max_size=3),
        "interval": st.sampled_from(["0s", "1s", "99999h"]), "retries": st.integers(), "disable": st.booleans()}),
    "secrets": st.lists(st.fixed_dictionaries(
        {"source": st.text(max_size=4)}, optional={"target": st.text(max_size=8)}), max_size=2),
    "networks": st.dictionaries(st.sampled_from(["host", "default", "n", "x-n"]), st.none()),
}


@given(st.fixed_dictionaries({}, optional=ANYTHING))
def test_whatever_a_service_says_it_is_adopted_or_refused_helpfully(service: dict[str, Any]) -> None:
    adopted = adopt_service("w", service, {}, "64M", {})
    try:
        read_services("shop", {"w": adopted.spec}, {})
    except DriftguardError as error:
        refused = str(error)
        # What can't be said is left out and listed; only places and commands that contradict are for a person to mend.
        assert "mount " in refused or "key command" in refused or "key healthcheck" in refused
    assert "hunter2hunter2" not in str(adopted.spec.get("environment", {}).get("X_TOKEN", ""))


@given(st.text())
def test_any_service_name_becomes_plain(name: str) -> None:
    assert set(fleet_name(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_dollar_signs_are_single_again() -> None:
    assert plain({"a$$": ["$$x", 1, None]}) == {"a$": ["$x", 1, None]}


def difference(before: dict[str, Any], after: dict[str, Any], *hidden: str) -> list[tuple[str, str, Any, Any]]:
    found = changes("w", normal(before, {}), normal(after, {}), hidden)
    return [(one.key, one.kind, one.before, one.after) for one in found]


def test_equal_services_have_no_changes_in_whatever_form() -> None:
    one = {
        "mem_limit": "64", "cpus": 0.5, "volumes": [{"type": "tmpfs", "target": "/t"}], "cap_drop": ["B", "A"],
        "secrets": [{"source": "a", "target": "a"}], "command": None, "scale": 2, "environment": {}}
    other = {
        "deploy": {"replicas": 2, "resources": {"limits": {"memory": 64, "cpus": "0.5"}}, "placement": {}},
        "tmpfs": ["/t"], "cap_drop": ["A", "B"], "secrets": [{"source": "b", "target": "/run/secrets/a"}]}
    assert difference(one, other) == []


def test_a_key_that_nobody_knows_is_in_the_list() -> None:
    assert difference({"novel": {"a": [1]}}, {}) == [("novel", "not carried over", '{"a": [1]}', None)]


def test_empty_and_missing_variables_are_told_apart() -> None:
    assert [key for key, *_rest in difference({"environment": {"A": "", "B": None}}, {})] == [
        "environment.A", "environment.B"]
    assert difference({"environment": {"A": ""}}, {"environment": {"A": ""}}) == []


def test_changes_show_no_secret() -> None:
    found = difference(
        {"environment": {"A_TOKEN": "texta"}, "command": ["x", "textb"], "build": {"args": {"B_KEY": "textc"}},
         "labels": {"url": "amqp://u:textd@h"}}, {}, "textb")
    assert not any(f"text{letter}" in str(found) for letter in "abcd")
    assert len(found) == 4


def test_braces_are_marked_for_ansible() -> None:
    text = to_yaml({"a": Unsafe("{{ x }}: #"), "b": "plain"})
    assert text == 'a: !unsafe "{{ x }}: #"\nb: plain\n'
    assert yaml.safe_load(text.replace("!unsafe ", "")) == {"a": "{{ x }}: #", "b": "plain"}
