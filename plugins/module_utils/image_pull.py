# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_image_pull does: a host gets the images of a revision that its engine lacks, before anything is touched.

What is there isn't asked of the registry at all, so that one which is away keeps nobody from deploying what hosts have.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from .engine_images import Credentials, ImageEngine
from .errors import DriftguardError
from .host_record import HostRecords
from .module_base import Result
from .names import LABEL_FLEET, LABEL_RELEASE, LABEL_REVISION, LABEL_VARIANT
from .release_info import Release, VariantImage
from .revisions import Revisions
from .rollout_target import named_revision, prediction
from .untrusted import check_seconds, clean


@dataclass(frozen=True)
class Image:
    """An image that this host needs.

    :param what: what it is, for messages.
    """

    what: str
    image: VariantImage
    release: Release

    @property
    def reference(self) -> str:
        """``repository@digest``."""
        return self.image.image


def needed(host: str, release: Optional[Release], services: Mapping[str, Mapping[str, Any]]) -> list[Image]:
    """The images of a release that a host's services use and a registry has, by variant. Pure.

    :param host: its name, for messages.
    :param release: None for one that isn't built yet.
    :param services: of the revision.
    """
    used = {str(service["variant"]) for service in services.values()}
    return [
        Image(f"host {host}, variant {name} of release {release.release_id}", image, release)
        for name, image in sorted(release.variants.items()) if name in used and image.digest] if release else []


def check(wanted: Image, facts: Optional[Mapping[str, Any]]) -> None:
    """Hold what an engine has under an image's name to what the release says of it. Pure.

    Engines with the containerd image store call an image by its manifest's digest, classic ones by its configuration's;
    which of them built the release is not known, so another id alone proves nothing where the builder used the digest.

    :param facts: ``docker image inspect`` of ``repository@digest``.
    :raises DriftguardError: it is something else.
    """
    facts = facts or {}
    labels = (facts.get("Config") or {}).get("Labels") or {}
    image, release = wanted.image, wanted.release
    ids = {image.id, str(image.digest)}
    found = {
        "name": wanted.reference if wanted.reference in (facts.get("RepoDigests") or ()) else "none",
        "id": image.id if facts.get("Id") in ids or len(ids) == 1 else str(facts.get("Id")),
        **{label: str(labels.get(label)) for label in (LABEL_FLEET, LABEL_VARIANT, LABEL_RELEASE, LABEL_REVISION)}}
    expected = {
        "name": wanted.reference, "id": image.id, LABEL_FLEET: release.fleet, LABEL_VARIANT: image.variant,
        LABEL_RELEASE: release.release_id, LABEL_REVISION: release.sha}
    for key, value in expected.items():
        if found[key] != value:
            raise DriftguardError(
                wanted.what, f"{key} {value} of {wanted.reference}", clean(found[key]),
                "the release's file and the registry's image don't belong together: build and push the commit again")


def pull_images(options: Mapping[str, Any], check_mode: bool) -> Result:
    """Pull what is missing, and see that everything is what the release says.

    :param options: the module's options.
    :raises DriftguardError: the registry doesn't give an image, or gives another.
    """
    check_seconds("timeout", options["timeout"], 1)
    number, release, services = _target(options)
    username, password = options["registry_username"], options["registry_password"]
    engine = ImageEngine.connect(Credentials(username, password or "") if username else None)
    wanted = needed(options["host"], release, services)
    there = {one.reference: engine.image(one.reference) for one in wanted}
    missing = [one for one in wanted if there[one.reference] is None]
    seconds: dict[str, float] = {}
    if not check_mode:
        for one in missing:
            started = time.monotonic()
            engine.pull(one.what, one.reference, options["timeout"])
            seconds[one.image.variant] = round(time.monotonic() - started, 3)
            there[one.reference] = engine.image(one.reference)
    for one in wanted:
        if not check_mode or there[one.reference] is not None:
            check(one, there[one.reference])
    return _result(options, number, release, wanted, missing, seconds)


def _target(options: Mapping[str, Any]) -> tuple[int, Optional[Release], Mapping[str, Mapping[str, Any]]]:
    if options["desired"]:
        return prediction(options["fleet"], options["revision"], options["desired"])
    here = HostRecords(Path(options["root"]), options["fleet"])
    revisions = Revisions(here.directory)
    number = named_revision(revisions, here, options["revision"], options["fenced"])
    revision = revisions.load(number)
    return number, revision.release, revision.services


def _result(
    options: Mapping[str, Any], number: int, release: Optional[Release], wanted: list[Image], missing: list[Image],
    seconds: Mapping[str, float],
) -> Result:
    names = [one.reference for one in missing]
    return Result(
        bool(missing),
        {
            "revision": number, "release_id": release.release_id if release else None,
            "missing": [
                {"variant": one.image.variant, "image": one.reference, "size": one.image.size} for one in missing],
            "present": [one.reference for one in wanted if one.reference not in names], "durations": dict(seconds),
        },
        "".join(f"{one.reference}\n" for one in wanted if one.reference not in names),
        "".join(f"{one.reference}\n" for one in wanted),
        f"images of fleet {options['fleet']} on {options['host']}")
