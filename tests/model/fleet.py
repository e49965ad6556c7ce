# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may befall a fleet, as data: a script of deeds is drawn, shrunk, printed and replayed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional

from model.claims import (
    Before,
    check_bad_release,
    check_jobs,
    check_lease,
    check_run,
    check_verified,
    is_on,
    last_word_on,
    plan_of,
)
from model.interpreter import Chance, Ending
from model.world import Fault, Model, Release

__all__ = [
    "COUNT", "AddHost", "Check", "Deed", "Deploy", "Fence", "ForgetRedis", "Overlap", "Policy", "RemoveHost", "Repair",
    "Rollback", "Verify", "converge", "play",
]

COUNT: Counter[str] = Counter()
KEEP_FROM_REDIS = {"redis", "empty", "cut", "flaky", "other"}


@dataclass(frozen=True)
class Policy:
    """What the inventory wants."""

    worker_on_failure: str = "fleet"
    worker_publish: str = "after"
    worker_unreachable: str = "fail"


@dataclass(frozen=True)
class Deploy:
    """A deploy, of the whole fleet or limited to a host."""

    release: Release
    faults: tuple[Fault, ...] = ()
    chance: Chance = field(default_factory=Chance)
    limit: str = ""
    policy: Policy = Policy()

    def do(self, model: Model) -> None:
        if self.limit not in ("", *model.placement):
            return
        partly = bool(self.limit) and len(model.placement) > 1
        before, healthy = Before.of(model), is_healthy(model)
        ending = run(
            model, self.release, partly, faults=self.faults, chance=self.chance,
            limit=(self.limit,) if self.limit else None, **asdict(self.policy))
        is_plain = healthy and not (self.limit or self.faults) and self.policy.worker_on_failure == "fleet"
        if is_plain and ending is not None:
            check_bad_release(model, before, ending, self.release)


@dataclass(frozen=True)
class Rollback:
    """A rollback to what was there before."""

    faults: tuple[Fault, ...] = ()
    chance: Chance = field(default_factory=Chance)

    def do(self, model: Model) -> None:
        run(model, None, False, faults=self.faults, chance=self.chance, playbook="rollback")


@dataclass(frozen=True)
class Fence:
    """An operator stops a release, between runs or in the middle of one.

    :param during: the run, None for none.
    :param at: the step of it at which that is.
    """

    release: Release
    during: Deploy | Rollback | None = None
    at: int = 0

    def do(self, model: Model) -> None:
        if self.release.release_id not in model.built:
            return
        if self.during is None:
            self._stop(model)
            return
        before, begun = Before.of(model), int(model.redis.get("demo:generation") or 0)
        release = self.during.release if isinstance(self.during, Deploy) else None
        after: dict[str, Any] = {}

        def stop() -> None:
            after.update(
                over=model.lease.given_back_since(begun), begun=int(model.redis.get("demo:generation") or 0) > begun,
                said=self._stop(model), record=model.record())

        ending = model.run(
            release, playbook="deploy" if release else "rollback", faults=(Fault("other", self.at),), others=(stop,))
        COUNT["runs"] += 1
        if not after.get("over"):
            # The fence of one of two releases publishes the other.
            check_run(model, replace(before, record=after.get("record", before.record)), ending, release, partly=False)
        # A run that took its number later asked for the release by name.
        lifted = after.get("begun") and after["said"] and not last_word_on(model, self.release)
        assert not lifted, f"the fence of {self.release.release_id} was lifted by a run that couldn't know of it"

    def _stop(self, model: Model) -> str:
        """Fence it; what the history says of it then."""
        model.run(playbook="fence", worker_fence_release=self.release.release_id, worker_fence_timeout=0)
        COUNT["runs"] += 1
        return last_word_on(model, self.release)


@dataclass(frozen=True)
class Check:
    """A check-mode run changes nothing, and what it says is what the next run does."""

    release: Release
    memory: str = "64M"

    def do(self, model: Model) -> None:
        model.memory = self.memory
        before = model.picture()
        said = model.run(self.release, check_mode=True)
        assert said is not None
        assert model.picture() == before, "a check-mode run changed something"
        ending = run(model, self.release, False)
        if ending is not None and ending.status == 0:
            assert said.status == 0, "a run went well whose check had failed:\n" + "\n".join(said.said)
            assert plan_of(said) == plan_of(ending), "a check-mode run said something else than was done then"


