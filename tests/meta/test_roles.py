# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role has its parts, and its documented defaults are the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meta.rules import roles
from meta.rules.report import expect_none


def test_there_are_roles() -> None:
    assert roles.names()


@pytest.mark.parametrize("name", roles.names())
def test_it_has_every_part(name: str) -> None:
    expect_none({name: roles.missing_parts(roles.directory(name))})


@pytest.mark.parametrize("name", roles.names())
def test_its_defaults_are_those_that_are_documented(name: str) -> None:
    role = roles.directory(name)
    defaults = roles.load(role, "defaults/main.yml")
    expect_none({name: roles.spec_differences(defaults, roles.entry_points(role))})


@pytest.mark.parametrize("name", roles.names())
def test_its_variables_have_its_prefix(name: str) -> None:
    role = roles.directory(name)
    assert roles.badly_named(name, roles.load(role, "defaults/main.yml"), public=True) == []
    assert roles.badly_named(name, roles.load(role, "vars/main.yml"), public=False) == []


@pytest.mark.parametrize("name", roles.names())
def test_its_readme_names_every_variable(name: str) -> None:
    role = roles.directory(name)
    readme = (role / "README.md").read_text(encoding="utf-8")
    silent = [variable for variable in roles.load(role, "defaults/main.yml") if variable not in readme]
    expect_none({f"roles/{name}/README.md": [f"nothing on {variable}" for variable in silent]})


OPTION: dict[str, Any] = {"type": "int", "default": 1, "description": "x"}


@pytest.mark.parametrize(("defaults", "options", "said"), [
    ({"r_a": 1, "r_b": 2}, {"r_a": OPTION}, "defaults: r_b is not in the argument specs"),
    ({"r_a": 2}, {"r_a": OPTION}, "argument_specs.main.r_a: default 1, really 2"),
    ({}, {"r_a": OPTION}, "argument_specs.main.r_a: default 1, but defaults/main.yml has none"),
    ({"r_a": 1}, {"r_a": {"default": 1}}, "argument_specs.main.r_a: no description"),
    (
        {"r_a": 1}, {"r_a": {"required": True, "description": "x"}},
        "argument_specs.main.r_a: required, yet it has a default"),
])
def test_different_defaults_are_told(defaults: dict[str, Any], options: dict[str, Any], said: str) -> None:
    assert list(roles.spec_differences(defaults, {"main": options})) == [said]


def test_equal_defaults_pass() -> None:
    required = {"required": True, "description": "x"}
    assert list(roles.spec_differences({"r_a": 1}, {"main": {"r_a": OPTION, "r_b": required}})) == []


def test_a_default_that_depends_on_others_is_told_by_its_description() -> None:
    described = {"r_a": {"description": "what r_b is"}}
    assert list(roles.spec_differences({"r_a": ["{{ r_b }}"]}, {"main": described})) == []
    assert list(roles.spec_differences({"r_a": ["r_b"]}, {"main": described})) == [
        "argument_specs.main.r_a: default None, really ['r_b']"]


def test_missing_parts_are_found(tmp_path: Path) -> None:
    assert len(roles.missing_parts(tmp_path)) == len(roles.PARTS)


def test_bad_names_are_found() -> None:
    names = {"redis_port": 1, "worker_fleet": 1, "port": 1, "__redis_x": 1}
    assert roles.badly_named("redis", names, public=True) == ["port", "__redis_x"]
    assert roles.badly_named("redis", names, public=False) == ["redis_port", "worker_fleet", "port"]
