# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container id, from recorded samples of what the kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftguard_worker.container_id import from_cgroup, from_mountinfo, own_container_id

SAMPLES = Path(__file__).parent / "samples"
WRITTEN = "ab12" * 16


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker20-cgroup1", "c291973c662924032d72bda021cae3c192c2f27bc43dfb776a4094e201f7ad73"),
        ("docker20-cgroup1-private", "84204a978885c704fdfe9d72e581c54c2f0df9c72880d763bd119744978f3b66"),
        ("docker20-hostnetwork", "91c66cd7bcc9872e1b995ae6e64f1ad041f3c18f45b4d54f15848255c2347761"),
        ("docker20-volumes", "9d5cf33ab080e5372a8222dc68252d2766cd47f46316e0fa8ceff0a038421ece"),
        ("docker26-cgroup2-private", WRITTEN),
        ("podman4", WRITTEN),
        ("nested-engine", WRITTEN),
        ("plain-host", None),
    ],
)
def test_mountinfo(name: str, expected: str | None) -> None:
    assert from_mountinfo(sample(f"{name}.mountinfo")) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker20-cgroup1", "c291973c662924032d72bda021cae3c192c2f27bc43dfb776a4094e201f7ad73"),
        ("docker20-cgroup1-private", None),
        ("docker20-hostnetwork", "91c66cd7bcc9872e1b995ae6e64f1ad041f3c18f45b4d54f15848255c2347761"),
        ("docker26-cgroup2-host", WRITTEN),
        ("docker26-cgroup2-private", None),
        ("podman4", WRITTEN),
        ("kubernetes-cgroup1", WRITTEN),
        ("containerd-cgroup2", WRITTEN),
        ("nested-engine", WRITTEN),
        ("plain-host", None),
    ],
)
def test_cgroup(name: str, expected: str | None) -> None:
    assert from_cgroup(sample(f"{name}.cgroup")) == expected


def test_another_container_s_file_mounted_elsewhere_is_not_ours() -> None:
    other = "cd34" * 16
    line = f"150 136 254:0 /var/lib/docker/containers/{other}/hostname /peer/hostname ro - ext4 /dev/vda rw"
    assert from_mountinfo(line) is None
    assert from_mountinfo(f"{line}\n{sample('podman4.mountinfo')}") == WRITTEN


def test_recorded_samples_agree_where_both_know() -> None:
    for name in ("docker20-cgroup1", "docker20-hostnetwork", "podman4", "nested-engine"):
        assert from_mountinfo(sample(f"{name}.mountinfo")) == from_cgroup(sample(f"{name}.cgroup")), name


def proc(directory: Path, mountinfo: str | None, cgroup: str | None) -> Path:
    for name, content in (("mountinfo", mountinfo), ("cgroup", cgroup)):
        if content is not None:
            (directory / name).write_text(content, encoding="utf-8")
    return directory


def test_mountinfo_comes_first(tmp_path: Path) -> None:
    mountinfo, cgroup = sample("docker20-cgroup1-private.mountinfo"), sample("docker26-cgroup2-host.cgroup")
    assert own_container_id(proc(tmp_path, mountinfo, cgroup)) == from_mountinfo(mountinfo)


def test_cgroup_where_the_files_are_mounted_over(tmp_path: Path) -> None:
    assert own_container_id(proc(tmp_path, None, sample("docker26-cgroup2-host.cgroup"))) == WRITTEN


def test_nothing_without_proc(tmp_path: Path) -> None:
    assert own_container_id(tmp_path) is None


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    for found in (from_mountinfo(text), from_cgroup(text)):
        assert found is None or len(found) == 64
