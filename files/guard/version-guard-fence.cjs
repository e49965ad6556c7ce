// Copyright: driftguard.workers contributors
// SPDX-License-Identifier: MIT
"use strict";
/**
 * The fence of a Node worker: registers it, watches both records and says what the application's thread may do.
 *
 * It runs in a thread of its own, so that whatever the application does to its event loop blocks neither heartbeat nor
 * fence. Both threads share a few numbers (SLOT); docs/fence.md has the rules, contract.json every combination.
 */

const fs = require("fs");
const http = require("http");
const os = require("os");
const { isMainThread, parentPort, workerData } = require("worker_threads");
const { load, parseImage, parseRecord, say, shown, Malformed } = require("./version-guard.cjs");
const { Connection, RedisError, SettingError, TOO_LARGE, redisOptions } = require("./version-guard-redis.cjs");

const HEARTBEAT_MS = 5000;
const TTL_SECONDS = 15;
const LEGACY_TTL_SECONDS = 86400;
const INDEX_RETENTION_SECONDS = 86400;
const HOST_LOOK_MS = 500;
const DRAIN = { variable: "WORKER_DRAIN_SECONDS", usual: 20, most: 86400 };
const HEALTH_PORT = 8081;
const MAX_CLIENTS = 64;
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 1000;
const WITHDRAW_MS = 1000;
const FREEZE_MS = 1500;
const GAP_BUCKETS = [5.5, 10, 15, 30, 60, 300];
/** The application's thread calls this when it is told to stop for good, also from within a handler that never ends. */
const FREEZE = "driftguard.freeze";
/** Places in the memory that both threads share. */
const SLOT = { THEN: 0, TICK: 1, FROZEN: 2, REVIVED: 3, WITHDRAWN: 4, SIGNALLED: 5, ADMITTED: 6, TERM: 7, INT: 8 };
/** What SLOT.THEN holds; the words are those of contract.json's decisions. */
const THEN = { wait: 0, run: 1, hold: 2, park: 3 };
const SIGNALS = { SIGTERM: { number: 15, slot: SLOT.TERM }, SIGINT: { number: 2, slot: SLOT.INT } };

/**
 * What an instance does, by what both records say of its release.
 *
 * @param {"starting" | "running" | "fenced"} before
 * @param {"not mounted" | "allowed" | "not allowed" | "missing" | "unreadable"} host
 * @param {"allowed" | "not allowed" | "missing" | "unreadable" | "unreachable"} fleet
 * @returns {{then: "run" | "park" | "wait" | "hold", problems: string[]}}
 */
function decide(before, host, fleet) {
  const wrong = ["missing", "unreadable", "unreachable"];
  const problems = [["host", host], ["fleet", fleet]]
    .filter(([, found]) => wrong.includes(found)).map(([whose, found]) => whose + " record " + found);
  const lifts = fleet === "allowed" && (host === "allowed" || host === "not mounted");
  if (host === "not allowed" || fleet === "not allowed" || (before === "fenced" && !lifts)) {
    return { then: "park", problems };
  }
  if (fleet === "unreachable") {
    return { then: before === "starting" ? "wait" : "hold", problems };
  }
  return { then: "run", problems };
}

/** What a record in a file or a reply says of a release: allowed, not allowed, missing or unreadable. */
function sight(record, problem, own) {
  if (record === null) {
    return problem === "missing" ? "missing" : "unreadable";
  }
  return own !== null && record.allowed.includes(own) ? "allowed" : "not allowed";
}

/** What Redis's answer to GET says of a release. @throws {RedisError} it wasn't let near the key. */
function fleetSight(answer, fleet, own) {
  if (answer instanceof RedisError && !answer.message.startsWith("WRONGTYPE")) {
    throw answer;
  }
  if (answer === null) {
    return "missing";
  }
  try {
    const record = Buffer.isBuffer(answer) ? parseRecord(answer) : null;
    return record && record.fleet !== fleet ? "unreadable" : sight(record, "unreadable", own);
  } catch (error) {
    if (error instanceof Malformed) {
      return "unreadable";
    }
    throw error;
  }
}

