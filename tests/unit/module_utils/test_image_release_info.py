# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release record survives the way through JSON, and any other shape is refused by name."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import release_info
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.release_info import Release, VariantImage
from hypothesis import given
from hypothesis import strategies as st

SHA = "0123456789abcdef0123456789abcdef01234567"
ID = "sha256:" + "a" * 64
DIGEST = "sha256:" + "b" * 64
BASE: dict[str, Any] = {
    "variant": "base", "image": ID, "id": ID, "digest": None, "repository": "demo-worker",
    "tags": [f"demo-worker:{SHA}", f"demo-worker:{SHA[:7]}"], "size": 144_000_000,
    "entrypoint": [], "cmd": ["python3", "-m", "demo"], "working_dir": "/app", "uid": 10001, "gid": 10001,
    "guard": "python", "guard_program": "/usr/bin/python3", "volumes": [], "healthcheck": False,
}
PUSHED = {
    **BASE, "variant": "ocr", "repository": "registry:5000/demo-worker-ocr", "digest": DIGEST,
    "image": f"registry:5000/demo-worker-ocr@{DIGEST}",
}
RELEASE: dict[str, Any] = {
    "fleet": "demo", "release_id": "0123456789ab.89abcdef0123", "sha": SHA, "created": "2026-01-02T03:04:05Z",
    "variants": {"base": BASE, "ocr": PUSHED},
}


def test_a_release_survives_json() -> None:
    release = Release.from_dict(json.loads(json.dumps(RELEASE)))
    assert release.to_dict() == RELEASE
    assert release.variants["ocr"].image == f"registry:5000/demo-worker-ocr@{DIGEST}"


def test_rules_and_fields_are_the_same_keys() -> None:
    assert list(release_info._VARIANT_RULES) == [item.name for item in fields(VariantImage)]
    assert list(release_info._RELEASE_RULES) == [item.name for item in fields(Release)]


@pytest.mark.parametrize(("key", "value"), [
    ("variant", "Base"), ("variant", None), ("id", "a" * 64), ("id", ID + "\n"), ("digest", "latest"), ("digest", ""),
    ("repository", "Demo"), ("repository", "demo worker"), ("repository", "demo:latest"), ("repository", "-x"),
    ("tags", "demo-worker:1"), ("tags", [1]), ("size", "12"), ("size", -1), ("size", True), ("entrypoint", None),
    ("cmd", "python3 -m demo"), ("cmd", ["a\0b"]), ("working_dir", "app"), ("uid", "root"), ("uid", -1),
    ("uid", 2**32 - 1), ("gid", 1.5), ("guard", "perl"), ("guard", ["sh"]), ("guard_program", "python3"),
    ("volumes", ["data"]), ("healthcheck", "yes"), ("image", "demo-worker:latest"), ("image", DIGEST), ("image", ["x"]),
])
def test_a_wrong_value_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(DriftguardError) as caught:
        VariantImage.from_dict({**BASE, key: value}, "variant base")
    assert key in caught.value.subject
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize(("change", "named"), [
    ({"fleet": "Demo"}, "fleet"), ({"release_id": "x"}, "release_id"), ({"sha": SHA[:7]}, "sha"),
    ({"sha": "f" * 40}, "f" * 12), ({"created": "yesterday"}, "created"), ({"variants": {}}, "variants"),
    ({"variants": {"ocr": BASE}}, "variant ocr"), ({"variants": {"base": "x"}}, "variant base"), ({"more": 1}, "more"),
])
def test_a_wrong_release_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DriftguardError, match=named):
        Release.from_dict({**RELEASE, **change})


@pytest.mark.parametrize("key", sorted(RELEASE))
def test_a_missing_key_is_named(key: str) -> None:
    without = {name: value for name, value in RELEASE.items() if name != key}
    with pytest.raises(DriftguardError, match=f"missing key '{key}'"):
        Release.from_dict(without)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)


@given(st.data())
def test_no_data_at_all_makes_a_traceback(data: st.DataObject) -> None:
    damaged = copy.deepcopy(RELEASE)
    target = data.draw(st.sampled_from([damaged, damaged["variants"], damaged["variants"]["base"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    try:
        release = Release.from_dict(damaged)
    except DriftguardError:
        return
    assert release.to_dict() == damaged
