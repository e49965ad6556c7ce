# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import, catch and start what; and that every failure says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable

import pytest
from meta.rules import source
from meta.rules.files import below, read
from meta.rules.report import expect_none

PROCESSES = "plugins/module_utils/processes.py"
ENGINE = ("plugins/module_utils/engine.py", "plugins/module_utils/engine_images.py")
REDIS = "plugins/module_utils/redis_gateway.py"
# The one place of each side where whatever went wrong becomes fail_json, or an exit status.
BOUNDARIES = (
    "plugins/module_utils/module_base.py",
    "files/worker/src/driftguard_worker/process.py",
    "files/worker/src/driftguard_worker/consumer.py",
)
GUARD = "files/guard/"
GUARD_MODULES = {Path(path).stem for path in below(GUARD, suffix=".py")}
WORKER = "files/worker/"
PLUGINS = "plugins/"


def broken(rule: Callable[[str], list[str]], paths: list[str]) -> dict[str, list[str]]:
    """Files that break a rule, and how."""
    assert paths, "no file was looked at"
    found = {path: rule(read(path)) for path in paths}
    return {path: lines for path, lines in found.items() if lines}


def except_for(*allowed: str) -> list[str]:
    """All plugins but these."""
    return [path for path in below(PLUGINS, suffix=".py") if path not in allowed]


def test_only_one_plugin_file_starts_processes() -> None:
    others = except_for(PROCESSES)
    expect_none(broken(lambda text: source.imports_of(text, {"subprocess", "pty", "asyncio.subprocess"}), others))
    expect_none(broken(source.started_processes, others))


def test_only_one_gateway_talks_to_the_engine() -> None:
    expect_none(broken(lambda text: source.imports_of(text, {"docker"}), except_for(*ENGINE)))


def test_only_one_plugin_file_talks_to_redis() -> None:
    expect_none(broken(lambda text: source.imports_of(text, {"redis"}), except_for(REDIS)))


def test_worker_and_plugins_never_import_each_other() -> None:
    expect_none(broken(lambda text: source.imports_of(text, {"driftguard_worker", "version_guard"}), except_for()))
    ansible = {"ansible", "ansible_collections"}
    expect_none(broken(lambda text: source.imports_of(text, ansible), below("files/", suffix=".py")))


def test_the_guard_needs_only_the_standard_library() -> None:
    allowed = set(sys.stdlib_module_names) | GUARD_MODULES
    for path in below(GUARD, suffix=".py"):
        assert {name.partition(".")[0] for name in source.imported(read(path))} - allowed == set(), path


def test_the_plain_guard_loads_nothing_of_the_supervisor() -> None:
    assert not {name.partition(".")[0] for name in source.imported(read(f"{GUARD}version_guard.py"))} & GUARD_MODULES


def test_nothing_catches_everything_but_the_boundaries() -> None:
    paths = [path for path in below(PLUGINS, "files/", "tools/", "tests/", suffix=".py") if path not in BOUNDARIES]
    expect_none(broken(source.broad_handlers, paths))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_boundary_catches_everything_in_one_place(boundary: str) -> None:
    assert len(source.broad_handlers(read(boundary))) == 1


def test_every_failure_says_what_was_expected_found_and_what_to_do() -> None:
    expect_none(broken(source.poor_failures, below(PLUGINS, "tools/", suffix=".py")))


def test_every_test_can_fail() -> None:
    expect_none(broken(lambda text: list(source.pointless_tests(text)), below("tests/", "molecule/", suffix=".py")))


@pytest.mark.parametrize(("code", "count"), [
    ("import redis", 1),
    ("import redis.asyncio as r", 1),
    ("from redis.exceptions import RedisError", 1),
    ("def f():\n    from redis import Redis", 1),
    ("import rediscover", 0),
    ("from .redis import x", 0),
])
def test_imports_are_found(code: str, count: int) -> None:
    assert len(source.imports_of(code, {"redis"})) == count


@pytest.mark.parametrize(("code", "count"), [
    ("import os\nos.system('x')", 1), ("module.run_command(['x'])", 1), ("os.path.exists('x')", 0),
])
def test_started_processes_are_found(code: str, count: int) -> None:
    assert len(source.started_processes(code)) == count


@pytest.mark.parametrize(("handler", "count"), [
    ("except:\n    pass", 1),
    ("except Exception as e:\n    log(e)", 1),
    ("except (OSError, BaseException):\n    pass", 1),
    ("except Exception as e:\n    raise Other() from e", 1),
    ("except BaseException:\n    clean()\n    raise", 0),
    ("except OSError:\n    pass", 0),
])
def test_broad_handlers_are_found(handler: str, count: int) -> None:
    assert len(source.broad_handlers(f"try:\n    x()\n{handler}")) == count


@pytest.mark.parametrize(("call", "said"), [
    ("DriftguardError('a', 'b', 'c')", "line 1: no remedy"),
    ("DriftguardError('a', 'b', '', 'd')", "line 1: found is empty"),
    ("DriftguardError('a', ' .', found='x', remedy='d')", "line 1: expected is empty"),
    ("DriftguardError('a', 'b', None, 'd')", "line 1: found is empty"),
])
def test_poor_failures_are_found(call: str, said: str) -> None:
    assert source.poor_failures(call) == [said]


def test_good_failures_pass() -> None:
    assert source.poor_failures("DriftguardError(f'{x}', 'b', str(e), remedy='d')") == []
    assert source.poor_failures("DriftguardError(*parts)") == []


@pytest.mark.parametrize(("body", "count"), [
    ("x = 1", 1), ("pass", 1), ("assert True", 1), ("assert 'x'", 1), ("assert f() or True", 1),
    ("assert x", 0), ("f()", 0), ("assert False", 0), ("assert f() or x", 0),
])
def test_pointless_tests_are_found(body: str, count: int) -> None:
    assert len(list(source.pointless_tests(f"def test_it():\n    {body}"))) == count


def test_broken_rules_are_told_in_full() -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        expect_none({"a": ["1", "2"], "b": [], "c": ["3"]})
    assert str(caught.value) == "a: 1\na: 2\nc: 3"
    expect_none({"a": []})
