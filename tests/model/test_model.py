# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, releases and faults in any order: what a deploy says is so, and a plain run afterwards always converges.

``DRIFTGUARD_MODEL_EXAMPLES=5000`` goes deeper, and on other ways each time. A script that fails is printed;
``test_replay.py`` keeps those that did.
"""

from __future__ import annotations

import os
from typing import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from model.engine import Badness
from model.faults import STRUCK
from model.fleet import (
    COUNT,
    AddHost,
    Check,
    Deed,
    Deploy,
    Fence,
    ForgetRedis,
    Overlap,
    Policy,
    RemoveHost,
    Repair,
    Rollback,
    Verify,
    play,
)
from model.interpreter import Chance
from model.world import Fault, Model, Release

EXAMPLES = int(os.environ.get("DRIFTGUARD_MODEL_EXAMPLES", "100"))
IS_DEEP = "DRIFTGUARD_MODEL_EXAMPLES" in os.environ
HOSTS = ("h1", "h2", "h3")
STEPS, CALLS = (0, 85, 130, 170), (0, 110, 220, 330)  # of a run over so many hosts: a fault after its end is none

hosts = st.sampled_from(HOSTS)
badness = st.one_of(
    st.builds(Badness, kind=st.just("crash"), after=st.sampled_from((0.0, 5.0, 12.0)),
              service=st.sampled_from(("", "ocr")), host=st.sampled_from(("", *HOSTS))),
    st.builds(Badness, kind=st.sampled_from(("unhealthy", "silent", "liar")),
              service=st.sampled_from(("", "extractor")), host=st.sampled_from(("", *HOSTS))))
good = st.builds(Release, st.sampled_from(("a", "b", "c")))
bad = badness.map(lambda what: Release(f"bad {what}", what))
releases = st.one_of(good, bad)
chance = st.builds(Chance, st.booleans(), st.booleans())
policies = st.builds(
    Policy, st.sampled_from(("fleet", "host", "stop")), st.sampled_from(("after", "before")),
    st.sampled_from(("fail", "continue")))


def faults_of(number: int) -> st.SearchStrategy[tuple[Fault, ...]]:
    """Faults of a run over so many hosts, all of them among its own steps and calls."""
    own, steps = st.sampled_from(HOSTS[:number]), st.integers(0, STEPS[number])
    fault = st.one_of(
        st.builds(Fault, st.sampled_from(("cut", "engine")), steps, own),
        st.builds(Fault, st.sampled_from(("mend", "revive", "pruned")), steps, own),
        st.builds(Fault, st.sampled_from(("kill in", "engine in", "interrupt in")), st.integers(1, CALLS[number]), own),
        st.builds(Fault, st.sampled_from(("kill", "empty")), steps),
        st.builds(Fault, st.just("deaf"), steps, st.sampled_from(("", *HOSTS[:number])), st.sampled_from((10, 60))),
        st.builds(Fault, st.just("registry"), st.just(1), own, st.sampled_from((1, 5))),
        st.builds(Fault, st.just("slow"), st.integers(1, 3), more=st.sampled_from((100, 250))),
        st.builds(Fault, st.just("full"), st.integers(1, 9), own, st.sampled_from((1, 3, 100))),
        st.builds(Fault, st.just("redis"), st.integers(1, 60), more=st.sampled_from((1, 3, 10, 500))))
    # What was broken before is mended now and then, or nothing more would happen in a script.
    broken = st.builds(
        lambda kind, at, host, more: (Fault(kind[0], at, host), Fault(kind[1], at + more, host)),
        st.sampled_from((("cut", "mend"), ("engine", "revive"))), steps, own, st.integers(1, 9))
    return st.one_of(broken, *[st.lists(fault, min_size=1, max_size=3).map(tuple)] * 3)


def deeds_of(number: int) -> st.SearchStrategy[Deed]:
    """What may befall a fleet that begins with so many hosts."""
    faults, steps = faults_of(number), st.integers(0, STEPS[number])
    return st.one_of(
        *[st.builds(Deploy, releases, faults, chance)] * 3,
        st.builds(Deploy, releases, faults, chance, policy=policies),
        st.builds(Deploy, releases, st.just(()), chance, policy=policies),
        st.builds(Deploy, bad, st.just(()), chance),
        st.builds(Deploy, releases, st.just(()), chance, hosts),
        st.builds(Rollback, faults, chance),
        st.builds(Check, releases, st.sampled_from(("64M", "128M"))),
        st.builds(Overlap, good, releases, steps, st.booleans(), chance, st.booleans()),
        st.builds(Fence, good, st.one_of(st.none(), st.builds(Deploy, good), st.builds(Rollback)), steps),
        st.just(Verify()),
        st.just(ForgetRedis()),
        st.just(Repair()),
        st.builds(AddHost, st.sampled_from(("h3", "h4"))),
        st.builds(RemoveHost, hosts))


def scripts_of(number: int) -> st.SearchStrategy[tuple[int, tuple[Deed, ...]]]:
    """A number of hosts, and what befalls them."""
    return st.tuples(st.just(number), st.tuples(
        st.builds(Deploy, good), st.lists(deeds_of(number), min_size=1, max_size=5)).map(lambda two: (two[0], *two[1])))


NewModel = Callable[..., Model]


def test_what_a_deploy_says_is_so(new_model: NewModel, capsys: pytest.CaptureFixture[str]) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=not IS_DEEP, database=None, print_blob=True,
        phases=[Phase.generate, Phase.shrink] if IS_DEEP else [Phase.generate],
        suppress_health_check=list(HealthCheck))
    @given(fleet=st.one_of(*(scripts_of(number) for number in (1, 2, 3))), impatient=st.booleans(),
           order=st.sampled_from(("stop-first", "start-first")), last=st.sampled_from(("a", "last")))
    def befall(fleet: tuple[int, tuple[Deed, ...]], impatient: bool, order: str, last: str) -> None:
        model = new_model(fleet[0])
        model.order = order
        play(model, fleet[1], Release(last), impatient)

    COUNT.clear()
    STRUCK.clear()
    befall()
    with capsys.disabled():
        for counted in (COUNT, STRUCK):
            print("\nmodel: " + ", ".join(f"{number} {name}" for name, number in sorted(counted.items())))
    assert COUNT["runs"] > 4 * EXAMPLES
    assert COUNT["steps"] > 200 * EXAMPLES
    assert COUNT["converged at once"] > EXAMPLES // 10


KINDS = [
    Fault("cut", 60, "h2"), Fault("engine", 60, "h2"), Fault("pruned", 110, "h1"), Fault("deaf", 60, more=60),
    Fault("kill", 90), Fault("empty", 70), Fault("kill in", 1, "h1"), Fault("engine in", 1, "h1"),
    Fault("interrupt in", 1, "h1"), Fault("registry", 1, "h2"), Fault("slow", 1, more=250),
    Fault("full", 3, "h2", more=2), Fault("redis", 30, more=10),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda fault: fault.kind)
def test_each_kind_of_fault_strikes(new_model: NewModel, kind: Fault) -> None:
    """In a deploy, in one that goes back and in a rollback; the fleet converges each time."""
    STRUCK.clear()
    a, b, goes_back = Release("a"), Release("b"), Release("bad", Badness("crash", 5.0, host="h2"))
    play(new_model(2), (
        Deploy(a), Deploy(b, (kind,)), Repair(), Deploy(b), Deploy(goes_back, (kind,)), Repair(), Rollback((kind,))),
        Release("last"), impatient=True)
    assert STRUCK[kind.kind] >= 2
