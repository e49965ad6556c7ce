# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a commit to a release's images: export, build, check, stamp."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Iterable, Mapping

from .engine_images import ImageEngine
from .errors import DriftguardError
from .git import Checkout, Tree
from .image_build import Job, build_error, builder, check_secrets, run_all, sweep, temporary_tag
from .image_check import examine, probe
from .image_dockerfile import Bases, Dockerfile, Pinned, bases, parse
from .image_plan import LABEL_PROBE, Genuine, Wanted, genuine, release_id, wanted
from .image_request import Request
from .names import RESERVED_ENVIRONMENT


@dataclass(frozen=True)
class Source:
    """A commit with what its Dockerfile says.

    :param identity: the release's id.
    """

    checkout: Checkout
    sha: str
    tree: Tree
    identity: str
    plans: dict[str, Wanted]


@dataclass(frozen=True)
class Made:
    """Images that were built, with seconds per phase, and what a person should know of the export."""

    images: dict[str, Genuine]
    seconds: dict[str, dict[str, float]]
    builder: str
    lfs: list[str]


def read_source(request: Request, scratch: Path) -> Source:
    """Resolve the revision and plan its images.

    :param scratch: private directory that the caller removes.
    :raises DriftguardError: no such commit, directory or Dockerfile, or an image in it isn't pinned.
    """
    checkout = Checkout.open(request.path)
    sha = checkout.commit(request.revision)
    tree = Tree(checkout, sha, request.context, scratch / "tree")
    text = tree.file(request.dockerfile)
    if text is None:
        raise DriftguardError(
            f"Dockerfile {request.dockerfile}", f"a file of that name in {request.context!r} at {sha[:12]}", "none",
            "commit it (a file that is only in the working tree doesn't count), or correct source.dockerfile")
    parsed = parse(text)
    upon = {name: _bases(request, parsed, name) for name in request.variants}
    directory = str(PurePosixPath(checkout.prefix) / request.context)
    identity = release_id(request, sha, directory, text)
    return Source(checkout, sha, tree, identity, wanted(request, sha, identity, upon))


def refuse_unbuildable(request: Request, source: Source, engine: ImageEngine) -> None:
    """What can be known before a build, without changing anything.

    :raises DriftguardError: submodules, a secret's file or a local base image that isn't there.
    """
    modules = source.tree.submodules()
    if modules:
        raise DriftguardError(
            f"source {request.path!r} at {source.sha[:12]}", "a context without submodules", ", ".join(modules[:5]),
            "commit their files, install them in the Dockerfile, or choose a source.context beside them: "
            "their files are not part of the commit")
    check_secrets(request.secrets)
    for plan in source.plans.values():
        check_local(engine, [image for image in plan.bases.images if not _unknown(request, image)])


def make(request: Request, source: Source, engine: ImageEngine, names: Iterable[str], scratch: Path) -> Made:
    """Build, check and stamp variants; an image that fails its checks never gets a stamp.

    :param names: the variants to build.
    :raises DriftguardError: with the variant that failed; no temporary tag and no build is left.
    """
    context = scratch / "context"
    context.mkdir()
    lfs = source.tree.export(context)
    _refuse_links(context, request.dockerfile)
    chosen = builder(request.builder, engine, scratch)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    jobs = {name: _job(request, source.plans[name], context, created) for name in names}
    tasks = {name: partial(_one, request, source.plans[name], job, chosen, created) for name, job in jobs.items()}
    sweep(engine, time.time())
    try:
        done = run_all(tasks, chosen.parallel, chosen.halt)
    finally:
        for job in jobs.values():
            engine.remove_image(job.tag)
    images = {name: image for name, (image, _laps) in done.items()}
    return Made(images, {name: laps for name, (_image, laps) in done.items()}, chosen.name, lfs)