/**
 * Everything that the thread has to know, from the environment, the image and the kernel.
 *
 * @throws {SettingError} the first variable that is missing or wrong.
 */
function settingsOf(environment, imageFile) {
  const named = (variable, pattern, expected, usual) => {
    const value = environment[variable] || usual;
    if (value === undefined || !pattern.test(value) || value.endsWith("\n")) {
      throw new SettingError(variable, expected, value === undefined ? "nothing (unset or empty)" : "'" + shown(value) + "'",
        usual === undefined ? "set it; the deployment does" : "correct it, or leave it out");
    }
    return value;
  };
  const whole = (variable, usual, most) => {
    const text = named(variable, /^[0-9]{1,5}$/, "a whole number from 0 to " + most, String(usual));
    return Math.min(Number(text), most);
  };
  const container = containerId();
  const [image] = load(imageFile, parseImage);
  return {
    fleet: named("WORKER_FLEET", /^[a-z][a-z0-9-]{0,30}[a-z0-9]$/, "the fleet's name"),
    service: named("WORKER_TYPE", /^[a-z](?:[a-z0-9-]{0,39}[a-z0-9])?$/, "the service's name"),
    host: named("WORKER_HOST", /^[!-~]{1,253}$/, "the host's inventory name", os.hostname()),
    container, instance: instanceName(container),
    sha: named("GIT_SHA", /^[ -~]{1,253}$/, "the commit the image was built from", "unknown"),
    buildDate: named("BUILD_DATE", /^[ -~]{1,253}$/, "the time of the build", "unknown"),
    release: image ? image.release : "unknown",
    own: image ? image.release + ":" + image.revision : null,
    drainMs: 1000 * whole(DRAIN.variable, DRAIN.usual, DRAIN.most),
    healthHost: environment.HEALTH_HOST || (container ? "0.0.0.0" : "127.0.0.1"),
    healthPort: whole("HEALTH_PORT", HEALTH_PORT, 65535),
    redis: redisOptions(environment),
  };
}

/** Id of this process's container, from what the kernel shows of it; a hostname may be anything. Empty outside of one. */
function containerId() {
  const lines = (name) => {
    try {
      return fs.readFileSync("/proc/self/" + name, "latin1").split("\n");
    } catch {
      return [];
    }
  };
  for (const [, , , root, target] of lines("mountinfo").map((line) => line.split(" "))) {
    const found = /\/(?:overlay-)?containers\/([0-9a-f]{64})\/(?:userdata\/)?(?:hostname|hosts|resolv\.conf)$/.exec(root || "");
    if (found && ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].includes(target)) {
      return found[1];
    }
  }
  for (const line of lines("cgroup")) {
    // The innermost one is ours: an engine inside a container has the outer container's id before it.
    for (const part of line.split(":").slice(2).join(":").split("/").reverse()) {
      const found = /^(?:[a-z][a-z-]*-)?([0-9a-f]{64})(?:\.scope)?$/.exec(part);
      if (found) {
        return found[1];
      }
    }
  }
  return "";
}

function instanceName(container) {
  const host = os.hostname().replace(/[^A-Za-z0-9.-]/g, "-").replace(/^[.-]+/, "") || "unknown";
  return container ? container.slice(0, 12) : host.slice(0, 64) + "-" + process.pid;
}

/** Redis's TIME as the registration's readers expect it. @param {number} seconds since the epoch */
function timestamp(seconds) {
  return new Date(Math.floor(seconds * 1000)).toISOString();
}

/** Whether an answer is TIME's: seconds and microseconds. */
function isTime(answer) {
  return Array.isArray(answer) && answer.length === 2 && answer.every((part) => /^[0-9]{1,12}$/.test(String(part)));
}

