# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the model has found once, each as short as it could be made."""

from __future__ import annotations

from typing import Callable

import pytest
from model.engine import Badness
from model.fleet import Deed, Deploy, Overlap, Policy, play
from model.world import Fault, Model, Release

A, B, C = Release("a"), Release("b"), Release("c")
FOUND: dict[str, tuple[Deed, ...]] = {
    # Success, though another deploy had moved the fleet on since this one had published.
    "overtaken after it had published": (Deploy(A), *(Overlap(B, C, at, lease_ends=True) for at in range(152, 184, 4))),
    # Success, though a record had not been settled: a lost connection rescues nothing.
    "no connection while a host is settled": (
        Deploy(A), Deploy(B, (Fault("flaky", 0, "h2", more=3, task="Take the steps on this host"),))),
    "no connection while the fleet is settled": (
        Deploy(A), Deploy(B, (Fault("flaky", 0, "h1", more=2, task="Change the fleet's record"),))),
    "no connection at the last proof": (
        Deploy(A), Deploy(B, (Fault("flaky", 0, "h2", more=4, task="Take the steps on this host"),))),
    # A host that had not taken the lease itself could not publish the old release when it went back.
    "published first, and bad on the second host": (
        Deploy(A), Deploy(Release("bad", Badness("crash", 0.0, "", "h2")), policy=Policy(worker_publish="before"))),
    # Back on what was proved there last, which is the fleet's no more: nobody may call that rolled back.
    "bad after a host had been left behind": (
        Deploy(A), Deploy(B, (Fault("cut", 0, "h2"),), policy=Policy(worker_unreachable="continue")),
        Deploy(Release("bad", Badness("crash", 0.0, "", "h2")), (Fault("mend", 0, "h2"),))),
    "a bad release over one that was left midway": (
        Deploy(A), Overlap(B, Release("bad", Badness("crash", 0.0)), 101, lease_ends=True)),
}


@pytest.mark.parametrize("script", FOUND.values(), ids=FOUND)
def test_what_was_found_stays_mended(new_model: Callable[..., Model], script: tuple[Deed, ...]) -> None:
    play(new_model(2), script, Release("last"))
