# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning of a release's images: its id, their names, what is stamped on them, and which images are genuine.

Nothing here talks to an engine. The release as other modules get it is :class:`.release_info.Release`.

Images are found again by their labels, and labels are inherited: whatever somebody builds ``FROM`` a release's image
carries them too. So the stamp seals what it is put on (layers and configuration), and an image whose seal doesn't fit
is not the release's, whatever its labels and tags say.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass, fields
from typing import Any, Iterable, Mapping, Optional

from .image_dockerfile import SCRATCH, Bases
from .image_request import Checks, Request, VariantSpec
from .names import (
    IMAGE_FILE,
    LABEL_BASE_DIGEST,
    LABEL_BASE_NAME,
    LABEL_CREATED,
    LABEL_FLEET,
    LABEL_RELEASE,
    LABEL_REVISION,
    LABEL_VARIANT,
)
from .release_info import Release, VariantImage, compose_reference
from .untrusted import json_object

STAMP_FORMAT = 1  # a stamp of another shape is another release
LABEL_PROBE = "io.driftguard.probe"
SHORT = 7
_SEALED = (
    "Entrypoint", "Cmd", "User", "WorkingDir", "Volumes", "Healthcheck", "ExposedPorts", "StopSignal", "Shell",
    "OnBuild")


@dataclass(frozen=True)
class Stamp:
    """What is written on one image: the keys of ``image.json``, in their order."""

    fleet: str
    variant: str
    release: str
    revision: str
    created: str
    baseName: str  # noqa: N815 - the file's own key
    baseDigest: str  # noqa: N815

    def document(self) -> str:
        """``image.json``, one key per line, so that a shell can read it."""
        return json.dumps({"schema": "1", **asdict(self)}, indent=2) + "\n"

    def labels(self) -> dict[str, str]:
        """The labels that say the same."""
        return {
            LABEL_FLEET: self.fleet, LABEL_VARIANT: self.variant, LABEL_RELEASE: self.release,
            LABEL_REVISION: self.revision, LABEL_CREATED: self.created,
            LABEL_BASE_NAME: self.baseName, LABEL_BASE_DIGEST: self.baseDigest,
        }

    def environment(self) -> dict[str, str]:
        """The environment variables that say the same."""
        return {"GIT_SHA": self.revision, "BUILD_DATE": self.created}

    def context(self, image: str) -> bytes:
        """A build context, as tar, that puts the stamp on an image and leaves everything else of it alone."""
        sets = " ".join(f"{name}={value}" for name, value in self.environment().items())
        dockerfile = f"FROM {image}\nCOPY image.json {IMAGE_FILE}\nENV {sets}\n"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, text, mode in (("Dockerfile", dockerfile, 0o644), ("image.json", self.document(), 0o444)):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(text.encode()), mode
                archive.addfile(member, io.BytesIO(text.encode()))
        return packed.getvalue()


@dataclass(frozen=True)
class Probe:
    """What was learnt of an image before it was stamped; kept in a label, so that nobody has to look again.

    :param checks: digest of the content checks that it passed.
    :param seal: digest of the layers and configuration that the stamp was put on.
    """

    uid: int
    gid: int
    guard: str
    program: str
    checks: str
    seal: str

    def label(self) -> str:
        """The label's value."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_label(cls, text: str) -> Optional[Probe]:
        """The label's content; None for anything that isn't one."""
        values = json_object(text) or {}
        kinds = {item.name: int if item.name in ("uid", "gid") else str for item in fields(cls)}
        if set(values) != set(kinds) or not all(isinstance(values[name], kind) for name, kind in kinds.items()):
            return None
        return cls(**values)


@dataclass(frozen=True)
class Wanted:
    """One image of a release, as planned."""

    fleet: str
    release_id: str
    sha: str
    spec: VariantSpec
    bases: Bases
    tags: tuple[str, ...]

    base_name: str

    def stamp(self, created: str) -> Stamp:
        """The stamp for a build at a time."""
        digest = self.bases.final.digest if self.bases.final else "none"
        return Stamp(self.fleet, self.spec.name, self.release_id, self.sha, created, self.base_name, digest)


@dataclass(frozen=True)
class Genuine:
    """An image on the engine that is this release's, with what its label remembers."""

    image: Mapping[str, Any]
    probe: Probe

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return str(self.image["Id"])

    @property
    def created(self) -> str:
        """When it was stamped."""
        return str(self.image["Config"]["Labels"][LABEL_CREATED])


def wanted(request: Request, sha: str, identity: str, bases: Mapping[str, Bases]) -> dict[str, Wanted]:
    """The images of a release.

    :param identity: the release's id.
    :param bases: what each variant builds upon.
    """
    return {
        name: Wanted(
            request.fleet, identity, sha, spec, bases[name], tuple(_tags(request, spec.repository, sha, identity)),
            _base_name(request, bases[name]))
        for name, spec in request.variants.items()}