/** What the instance says of itself in Redis; each write is one transaction. */
class Registration {
  constructor(settings) {
    const { fleet, service, instance } = settings;
    this.worker = service + ":" + instance;
    this.key = fleet + ":worker:" + this.worker + ":version";
    this._index = fleet + ":workers";
    this._legacy = fleet + ":worker:" + service + ":version";
    this._settings = settings;
    this._started = 0;
  }

  /** The commands that write it anew, or for the first time, at Redis's time. */
  commands(state, now, first) {
    this._started = first ? now - process.uptime() : this._started;
    const { sha, buildDate, host, service, container, release } = this._settings;
    const version = ["gitSha", sha, "buildDate", buildDate, "startedAt", timestamp(this._started), "pid", process.pid];
    const record = [
      ...version, "host", host, "service", service, "containerId", container, "releaseId", release, "state", state,
      "heartbeatAt", timestamp(now)];
    const announced = [
      ["HSET", this._legacy, ...version], ["EXPIRE", this._legacy, LEGACY_TTL_SECONDS],
      ["ZREMRANGEBYSCORE", this._index, "-inf", "(" + (now - INDEX_RETENTION_SECONDS)]];
    return [
      // A restarted container keeps its id: nothing of the earlier process may show through.
      ["MULTI"], ...(first ? [["DEL", this.key]] : []), ["HSET", this.key, ...record],
      ["EXPIRE", this.key, TTL_SECONDS], ["ZADD", this._index, now, this.worker], ...(first ? announced : []), ["EXEC"]];
  }

  get withdrawal() {
    return [["MULTI"], ["DEL", this.key], ["ZREM", this._index, this.worker], ["EXEC"]];
  }
}

/** What the thread knows and does; one per process. */
class Fence {
  /**
   * @param {object} settings of settingsOf
   * @param {{enforced: boolean, record: string | null, registers: boolean}} judged
   * @param {Int32Array} shared see SLOT
   */
  constructor(settings, judged, shared) {
    Object.assign(this, { settings, judged, shared });
    const { fleet, redis } = settings;
    this.registration = new Registration(settings);
    const name = fleet + ":worker:" + this.registration.worker;
    this.redis = new Connection(redis, name);
    this.events = new Connection(redis, name, { channel: fleet + ":release:events", heard: (message) => this._hear(message) });
    this.before = "starting";
    this.host = judged.record === null ? "not mounted" : "allowed";
    this.fleet = "unreachable";
    this.then = "wait";
    this.problems = [];
    this.drained = true;
    this.stopping = false;
    this.ended = false;
    this.asks = [];
    this.hint = false;
    this.registered = "";
    this.lastBeat = 0;
    this.nextBeat = 0;
    this.lost = 0;
    this.said = "";
    this.told = "";
    this.counts = { beats: 0, errors: {}, gaps: GAP_BUCKETS.map(() => 0), gapSum: 0, gapCount: 0 };
    this.wake = () => undefined;
  }

  /** As it is registered. */
  get state() {
    if (this.stopping) {
      return "draining";
    }
    if (this.then === "park") {
      return this.drained ? "fenced" : "draining";
    }
    return this.then === "wait" ? "starting" : "running";
  }

  /** Something came on the channel; a subscription that is new may have missed an announcement. */
  _hear(message) {
    if (Array.isArray(message) && ["message", "subscribe"].includes(String(message[0]))) {
      this.hint = true;
      this.wake();
    }
  }

  /** Look at the host's record. */
  lookAtHost() {
    if (this.judged.record !== null) {
      const [record, problem] = load(this.judged.record + "/guard.json", parseRecord);
      this.see({ host: sight(record, problem, this.settings.own) });
    }
  }

  /** Take note of what a record says now. */
  see(seen) {
    Object.assign(this, seen);
    const { then, problems } = decide(this.before, this.host, this.fleet);
    this._tell(then, problems);
    this._turn(this.judged.enforced ? then : "run");
  }

