# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_revision_prune does: removes the revisions, secrets and images of a fleet that nothing on a host needs.

Revisions go first, each whole, then the secrets that only they named, then the images. Killed in between, a host has
images or secrets too many, which the next run finds; never a revision by halves, and never one whose secrets are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from .engine import Engine
from .errors import DriftguardError
from .host_record import HostRecords
from .host_secrets import HostSecrets
from .module_base import Result
from .names import LABEL_FLEET, LABEL_SPEC, LABEL_VARIANT, repository_of
from .prune_plan import Image, Needs, Verdict, judge, unneeded
from .prune_plan import Revisions as Standing
from .record import SETTLED
from .release_info import Release
from .revisions import Revision, Revisions
from .untrusted import digits

MOST_KEPT = 1000


@dataclass(frozen=True)
class Plan:
    """What goes, with what stays for the report."""

    verdicts: list[Verdict]
    releases: Mapping[int, Optional[Release]]
    sizes: Mapping[int, int]
    secrets: Mapping[str, int]
    images: list[Image]

    @property
    def going(self) -> list[int]:
        """Numbers of the revisions that go, in their order."""
        return [verdict.number for verdict in self.verdicts if not verdict.stays]

    def lines(self, stays: Optional[bool] = None) -> str:
        """The revisions that stay or go, then secrets and images that go, one line each."""
        rows = [
            f"revision {one.number} ({self._sha(one.number)}, {self.sizes[one.number]} B): {one.reason}"
            for one in sorted(self.verdicts, key=lambda one: one.number) if stays is None or one.stays]
        if stays is None:
            rows += [f"secret {name} ({size} B)" for name, size in self.secrets.items()]
            rows += [f"image {name} ({image.size} B)" for image in self.images for name in image.names]
        return "".join(f"{row}\n" for row in rows)

    def table(self, host: str) -> list[str]:
        """What goes, as lines for people."""
        freed = sum(image.size for image in self.images) + sum(self.sizes[number] for number in self.going)
        counts = f"{len(self.going)} revisions, {len(self.secrets)} secrets, {len(self.images)} images"
        gone = set(self.lines().splitlines()) - set(self.lines(stays=True).splitlines())
        return [
            f"{host}: {counts}, at most {freed / 1e6:.1f} MB; {len(self.verdicts) - len(self.going)} revisions stay",
            *(f"  {line}" for line in self.lines().splitlines() if line in gone)]

    def values(self) -> dict[str, Any]:
        """The module's return values."""
        rows = [
            {"revision": one.number, "release_id": release.release_id if release else "", "reason": one.reason,
             "size": self.sizes[one.number], "stays": one.stays}
            for one in self.verdicts for release in [self.releases.get(one.number)]]
        return {
            "revisions": [_without(row) for row in rows if not row["stays"]],
            "kept": [_without(row) for row in rows if row["stays"]],
            "secrets": list(self.secrets),
            "images": [
                {"id": one.id, "names": list(one.names), "release_id": one.release, "size": one.size}
                for one in self.images],
        }

    def _sha(self, number: int) -> str:
        release = self.releases.get(number)
        return release.sha[:7] if release else "unreadable"


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "stays"}


