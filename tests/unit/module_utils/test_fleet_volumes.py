# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes in compose's short form: read exactly, and refused where they would open the host or cover what is ours."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_values import Unfit
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_volumes import Mount, mount, tmpfs_path


@pytest.mark.parametrize(("written", "read"), [
    ("data:/data", Mount("volume", "data", "/data", False)),
    ("data:/data:ro", Mount("volume", "data", "/data", True)),
    ("Data_1.x-y:/data:rw", Mount("volume", "Data_1.x-y", "/data", False)),
    ("data:/data:external", Mount("volume", "data", "/data", False, True)),
    ("data:/data:ro,external", Mount("volume", "data", "/data", True, True)),
    ("/srv/in:/in:ro", Mount("bind", "/srv/in", "/in", True)),
    ("/srv//in/./x/:/in//y/", Mount("bind", "/srv/in/x", "/in/y", False)),
    ("//srv:///in", Mount("bind", "/srv", "/in", False)),
    ("/srv/${X} $$:/č ć", Mount("bind", "/srv/${X} $$", "/č ć", False)),
    ("/...:/..a/b..", Mount("bind", "/...", "/..a/b..", False)),
])
def test_volumes(written: str, read: Mount) -> None:
    assert mount(written) == read


@pytest.mark.parametrize("written", [
    "", "/data", "data", "data:", ":/data", "data:data", "data:/data:rox", "data:/data:ro:z", "data:/data:z", "::",
    "a:b:c:d",
    "./x:/data", "~/x:/data", "../x:/data", "-x:/data", ".x:/data", "x y:/data", "č:/data", "x/y:/data", "C:\\x:/data",
    "${X}:/data", "x" * 101 + ":/data", None, 5, ["data:/data"], {"source": "data", "target": "/data"}, "data:/data\n",
])
def test_what_is_no_volume(written: Any) -> None:
    with pytest.raises(Unfit):
        mount(written)


@pytest.mark.parametrize("path", [
    "/", "//", "///", "/.", "/./", "//.", "/..", "/app/../etc", "/a/..", "relative", "", " /data", "/a,b", "/a;b",
    "/a\nb",
    "/a\tb", "/a\x1bb", "/a\x7f", "/a\u2028b", "/" + "a" * 1024,
])
def test_paths_that_no_mount_may_have(path: str) -> None:
    with pytest.raises(Unfit):
        tmpfs_path(path)
    with pytest.raises(Unfit):
        mount(f"data:{path}")
    if path.startswith("/"):
        with pytest.raises(Unfit):
            mount(f"{path}:/data")


@pytest.mark.parametrize("path", [
    "/opt/driftguard", "/opt/driftguard/demo/guard", "/etc/driftguard", "/etc/driftguard/image.json", "/run/secrets",
    "/run/secrets/x", "/var/run/secrets/x", "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/shm", "//proc/", "/./proc/.",
])
def test_what_is_ours_or_the_kernels_is_refused(path: str) -> None:
    for written in (f"data:{path}", f"{path}:/data"):
        with pytest.raises(Unfit, match="paths outside"):
            mount(written)
    with pytest.raises(Unfit, match="paths outside"):
        tmpfs_path(path)


@pytest.mark.parametrize("source", [
    "/run/docker.sock", "/var/run/docker.sock", "/run//docker.sock/", "/run/containerd/containerd.sock", "/run",
    "/var/run/",
    "//run", "/var", "/home/x/podman.sock",
])
def test_no_worker_gets_the_engines_socket(source: str) -> None:
    with pytest.raises(Unfit, match="raw engine socket"):
        mount(f"{source}:/x:ro")


@pytest.mark.parametrize(
    "path", ["/opt/driftguard2", "/etc/driftguardx", "/run/secretsx", "/run", "/tmp", "/procx", "/devx"]
)
def test_neighbours_are_allowed(path: str) -> None:
    assert tmpfs_path(path) == path
    assert mount(f"data:{path}").target == path