  _tell(then, problems) {
    const suffix = this.judged.enforced ? "" : " (not enforced outside production)";
    for (const problem of problems.filter((each) => !this.problems.includes(each))) {
      say(2, "Fence: " + problem + suffix);
    }
    if (then !== this.told) {
      const whose = this.host === "not allowed" ? "this host's record" : "the fleet's record";
      const lines = {
        park: "PARKED - " + (this.host === "not allowed" || this.fleet === "not allowed"
          ? whose + " does not allow this release" : "nothing allows this release again"),
        run: "this release may run", hold: "no job starts until Redis answers", wait: "waiting for Redis",
      };
      say(then === "park" ? 2 : 1, "Fence: " + lines[then] + suffix);
    }
    this.told = then;
    this.problems = problems;
  }

  _turn(then) {
    const last = this.then;
    this.then = then;
    this.before = then === "park" ? "fenced" : then === "wait" ? "starting" : "running";
    Atomics.store(this.shared, SLOT.THEN, THEN[then]);
    Atomics.notify(this.shared, SLOT.THEN);
    if (then === "park" && last !== "park") {
      this._park();
    } else if (then !== "park" && last === "park") {
      this._lift();
    }
    if (this.state !== this.registered) {
      this.wake();
    }
  }

  _park() {
    // Before its admission the application hasn't begun: there is nothing to drain.
    this.drained = !this._flag(SLOT.ADMITTED) || this._flag(SLOT.FROZEN);
    this._answer();
    if (!this.drained) {
      parentPort.postMessage({ what: "park" });
      this.deadline = setTimeout(() => this._freeze(), this.settings.drainMs);
    }
  }

  _lift() {
    clearTimeout(this.deadline);
    if (this._flag(SLOT.FROZEN)) {
      // What is left of the application can't go on: the engine starts it anew, and it is allowed now.
      this.end().then(() => {
        Atomics.store(this.shared, SLOT.REVIVED, 1);
        Atomics.notify(this.shared, SLOT.REVIVED);
        setTimeout(() => process.kill(process.pid, "SIGKILL"), FREEZE_MS);
      });
    } else if (this._flag(SLOT.ADMITTED)) {
      parentPort.postMessage({ what: "run" });
    }
  }

  /** The drain time is over: whatever the application's thread still does, it does no more. */
  async _freeze() {
    const frozen = () => this._flag(SLOT.FROZEN) || this.then !== "park" || this.ended;
    parentPort.postMessage({ what: "freeze" });
    if (!(await until(frozen, FREEZE_MS))) {
      interrupt();
      // It may be waiting for one of them.
      killDescendants();
      if (!(await until(frozen, FREEZE_MS))) {
        fatal("the application could not be stopped within its drain time");
      }
    }
  }

  /** Cut off what a frozen application still holds, so that its jobs and locks go back. */
  frozen() {
    const own = [this.redis, this.events].map((connection) => connection.descriptor).concat(descriptorsOf(this.server));
    for (const descriptor of fs.readdirSync("/proc/self/fd").map(Number).filter((fd) => fd > 2 && !own.includes(fd))) {
      try {
        if (fs.readlinkSync("/proc/self/fd/" + descriptor).startsWith("socket:")) {
          fs.closeSync(descriptor);
        }
      } catch {
        // it has been closed in the meantime
      }
    }
    killDescendants();
    this.done();
  }

  /** The application has nothing under way any more. */
  done() {
    if (this.then === "park") {
      clearTimeout(this.deadline);
      this.drained = true;
      this.wake();
    }
  }

  /** A job is about to start: answer by a read that begins from now on. */
  ask(id) {
    this.asks.push(id);
    if (this.then === "park") {
      this._answer();
    } else {
      this.wake();
    }
  }

  _answer(asks = this.asks.splice(0), at = now()) {
    if (asks.length) {
      parentPort.postMessage({ what: "answer", asks, at });
    }
  }

  /** Keep registered and informed until the process ends. */
  async run() {
    setInterval(() => {
      Atomics.add(this.shared, SLOT.TICK, 1);
      this.lookAtHost();
    }, HOST_LOOK_MS);
    Atomics.add(this.shared, SLOT.TICK, 1);
    this.lookAtHost();
    this._listen();
    while (!this.ended) {
      await this._sleep(await this._round());
    }
  }

