# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All guards decide every case of the contract alike, as real processes under every interpreter there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from contract.guard_cases import (
    CASES,
    CONTRACT,
    FATAL,
    GUARD,
    GUARDS,
    complaints,
    needs_other_user,
    reads_options,
    write_files,
)
from contract.guard_programs import (
    Guard,
    Workshop,
    all_guards,
    guard_command,
    node_guards,
    open_workshop,
    run,
    run_case,
    runs_as_nobody,
)

GUARDED = (*all_guards(), *node_guards())
RUNS = [
    (guard, case) for guard in GUARDED for case in CASES
    if (runs_as_nobody(guard) or not needs_other_user(case)) and not (guard.only_checks and reads_options(case))
]
PRODUCTION = {"NODE_ENV": "production", "GIT_SHA": "0123456789abcdef0123456789abcdef01234567"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.fixture(params=GUARDED, ids=[guard.name for guard in GUARDED])
def guard(request: pytest.FixtureRequest) -> Guard:
    chosen: Guard = request.param
    return chosen


@pytest.mark.parametrize(("guard_of_run", "case"), RUNS, ids=[f"{guard.name}: {case['name']}" for guard, case in RUNS])
def test_decides_as_the_contract_says(guard_of_run: Guard, case: dict[str, Any], shop: Workshop) -> None:
    outcome = run_case(guard_of_run, case, shop)
    assert not complaints(case, outcome), outcome


def test_python_and_both_common_shells_are_tried() -> None:
    assert any(guard.is_python for guard in GUARDED)
    assert {"dash", "busybox"} <= {guard.name for guard in GUARDED}, "install dash and busybox: the guard is for both"


def test_the_node_guard_is_tried() -> None:
    assert any(guard.only_checks for guard in GUARDED), "install Node 18 or later: one of the guards is for it"


def test_special_files_are_tried_by_all_guards() -> None:
    tried = {guard.file for guard, case in RUNS if needs_other_user(case)}
    assert tried == {guard.file for guard in GUARDED}


def test_every_rule_and_title_has_a_case() -> None:
    titles = {title for rule in GUARD["rules"] for title in rule["titles"]}
    fatal = {case["expect"]["fatal"] for case in CASES if "fatal" in case["expect"]}
    runners = {f"Running via {name} in production!" for name in CONTRACT["devRunners"]["names"]}
    assert titles - {"Running via <runner> in production!"} == fatal - runners
    assert {rule["id"] for rule in GUARD["rules"]} | {"pass", "enforcement"} == {case["rule"] for case in CASES}


@pytest.mark.parametrize("runner", CONTRACT["devRunners"]["names"])
def test_every_runner_is_refused(guard: Guard, runner: str, shop: Workshop) -> None:
    command, variables = _unstamped(guard, shop), {**PRODUCTION, "PATH": str(shop.stubs)}
    parts = runner.split(" ")
    refused = run([*command, "npx", *parts, "x"], variables)
    assert f"{FATAL}Running via {runner} in production!\n" in refused.stderr, refused
    longer = run([*command, "node", f"x{runner}x", f"a-{parts[0]}-b"], variables)
    assert longer.status == 0, longer


@pytest.mark.parametrize("separator", CONTRACT["devRunners"]["separators"])
def test_every_separator_separates(guard: Guard, separator: str, shop: Workshop) -> None:
    words = f"x{separator}tsx{separator}y"
    refused = run([*_unstamped(guard, shop), "node", words], {**PRODUCTION, "PATH": str(shop.stubs)})
    assert refused.status == 1, refused


def _unstamped(guard: Guard, shop: Workshop) -> list[str]:
    """The guard where there is neither image file nor host record."""
    return guard_command(guard, shop.guards, write_files({"imageFile": None}, shop.place()))


@pytest.mark.parametrize("beside", ["guard.json", "guard.env"])
def test_a_record_beside_the_guard_enforces_without_being_named(guard: Guard, beside: str, shop: Workshop) -> None:
    place = shop.place()
    files = write_files({"record": "settled on old"}, place)
    assert files.record is not None
    for file in (*GUARDS.glob("version?guard*"), files.record / "guard.json", files.record / "guard.env"):
        if file.name == beside or file.name.startswith("version"):
            (place / file.name).write_bytes(file.read_bytes())
    command = [*guard.interpreter, str(place / guard.file), "--image-file", str(files.image), "--check"]
    outcome = run(command, {"GIT_SHA": PRODUCTION["GIT_SHA"]})
    own = "guard.json" if guard.reads_json else "guard.env"
    expected = "This host does not allow this release!" if beside == own else "Host record is missing!"
    assert outcome.stderr.startswith(FATAL + expected), outcome


def test_documentation_has_every_line_that_can_be_said() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "guards.md").read_text(encoding="utf-8")
    for rule in GUARD["rules"]:
        for title in rule["titles"]:
            assert f"`{FATAL}{title}`" in text
