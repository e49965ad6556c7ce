# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registration is taken apart field by field; what is malformed is named, never believed and never shown raw."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.registrations import (
    FIELDS,
    Registration,
    parse_registration,
    split_member,
)
from hypothesis import given
from hypothesis import strategies as st
from support.releases import release

CONTAINER = "0123456789ab" + "c" * 52
GOOD = {
    "gitSha": release("a").sha,
    "buildDate": "2026-01-02T03:04:05Z",
    "startedAt": "2026-01-02T03:04:05.123Z",
    "pid": "1",
    "host": "host1",
    "service": "extractor",
    "containerId": CONTAINER,
    "releaseId": release("a").release_id,
    "state": "running",
    "heartbeatAt": "2026-01-02T03:04:05Z",
}


def parse(ttl_ms: int = 9000, instance: str = CONTAINER[:12], **changes: Any) -> Registration:
    values = {**GOOD, **changes}
    return parse_registration("extractor", instance, [values[name] for name in FIELDS], ttl_ms)


def test_a_good_one_has_no_problems() -> None:
    assert parse() == Registration(
        service="extractor",
        instance=CONTAINER[:12],
        git_sha=release("a").sha,
        release_id=release("a").release_id,
        state="running",
        host="host1",
        container_id=CONTAINER,
        started_at="2026-01-02T03:04:05.123Z",
        heartbeat_at="2026-01-02T03:04:05Z",
        build_date="2026-01-02T03:04:05Z",
        pid=1,
        ttl_ms=9000,
        problems=(),
    )
    assert parse().member == "extractor:0123456789ab"


@pytest.mark.parametrize("container_id", ["", False, None])
def test_a_worker_outside_a_container_is_fine(container_id: Any) -> None:
    found = parse(instance="build-box-4242", containerId=container_id)
    assert (found.container_id, found.problems) == ("", ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gitSha", "abc"),
        ("gitSha", release("a").sha.upper()),
        ("gitSha", release("a").sha + "\n"),
        ("gitSha", "unknown"),
        ("buildDate", "yesterday"),
        ("startedAt", "2026-01-02 03:04:05"),
        ("startedAt", "2026-01-02T03:04:05+00:00"),
        ("startedAt", "٢٠٢٦-01-02T03:04:05Z"),
        ("pid", "-1"),
        ("pid", "1e3"),
        ("pid", "٣"),
        ("pid", "9" * 99),
        ("host", "a\nb"),
        ("host", "\x1b[31mred"),
        ("host", "x" * 254),
        ("service", "Extractor"),
        ("containerId", "fedcba987654"),
        ("containerId", CONTAINER + "\n"),
        ("releaseId", "latest"),
        ("state", "RUNNING"),
        ("state", "ok"),
        ("heartbeatAt", "now"),
    ],
)
def test_a_malformed_field_is_empty_and_named(field: str, value: str) -> None:
    changes: dict[str, Any] = {field: value}
    found = parse(**changes)
    assert [problem for problem in found.problems if problem.startswith(field)]
    assert value not in vars(found).values()
    assert all(problem.isprintable() and len(problem) < 300 for problem in found.problems)


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "containerId"])
@pytest.mark.parametrize("value", ["", None, False, 7, ["x"]])
def test_a_missing_field_is_named(field: str, value: Any) -> None:
    assert parse(**{field: value}).problems == (f"{field} is missing",)


def test_one_that_never_expires_proves_no_life() -> None:
    assert parse(ttl_ms=-1).problems == ("it has no time to live, so it proves no life",)


def test_a_name_that_differs_from_the_index_is_a_problem() -> None:
    assert parse(service="ocr").problems == ("service is ocr, the index says extractor",)
    assert parse(instance="ffffffffffff").problems == (
        "containerId starts with 0123456789ab, the index says ffffffffffff",
    )


@given(
    st.lists(st.none() | st.booleans() | st.text() | st.integers(), min_size=len(FIELDS), max_size=len(FIELDS)),
    st.integers(),
)
def test_any_values_give_a_registration_that_can_be_shown(values: list[Any], ttl_ms: int) -> None:
    found = parse_registration("extractor", "0123456789ab", values, ttl_ms)
    shown = [value for value in vars(found).values() if isinstance(value, str)] + list(found.problems)
    assert all(text.isprintable() and len(text) < 300 for text in shown)


@pytest.mark.parametrize("member", ["extractor:0123456789ab", "ocr:build-box-1", "a:b", "ocr:host.example.org-12"])
def test_a_member_is_split(member: str) -> None:
    assert split_member(member) == tuple(member.split(":"))


@pytest.mark.parametrize(
    "member",
    [
        "",
        ":",
        "extractor",
        "extractor:",
        ":x",
        "Extractor:x",
        "extractor:a:b",
        "extractor:a b",
        "extractor:x\n",
        "-a:x",
        "extractor:*",
        "extractor:" + "x" * 129,
        "a" * 42 + ":x",
        "extractor:�",
        "extractor:{x}",
    ],
)
def test_no_other_member_is_an_instance(member: str) -> None:
    assert split_member(member) is None
