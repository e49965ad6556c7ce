# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that a playbook stays with: what it shows while it runs, how it ends with the playbook, what it leaves."""

from __future__ import annotations

import re
from pathlib import Path

from support.fleet import Fleet, wait_for

LINE = re.compile(r"^here +(\S+) +(\S+) +(stopping|starting|healthy|verified) +([\d.]+) s$", re.MULTILINE)


def test_each_container_is_told_of_as_it_happens(whole: Fleet) -> None:
    old = whole.ids()
    whole.commit()
    process = whole.start("deploy-workers.yml", "-e", "worker_progress=always", "-e", "worker_stabilize=6")
    wait_for(lambda: LINE.search(whole.log.read_text()), "the first line", 60)
    assert process.poll() is None
    assert "PLAY RECAP" not in whole.log.read_text()
    assert process.wait(240) == 0, whole.log.read_text()
    print(whole.log.read_text())
    steps = LINE.findall(whole.log.read_text())
    for name in old:
        assert [event for _service, container, event, _seconds in steps if container == name] == [
            "stopping", "starting", "healthy", "verified"], steps
    seconds = [float(step[3]) for step in steps]
    assert seconds == sorted(seconds)
    assert list(whole.root.glob("*/state/attended-*")) == []