  /** One exchange with Redis. @returns {Promise<number>} milliseconds until the next, unless something happens. */
  async _round() {
    const asks = this.asks.splice(0);
    let seen = false;
    const begun = now();
    this.hint = false;
    try {
      const [time, record] = await this.redis.call([["TIME"], ["GET", this.settings.fleet + ":release"]]);
      if (time instanceof RedisError) {
        throw time;
      }
      // Before anything is concluded: what isn't Redis doesn't say that there is no record.
      if (!isTime(time) || typeof record === "string") {
        throw new Error("an answer that isn't Redis's");
      }
      this.see({ fleet: fleetSight(record, this.settings.fleet, this.settings.own) });
      seen = true;
      this._answer(asks.splice(0), begun);
      await this._beat(time.map(Number));
    } catch (error) {
      this.asks.unshift(...asks);
      this._missed(error, seen && error instanceof RedisError);
      return Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(this.lost, 10)) * (0.5 + Math.random() / 2);
    }
    this._answered();
    return this.hint || this.asks.length || this.state !== this.registered ? 0 : Math.max(0, this.nextBeat - now());
  }

  async _beat([seconds, microseconds]) {
    const state = this.state;
    if (!this.judged.registers || this.ended || (now() < this.nextBeat && state === this.registered)) {
      this.nextBeat = this.judged.registers ? this.nextBeat : now() + HEARTBEAT_MS;
      this.registered = this.judged.registers ? this.registered : state;
      return;
    }
    const begun = now();
    const commands = this.registration.commands(state, seconds + microseconds / 1e6, !this.counts.beats);
    const answers = await this.redis.call(commands);
    const refused = answers.find((answer) => answer instanceof RedisError);
    if (refused) {
      throw refused;
    }
    this.counts.beats += 1;
    this._observe(this.lastBeat ? (now() - this.lastBeat) / 1000 : null);
    this.lastBeat = now();
    this.nextBeat = begun + HEARTBEAT_MS;
    this.registered = state;
    if (this.counts.beats === 1) {
      say(1, "Registered: " + this.registration.key);
    }
  }

  _observe(gap) {
    if (gap !== null) {
      GAP_BUCKETS.forEach((limit, place) => { this.counts.gaps[place] += gap <= limit ? 1 : 0; });
      this.counts.gapSum += gap;
      this.counts.gapCount += 1;
    }
  }

  _answered() {
    if (this.lost) {
      say(1, "Redis answers again");
    }
    this.lost = 0;
    this.said = "";
  }

  /** @param {boolean} readable whether the fleet's record could be read all the same */
  _missed(error, readable) {
    this.lost += 1;
    const kind = error instanceof RedisError ? error.message.split(" ")[0] : error.code || error.message;
    this.counts.errors[kind] = (this.counts.errors[kind] || 0) + 1;
    if (kind !== this.said) {
      this.said = kind;
      say(2, "Redis doesn't answer: expected " + this.settings.redis.where + " to accept the registration; found " +
        shown(error.message) + "; start Redis, or correct REDIS_URL, the password or the user's rules");
    }
    if (!readable) {
      this.redis.close();
      this.see({ fleet: "unreachable" });
    }
  }

  _sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        // Redis isn't asked more often because it doesn't answer.
        if (!this.lost) {
          clearTimeout(timer);
          resolve();
        }
      };
    });
  }

  /** Listen for announcements; they only hasten what each heartbeat finds too. */
  async _listen() {
    while (!this.ended) {
      const pause = await this.events.call([["PING"]]).then(() => HEARTBEAT_MS, () => LONGEST_RETRY_MS);
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (this.events.silence > 2 * HEARTBEAT_MS) {
        this.events.close();
      }
    }
  }

  /** Take the registration back, as far as Redis answers within a second. */
  async end() {
    if (!this.ended) {
      this.ended = true;
      this.wake();
      const gone = this.judged.registers && this.counts.beats ? this.redis.call(this.registration.withdrawal) : Promise.resolve();
      await Promise.race([gone.catch(() => undefined), new Promise((resolve) => setTimeout(resolve, WITHDRAW_MS))]);
    }
    Atomics.store(this.shared, SLOT.WITHDRAWN, 1);
    Atomics.notify(this.shared, SLOT.WITHDRAWN);
  }

  /** What /health answers: its status, and the body. */
  get health() {
    const age = this.lastBeat ? (now() - this.lastBeat) / 1000 : null;
    const ok = this.state === "running" && age !== null && age < TTL_SECONDS;
    const { sha, release, buildDate } = this.settings;
    return [ok ? 200 : 503, {
      status: ok ? "ok" : "unavailable", workerId: this.registration.worker, state: this.state,
      version: { sha, release, buildDate }, uptime: rounded(process.uptime()),
      redis: { connected: age !== null && !this.lost, heartbeatAge: age === null ? null : rounded(age) },
      problems: this.problems,
    }];
  }

  /** What /metrics answers. */
  get metrics() {
    const name = "driftguard_worker_";
    const quoted = (value) => '"' + String(value).replace(/[\\"\n]/g, "?") + '"';
    const { sha, release, buildDate, service } = this.settings;
    const { beats, errors, gaps, gapSum, gapCount } = this.counts;
    const family = (metric, kind, lines) => [
      "# TYPE " + name + metric + " " + kind, ...lines.map((line) => name + metric + line)];
    return [
      family("build_info", "gauge", ["{worker=" + quoted(this.registration.worker) + ",service=" + quoted(service) + ",sha=" +
        quoted(sha) + ",release=" + quoted(release) + ",build_date=" + quoted(buildDate) + "} 1"]),
      family("uptime_seconds", "gauge", [" " + process.uptime()]),
      family("state", "gauge", ["starting", "running", "draining", "fenced"].map(
        (state) => "{" + name + 'state="' + state + '"} ' + Number(state === this.state))),
      family("heartbeats_total", "counter", [" " + beats]),
      family("redis_errors_total", "counter", Object.entries(errors).map(
        ([kind, count]) => "{error=" + quoted(kind) + "} " + count)),
      family("record_problems", "gauge", ["host record missing", "host record unreadable", "fleet record missing",
        "fleet record unreadable", "fleet record unreachable"].map(
        (problem) => "{problem=" + quoted(problem) + "} " + Number(this.problems.includes(problem)))),
      family("heartbeat_gap_seconds", "histogram", [
        ...GAP_BUCKETS.map((limit, place) => '_bucket{le="' + limit + '"} ' + gaps[place]), '_bucket{le="+Inf"} ' + gapCount,
        "_sum " + gapSum, "_count " + gapCount]),
    ].flat().join("\n") + "\n";
  }

  /** Serve /health and /metrics; a port that is taken is no reason to end a worker. */
  serve() {
    const { healthHost, healthPort } = this.settings;
    this.server = http.createServer((request, response) => {
      const answers = {
        "/health": () => [this.health[0], "application/json", JSON.stringify(this.health[1])],
        "/metrics": () => [200, "text/plain; version=0.0.4; charset=utf-8", this.metrics],
      };
      const asked = String(request.url).split("?")[0];
      const [status, type, body] = (Object.hasOwn(answers, asked) ? answers[asked] : () => [404, "text/plain", "not found\n"])();
      response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) }).end(body);
    });
    this.server.sockets = new Set();
    this.server.on("connection", (socket) => {
      this.server.sockets.add(socket);
      socket.on("close", () => this.server.sockets.delete(socket));
    });
    this.server.on("error", (error) => say(2, "Health server: expected to listen on " + healthHost + ":" + healthPort +
      "; found " + shown(error.code || error.message) + "; set HEALTH_PORT to a free port"));
    this.server.maxConnections = MAX_CLIENTS;
    this.server.listen({ host: healthHost, port: healthPort }, () => say(1, "Health server: " + healthHost + ":" +
      this.server.address().port));
  }

  _flag(slot) {
    return Atomics.load(this.shared, slot) === 1;
  }
}

