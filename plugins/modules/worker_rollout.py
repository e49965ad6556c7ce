#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one host to a rendered revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_rollout
short_description: Brings one host to a revision of its fleet
version_added: 0.1.0
description:
  - Compares all containers of the fleet on this host, running or not, with the revision and recreates exactly those
    that differ.
  - A container differs when its image, its configuration, its mounts or its files are not the revision's, or when it
    does not run.
  - Workers get their grace period, the longer of the old one and the new one.
  - A service's instances are stopped before new ones come. With order C(start-first) the old ones work until the new
    ones are healthy, stable, baked and, with O(proof), registered as the revision's. When one of those fails the old
    ones are never stopped.
  - Waits until every instance is healthy and has been up for the stabilisation window without a restart. A failure
    names the
    container with its exit status and its last log lines.
  - Heals what an interrupted run left, such as half-made containers.
  - A module with a lower deployment number than one that was here before refuses, also in the middle of its work.
  - In a playbook it runs beside its connection. The controller looks at it twice a second or so, shows its progress,
    keeps the deployment lease, and bears a connection that breaks for less than O(heartbeat). The rollout stops at a
    safe point when the controller is gone.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.fleet.root
options:
  host:
    description:
      - Name of this host in the inventory, for messages.
    type: str
    required: true
  state:
    description:
      - With V(present), the host runs the revision.
      - With V(kept), it stays as it is when it runs the revision, this is the proved one and the host's record is
        settled on it. Earlier deploys are refused from then on, and every instance has to be healthy and stable.
        Otherwise no container is touched, and what V(present) would do is returned.
      - With V(settled), the revision is the host's proved one, which C(current) names and a rollback goes back to.
        Containers are not touched.
      - With V(absent), no container of the fleet's project is left.
    type: str
    choices: [present, kept, settled, absent]
    default: present
  revision:
    description:
      - Number of a revision on this host, V(current), V(previous), or at least seven characters of a proved SHA or
        release id.
    type: str
    default: current
  desired:
    description:
      - What M(driftguard.workers.worker_compose) returned as RV(driftguard.workers.worker_compose#module:desired). Only
        check mode reads it, where the revision is not written.
    type: dict
  fenced:
    description:
      - Ids of releases that were fenced. V(previous) passes over them.
    type: list
    elements: str
    default: []
  services:
    description:
      - Services to recreate although nothing differs. With some named, anything due for the others is an error. A name
        that isn't placed on this host has its instances on others, and means nothing here.
    type: list
    elements: str
    default: []
  prune:
    description:
      - Which containers of the fleet that the revision does not ask for are removed. The others are an error.
      - V(project) for those in the fleet's own compose project, such as a service that only a later revision has.
      - V(all) also for those under other projects or started by hand.
    type: str
    choices: [none, project, all]
    default: none
  generation:
    description:
      - Number of this deployment, as M(driftguard.workers.worker_lock) returns it.
    type: int
    required: true
  run:
    description:
      - Id of this run, shown to whoever has to wait for it, and told apart from another run with the same number.
    type: str
    default: ""
  published:
    description:
      - With O(state=settled), number of the deployment that published the revision. Nothing is done when a later one
        was settled here since, or when the revision is not kept here.
      - For what a run that was killed after it had published left undone.
    type: int
  wait_timeout:
    description:
      - Seconds for every instance to become healthy.
    type: float
    default: 120.0
  stabilize:
    description:
      - Seconds that every instance must have been up without a restart. The default sees a worker that crashes 15
        seconds after its start.
    type: float
    default: 20.0
  bake:
    description:
      - Seconds for which instances that are healthy and stable are watched further, such as a canary's. Their restarts
        and, with O(max_failed_jobs), their jobs decide whether they are good.
      - Old instances of services with order C(start-first) work on until then.
      - Nothing is baked when nothing changes and the revision is the proved one.
    type: float
    default: 0.0
  max_restarts:
    description:
      - How many restarts of this host's instances together are fine while they bake.
    type: int
    default: 0
  max_failed_jobs:
    description:
      - Highest rate of failed jobs that is fine, from 0 to 1, of those that end on this host while it bakes. Not judged
        when it is not given.
      - Read from C(/metrics) on port 8081 of each instance, C(driftguard_worker_jobs_total) with the label C(outcome).
        V(completed) is a good end, V(failed) an attempt that will be repeated, V(dead) a job that was given up. Others
        do not count.
      - An instance without them is not judged, and named in RV(bake.without_metrics).
    type: float
  min_jobs:
    description:
      - Jobs that have to end while it bakes before their rate is judged.
    type: int
    default: 20
  lock_wait:
    description:
      - Seconds to wait for another module of the collection that still works on this host.
    type: float
    default: 60.0
  proof:
    description:
      - Where new instances register. Those of services with order C(start-first) have to be registered there with the
        revision's commit and release before the old ones are stopped. Redis isn't asked when there are none.
      - M(driftguard.workers.worker_version_assert) proves the whole host, once the old ones are gone.
    type: dict
    suboptions:
      redis_url:
        description:
          - URL of the fleet's Redis, as this host reaches it.
        type: str
        required: true
      redis_password:
        description:
          - Password for Redis.
        type: str
      redis_ca_file:
        description:
          - File with the certificate authorities that may have signed the server's certificate.
        type: path
      redis_timeout:
        description:
          - Seconds to wait for the connection and for each answer.
        type: float
        default: 5.0
      timeout:
        description:
          - Seconds to wait for late registrations.
        type: float
        default: 20.0
  progress:
    description:
      - Whether a line is shown for each container as it is stopping, starting, healthy and verified.
      - V(auto) shows them on a terminal. They go to C(stderr).
      - The action plugin of this module reads it, as it does O(heartbeat) and O(lease). Check mode and
        O(state=settled), which touch no container, have no use for them.
    type: str
    choices: [auto, always, never]
    default: auto
  heartbeat:
    description:
      - Seconds after which the rollout stops at its next safe point when it has heard nothing of the controller. That
        was killed or suspended then, or can't reach the host. At least 5.
      - Time is measured by the host, whatever its clock says.
      - A controller that is interrupted tells the rollout, which then stops at once.
    type: float
    default: 20.0
  lease:
    description:
      - The deployment lease, which is renewed on this host as long as the rollout lasts. When it is another's by now,
        the rollout stops at its next safe point and fails with the name of who has it.
    type: dict
    suboptions:
      token:
        description:
          - What M(driftguard.workers.worker_lock) returned when it took the lease. Nothing is renewed when it is empty.
        type: str
        required: true
      seconds:
        description:
          - Seconds until it runs out unless it is renewed. It is renewed whenever a third of them has passed.
        type: float
        required: true
      redis_url:
        description:
          - URL of the fleet's Redis, as this host reaches it.
        type: str
        required: true
      redis_password:
        description:
          - Password for Redis.
        type: str
      redis_ca_file:
        description:
          - File with the certificate authorities that may have signed the server's certificate.
        type: path
  attendance:
    description:
      - Directory by which the action plugin and the module hear of each other. The action plugin sets it.
    type: path
requirements:
  - docker (Python library)
  - Docker Compose v2
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Bring this host to the rendered revision
  driftguard.workers.worker_rollout:
    fleet: demo
    host: "{{ inventory_hostname }}"
    revision: "{{ compose.revision }}"
    desired: "{{ compose.desired }}"
    generation: "{{ lease.generation }}"
    lease:
      token: "{{ lease.token }}"
      seconds: 120
      redis_url: redis://127.0.0.1:6379/0
      redis_password: "{{ vault_redis_password }}"

- name: Watch a canary for five minutes, in which at most 2 % of its jobs may fail
  driftguard.workers.worker_rollout:
    fleet: demo
    host: "{{ inventory_hostname }}"
    revision: "{{ compose.revision }}"
    bake: 300
    max_failed_jobs: 0.02
    generation: "{{ lease.generation }}"

- name: Recreate the extractors, although nothing differs
  driftguard.workers.worker_rollout:
    fleet: demo
    host: "{{ inventory_hostname }}"
    services: [extractor]
    generation: "{{ lease.generation }}"

- name: Go back to what was proved before
  driftguard.workers.worker_rollout:
    fleet: demo
    host: "{{ inventory_hostname }}"
    revision: previous
    generation: "{{ lease.generation }}"
"""

RETURN = r"""
revision:
  description: Number of the revision the host was brought to.
  returned: success
  type: int
previous:
  description: Number of the revision that was last proved on this host, null before the first.
  returned: success
  type: int
release:
  description: The revision's release, C(release_id) and C(sha).
  returned: success
  type: dict
steps:
  description: What happened to each instance, in check mode what would happen.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: One of V(keep), V(create), V(recreate) and V(remove).
      type: str
    service:
      description: Name of the service.
      type: str
    container:
      description: Name of the container before the step, empty for one to create.
      type: str
    id:
      description: First twelve digits of its id.
      type: str
    reason:
      description: Why.
      type: str
extras:
  description: Containers of the fleet that the inventory does not ask for, in the same form.
  returned: always
  type: list
  elements: dict
kept:
  description: Whether the host was as it should be, and is held to it.
  returned: with O(state=kept)
  type: bool
moved:
  description: Whether any container was touched.
  returned: success
  type: bool
bake:
  description: What was seen while the host baked.
  returned: when it baked, also on failure
  type: dict
  contains:
    seconds:
      description: How long it was watched.
      type: float
    instances:
      description: Instances that were watched.
      type: int
    restarts:
      description: Restarts of all of them.
      type: int
    jobs:
      description: Jobs that ended, by the instances' metrics.
      type: int
    failed:
      description: Those of them that failed.
      type: int
    judged:
      description: Whether the rate of failed jobs was judged.
      type: bool
    not_judged:
      description: Why it was not, empty when it was.
      type: str
    without_metrics:
      description: Names of instances that gave no counts of jobs.
      type: list
      elements: str
failures:
  description: Instances that did not become healthy or did not stay up.
  returned: failure
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
    container:
      description: Name of the container.
      type: str
    reason:
      description: What went wrong.
      type: str
    exit_code:
      description: Last exit status.
      type: int
    log:
      description: The last lines it wrote, secrets masked.
      type: list
      elements: str
durations:
  description: Seconds per phase, C(recreate), C(stabilize), C(bake) and, of C(start-first), C(prove) and C(drain).
  returned: always
  type: dict
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_work
from ansible_collections.driftguard.workers.plugins.module_utils.work_rollout import ROLLOUT


def main() -> None:
    """Entry point of the module."""
    run_work(ROLLOUT)


if __name__ == "__main__":
    main()
