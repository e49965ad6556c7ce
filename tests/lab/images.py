# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a lab. Each is named by what it is made from, so that it is built once."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from functools import partial
from pathlib import Path

from support.registry_image import DOCKERFILE as REGISTRY

from tools.paths import CACHE, LOGS, ROOT, VENV
from tools.processes import side_by_side
from tools.steps import must

from .outer import Outer

__all__ = ["Images", "provide"]

HERE = Path(__file__).parent
HOST = HERE / "image"
REDIS = ROOT / "roles" / "redis" / "files" / "Dockerfile"
# Of the fleet's workers and the services, and of hosts with Debian 13.
BASES = {"bookworm": {}, "trixie": {
    "base_image_suite": "trixie", "base_image_packages": ["ca-certificates", "python3", "sudo"],
    "base_image_repository": "driftguard.local/lab-base"}}
Images = dict[str, str]


def provide(outer: Outer, suites: set[str]) -> Images:
    """Names of all images that a lab needs, which are there afterwards.

    :param suites: Debian releases of its hosts.
    :returns: by ``base`` (what workers are built from), ``redis``, ``registry`` and release.
    :raises DriftguardError: one can't be made; says where the log is.
    """
    bases = {suite: _base(outer, suite) for suite in sorted(suites | {"bookworm"})}
    redis = {"Dockerfile": REDIS.read_bytes()}
    registry = {"Dockerfile": REGISTRY.encode()}
    host = {path.name: path.read_bytes() for path in sorted(HOST.iterdir()) if path.is_file()}
    jobs = {
        "redis": partial(_build, outer, "lab-redis", redis, f"BASE={bases['bookworm']}"),
        "registry": partial(_build, outer, "lab-registry", registry, f"BASE_IMAGE={bases['bookworm']}"),
        **{suite: partial(_build, outer, "lab-host", host, f"BASE_IMAGE={bases[suite]}") for suite in sorted(suites)}}
    made = side_by_side(list(jobs.values()), len(jobs))
    return {"base": bases["bookworm"], **dict(zip(jobs, made, strict=True))}


def _build(outer: Outer, name: str, files: dict[str, bytes], argument: str) -> str:
    inputs = hashlib.sha256(argument.encode())
    for path, content in files.items():
        inputs.update(f"\0{path}\0".encode() + content)
    tag = f"driftguard.local/{name}:{inputs.hexdigest()[:16]}"
    if not outer.says("image", "ls", "--quiet", tag):
        print(f"  image {tag} …", flush=True)
        outer("buildx", "build", "--quiet", "--builder=default", "--load", "--provenance=false",
              f"--build-arg={argument}", f"--tag={tag}", "-", stdin=_context(files))
    return tag


def _context(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _base(outer: Outer, suite: str) -> str:
    options = json.dumps(BASES[suite], sort_keys=True)
    kept = CACHE / "lab" / f"base-{suite}-{hashlib.sha256(options.encode()).hexdigest()[:8]}"
    reference = kept.read_text() if kept.exists() else ""
    if reference and outer.says("image", "ls", "--quiet", reference):
        return reference
    print(f"  base {suite} …", flush=True)
    for place in (kept.parent, LOGS):
        place.mkdir(parents=True, exist_ok=True)
    variables = json.dumps({**BASES[suite], "lab_reference_file": str(kept)})
    with (LOGS / f"lab-base-{suite}.log").open("wb") as log:
        must([str(VENV / "bin" / "ansible-playbook"), "--inventory=localhost,", f"--extra-vars={variables}",
              str(HERE / "base.yml")], log, f"read {log.name}, mend what it says, run it again")
    return kept.read_text()