def check_local(engine: ImageEngine, images: Iterable[Pinned]) -> None:
    """See that each local base image is the one its tag names.

    :raises DriftguardError: one is missing, or the tag was moved.
    """
    for image in images:
        found = engine.image(image.reference) if image.local else None
        if image.local and (found is None or found["Id"] != image.digest):
            raise DriftguardError(
                f"base image {image.reference}", "an image on this engine whose id is its tag",
                str(found["Id"]) if found else "no such image",
                "bootstrap the base image (role base_image) and name it by its id: docker tag <id> <repository>:<id>")


def _unknown(request: Request, image: Pinned) -> bool:
    return request.base is not None and not request.base.known and image.reference == request.base.reference


def _bases(request: Request, parsed: Dockerfile, name: str) -> Bases:
    spec = request.variants[name]
    given = {request.base.argument: request.base.reference} if request.base else {}
    found = bases(parsed, {**spec.build_args, **given}, spec.target)
    if request.base and request.base.reference not in [image.reference for image in found.images]:
        raise DriftguardError(
            f"Dockerfile {request.dockerfile}, variant {name}", f"a FROM that uses ARG {request.base.argument}", "none",
            f"write ARG {request.base.argument} before the first FROM and FROM ${{{request.base.argument}}}, "
            "or leave option base out")
    return found


def _refuse_links(context: Path, dockerfile: str) -> None:
    for name in (".dockerignore", f"{dockerfile}.dockerignore"):
        if (context / name).is_symlink():
            raise DriftguardError(
                f"file {name} of the commit", "a regular file", "a link",
                "commit it as a file: builders would follow the link on this machine")


def _job(request: Request, plan: Wanted, context: Path, created: str) -> Job:
    given = dict(zip(RESERVED_ENVIRONMENT, (plan.sha, created)))
    if request.base:
        given[request.base.argument] = request.base.reference
    tag = temporary_tag(request.fleet, plan.spec.name, time.time())
    arguments = {**plan.spec.build_args, **given}
    # Whatever is being built has no probe yet; its stamp brings one.
    labels = {LABEL_PROBE: tag}
    return Job(plan.spec, tag, context, request.dockerfile, arguments, request.secrets, labels, request.timeout)


def _one(
    request: Request, plan: Wanted, job: Job, chosen: Any, created: str,
    connect: Callable[[], ImageEngine] = ImageEngine.connect,
) -> tuple[Genuine, dict[str, float]]:
    engine = connect()  # one connection per thread
    watch = _Watch()
    chosen.build(job)
    image = _built(engine, plan, job)
    watch.lap("build")
    runner = examine(engine, plan, image)
    watch.lap("check")
    stamp = plan.stamp(created)
    labels = {**stamp.labels(), LABEL_PROBE: probe(plan, runner, image, stamp).label()}
    identity = chosen.stamp(plan.spec.name, stamp.context(job.tag), labels, request.timeout)
    found = _stamped(engine, plan, identity)
    watch.lap("stamp")
    return found, watch.laps


def _built(engine: ImageEngine, plan: Wanted, job: Job) -> Mapping[str, Any]:
    image = engine.image(job.tag)
    if image is None:
        raise build_error(plan.spec.name, f"no image {job.tag} on the engine: docker buildx used another one")
    check_local(engine, plan.bases.images)
    final = plan.bases.final
    below = (engine.image(final.reference) or {}) if final and final.local else {}
    layers = (below.get("RootFS") or {}).get("Layers") or []
    if image["RootFS"]["Layers"][:len(layers)] != layers:
        raise build_error(plan.spec.name, f"an image that is not built upon {plan.base_name}")
    return image


def _stamped(engine: ImageEngine, plan: Wanted, identity: str) -> Genuine:
    image = engine.image(identity)
    found = genuine(image, plan) if image else None
    if found is None:
        engine.remove_image(identity)
        raise build_error(plan.spec.name, "a stamped image that differs in more than its stamp; it was removed")
    return found


class _Watch:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._since, 3)
        self._since = now