def release_id(request: Request, sha: str, directory: str, dockerfile: str) -> str:
    """``<12 hex of the SHA>.<12 hex of the inputs>``: the same inputs give the same id, on any machine and builder.

    :param directory: of the context within the repository.
    :param dockerfile: its text at that commit.
    """
    inputs = {
        "format": STAMP_FORMAT, "context": directory, "dockerfile": [request.dockerfile, dockerfile],
        "base": [request.base.argument, request.base.reference] if request.base else None,
        "secrets": sorted(request.secrets),
        "variants": {name: [spec.build_args, spec.target] for name, spec in request.variants.items()},
    }
    return f"{sha[:12]}.{_digest(inputs)[:12]}"


def checks_id(checks: Checks) -> str:
    """Digest of what an image must fulfil; the size is not in it, that shows without looking inside."""
    return _digest([checks.must_contain, checks.must_not_contain])[:12]


def seal(config: Mapping[str, Any], layers: Iterable[str]) -> str:
    """Digest of a configuration and layers, the probe's own label aside."""
    labels = {name: value for name, value in (config.get("Labels") or {}).items() if name != LABEL_PROBE}
    return _digest([
        [config.get(key) or None for key in _SEALED], sorted(config.get("Env") or []), labels, list(layers)])


def stamped(config: Mapping[str, Any], stamp: Stamp) -> dict[str, Any]:
    """The configuration that an image will have once it is stamped, all else being left alone."""
    kept = [entry for entry in config.get("Env") or [] if entry.split("=", 1)[0] not in stamp.environment()]
    return {
        **config, "Labels": {**(config.get("Labels") or {}), **stamp.labels()},
        "Env": kept + [f"{name}={value}" for name, value in stamp.environment().items()],
    }


def genuine(image: Mapping[str, Any], plan: Wanted) -> Optional[Genuine]:
    """The image, when it is what was stamped for this plan; None for anything else, such as one built upon it."""
    labels = image["Config"].get("Labels") or {}
    probe = Probe.from_label(labels.get(LABEL_PROBE, ""))
    same = {
        LABEL_FLEET: plan.fleet, LABEL_VARIANT: plan.spec.name, LABEL_RELEASE: plan.release_id,
        LABEL_REVISION: plan.sha}
    if probe is None or any(labels.get(name) != value for name, value in same.items()) or LABEL_CREATED not in labels:
        return None
    layers = (image.get("RootFS") or {}).get("Layers") or []
    return Genuine(image, probe) if seal(image["Config"], layers[:-1]) == probe.seal else None


def choose(candidates: Iterable[Genuine], tag: str) -> Optional[Genuine]:
    """Of images that were built twice, the one with the tag, else the newest: the same one in every run."""
    ranked = sorted(candidates, key=lambda each: (tag in (each.image.get("RepoTags") or []), each.created, each.id))
    return ranked[-1] if ranked else None


def variant_image(plan: Wanted, found: Genuine, digest: Optional[str]) -> VariantImage:
    """An image as the release hands it on.

    :param digest: of its manifest in the registry; None without one.
    """
    config = found.image["Config"]
    return VariantImage(
        variant=plan.spec.name, image=compose_reference(found.id, plan.spec.repository, digest), id=found.id,
        digest=digest, repository=plan.spec.repository, tags=list(plan.tags), size=int(found.image["Size"]),
        entrypoint=list(config.get("Entrypoint") or []), cmd=list(config.get("Cmd") or []),
        working_dir=config.get("WorkingDir") or "/", uid=found.probe.uid, gid=found.probe.gid,
        guard=found.probe.guard, guard_program=found.probe.program, volumes=sorted(config.get("Volumes") or {}),
        healthcheck=has_healthcheck(config))


def has_healthcheck(config: Mapping[str, Any]) -> bool:
    """Whether an image brings a health check that isn't switched off."""
    return bool(((config.get("Healthcheck") or {}).get("Test") or ["NONE"])[0] != "NONE")


def release(plans: Mapping[str, Wanted], images: Mapping[str, VariantImage], created: Iterable[str]) -> Release:
    """The release, once each of its images is there."""
    first = next(iter(plans.values()))
    return Release(first.fleet, first.release_id, first.sha, min(created), dict(images))


def _base_name(request: Request, upon: Bases) -> str:
    if upon.final is None:
        return SCRATCH
    given = request.base is not None and request.base.reference == upon.final.reference
    return request.base.name if request.base and given else upon.final.name


def _tags(request: Request, repository: str, sha: str, identity: str) -> list[str]:
    more = (("latest",) if request.latest else ()) + ((identity,) if request.push else ())
    return [f"{repository}:{tag}" for tag in (sha, sha[:SHORT], *more)]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