class Pruning:
    """One host's pruning.

    :param options: the module's options.
    """

    def __init__(self, engine: Engine, options: Mapping[str, Any], check_mode: bool) -> None:
        self._engine = engine
        self._options = options
        self._check_mode = check_mode
        self._here = HostRecords(Path(options["root"]), options["fleet"])
        self._revisions = Revisions(self._here.directory)
        self._secrets = HostSecrets(self._here.directory)

    def run(self) -> Result:
        """Plan, and do it unless this is check mode.

        :raises DriftguardError: a later run was here, another one works here, or something can't be read or removed.
        """
        keep, run, generation = (self._options[key] for key in ("keep", "run", "generation"))
        if not 1 <= keep <= MOST_KEPT:
            raise DriftguardError(
                "option keep", f"1 to {MOST_KEPT}", str(keep), "say how many proved revisions each host keeps")
        if self._check_mode:
            return self._result(self._plan())
        self._here.enter(generation, run)
        with self._here.lock(run, self._options["lock_wait"]):
            self._revisions.sweep()
            plan = self._plan()
            self._carry_out(plan)
            return self._result(plan)

    def _carry_out(self, plan: Plan) -> None:
        for number in plan.going:
            self._check()
            self._revisions.remove(number)
        self._check()
        self._secrets.sweep(self._revisions)
        for image in plan.images:
            self._check()
            for name in image.names:
                self._engine.remove_image(name)

    def _check(self) -> None:
        self._here.check(self._options["generation"], self._options["run"])

    def _plan(self) -> Plan:
        current = self._revisions.current()
        if current is None:  # nothing is proved here, so nothing can be told from what is needed
            return Plan([], {}, {}, {}, [])
        loaded = {number: self._load(number) for number in self._revisions.numbers()}
        verdicts = judge(self._standing(current, loaded), self._options["keep"])
        staying = [self._revisions.load(one.number) for one in verdicts if one.stays]
        kept = {revision.number for revision in staying}
        return Plan(
            verdicts, {number: revision.release if revision else None for number, revision in loaded.items()},
            {number: self._revisions.size(number) for number in loaded},
            {name: path.stat().st_size for name, path in self._secrets.unnamed(self._revisions, kept).items()},
            self._unneeded(loaded, staying))

    def _load(self, number: int) -> Optional[Revision]:
        try:
            return self._revisions.load(number)
        except DriftguardError:
            return None  # it may go; one that stays is read again, and told of then

    def _standing(self, current: int, loaded: Mapping[int, Optional[Revision]]) -> Standing:
        published = [digits(str(number)) for number in self._options["published"]]
        return Standing(
            list(loaded), current, [int(entry["revision"]) for entry in self._revisions.history()],
            self._revisions.rollbacks(self._options["fenced"]),
            {number for number in published if number is not None}, self._used(loaded),
            self._under_way(current, loaded))

    def _used(self, loaded: Mapping[int, Optional[Revision]]) -> dict[int, str]:
        """Revisions with a service that a container was made from, as its label says."""
        rows = self._engine.container_rows([f"{LABEL_FLEET}={self._options['fleet']}"])
        names = {
            (row.get("Labels") or {}).get(LABEL_SPEC): str((row.get("Names") or [row["Id"]])[0]).lstrip("/")
            for row in rows}
        found = {}
        for number, revision in loaded.items():
            specs = {service["spec"] for service in revision.services.values()} if revision else set()
            users = [name for spec, name in names.items() if spec and spec in specs]
            if users:
                found[number] = users[0]
        return found

    def _under_way(self, current: int, loaded: Mapping[int, Optional[Revision]]) -> set[int]:
        read = self._here.read()
        if read.record is None:
            # Nobody knows what may run here: a record that can't be read keeps everything.
            return set(loaded) if read.problem else set()
        proved = self._revisions.load(current).release.release_id
        if read.record.phase == SETTLED and read.record.target.release_id == proved:
            return set()
        allowed = {release.release_id for release in (*read.record.allowed, read.record.target)}
        return {
            number for number, revision in loaded.items() if revision and revision.release.release_id in allowed}

    def _unneeded(self, loaded: Mapping[int, Optional[Revision]], staying: list[Revision]) -> list[Image]:
        fleet: str = self._options["fleet"]
        ours = self._options["repository"] or f"{fleet}-worker"
        rows = self._engine.images([f"{LABEL_FLEET}={fleet}"])
        variants = {str((row.get("Labels") or {}).get(LABEL_VARIANT)) for row in rows}
        known = [image for revision in loaded.values() if revision for image in revision.release.variants.values()]
        needed = [image for revision in staying for image in revision.release.variants.values()]
        containers = self._engine.container_rows()
        current = self._revisions.load(self._revisions.resolve("current"))
        return unneeded(rows, Needs(
            fleet,
            {image.repository for image in known} | {repository_of(ours, variant) for variant in variants},
            {revision.release.release_id for revision in staying},
            {mark for image in needed for mark in (image.id, image.image)},
            {str(row.get(key) or "") for row in containers for key in ("ImageID", "Image")}, current.release.created))

    def _result(self, plan: Plan) -> Result:
        values = {**plan.values(), "table": plan.table(self._options["host"])}
        changed = bool(plan.going or plan.secrets or plan.images)
        return Result(
            changed, values, plan.lines() if changed else "", plan.lines(stays=True) if changed else "",
            f"revisions of fleet {self._options['fleet']} on {self._options['host']}")
