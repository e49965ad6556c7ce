# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module is documented as it is, and tested."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from meta.rules import modules
from meta.rules.files import below, read
from meta.rules.report import expect_none


def facts(name: str) -> dict[str, Any]:
    """What ansible-doc shows of a module."""
    found = modules.documentation()[name]
    assert "doc" in found, found["error"]
    return found


def test_there_are_modules() -> None:
    assert modules.names()


@pytest.mark.parametrize("name", modules.names())
def test_the_documentation_is_what_the_module_takes(name: str) -> None:
    documented = facts(name)["doc"]
    expect_none({name: modules.differences(documented["options"], modules.argument_spec(name))})
    for part in ("short_description", "description", "author"):
        assert documented.get(part), part


@pytest.mark.parametrize("name", modules.names())
def test_attributes_say_what_check_mode_and_diff_do(name: str) -> None:
    attributes = facts(name)["doc"].get("attributes") or {}
    assert {"check_mode", "diff_mode", "idempotent"} <= attributes.keys()


@pytest.mark.parametrize("name", modules.names())
def test_the_examples_are_tasks_that_use_the_module(name: str) -> None:
    tasks = yaml.safe_load(facts(name)["examples"] or "")
    assert isinstance(tasks, list)
    options = set(facts(name)["doc"]["options"])
    uses = [task[f"{modules.COLLECTION}.{name}"] for task in tasks if f"{modules.COLLECTION}.{name}" in task]
    assert uses, "no example calls the module by its full name"
    assert [key for use in uses for key in use or {} if key not in options] == []


@pytest.mark.parametrize("name", modules.names())
def test_what_it_returns_is_documented(name: str) -> None:
    returned = facts(name)["return"] or {}
    assert returned
    for key, value in returned.items():
        assert value.get("description"), key
        assert value.get("type"), key
        assert value.get("returned"), key


@pytest.mark.parametrize("name", modules.names())
def test_a_test_names_it(name: str) -> None:
    tests = below("tests/unit/", "tests/integration/", "tests/contract/", suffix=".py")
    assert any(re.search(rf"\b{name}\b", path + read(path)) for path in tests), f"no test names {name}"


SPEC = {"name": {"type": "str", "required": True}, "size": {"type": "int", "default": 1}}
DOCUMENTED = {
    "name": {"type": "str", "required": True, "description": ["x"]},
    "size": {"type": "int", "default": 1, "description": ["x"]},
}


def test_equal_sides_pass() -> None:
    assert list(modules.differences(DOCUMENTED, SPEC)) == []


@pytest.mark.parametrize(("documented", "said"), [
    ({"name": DOCUMENTED["name"]}, "size: in the argument spec, but not documented"),
    ({**DOCUMENTED, "more": {"description": ["x"]}}, "more: documented, but not in the argument spec"),
    ({**DOCUMENTED, "size": {**DOCUMENTED["size"], "default": 2}}, "size: documented default 2, argument spec 1"),
    ({**DOCUMENTED, "size": {**DOCUMENTED["size"], "type": "str"}}, "size: documented type 'str', argument spec 'int'"),
    ({**DOCUMENTED, "name": {"type": "str", "required": True}}, "name: no description"),
])
def test_different_sides_are_told(documented: dict[str, Any], said: str) -> None:
    assert list(modules.differences(documented, SPEC)) == [said]


def test_suboptions_are_compared() -> None:
    documented = {"a": {"type": "dict", "description": ["x"], "suboptions": {}}}
    spec = {"a": {"type": "dict", "options": {"b": {"type": "str"}}}}
    assert list(modules.differences(documented, spec)) == ["a.b: in the argument spec, but not documented"]
