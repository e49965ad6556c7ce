# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of an audit: what a compose file should not say of a worker, how bad it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"
NOTE = "note"
LEVELS = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Rule:
    """One rule. Its level is meant for workers; of other services an error counts as a warning.

    :param workers_only: says nothing of services that aren't workers.
    """

    id: str
    level: str
    title: str
    remedy: str
    workers_only: bool = False


_ALL = (
    Rule("image-latest", ERROR, "The image is the tag latest",
         "name the image by digest (repository@sha256:...): latest is another image tomorrow"),
    Rule("image-untagged", ERROR, "The image has no tag, which means latest",
         "name the image by digest (repository@sha256:...)"),
    Rule("image-tag", ERROR, "The image is named by tag, not by digest",
         "name the image by digest (repository@sha256:...): a tag can be moved"),
    Rule("image-variable", WARNING, "A variable without a value here decides the image",
         "see to it that only a digest is ever given, or write the digest"),
    Rule("git-sha-set", ERROR, "The version is set at deploy time",
         "remove it: the version comes from the image; set here, a stale image looks current", True),
    Rule("git-sha-argument", NOTE, "The version is a build argument with a value of its own",
         "leave it to the build: a default such as unknown makes images that nobody can tell apart", True),
    Rule("development-runner", ERROR, "A development runner starts the worker",
         "name the built program, for example node dist/worker.js", True),
    Rule("expected-sha", WARNING, "Nothing says which commit is expected (EXPECTED_GIT_SHA)",
         "set EXPECTED_GIT_SHA to the full commit of the release, so that a start guard can compare", True),
    Rule("memory-limit", ERROR, "No memory limit",
         "set deploy.resources.limits.memory (or mem_limit): one worker can take the host down"),
    Rule("container-name", WARNING, "The container's name is fixed",
         "remove container_name: replicas can't share a name, and a half-made container blocks the next start"),
    Rule("restart-policy", WARNING, "The restart policy isn't always",
         "set restart: always, the only policy after which all workers are back when the engine was killed"),
    Rule("docker-socket", ERROR, "The engine's raw socket is mounted",
         "remove it, or give the service a filtered proxy: with the socket it owns the host"),
    Rule("code-mount", ERROR, "A mount lies over the code",
         "remove it, or mount data elsewhere, such as below /data: it hides which code runs", True),
    Rule("anonymous-volume", WARNING, "An anonymous volume",
         "name the volume or use a tmpfs: an anonymous one keeps old files when the container is recreated"),
    Rule("secret-in-clear", ERROR, "A secret stands in the file",
         "make it a secret that is mounted as a file, take it out of the history, and change it"),
    Rule("secret-in-environment", WARNING, "A secret is handed over in the environment",
         "make it a secret that is mounted as a file: docker inspect shows environments"),
    Rule("privileged", ERROR, "The container is privileged", "remove privileged: it is root on the host"),
    Rule("host-process-namespace", ERROR, "A namespace is shared with the host (pid, ipc, userns_mode or uts)",
         "remove it: the container sees, and may end, the host's processes"),
    Rule("host-network", WARNING, "The network is the host's",
         "use a network of one's own: on the host's the container reaches every local service"),
    Rule("cap-add", WARNING, "Capabilities are added", "remove cap_add; a queue worker needs none"),
    Rule("unconfined", WARNING, "A security profile is switched off",
         "remove the unconfined entries of security_opt"),
    Rule("root-user", WARNING, "The worker runs as root", "give the image a user of its own (USER in the Dockerfile)"),
    Rule("healthcheck", WARNING, "No health check in the file, or it is switched off",
         "add a healthcheck here or in the image: a worker that hangs looks alive"),
    Rule("log-rotation", WARNING, "Logs are not rotated",
         "set logging with options max-size and max-file: json-file logs grow until the disk is full"),
    Rule("stop-grace-period", WARNING, "No stop_grace_period, so the engine kills after 10 s",
         "set it longer than the longest job takes to be finished or given back", True),
    Rule("pull-policy", NOTE, "The image may be pulled or built when the container is started",
         "set pull_policy: never and bring the image to the host first, by digest", True),
    Rule("hardening", NOTE, "Protection that costs nothing is missing",
         "set read_only, cap_drop [ALL], security_opt [no-new-privileges:true], init and a pids limit", True),
)
RULES = {rule.id: rule for rule in _ALL}


def level_of(rule: str, worker: bool) -> str:
    """How bad a rule's finding is for a worker, or for another service."""
    level = RULES[rule].level
    return WARNING if level == ERROR and not worker else level
