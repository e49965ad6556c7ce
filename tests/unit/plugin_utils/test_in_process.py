# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that runs in the task's process: what it gets is plain, and what it returns is what AnsibleModule prints."""

from __future__ import annotations

import json
import os
from collections import UserDict
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult, Result, Work
from ansible_collections.driftguard.workers.plugins.plugin_utils.in_process import (
    NotPlain,
    directory,
    is_directory,
    plain,
    run_here,
)

SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "count": {"type": "int", "default": 1, "aliases": ["number"]},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "password": {"type": "str", "no_log": True},
    "inner": {"type": "dict", "options": {"token": {"type": "str", "no_log": True}}},
    "seen": {"type": "dict", "default": {}},
    "directory": {"type": "path"},
}
CHECKS = {"required_if": [("state", "absent", ("directory",))], "mutually_exclusive": [("password", "inner")]}
ERROR = DriftguardError("the thing", "to be there", "nothing", "make it")



class Tagged(str):
    """A string that stays of its type, as Ansible's own do."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Lazy(UserDict[str, Any]):
    """A mapping that is no dict."""


def told(module: Any) -> Result:
    return Result(True, {"options": dict(module.params), "check_mode": module.check_mode}, "old", "new", "file")


def run(arguments: dict[str, Any], work: Callable[[Any], Result] = told, **settings: bool) -> dict[str, Any]:
    return run_here(Work(SPEC, work, CHECKS), arguments, name="driftguard.workers.some",
                    check_mode=settings.get("check_mode", False), is_diff=settings.get("is_diff", False))


def raising(error: BaseException) -> Callable[[Any], Result]:
    def work(_module: Any) -> Result:
        raise error

    return work


def test_options_have_defaults_types_and_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "/srv")
    found = run({"name": 7, "number": "5", "directory": "$THERE/x"})
    options = found["options"]
    assert (options["name"], options["count"], options["directory"], options["state"]) == ("7", 5, "/srv/x", "present")
    assert found["invocation"] == {"module_args": options}
    assert (found["changed"], found["check_mode"], "failed" in found, "diff" in found) == (True, False, False, False)


def test_check_mode_and_diff_are_passed_on() -> None:
    found = run({"name": "a"}, check_mode=True, is_diff=True)
    assert found["check_mode"] is True
    assert found["diff"] == {"before": "old", "after": "new", "before_header": "file", "after_header": "file"}


@pytest.mark.parametrize(("arguments", "said"), [
    ({}, "missing required arguments: name"),
    ({"name": "a", "count": "many"}, "argument 'count' is of type"),
    ({"name": "a", "state": "gone"}, "value of state must be one of: present, absent, got: gone"),
    ({"name": "a", "state": "absent"}, "state is absent but all of the following are missing: directory"),
    ({"name": "a", "password": "hunter22", "inner": {}}, "parameters are mutually exclusive: password|inner"),
    ({"name": "a", "more": 1}, "Unsupported parameters for (driftguard.workers.some) module: more. Supported"),
])
def test_bad_arguments_fail_before_any_work(arguments: dict[str, Any], said: str) -> None:
    found = run(arguments, raising(AssertionError("worked")))
    assert found["failed"] is True
    assert said in found["msg"]


def test_secrets_are_in_no_result() -> None:
    found = run({"name": "hunter22", "password": "hunter22"})
    assert "hunter22" not in json.dumps(found)
    assert found["invocation"]["module_args"]["password"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert "hunter23" not in json.dumps(run({"name": "x hunter23", "inner": {"token": "hunter23"}}))


def test_secrets_are_in_no_failure() -> None:
    assert "hunter22" not in json.dumps(run({"name": "a", "state": "hunter22", "password": "hunter22"}))
    for error in (DriftguardError("x", "y", "hunter22", "z"), ValueError("hunter22 is bad")):
        found = run({"name": "a", "password": "hunter22"}, raising(error))
        assert found["failed"] is True
        assert "hunter22" not in json.dumps(found)


def test_a_failure_says_what_to_do() -> None:
    found = run({"name": "a"}, raising(ERROR))
    assert {name: found[name] for name in ERROR.as_result()} == ERROR.as_result()
    assert (found["failed"], "changed" in found) == (True, False)


def test_a_failure_keeps_what_was_done() -> None:
    found = run({"name": "a"}, raising(FailedResult(ERROR, {"rows": (1, 2)}, changed=True)))
    assert (found["failed"], found["changed"], found["rows"], found["remedy"]) == (True, True, [1, 2], "make it")


def test_an_unexpected_error_is_no_traceback() -> None:
    found = run({"name": "a"}, raising(ZeroDivisionError("by zero")))
    assert "ZeroDivisionError: by zero" in found["found"]
    assert "this is a defect" in found["remedy"]
    assert "Traceback" not in json.dumps(found)


def test_a_result_that_is_no_data_is_an_unexpected_error() -> None:
    found = run({"name": "a"}, lambda _module: Result(True, {"rows": {1, 2}}))
    assert (found["failed"], "a set" in found["found"]) == (True, True)


def test_an_interrupt_is_left_to_ansible() -> None:
    with pytest.raises(KeyboardInterrupt):
        run({"name": "a"}, raising(KeyboardInterrupt()))


def test_a_module_that_changes_its_defaults_changes_them_for_itself() -> None:
    def work(module: Any) -> Result:
        options = module.params
        options["seen"][str(len(options["seen"]))] = "seen"
        return Result(False, {"seen": options["seen"]})

    assert [run({"name": "a"}, work)["seen"] for _ in range(2)] == [{"0": "seen"}, {"0": "seen"}]


def test_an_option_by_two_names_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ansible's Display is for whole playbooks; without it this process is like that of any module.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False, raising=False)
    found = run({"name": "a", "count": 1, "number": 2})
    assert "Both option count and its alias number are set" in str(found["warnings"])
    assert "warnings" not in run({"name": "a"})


def test_what_a_module_gets_is_plain() -> None:
    given = {
        Tagged("text"): Tagged("value"), "lazy": Lazy({"a": [Tagged("b"), (1, 2.5)]}), 1: True, None: None, False: 0,
        "day": date(2024, 1, 2), "time": datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)}
    found = plain(given)
    assert found == {
        "text": "value", "lazy": {"a": ["b", [1, 2.5]]}, "1": True, "null": None, "false": 0,
        "day": "2024-01-02", "time": "2024-01-02T03:04:05+00:00"}
    texts = [*found, found["text"], found["lazy"]["a"][0]]
    assert {type(text) for text in texts} == {str}
    assert {type(found), type(found["lazy"])} == {dict}


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"deep": [{"x": object()}]}, {(1, 2): 3}])
def test_what_has_no_plain_form_is_told(value: Any) -> None:
    with pytest.raises(NotPlain):
        plain(value)


def test_endless_nesting_is_told() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotPlain):
        plain(value)


def test_the_directory_is_left_again(tmp_path: Path) -> None:
    before, inside = os.getcwd(), ""

    def interrupted() -> None:
        nonlocal inside
        with directory(str(tmp_path)):
            inside = os.getcwd()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (inside, os.getcwd()) == (str(tmp_path), before)


def test_no_way_to_a_directory_or_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_directory(str(tmp_path))
    assert not is_directory(str(tmp_path / "none"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert not is_directory(str(tmp_path))
