# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container said before it was restarted, when its new start has said a lot."""

from __future__ import annotations

from typing import Iterator

import docker
import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine
from support.fleet import TEST_LABEL, wait_for

# Its first start says three lines, one of them in two parts, and ends; its second one says many.
PROGRAM = """
if [ -e /again ]; then for n in $(seq 100); do echo again $n; done; exec sleep 600; fi
touch /again; echo starting; printf 'half\\rdone\\n'; echo boom; exit 3
"""


@pytest.fixture(scope="module")
def restarted(base_reference: str) -> Iterator[str]:
    client = docker.from_env()
    made = client.containers.run(
        base_reference, entrypoint=["/bin/sh", "-c", PROGRAM], detach=True, init=True,
        restart_policy={"Name": "always"}, labels={TEST_LABEL: "logs"})
    try:
        wait_for(lambda: b"again 100\n" in made.logs(), "its second start to say all")
        yield str(made.id)
    finally:
        made.remove(force=True, v=True)
        client.close()


def test_its_last_end_is_known(restarted: str) -> None:
    end = Engine.connect().last_end(restarted, 3600)
    assert end is not None
    assert end.status == 3


@pytest.mark.parametrize(("lines", "said"), [(20, ["starting", "half", "done", "boom"]), (1, ["boom"])])
def test_the_lines_before_its_end_are_found(restarted: str, lines: int, said: list[str]) -> None:
    engine = Engine.connect()
    assert engine.logs(restarted, lines, engine.last_end(restarted, 3600)) == said


def test_without_an_end_the_lines_are_the_last_ones(restarted: str) -> None:
    assert Engine.connect().logs(restarted, 2) == ["again 99", "again 100"]
