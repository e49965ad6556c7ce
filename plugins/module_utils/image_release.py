# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing an engine (and a registry) to the images of a release: what is there, what is missing, what was done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional

from .engine_images import ImageEngine
from .errors import DriftguardError
from .image_check import recheck, refuse_size
from .image_make import Made, Source, make, read_source, refuse_unbuildable
from .image_plan import SHORT, Genuine, Wanted, checks_id, choose, genuine, release, variant_image
from .image_request import Request
from .module_base import Result
from .names import LABEL_BASE_DIGEST, LABEL_BASE_NAME, LABEL_FLEET, LABEL_RELEASE, LABEL_VARIANT

ABSENT, NOT_YET = "absent", "known once it is built"
REGISTRY_SECONDS = 30


@dataclass(frozen=True)
class State:
    """One variant as it is.

    :param found: its image, None when it must be built.
    :param tags: id that each of its tags has on the engine, None where there is no such tag.
    :param registry: digest that each of its tags has in the registry; empty without one.
    :param digest: of the image's manifest in its repository; None when it was never pushed.
    :param offered: digest that the registry has for the release's own tag, where the engine has no image of it.
    """

    plan: Wanted
    found: Optional[Genuine]
    tags: dict[str, Optional[str]]
    registry: dict[str, Optional[str]] = field(default_factory=dict)
    digest: Optional[str] = None
    offered: Optional[str] = None

    def to_tag(self) -> list[str]:
        """Tags that don't name the image."""
        return [tag for tag, holder in self.tags.items() if self.found is None or holder != self.found.id]

    def to_push(self) -> list[str]:
        """Tags that the registry lacks or has for something else."""
        there = self.digest or self.offered
        return [tag for tag, digest in self.registry.items() if there is None or digest != there]

    def changes(self) -> Iterator[str]:
        """What is to be done, in words; the same before and, as a report, after."""
        if self.found is None:
            yield f"{'pull' if self.offered else 'build'} {self.plan.spec.name}"
        yield from (f"tag {tag}" for tag in self.to_tag())
        yield from (f"push {tag}" for tag in self.to_push())


def ensure(
    request: Request, engine: ImageEngine, scratch: Path, check_mode: bool, warn: Callable[[str], None],
) -> Result:
    """Have every image of the release, under its names.

    :param scratch: private directory that the caller removes.
    :param warn: says something to the user that is no failure.
    :raises DriftguardError: what is wrong, with the remedy; nothing that failed a check has become part of the release.
    """
    started = time.monotonic()
    source = read_source(request, scratch)
    uncommitted = _announce(request, source, warn)
    before = {name: survey(engine, plan, request.push) for name, plan in source.plans.items()}
    _hold_to_checks(engine, before, check_mode)
    missing = [name for name, state in before.items() if state.found is None and not state.offered]
    if missing:
        refuse_unbuildable(request, source, engine)
    made = Made({}, {}, "", [])
    if missing and not check_mode:
        made = make(request, source, engine, missing, scratch)
        _announce_lfs(made, warn)
    after = {name: replace(state, found=made.images.get(name, state.found)) for name, state in before.items()}
    if not check_mode:
        after = {name: _fetched(engine, state, request.timeout) for name, state in after.items()}
        _hold_to_checks(engine, {name: after[name] for name in after if before[name].offered}, check_mode)
        after = {name: _name(engine, state, request.timeout) for name, state in after.items()}
    values = {
        **_report(request, source, before, after), "uncommitted": uncommitted, "builder": made.builder or None,
        "durations": {"total": round(time.monotonic() - started, 3), **made.seconds}}
    return Result(
        bool(values["changes"]), values, _before(source, before), _after(source, after),
        f"images of fleet {request.fleet}")


def survey(engine: ImageEngine, plan: Wanted, push: bool) -> State:
    """Look for one variant's image by its labels, and at its names; changes nothing.

    :param push: ask the registry as well.
    """
    candidates = engine.labelled([
        f"{LABEL_FLEET}={plan.fleet}", f"{LABEL_RELEASE}={plan.release_id}", f"{LABEL_VARIANT}={plan.spec.name}"])
    images = filter(None, map(engine.image, candidates))
    found = choose(filter(None, (genuine(image, plan) for image in images)), plan.tags[0])
    tags = {tag: _holder(engine, tag) for tag in plan.tags}
    if not push:
        return State(plan, found, tags)
    registry = {tag: engine.registry_digest(tag, REGISTRY_SECONDS) for tag in plan.tags}
    if found is None:
        return State(plan, None, tags, registry, offered=registry[plan.tags[-1]])
    return State(plan, found, tags, registry, _digest(found, plan, registry))


def _fetched(engine: ImageEngine, state: State, timeout: float) -> State:
    """With the image that another builder of the same release has pushed: what is built once isn't built again."""
    if state.offered is None:
        return state
    reference = f"{state.plan.spec.repository}@{state.offered}"
    engine.pull(f"variant {state.plan.spec.name} of release {state.plan.release_id}", reference, timeout)
    image = engine.image(reference)
    found = genuine(image, state.plan) if image else None
    if found is None:
        raise DriftguardError(
            f"variant {state.plan.spec.name}, {state.plan.tags[-1]} in the registry",
            f"the image that was stamped for release {state.plan.release_id}", f"another one, {state.offered}",
            "find out who pushed it; delete the tag in the registry to have it built here")
    return replace(state, found=found, digest=state.offered)