@dataclass(frozen=True)
class Overlap:
    """A run is suspended; another one runs whole, if it gets the lease; then the first goes on.

    :param blind: nobody asks then whether it still has the lease, so that numbers alone hold it.
    """

    first: Release
    other: Release
    at: int
    lease_ends: bool
    chance: Chance = field(default_factory=Chance)
    blind: bool = False

    def do(self, model: Model) -> None:
        def other() -> None:
            state.update(held=model.lease.left > 0, over=model.lease.given_back_since(begun))
            if self.lease_ends:
                model.redis.delete("demo:lock:deploy")
            ending = run(model, self.other, False)
            if ending is not None and ending.status == 0 and self.lease_ends:
                then.update(model.picture())

        then: dict[str, Any] = {}
        state: dict[str, bool] = {}
        begun = int(model.redis.get("demo:generation") or 0)

        before, model.blind = Before.of(model), self.blind
        ending = model.run(
            self.first, faults=(Fault("other", self.at),), others=(other,), chance=self.chance)
        model.blind = False
        COUNT["runs"] += 1
        COUNT["steps"] += ending.steps if ending else 0
        # One that had given its lease back was through: what came then is no business of its.
        if ending is not None and ending.status == 0 and not state.get("over"):
            check_run(model, before, ending, self.first, partly=False)
        if then and state["held"]:
            now = model.picture()
            changed = [part for part in then if then[part] != now[part]]
            assert not changed, f"a run that was overtaken changed {changed} when it went on"


@dataclass(frozen=True)
class Verify:
    """A verify run changes nothing, and says what is so."""

    def do(self, model: Model) -> None:
        before, everyone_hears = model.picture(), not model.deaf
        ending = model.run(playbook="verify")
        COUNT["runs"] += 1
        assert ending is not None
        assert model.picture() == before, "a verify run changed something"
        # A registration outlives a short silence.
        if everyone_hears:
            check_verified(model, ending)


@dataclass(frozen=True)
class ForgetRedis:
    """Redis loses everything."""

    def do(self, model: Model) -> None:
        model.empty_redis()


@dataclass(frozen=True)
class Repair:
    """All hosts and engines are back, and old leases have run out."""

    def do(self, model: Model) -> None:
        model.repair()


@dataclass(frozen=True)
class AddHost:
    """A host joins the inventory."""

    host: str

    def do(self, model: Model) -> None:
        model.add_host(self.host)


@dataclass(frozen=True)
class RemoveHost:
    """A host leaves the inventory, and somebody takes its containers away."""

    host: str

    def do(self, model: Model) -> None:
        if self.host in model.placement and len(model.placement) > 1:
            model.remove_host(self.host)


Deed = Deploy | Rollback | Fence | Check | Overlap | Verify | ForgetRedis | Repair | AddHost | RemoveHost


def is_healthy(model: Model) -> bool:
    """Whether nothing keeps a run from its work."""
    return not (model.cut or model.deaf or model.lease.left or any(engine.dead for engine in model.engines.values()))


def run(model: Model, release: Optional[Release], partly: bool, **options: Any) -> Optional[Ending]:
    """One run, held to the world afterwards."""
    before = Before.of(model)
    ending = model.run(release, **options)
    COUNT["runs"] += 1
    COUNT["steps"] += ending.steps if ending else 0
    check_run(model, before, ending, release, partly)
    if ending is not None and not {fault.kind for fault in options.get("faults", ())} & KEEP_FROM_REDIS:
        check_lease(model, ending)
    return ending


def converge(model: Model, last: Release) -> None:
    """Once everything is back, a plain run converges, and the next changes nothing."""
    model.repair()
    ending = run(model, last, False)
    assert ending is not None
    assert ending.status == 0, "a plain run doesn't converge:\n" + "\n".join(ending.said)
    ending = run(model, last, False)
    assert ending is not None
    assert (ending.status, ending.changed) == (0, 0), "it changes something again:\n" + "\n".join(ending.said)
    assert not is_on(model, last.release_id)


def play(model: Model, script: tuple[Deed, ...], last: Release, impatient: bool = False) -> None:
    """Let a script befall a fleet, then have it converge.

    :param impatient: it has to converge also right after the first deed whose run went wrong.
    """
    COUNT["fleets"] += 1
    for deed in script:
        COUNT[type(deed).__name__] += 1
        deed.do(model)
        if impatient and model.went_wrong:
            COUNT["converged at once"] += 1
            impatient = False
            converge(model, last)
    converge(model, last)
    check_jobs(model)