/** Milliseconds of a clock that all threads share and nobody sets. */
function now() {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

function rounded(seconds) {
  return Math.round(seconds * 1000) / 1000;
}

function descriptorsOf(server) {
  const handles = server ? [server._handle, ...[...server.sockets].map((socket) => socket._handle)] : [];
  return handles.filter(Boolean).map((handle) => handle.fd);
}

async function until(condition, milliseconds) {
  for (const end = now() + milliseconds; now() < end; ) {
    if (condition()) {
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return condition();
}

/** Have the application's thread stop even within a loop that never ends. */
function interrupt() {
  try {
    const inspector = require("inspector");
    const session = new inspector.Session();
    session.connectToMainThread();
    session.post("Runtime.evaluate", { expression: "globalThis[Symbol.for(" + JSON.stringify(FREEZE) + ")]()" });
  } catch {
    // a Node built without it: what comes next ends the process
  }
}

/** Kill what the application started: its children would work on. */
function killDescendants() {
  const parents = new Map();
  for (const pid of fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).map(Number)) {
    try {
      const text = fs.readFileSync("/proc/" + pid + "/stat", "latin1");
      parents.set(pid, Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // it has ended in the meantime
    }
  }
  const descends = (pid) => pid > 1 && (parents.get(pid) === process.pid || descends(parents.get(pid) || 0));
  for (const pid of [...parents.keys()].filter(descends)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // likewise
    }
  }
}

/** A guard that fails must not leave an unfenced worker behind. */
function fatal(reason) {
  say(2, "FATAL: The guard failed: " + reason, "  Expected: the fence to go on", "  Found:    it can't",
    "  Remedy:   the engine starts the worker anew; if it fails again, report this line");
  process.kill(process.pid, "SIGKILL");
}

/**
 * Take part in what signals do: an application's own handlers come first, as ever; where it has none, or can't run them,
 * the registration is taken back before the signal ends the process as it always did.
 */
function watchSignals(fence) {
  let Signal;
  try {
    process.noDeprecation = true;
    ({ Signal } = process.binding("signal_wrap"));
  } catch {
    return; // the signal ends the process at once, and the registration expires
  }
  const watchers = Object.entries(SIGNALS).map(([name, { number, slot }]) => {
    const watcher = new Signal();
    watcher.onsignal = async () => {
      const { shared } = fence;
      const blocked = () => fence._flag(SLOT.FROZEN) || !fence._flag(SLOT.ADMITTED);
      if (!blocked() && Atomics.load(shared, slot) > 0) {
        Atomics.store(shared, SLOT.SIGNALLED, 1);
        fence.stopping = true;
        fence.wake();
        return;
      }
      await fence.end();
      watchers.forEach((each) => each.stop());
      process.kill(process.pid, name);
      setTimeout(() => process.kill(process.pid, "SIGKILL"), WITHDRAW_MS);
    };
    watcher.start(number);
    return watcher;
  });
}

/** The thread's program. */
function work({ judged, environment, shared }) {
  process.on("uncaughtException", (error) => fatal(shown(String(error && error.stack ? error.message : error))));
  const fence = new Fence(settingsOf(environment, judged.imageFile), judged, shared);
  const said = {
    ask: ({ id }) => fence.ask(id), drained: () => fence.done(), frozen: () => fence.frozen(), end: () => fence.end(),
  };
  parentPort.on("message", (message) => said[message.what](message));
  watchSignals(fence);
  if (judged.registers) {
    fence.serve();
  }
  fence.run();
}

module.exports = { FREEZE, SIGNALS, SLOT, THEN, decide, fleetSight, now, settingsOf };

if (!isMainThread && workerData && workerData.driftguard) {
  work(workerData.driftguard);
}