def _holder(engine: ImageEngine, tag: str) -> Optional[str]:
    image = engine.image(tag)
    return str(image["Id"]) if image else None


def _digest(found: Genuine, plan: Wanted, registry: Mapping[str, Optional[str]]) -> Optional[str]:
    # One image can have been pushed with several manifests; the one that the registry has today counts.
    ours = [
        name.partition("@")[2] for name in found.image.get("RepoDigests") or []
        if name.partition("@")[0] == plan.spec.repository]
    return next((digest for digest in registry.values() if digest in ours), ours[0] if ours else None)


def _hold_to_checks(engine: ImageEngine, states: Mapping[str, State], check_mode: bool) -> None:
    for state in states.values():
        if state.found is None:
            continue
        refuse_size(state.plan, state.found.image)
        # Looking inside takes a container, which check mode may not make.
        if state.found.probe.checks != checks_id(state.plan.spec.checks) and not check_mode:
            recheck(engine, state.plan, state.found.image)


def _name(engine: ImageEngine, state: State, timeout: int) -> State:
    if state.found is None:
        return state
    for tag in state.to_tag():
        repository, _colon, name = tag.rpartition(":")
        engine.tag(state.found.id, repository, name)
    digest = state.digest
    for tag in state.to_push():
        repository, _colon, name = tag.rpartition(":")
        digest = engine.push(repository, name, timeout)
    return replace(
        state, tags=dict.fromkeys(state.tags, state.found.id), registry=dict.fromkeys(state.registry, digest),
        digest=digest)


def _announce(request: Request, source: Source, warn: Callable[[str], None]) -> list[str]:
    uncommitted = source.checkout.uncommitted(request.context)
    if uncommitted:
        warn(f"{len(uncommitted)} uncommitted changes in {request.path} are not part of the build of "
             f"{source.sha[:12]}: {', '.join(uncommitted[:5])}{', …' if len(uncommitted) > 5 else ''}")
    return uncommitted


def _announce_lfs(made: Made, warn: Callable[[str], None]) -> None:
    if made.lfs:
        warn(f"{len(made.lfs)} files are built as Git LFS pointers, without their content: {', '.join(made.lfs[:5])}")


def _report(
    request: Request, source: Source, before: Mapping[str, State], after: Mapping[str, State],
) -> dict[str, Any]:
    images = {
        name: variant_image(state.plan, state.found, state.digest) for name, state in after.items()
        if state.found and (state.digest or not request.push)}
    whole = set(images) == set(after)
    identity = source.identity if not request.base or request.base.known else None
    created = [state.found.created for state in after.values() if state.found]
    return {
        "fleet": request.fleet, "sha": source.sha, "short_sha": source.sha[:SHORT], "release_id": identity,
        "release": release(source.plans, images, created).to_dict() if whole else {
            "fleet": request.fleet, "release_id": identity, "sha": source.sha, "created": None, "variants": {}},
        "variants": {name: _row(state, images.get(name)) for name, state in after.items()},
        "changes": [change for state in before.values() for change in state.changes()],
        "changed_variants": [name for name, state in before.items() if any(state.changes())],
    }


def _row(state: State, image: Any) -> dict[str, Any]:
    row = {
        "variant": state.plan.spec.name, "repository": state.plan.spec.repository, "tags": list(state.plan.tags),
        "built": state.found is not None, "image": None, "id": None, "digest": None}
    if state.found:
        config = state.found.image["Config"]
        row.update(
            id=state.found.id, digest=state.digest, created=state.found.created,
            base_name=config["Labels"][LABEL_BASE_NAME], base_digest=config["Labels"][LABEL_BASE_DIGEST],
            env=sorted(entry.split("=", 1)[0] for entry in config.get("Env") or []))
    return {**row, **(image.to_dict() if image else {})}


def _before(source: Source, states: Mapping[str, State]) -> str:
    return _text(source, {
        name: (state.found.id if state.found else ABSENT, state.tags, state.registry)
        for name, state in states.items()})


def _after(source: Source, states: Mapping[str, State]) -> str:
    rows = {}
    for name, state in states.items():
        image = state.found.id if state.found else NOT_YET
        rows[name] = (
            image, dict.fromkeys(state.tags, image), dict.fromkeys(state.registry, state.digest or NOT_YET))
    return _text(source, rows)


_Names = Mapping[str, Optional[str]]


def _text(source: Source, rows: Mapping[str, tuple[str, _Names, _Names]]) -> str:
    lines = [f"release: {source.identity}"]
    for variant, (image, tags, registry) in rows.items():
        lines += [f"{variant}:", f"  image: {image}", "  tags:"]
        lines += [f"    {tag}: {holder or ABSENT}" for tag, holder in tags.items()]
        lines += ["  registry:"] if registry else []
        lines += [f"    {tag}: {digest or ABSENT}" for tag, digest in registry.items()]
    return "\n".join(lines) + "\n"
