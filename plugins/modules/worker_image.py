#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_image
short_description: Build, check and stamp the images of one commit
version_added: 0.1.0
author: driftguard.workers contributors (@driftguard)
description:
  - Builds one image per variant from a commit of a git checkout, with the application's own Dockerfile, unedited.
  - What is built is looked into first. An image that fails a check (contents, size, a C(VOLUME) over the code, no
    command, nothing that can run a guard) gets no stamp and no name.
  - Then it is stamped with labels, with C(GIT_SHA) and C(BUILD_DATE) in its environment, and with the file
    C(/etc/driftguard/image.json). The stamp leaves user, entrypoint, command and working directory alone.
  - Builds the B(commit), byte for byte. Uncommitted changes are announced and not included; no filter, line-end
    conversion, C(export-ignore) or C(export-subst) of C(.gitattributes) applies, C(.dockerignore) does. Submodules
    in the context are an error; Git LFS files are built as pointers, with a warning.
  - Idempotent by the release's id (commit and inputs), which is on the images, not by their tags. Missing and moved
    tags are repaired. Of a half-built release only the missing variants are built.
  - An image is recognized by its labels and by a seal over its layers and configuration, so that an image which
    somebody has built upon one of a release is not taken for it.
options:
  source:
    description: What to build.
    type: dict
    required: true
    suboptions:
      path:
        description:
          - Directory of a git checkout on the build host, or one below its top. Shallow clones, worktrees and bare
            repositories will do.
          - It may belong to another user. Nothing that its configuration names (hooks, filters, monitors) is run.
        type: path
        required: true
      revision:
        description: Commit to build; a branch, a tag, a full SHA or the unambiguous beginning of one.
        type: str
        default: HEAD
      context:
        description: Directory within the commit that is the build context, relative to O(source.path).
        type: str
        default: .
      dockerfile:
        description: The Dockerfile within the commit, relative to O(source.context).
        type: str
        default: Dockerfile
  repository:
    description:
      - Name of the images without tag; C(<fleet>-worker) when it is not given. The variant C(base) has this name,
        any other C(<repository>-<variant>).
      - With O(push=true) it begins with its registry.
    type: str
  base:
    description:
      - The image to build upon, given to the Dockerfile as a build argument. The Dockerfile says C(ARG BASE_IMAGE)
        before its first C(FROM), and C(FROM ${BASE_IMAGE}).
      - Without it, and for every other image that the Dockerfile names, C(FROM), C(COPY --from) and
        C(RUN --mount=from) must name content themselves. A tag alone is an error.
    type: dict
    suboptions:
      reference:
        description:
          - C(repository@sha256:<digest>) (a tag before the C(@) is fine), or C(repository:<image id>), a local tag
            that repeats the image's own id. The latter is for images without a registry, and is checked before and
            after the build.
          - In check mode an empty string is a base that is still to be made; then the release's id isn't known either.
        type: str
        required: true
      name:
        description:
          - Name for the label C(org.opencontainers.image.base.name); the reference's own when it is not
            given.
        type: str
      arg:
        description: Name of the build argument.
        type: str
        default: BASE_IMAGE
  build_args:
    description:
      - Build arguments of all variants. Numbers and booleans become C(1), C(true) and C(false).
      - C(GIT_SHA) and C(BUILD_DATE) are always given and can't be set here.
      - They end up in the image's history. For anything secret use O(secrets).
    type: dict
    default: {}
  secrets:
    description:
      - Files for C(RUN --mount=type=secret) (a package token, a company's certificate authorities). They are in no
        layer.
      - Their contents don't count for the release's id, their ids do. Needs BuildKit.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Name of the secret in the Dockerfile.
        type: str
        required: true
      src:
        description: Absolute path of the file on the build host.
        type: path
        required: true
  variants:
    description:
      - The images by the variant's name (lower-case letters and digits). Each is a dictionary with any of these keys.
      - C(build_args), dictionary, added to O(build_args).
      - C(target), the stage of the Dockerfile to build, the last one when it is not given.
      - C(must_contain), list. An absolute path, or the name of a command on the image's C(PATH) or of an installed
        Debian or Alpine package.
      - C(must_not_contain), list of the same; a name must be neither command nor package.
      - C(max_size), size budget such as C(300MB) or C(1.5GiB).
      - The checks aren't part of the release's id. When they change, images that are there are looked into again,
        except in check mode; the budget is checked always.
    type: dict
    default: {base: {}}
  latest:
    description: Set the tag C(latest) as well. For development; nothing of this collection deploys it.
    type: bool
    default: false
  push:
    description:
      - Push the tags to the registry that O(repository) names.
      - The registry is asked in each run (also in check mode) whether it has them.
    type: bool
    default: false
  builder:
    description:
      - V(buildx) is BuildKit through C(docker buildx build), all variants at once; V(classic) the engine's own
        builder, one variant after the other; V(auto) buildx where it is installed.
    type: str
    choices: [auto, buildx, classic]
    default: auto
  timeout:
    description: Seconds that one build may take, or that a push may be silent.
    type: int
    default: 1800
extends_documentation_fragment:
  - driftguard.workers.fleet
  - driftguard.workers.attributes
  - driftguard.workers.registry
attributes:
  check_mode:
    details:
      - No container is made and nothing is built, so what an image contains, its id and its digest are known only
        after a run.
notes:
  - Needs git, and the Docker SDK for Python, on the build host; buildx for V(builder=buildx).
  - Docker is reached as by the Docker SDK, through E(DOCKER_HOST) or the default socket; Docker contexts are not
    used.
requirements:
  - git >= 2.38
  - Python library docker
seealso:
  - module: driftguard.workers.worker_compose
"""

EXAMPLES = r"""
- name: Build the commit that is checked out
  driftguard.workers.worker_image:
    fleet: shop
    source:
      path: /srv/checkouts/shop

- name: A pinned base, an OCR variant, content checks and size budgets
  driftguard.workers.worker_image:
    fleet: shop
    source:
      path: /srv/checkouts/shop
      revision: v2.4.1
      context: services/worker
      dockerfile: Dockerfile.worker
    base:
      name: python:3.11-slim
      reference: python:3.11-slim@sha256:5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f
    secrets:
      - id: ca
        src: /etc/ssl/certs/ca-certificates.crt
    variants:
      base:
        build_args: {WITH_OCR: false}
        must_not_contain: [tesseract-ocr, ghostscript]
        max_size: 300MB
      ocr:
        build_args: {WITH_OCR: true}
        must_contain: [tesseract-ocr, tesseract-ocr-hrv, /usr/bin/gs]
        max_size: 450MB
  register: images

- name: Push to a registry, so that other hosts can pull by digest
  driftguard.workers.worker_image:
    fleet: shop
    source:
      path: /srv/checkouts/shop
      revision: "{{ release_sha }}"
    repository: registry.example.org/shop/worker
    push: true
"""

RETURN = r"""
release:
  description:
    - The release as the other modules take it.
    - In check mode C(created) is null and C(variants) is empty as long as an image would be built, or pushed for the
      first time, since ids and digests are not known before.
  returned: success
  type: dict
  contains:
    fleet:
      description: The fleet.
      type: str
    release_id:
      description: First 12 digits of the SHA, and 12 of the hash of the inputs.
      type: str
    sha:
      description: Full SHA of the commit.
      type: str
    created:
      description: When the first of its images was stamped.
      type: str
    variants:
      description: The images by variant, each with the keys C(variant) to C(healthcheck) of RV(variants).
      type: dict
  sample:
    fleet: shop
    release_id: 0123456789ab.89abcdef0123
    sha: 0123456789abcdef0123456789abcdef01234567
    created: "2026-01-02T03:04:05Z"
    variants:
      base:
        variant: base
        image: sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        id: sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        digest: null
        repository: shop-worker
        tags: ["shop-worker:0123456789abcdef0123456789abcdef01234567", "shop-worker:0123456"]
        size: 144000000
        entrypoint: []
        cmd: [python3, -m, shop]
        working_dir: /app
        uid: 10001
        gid: 10001
        guard: python
        guard_program: /usr/bin/python3
        volumes: []
        healthcheck: false
release_id:
  description:
    - Id of the release; the same for the same commit and inputs, on any machine.
    - Null in check mode with an empty O(base.reference).
  returned: success
  type: str
  sample: 0123456789ab.89abcdef0123
fleet:
  description: The fleet.
  returned: success
  type: str
  sample: shop
sha:
  description: Full SHA of the commit.
  returned: success
  type: str
  sample: 0123456789abcdef0123456789abcdef01234567
short_sha:
  description: Its first seven digits, as in the second tag.
  returned: success
  type: str
  sample: "0123456"
variants:
  description:
    - What is known of each image.
    - In check mode an image that is not built yet has C(variant), C(repository), C(tags), C(built), and null as
      C(image), C(id) and C(digest).
  returned: success
  type: dict
  contains:
    variant:
      description: Name of the variant.
      type: str
    repository:
      description: Name of the image without tag.
      type: str
    tags:
      description: Its names, full SHA first.
      type: list
      elements: str
    built:
      description: Whether the image is there; false only in check mode.
      type: bool
    image:
      description: What a compose file says, C(repository@digest) when it is pushed, else the id.
      type: str
    id:
      description: The engine's id of the image.
      type: str
    digest:
      description: Digest of the manifest in the registry; null without O(push).
      type: str
    size:
      description: Size in bytes.
      type: int
    entrypoint:
      description: The image's ENTRYPOINT.
      type: list
      elements: str
    cmd:
      description: The image's CMD.
      type: list
      elements: str
    working_dir:
      description: The image's WORKDIR, C(/) when it has none.
      type: str
    uid:
      description: Numeric id of the image's user.
      type: int
    gid:
      description: Numeric id of its group.
      type: int
    guard:
      description: Which guard can run in it.
      type: str
      choices: [python, sh]
    guard_program:
      description: What runs the guard.
      type: str
    volumes:
      description: The image's VOLUMEs.
      type: list
      elements: str
    healthcheck:
      description: Whether the image has a HEALTHCHECK.
      type: bool
    created:
      description: When it was stamped.
      type: str
    base_name:
      description: Name of the image that it is built upon, C(scratch) for none.
      type: str
    base_digest:
      description: Its digest, or for a local one its id; C(none) for scratch.
      type: str
    env:
      description: Names of its environment variables.
      type: list
      elements: str
changes:
  description: What was done, or would be, as C(build <variant>), C(tag <name>) and C(push <name>).
  returned: success
  type: list
  elements: str
  sample: [build base, "tag shop-worker:0123456789abcdef0123456789abcdef01234567", "tag shop-worker:0123456"]
changed_variants:
  description: Names of the variants that these concern.
  returned: success
  type: list
  elements: str
  sample: [base]
uncommitted:
  description: Paths in the context that differ from HEAD and are not part of the build, at most 100.
  returned: success
  type: list
  elements: str
  sample: [src/shop/tasks.py]
builder:
  description: What built; null when nothing was built.
  returned: success
  type: str
  choices: [buildx, classic]
durations:
  description: Seconds of the whole, and of C(build), C(check) and C(stamp) per variant that was built.
  returned: success
  type: dict
  sample: {total: 12.5, base: {build: 11.2, check: 0.6, stamp: 0.4}}
subject:
  description: What a failure is about.
  returned: failure
  type: str
expected:
  description: What was expected.
  returned: failure
  type: str
found:
  description: What was found, for a build its last lines of output.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
"""

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.driftguard.workers.plugins.module_utils.engine_images import Credentials, ImageEngine
from ansible_collections.driftguard.workers.plugins.module_utils.host_files import write_error
from ansible_collections.driftguard.workers.plugins.module_utils.image_build import interruptible
from ansible_collections.driftguard.workers.plugins.module_utils.image_release import ensure
from ansible_collections.driftguard.workers.plugins.module_utils.image_request import Request
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    REGISTRY_SPEC,
    REGISTRY_TOGETHER,
    Result,
    run_module,
)

ARGUMENT_SPEC = {
    **FLEET_SPEC,
    **REGISTRY_SPEC,
    "source": {"type": "dict", "required": True, "options": {
        "path": {"type": "path", "required": True},
        "revision": {"type": "str", "default": "HEAD"},
        "context": {"type": "str", "default": "."},
        "dockerfile": {"type": "str", "default": "Dockerfile"},
    }},
    "repository": {"type": "str"},
    "base": {"type": "dict", "options": {
        "reference": {"type": "str", "required": True},
        "name": {"type": "str"},
        "arg": {"type": "str", "default": "BASE_IMAGE"},
    }},
    "build_args": {"type": "dict", "default": {}},
    "secrets": {"type": "list", "elements": "dict", "default": [], "no_log": False, "options": {
        "id": {"type": "str", "required": True},
        "src": {"type": "path", "required": True},
    }},
    "variants": {"type": "dict", "default": {"base": {}}},
    "latest": {"type": "bool", "default": False},
    "push": {"type": "bool", "default": False},
    "builder": {"type": "str", "choices": ["auto", "buildx", "classic"], "default": "auto"},
    "timeout": {"type": "int", "default": 1800},
}


def build(module: AnsibleModule) -> Result:
    """Have the release's images on this engine, and in the registry."""
    request = Request.from_options(module.params, module.check_mode)
    username, password = module.params["registry_username"], module.params["registry_password"]
    login = Credentials(username, password) if username else None
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="worker-image-", dir=module.tmpdir) as scratch:
            return ensure(request, ImageEngine.connect(login), Path(scratch), module.check_mode, module.warn)
    except OSError as error:
        raise write_error(Path(error.filename or module.tmpdir), error) from error


def main() -> None:
    """Run the module."""
    run_module(ARGUMENT_SPEC, build, required_together=REGISTRY_TOGETHER)


if __name__ == "__main__":
    main()
