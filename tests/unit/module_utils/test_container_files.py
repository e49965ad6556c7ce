# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a container's own files are with the containerd image store, by the host's table of mounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import container_files
from ansible_collections.driftguard.workers.plugins.module_utils.container_files import mounted_upper
from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine

OWN, OTHER = "d5" * 32, "a7" * 32
STORE = "/var/lib/docker/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots"
# As a host with Docker Engine 26 and the containerd image store has it, with fewer lower directories.
ROOT = (
    "804 262 0:226 / /var/lib/docker/rootfs/overlayfs/{id} rw,relatime shared:217 - overlay overlay "
    "rw,lowerdir={store}/19/fs:{store}/5/fs,upperdir={store}/{number}/fs,workdir={store}/{number}/work")
SYSTEM = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw"


def table(*lines: str) -> str:
    return "\n".join([SYSTEM, *lines]) + "\n"


def root(container_id: str, number: int = 27, store: str = STORE) -> str:
    return ROOT.format(id=container_id, number=number, store=store)


def test_the_upper_directory_of_the_containers_own_root() -> None:
    assert mounted_upper(OWN, table(root(OTHER, 9), root(OWN))) == f"{STORE}/27/fs"


@pytest.mark.parametrize("lines", [
    (), (root(OTHER),), (root(OWN), root(OWN, 28)), (root(OWN).replace(" - overlay ", " - fuse "),),
    (root(OWN).replace("upperdir=", "upper="),), (root(OWN).replace("upperdir=/", "upperdir="),),
    (root(OWN) + ",upperdir=/tmp/x",), (root(OWN, store=STORE + "\\040x"),), (root(OWN).replace(" - ", " "),),
    (f"30 22 0:9 / /mnt/{OWN}/x rw - overlay overlay rw,upperdir=/tmp/x",), (f"30 22 /{OWN} -",),
], ids=range(11))
def test_whatever_isnt_one_such_mount_is_none(lines: tuple[str, ...]) -> None:
    assert mounted_upper(OWN, table(*lines)) == ""


class Client:
    """An engine that can be asked for a diff."""

    def diff(self, _container_id: str) -> list[dict[str, str]]:
        return [{"Path": "/said/by/the/engine"}]


def test_it_is_read_there_and_the_engine_asked_where_it_cant_be(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upper = tmp_path / "27" / "fs"
    (upper / "app").mkdir(parents=True)
    (upper / "app" / "x.py").write_text("")
    client: Any = Client()
    one = Engine(client, "29.0")
    monkeypatch.setattr(container_files, "_mounts", lambda: table(root(OWN, store=str(tmp_path))))
    assert one.changes({"Id": OWN, "GraphDriver": None}) == ["/app", "/app/x.py"]
    assert one.changes({"Id": OTHER, "GraphDriver": {"Name": "overlayfs", "Data": None}}) == ["/said/by/the/engine"]
