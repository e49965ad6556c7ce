# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection writes, the guards read; what the guards call malformed, the collection does too."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import record as records
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_plan import Stamp
from contract.guard_cases import CASES, CONTRACT, FIXTURES, import_guard, write_files
from contract.guard_programs import Guard, Workshop, all_guards, guard_command, node_guards, open_workshop, run

version_guard = import_guard()
GUARDED = (*all_guards(), *node_guards())
RELEASE = FIXTURES["records"]["settled on new"]["target"]
STAMP = Stamp(
    "demo", "ocr", RELEASE["releaseId"], RELEASE["sha"], "2026-01-02T03:04:05Z", "registry.example:5000/a_b/base",
    "sha256:" + "0" * 64)
# Python's json takes it, though it isn't JSON: a worker in another language would not, so the guard doesn't either.
STRICTER = "host record: no number is NaN"
TEXTS = [case for case in CASES if isinstance(case.get("record"), dict) and case["record"].get("json", "") is not None
         and "special" not in str(case["record"])]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.mark.parametrize("guard", GUARDED, ids=[guard.name for guard in GUARDED])
def test_guards_read_what_is_stamped_on_images(guard: Guard, shop: Workshop) -> None:
    files = write_files({"imageFile": STAMP.document(), "record": "settled on new"}, shop.place())
    check = guard_command(guard, shop.guards, files, ["--check"])[:-1]
    assert run(check, {"GIT_SHA": RELEASE["sha"]}).status == 0
    assert "overridden" in run(check, {"GIT_SHA": "0" * 40}).stderr


def test_stamp_has_the_contracts_keys_in_their_order() -> None:
    keys = [line.split('"')[1] for line in STAMP.document().splitlines()[1:-1]]
    assert keys == CONTRACT["names"]["imageFileKeys"]


@pytest.mark.parametrize("case", TEXTS, ids=[case["name"] for case in TEXTS])
def test_collection_and_guard_call_the_same_records_malformed(case: dict[str, Any], shop: Workshop) -> None:
    directory = write_files(case, shop.place()).record
    assert directory is not None
    text = (directory / "guard.json").read_text(encoding="utf-8")
    fleet = "sibling" if '"sibling"' in text else FIXTURES["records"]["settled on new"]["fleet"]
    assert _guard_takes(text) == (_collection_takes(text, fleet) and case["name"] != STRICTER)


def _guard_takes(text: str) -> bool:
    try:
        version_guard.parse_record(text.encode())
    except (ValueError, RecursionError):
        return False
    return True


def _collection_takes(text: str, fleet: str) -> bool:
    try:
        records.parse_record(text, "guard.json", fleet, "")
    except DriftguardError:
        return False
    return True
