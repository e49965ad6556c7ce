# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's names are those of the contract that the deployer and the guards are held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driftguard_worker import healthcheck, names
from driftguard_worker.lifecycle import State
from driftguard_worker.settings import Settings

WHOLE: dict[str, Any] = json.loads((Path(__file__).parents[3] / "files/guard/contract.json").read_text("utf-8"))
CONTRACT, RECORD, FENCE = WHOLE["names"], WHOLE["record"], WHOLE["fence"]
REGISTRATION = CONTRACT["registration"]


def filled(template: str) -> str:
    for name, value in {"fleet": "demo", "service": "ocr", "instance": "ab12ab12ab12"}.items():
        template = template.replace(f"<{name}>", value)
    return template


def test_patterns() -> None:
    assert CONTRACT["fleetPattern"] == names.FLEET_PATTERN
    assert CONTRACT["servicePattern"] == names.SERVICE_PATTERN


def test_record() -> None:
    assert (RECORD["maxAllowed"], RECORD["maxGeneration"]) == (names.MAX_ALLOWED, names.MAX_GENERATION)
    assert (CONTRACT["releasePattern"], CONTRACT["shaPattern"]) == (names.RELEASE_PATTERN, names.SHA_PATTERN)
    assert CONTRACT["recordFiles"]["json"] == names.RECORD_FILE
    assert FENCE["hostLookSeconds"] == names.HOST_LOOK_SECONDS
    assert FENCE["drainSeconds"]["default"] == names.DRAIN_SECONDS
    assert Settings.model_fields["worker_drain_seconds"].default == names.DRAIN_SECONDS


def test_keys() -> None:
    redis = CONTRACT["redis"]
    assert names.version_key("demo", "ocr", "ab12ab12ab12") == filled(redis["registration"])
    assert names.legacy_key("demo", "ocr") == filled(redis["legacyRegistration"])
    assert names.starts_key("demo", "ocr", "ab12ab12ab12") == filled(redis["starts"])
    assert names.flags_key("demo") == filled(redis["flags"])
    assert names.release_key("demo") == filled(redis["release"])
    assert names.events_channel("demo") == filled(redis["events"])
    assert names.index_key("demo") == filled(redis["workers"])
    assert names.member("ocr", "ab12ab12ab12") == filled(redis["workersMember"])


def test_fields_and_states() -> None:
    assert list(names.FIELDS) == REGISTRATION["fields"]
    assert list(names.LEGACY_FIELDS) == REGISTRATION["legacyFields"]
    assert {state.value for state in State} <= set(REGISTRATION["states"])


def test_times() -> None:
    assert REGISTRATION["heartbeatSeconds"] == names.HEARTBEAT_SECONDS
    assert REGISTRATION["ttlSeconds"] == names.REGISTRATION_TTL_SECONDS
    assert REGISTRATION["legacyTtlSeconds"] == names.LEGACY_TTL_SECONDS


def test_places() -> None:
    assert CONTRACT["healthPort"] == names.HEALTH_PORT == healthcheck._PORT
    assert CONTRACT["imageFile"] == names.IMAGE_FILE
    assert CONTRACT["guardMount"] == names.GUARD_DIRECTORY


def test_every_variable_of_the_deployer_is_a_setting() -> None:
    deployed = {*CONTRACT["environment"]["deploy"], *CONTRACT["environment"]["image"]}
    assert deployed <= {name.upper() for name in Settings.model_fields}
