# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record that is written on a host is the one that the guards enforce, and keeps the contract's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import record as records
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef, rolling, settled
from ansible_collections.driftguard.workers.plugins.module_utils.untrusted import MAX_NUMBER
from contract.guard_cases import CONTRACT, FIXTURES, STARTED, render_env, render_json
from contract.guard_programs import Guard, Workshop, all_guards, open_workshop, run_case
from support.releases import release

RULES: dict[str, Any] = CONTRACT["record"]
FIXED: dict[str, Any] = FIXTURES["records"]["settled on new"]["target"]
OWN = ReleaseRef(FIXED["releaseId"], FIXED["sha"])
OLD, OTHER = release("a"), release("b")
CROWD = [release(letter, inputs) for letter in "abcd" for inputs in "01234567"]

WRITTEN = [
    ("settled on its own", settled(None, "demo", OWN, 7), True),
    ("settled on another", settled(None, "demo", OLD, 7), False),
    ("rolling from its own", rolling(settled(None, "demo", OWN, 7), "demo", OTHER, 8), True),
    ("rolling to its own", rolling(settled(None, "demo", OLD, 7), "demo", OWN, 8), True),
    ("rolling between others", rolling(settled(None, "demo", OLD, 7), "demo", OTHER, 8), False),
    ("first deploy", rolling(None, "demo", OWN, 1), True),
    ("as many as there may be, its own last", rolling(None, "demo", OWN, 1, CROWD), True),
    ("as many as there may be, none its own", rolling(None, "demo", CROWD[31], 1, CROWD[:31]), False),
    ("the highest number", settled(None, "demo", OWN, MAX_NUMBER), True),
]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.mark.parametrize("guard", all_guards(), ids=lambda guard: guard.name)
@pytest.mark.parametrize(("record", "starts"), [row[1:] for row in WRITTEN], ids=[row[0] for row in WRITTEN])
def test_every_guard_enforces_what_was_written(
    guard: Guard, record: Record, starts: bool, shop: Workshop, tmp_path: Path
) -> None:
    HostRecords(tmp_path, "demo").write(record)
    files = {name: (tmp_path / "demo" / "guard" / f"guard.{name}").read_text() for name in ("json", "env")}
    outcome = run_case(guard, {"record": files}, shop)
    assert (outcome.status == 0, STARTED in outcome.stdout) == (starts, starts), outcome
    assert starts or "[version] FATAL: " in outcome.stderr


def test_the_numbers_of_the_contract() -> None:
    assert (records.SCHEMA, list(records.PHASES)) == (RULES["schema"], RULES["phases"])
    assert RULES["maxAllowed"] == records.MAX_ALLOWED
    assert RULES["maxGeneration"] == MAX_NUMBER


@pytest.mark.parametrize("name", sorted(FIXTURES["records"]))
def test_the_contract_s_records_are_read_and_written_back_alike(name: str) -> None:
    document = FIXTURES["records"][name]
    read = records.parse_record(json.dumps(document), "key", "demo", "")
    assert read.as_json() == document
    assert (records.render_json(read), records.render_env(read)) == (render_json(document), render_env(document))


def test_env_lines_are_the_contract_s() -> None:
    record = rolling(settled(None, "demo", OLD, 7), "demo", OWN, 8)
    keys = [line.partition("=")[0] for line in records.render_env(record).splitlines()]
    assert list(dict.fromkeys(keys)) == [line.partition("=")[0] for line in RULES["env"]]


def test_no_key_twice() -> None:
    text = records.render_compact(settled(None, "demo", OWN, 7)).replace('"schema"', '"phase":"rolling","schema"')
    with pytest.raises(DriftguardError):
        records.parse_record(text, "key", "demo", "")
