# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit entry: its time, by Redis's clock and without a library for dates; its fields, which are the contract's."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.audit import AUDIT, audit_arguments, audit_key
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from contract.guard_cases import CONTRACT

MOMENTS = [0, 1, 59, 86_399, 86_400, 951_782_399, 951_782_400, 951_868_799, 951_868_800, 978_307_199, 1_709_164_800,
           1_709_251_199, 1_709_251_200, 1_735_689_599, 1_735_689_600, 4_107_542_399, 4_107_542_400, 32_503_680_000]


def test_a_time_is_what_pythons_library_says(gateway: RedisGateway) -> None:
    moments = [*MOMENTS, *range(0, 4_200_000_000, 12_345_678)]
    said = gateway.script("times", AUDIT + """
        local all = {} for i, one in ipairs(ARGV) do all[i] = audit_time(tonumber(one)) end return all""", [], moments)
    assert said == [datetime.fromtimestamp(one, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") for one in moments]


def test_an_entry_has_the_contracts_fields(gateway: RedisGateway, raw: Any) -> None:
    gateway.script("audit", AUDIT + "return audit(KEYS[1], 'flag', 'n', 'a', 'b', ARGV[1], ARGV[2], ARGV[3])",
                   [audit_key("demo")], audit_arguments("alice", "why", "run1"))
    ((number, entry),) = raw.xrange("demo:audit")
    assert list(entry) == CONTRACT["names"]["audit"]["fields"]
    assert entry["what"] in CONTRACT["names"]["audit"]["what"]
    written = datetime.strptime(entry["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    assert 0 <= int(number.split("-")[0]) / 1000 - written < 1.1
    assert CONTRACT["names"]["redis"]["audit"].replace("<fleet>", "demo") == audit_key("demo")
    assert re.search(rf"'~', {CONTRACT['names']['audit']['length']},", AUDIT)


def test_a_stream_of_another_type_is_found_before_anything_is_written(gateway: RedisGateway, raw: Any) -> None:
    raw.set("demo:audit", "x")
    with pytest.raises(DriftguardError, match="TYPE"):
        gateway.script("audit", AUDIT + "audit_ready(KEYS[1]) redis.call('SET', 'demo:x', 1)", ["demo:audit"], [])
    assert not raw.exists("demo:x")


@pytest.mark.parametrize("said", [("a\nb", "", ""), ("", "x" * 501, ""), ("", "", "\x00")])
def test_what_is_no_line_is_refused(said: tuple[str, str, str]) -> None:
    with pytest.raises(DriftguardError, match="option "):
        audit_arguments(*said)


def test_empty_words_are_fine() -> None:
    assert audit_arguments("", "", "") == ["", "", ""]
