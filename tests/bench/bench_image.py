# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_image against a script that calls ``docker buildx build`` for each variant, as one writes it by hand.

Rounds alternate, so that a busy machine slows both sides alike; the medians' ratio is what counts. The script neither
looks into its images nor stamps them, and it builds the working tree.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support.image_app import App

VARIANTS: dict[str, Any] = {"base": {}, "other": {"build_args": {"FLAVOUR": "strange"}}}
ROUNDS = 7
GOAL_SECONDS = 1.0


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    made.commit()
    yield made
    made.close()


def by_hand(app: App) -> None:
    """One build after the other, tagged with the commit."""
    sha = app.git("rev-parse", "HEAD")
    for name, flavour in (("base", "plain"), ("other", "strange")):
        subprocess.run(
            ["docker", "buildx", "build", "-q", "--builder=default", "--load", "--provenance=false",
             f"--build-arg=BASE_IMAGE={app.base}", f"--build-arg=GIT_SHA={sha}", f"--build-arg=FLAVOUR={flavour}",
             "-t", f"{app.fleet}-by-hand-{name}:{sha}", str(app.path)], check=True, capture_output=True)


def seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def measured(
    title: str, before: Callable[[], object], sides: dict[str, Callable[[], object]],
) -> dict[str, list[float]]:
    """Seconds by side, each round prepared anew for each side; prints the medians and their ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _round in range(ROUNDS):
        for name, work in sides.items():
            before()
            times[name].append(seconds(work))
    print(f"\n{title}")
    first = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        print(f"  {name:<36} {statistics.median(taken):6.2f} s  {statistics.median(taken) / first:5.2f} x")
    return times


def test_nothing_to_do(app: App) -> None:
    sides: dict[str, Callable[[], object]] = {
        "buildx by hand, all cached": lambda: by_hand(app),
        "worker_image": lambda: app.build(variants=VARIANTS).must_pass()}
    for work in sides.values():
        work()
    times = measured(f"Two variants, nothing to do (goal: {GOAL_SECONDS:g} s)", lambda: None, sides)
    # The best round: what else the machine does is not the module's time.
    assert min(times["worker_image"]) < GOAL_SECONDS


def test_a_new_commit(app: App) -> None:
    measured("Two variants of a new commit", app.commit, {
        "buildx by hand, no checks, no stamp": lambda: by_hand(app),
        "worker_image": lambda: app.build(variants=VARIANTS).must_pass()})
