# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Python worker that calls run_startup_guards() itself is held to the same cases, and its imports stay few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Iterator, Mapping

import pytest
from contract.guard_cases import (
    CASES,
    CONTRACT,
    FATAL,
    GUARD,
    GUARDS,
    STARTED,
    Outcome,
    command_of,
    complaints,
    environment_of,
    import_guard,
    needs_other_user,
    render_env,
    write_files,
)
from contract.guard_programs import Guard, Workshop, all_guards, guard_command, open_workshop

version_guard = import_guard()
READABLE = [case for case in CASES if os.getuid() != 0 or not needs_other_user(case)]
PYTHONS = [guard for guard in all_guards() if guard.is_python]
SHA = GUARD["fixtures"]["environment"]["GIT_SHA"]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.mark.parametrize("case", READABLE, ids=[case["name"] for case in READABLE])
def test_imported_guard_decides_as_the_contract_says(
    case: Mapping[str, Any], shop: Workshop, capfd: pytest.CaptureFixture[str],
) -> None:
    files = write_files(case, shop.place())
    record = None if files.record is None else str(files.record)
    command = command_of(case)
    status = _status(environment_of(case), command, str(files.image), record)
    out, err = capfd.readouterr()
    started = "".join(f"{line}\n" for line in (STARTED, *command[1:])) if status == 0 else ""
    outcome = Outcome(status, out + started, err)
    assert not complaints(case, outcome), outcome


def _status(*arguments: Any) -> int:
    try:
        version_guard.run_startup_guards(*arguments)
    except SystemExit as refusal:
        return int(refusal.code or 0)
    return 0


@pytest.mark.parametrize("python", PYTHONS, ids=[guard.name for guard in PYTHONS])
@pytest.mark.parametrize(("last", "expected"), [("tsx", 1), ("extsx", 0)])
def test_imported_guard_judges_the_workers_own_command_line(
    python: Guard, last: str, expected: int, shop: Workshop,
) -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import version_guard; version_guard.run_startup_guards()"
    done = subprocess.run(
        [python.interpreter[0], "-c", program, str(shop.guards), last], capture_output=True, text=True, check=False,
        env={"NODE_ENV": "production", "GIT_SHA": SHA, "LC_ALL": "C.UTF-8"})
    assert done.returncode == expected, done
    assert (FATAL in done.stderr) == (expected == 1)


def test_imports_nothing_that_costs_time_or_can_connect(shop: Workshop) -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import version_guard; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program, str(shop.guards)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "version_guard" in loaded
    assert not loaded & {"argparse", "datetime", "json", "logging", "pathlib", "re", "socket", "subprocess", "typing"}


def test_a_record_as_deployed_is_read_without_json(shop: Workshop) -> None:
    for record, needed in (("settled on new", False), ("rolling from old to new", False), (_compact(), True)):
        files = write_files({"record": record}, shop.place())
        command = guard_command(PYTHONS[0], shop.guards, files, ["--check"])[:-1]
        done = subprocess.run(
            [command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True, check=True,
            env=environment_of({}))
        assert ("json" in done.stderr) == needed, done.stderr


def _compact() -> dict[str, str]:
    record = GUARD["fixtures"]["records"]["settled on new"]
    return {"json": json.dumps(record), "env": render_env(record)}


def test_constants_are_the_contracts() -> None:
    names, limits, runners, record = CONTRACT["names"], GUARD["limits"], CONTRACT["devRunners"], CONTRACT["record"]
    assert names["imageFile"] == version_guard.IMAGE_FILE
    assert names["imageFileKeys"] == list(version_guard.IMAGE_KEYS)
    assert names["guardMount"] == version_guard.GUARD_MOUNT
    assert [names["recordFiles"]["json"], names["recordFiles"]["sh"]] == list(version_guard.RECORD_FILES)
    assert runners["names"] == list(version_guard.DEV_RUNNERS)
    assert set(runners["separators"]) == set(version_guard.SEPARATORS)
    assert runners["optionVariables"] == list(version_guard.OPTION_VARIABLES)
    assert limits == {
        "lines": version_guard.MAX_LINES, "lineBytes": version_guard.MAX_LINE_BYTES,
        "fileBytes": version_guard.MAX_FILE_BYTES, "shownBytes": version_guard.SHOWN_BYTES}
    assert set(GUARD["plainCharacters"]) == set(version_guard.PLAIN)
    assert (record["maxAllowed"], record["maxGeneration"]) == (version_guard.MAX_ALLOWED, version_guard.MAX_GENERATION)
    assert GUARD["exitStatus"] == {
        "refused": version_guard.EXIT_REFUSED, "usage": version_guard.EXIT_USAGE,
        "notExecutable": version_guard.EXIT_NOT_EXECUTABLE, "notFound": version_guard.EXIT_NOT_FOUND}


def test_shell_guard_has_the_same_constants() -> None:
    text = (GUARDS / "version_guard.sh").read_text(encoding="utf-8")
    names, limits = CONTRACT["names"], GUARD["limits"]
    assert f"__dg_mount={names['guardMount']}\n" in text
    assert f"__dg_image_file={names['imageFile']}\n" in text
    assert f"for __dg_key in {' '.join(names['imageFileKeys'])}; do" in text
    assert f"__dg_plain='{GUARD['plainCharacters']}'" in text
    assert text.count(f'-le {limits["lines"]} ] && [ "${{#__dg_line}}" -le {limits["lineBytes"]} ]') == 2
    assert f"%.{limits['shownBytes']}s" in text
    assert f"-le {CONTRACT['record']['maxAllowed']} ]" in text
    assert f"-le {CONTRACT['record']['maxGeneration']} ]" in text
