# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's names are the contract's, all of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import names
from contract.guard_cases import CONTRACT

CONTRACTED: dict[str, Any] = CONTRACT["names"]
LABELS: dict[str, str] = CONTRACTED["labels"]
REGISTRATION: dict[str, Any] = CONTRACTED["registration"]
EXPECTED: dict[str, Any] = {
    "FLEET_PATTERN": CONTRACTED["fleetPattern"],
    "SERVICE_PATTERN": CONTRACTED["servicePattern"],
    "VARIANT_PATTERN": CONTRACTED["variantPattern"],
    "SHA_PATTERN": CONTRACTED["shaPattern"],
    "RELEASE_PATTERN": CONTRACTED["releasePattern"],
    "IMAGE_ID_PATTERN": CONTRACTED["imageIdPattern"],
    "FLAG_PATTERN": CONTRACTED["flags"]["pattern"],
    "FLAG_VALUES": tuple(CONTRACTED["flags"]["values"]),
    **{"LABEL_" + re.sub(r"([A-Z])", r"_\1", key).upper(): label for key, label in LABELS.items()},
    "IMAGE_FILE": CONTRACTED["imageFile"],
    "GUARD_MOUNT": CONTRACTED["guardMount"],
    "SECRETS_MOUNT": CONTRACTED["secretsMount"],
    "HOST_ROOT": CONTRACTED["hostRoot"],
    "RESERVED_ENVIRONMENT": tuple(CONTRACTED["reservedEnvironment"]),
    "HEARTBEAT_SECONDS": REGISTRATION["heartbeatSeconds"],
    "REGISTRATION_TTL_SECONDS": REGISTRATION["ttlSeconds"],
    "HEALTH_PORT": CONTRACTED["healthPort"],
    "METRIC_JOBS": CONTRACTED["metrics"]["jobs"],
    "JOBS_DONE": tuple(CONTRACTED["metrics"]["outcomes"]["done"]),
    "JOBS_FAILED": tuple(CONTRACTED["metrics"]["outcomes"]["failed"]),
    "AUDIT_LENGTH": CONTRACTED["audit"]["length"],
}
CONSTANTS = {name: value for name, value in vars(names).items() if name.isupper()}


def portable(value: Any) -> Any:
    """A pattern as every language writes it: Python's ``\\Z`` is what ``$`` is elsewhere."""
    return value.pattern.replace(r"\Z", "$") if isinstance(value, re.Pattern) else value


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_name_is_the_contracts(name: str) -> None:
    assert name in EXPECTED, f"names.{name} is not in files/guard/contract.json: add it there, and to this test"
    assert portable(CONSTANTS[name]) == EXPECTED[name]


def test_collection_has_every_name_of_the_contract() -> None:
    assert set(EXPECTED) <= set(CONSTANTS)


def test_derived_names_are_the_contracts() -> None:
    assert names.compose_project("demo") == CONTRACTED["composeProject"].replace("<fleet>", "demo")
    of_base, of_others = CONTRACTED["repository"]["base"], CONTRACTED["repository"]["other"]
    assert names.repository_of("demo-worker", "base") == of_base.replace("<repository>", "demo-worker")
    expected = of_others.replace("<repository>", "demo-worker").replace("<variant>", "ocr")
    assert names.repository_of("demo-worker", "ocr") == expected


def test_patterns_match_nothing_that_ends_in_a_newline() -> None:
    matching = {
        "FLEET_PATTERN": "demo", "SERVICE_PATTERN": "extractor", "VARIANT_PATTERN": "ocr", "SHA_PATTERN": "0" * 40,
        "RELEASE_PATTERN": "0" * 12 + "." + "0" * 12, "IMAGE_ID_PATTERN": "sha256:" + "0" * 64,
        "FLAG_PATTERN": "classification"}
    for name, text in matching.items():
        assert CONSTANTS[name].match(text)
        assert not CONSTANTS[name].match(text + "\n")


def test_reserved_variables_come_from_the_image_and_from_nowhere_else() -> None:
    assert CONTRACTED["reservedEnvironment"] == CONTRACTED["environment"]["image"]
    assert not set(CONTRACTED["reservedEnvironment"]) & set(CONTRACTED["environment"]["deploy"])
