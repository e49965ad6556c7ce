// Copyright: driftguard.workers contributors
// SPDX-License-Identifier: MIT
"use strict";
/**
 * The Node guard in the application's own thread: holds it until it is admitted, keeps BullMQ's jobs from starting on a
 * release that isn't allowed, and stops the thread for good where nothing else does.
 */

const fs = require("fs");
const Module = require("module");
const path = require("path");
const { Worker } = require("worker_threads");
const { say, shown } = require("./version-guard.cjs");
const { FREEZE, SIGNALS, SLOT, THEN, now, settingsOf } = require("./version-guard-fence.cjs");

const FENCE_FILE = path.join(__dirname, "version-guard-fence.cjs");
const EXIT_SETTINGS = 2;
const EXIT_FAILED = 70;
/** The fence was lifted after the application had been stopped: the engine is to start it anew. */
const EXIT_LIFTED = 80;
const LOOK_MS = 1000;
const SILENT_LOOKS = 30;
const END_MS = 1500;
const HAND_BACK_MS = 500;
const PAUSED_MS = 20;
/** How old an answer may be when a job starts by it; a busy event loop may deliver it late. */
const FRESH_MS = 100;
const MAX_ASKS = 10;

/** @type {Int32Array} */
let shared;
/** @type {Worker} */
let thread;
let enforced = false;
/** Whether the application was told to end, by its own handlers. */
let stopped = false;
let parkedAt = 0;
let drainMs = 0;
let reconciling = false;
let lastAsk = 0;
const asks = new Map();
const bullWorkers = new Set();
const active = new Map();
const threads = new Set();

const then = () => Atomics.load(shared, SLOT.THEN);
const flag = (slot) => Atomics.load(shared, slot) === 1;
const fenced = () => then() === THEN.park && !flag(SLOT.SIGNALLED);

/**
 * Start the fence and hold this thread until it admits the application.
 *
 * @param {{enforced: boolean, imageFile: string, record: string | null}} judged what the rules at the start saw
 */
function start(judged) {
  enforced = judged.enforced;
  if (!enforced && !process.env.REDIS_URL) {
    say(1, "NOTE: REDIS_URL is not set: this worker is neither registered nor fenced");
    return;
  }
  try {
    drainMs = settingsOf(process.env, judged.imageFile).drainMs;
  } catch (error) {
    refuse(error);
    return;
  }
  shared = new Int32Array(new SharedArrayBuffer(4 * Object.keys(SLOT).length));
  const registers = !isChild();
  fs.openSync(FENCE_FILE);
  thread = new Worker(FENCE_FILE, {
    workerData: { driftguard: { shared, environment: { ...process.env }, judged: { ...judged, registers } } },
    // Neither this file again nor what the application preloads: NODE_OPTIONS counts here too.
    env: {}, execArgv: [],
  });
  thread.on("error", (error) => failed(String(error && error.message)));
  thread.on("exit", () => failed("its thread ended"));
  thread.on("message", (message) => RECEIVED[message.what](message));
  thread.unref();
  admit();
  follow();
}

function refuse({ variable, expected, found, remedy }) {
  const lines = ["  Expected: " + expected, "  Found:    " + shown(String(found)), "  Remedy:   " + remedy];
  if (enforced) {
    say(2, "FATAL: " + variable + " is missing or wrong!", ...lines);
    process.reallyExit(EXIT_SETTINGS);
  }
  say(2, "WARNING: " + variable + " is missing or wrong: this worker is neither registered nor fenced", ...lines);
}

/**
 * Whether a process above this one runs under the guard: then that one is registered, and speaks for the container. It is
 * told by a file that each guard keeps open, not by a variable, since anybody may set one.
 */
function isChild() {
  try {
    for (let pid = process.ppid; pid > 1; pid = parentOf(pid)) {
      const directory = "/proc/" + pid + "/fd/";
      if (fs.readdirSync(directory).some((descriptor) => linkOf(directory + descriptor).replace(" (deleted)", "") === FENCE_FILE)) {
        return true;
      }
    }
  } catch {
    // another user's process, or one that has ended: none of ours
  }
  return false;
}

function linkOf(file) {
  try {
    return fs.readlinkSync(file);
  } catch {
    return "";
  }
}

function parentOf(pid) {
  const text = fs.readFileSync("/proc/" + pid + "/stat", "latin1");
  return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
}

/** Block until the fence lets the application begin: nothing of it has been loaded yet. */
function admit() {
  for (let seen = then(); ; seen = then()) {
    if (seen === THEN.run || seen === THEN.hold) {
      Atomics.store(shared, SLOT.ADMITTED, 1);
      if (then() !== THEN.park) {
        return;
      }
      // Parked at this very moment, and the fence may have seen it begin already.
      thread.postMessage({ what: "drained" });
      seen = THEN.park;
    }
    waitWhile(SLOT.THEN, seen);
  }
}

/** Sleep while a slot holds a value, as long as the fence's thread lives. */
function waitWhile(slot, value) {
  let silent = 0;
  for (let tick = -1; Atomics.load(shared, slot) === value; ) {
    const last = tick;
    tick = Atomics.load(shared, SLOT.TICK);
    silent = last === tick ? silent + 1 : 0;
    if (silent > SILENT_LOOKS) {
      failed("its thread doesn't answer");
    }
    Atomics.wait(shared, slot, value, LOOK_MS);
  }
}

/** Without its fence a worker must not go on. */
function failed(reason) {
  if (!flag(SLOT.WITHDRAWN)) {
    say(2, "FATAL: The guard failed: " + shown(reason), "  Expected: the fence to go on", "  Found:    it ended",
      "  Remedy:   the engine starts the worker anew; if it fails again, report this line");
    process.reallyExit(EXIT_FAILED);
  }
}

/** Follow what the application does: how it ends, what it starts, which library of jobs it loads. */
function follow() {
  for (const [name, { slot }] of Object.entries(SIGNALS)) {
    const count = (event, change) => process.on(event, (which) => {
      if (which === name) {
        Atomics.store(shared, slot, Math.max(0, process.listenerCount(name) + change));
      }
    });
    count("newListener", 1);
    count("removeListener", 0);
  }
  process.on("exit", ended);
  process.on("worker", (worker) => {
    if (worker !== thread) {
      threads.add(worker);
      worker.once("exit", () => threads.delete(worker));
    }
  });
  const kill = process.kill;
  process.kill = (pid, signal = "SIGTERM") => {
    const own = [process.pid, 0, -process.pid].includes(pid) && signal !== 0;
    // An application that ends itself by the signal that it was told to end by.
    if (own && fenced()) {
      freeze();
    }
    const done = kill.call(process, pid, signal);
    if (own && signal in SIGNALS && !process.listenerCount(signal)) {
      Atomics.wait(shared, SLOT.REVIVED, 0, END_MS); // it ends the process here, as ever, when the fence has its turn
    }
    return done;
  };
  Object.defineProperty(globalThis, Symbol.for(FREEZE), { value: () => (fenced() ? freeze() : undefined) });
  const loadModule = Module._load;
  Module._load = function (request, ...rest) {
    const loaded = loadModule.call(this, request, ...rest);
    if (enforced && typeof request === "string" && /(?:^|[\\/])bullmq(?:$|[\\/])/.test(request)) {
      gate(loaded);
    }
    return loaded;
  };
}

/** The process ends, by whatever way still runs handlers. */
function ended() {
  if (fenced()) {
    freeze();
  }
  thread.postMessage({ what: "end" });
  Atomics.wait(shared, SLOT.WITHDRAWN, 0, END_MS);
}

/** Let no job of a BullMQ start before the fence was asked. @param {any} bullmq what its package exports */
function gate(bullmq) {
  const prototype = bullmq && bullmq.Worker && bullmq.Worker.prototype;
  if (!prototype || typeof prototype.callProcessJob !== "function" || prototype.callProcessJob.gated) {
    return;
  }
  const { callProcessJob, run, getNextJob } = prototype;
  prototype.callProcessJob = async function (job, token, ...rest) {
    if (!(await mayStart())) {
      throw await handBack(bullmq, job, token);
    }
    const entry = { job, token, bullmq };
    active.set(entry, true);
    try {
      return await callProcessJob.call(this, job, token, ...rest);
    } finally {
      active.delete(entry);
    }
  };
  prototype.callProcessJob.gated = true;
  prototype.run = function (...words) {
    bullWorkers.add(this);
    this.once("closed", () => bullWorkers.delete(this));
    if (fenced()) {
      reconcile();
    }
    return run.apply(this, words);
  };
  // Jobs that an application fetches itself have begun when it has them.
  prototype.getNextJob = async function (token, ...rest) {
    const job = (await mayStart()) ? await getNextJob.call(this, token, ...rest) : undefined;
    if (job && !(await mayStart())) {
      await handBack(bullmq, job, token);
      return undefined;
    }
    return job;
  };
}

/** Whether a job may start now, by a record that was read after this was asked; waits while Redis can't be asked. */
async function mayStart() {
  for (let count = 1; ; count += 1) {
    const at = await new Promise((resolve) => {
      lastAsk += 1;
      asks.set(lastAsk, resolve);
      thread.postMessage({ what: "ask", id: lastAsk });
    });
    if (then() === THEN.park) {
      return false;
    }
    if (then() === THEN.run && (now() - at < FRESH_MS || count >= MAX_ASKS)) {
      return true;
    }
  }
}

/** Give a job back as if it had never been fetched. @returns {Promise<Error>} what tells BullMQ so */
async function handBack(bullmq, job, token) {
  if (typeof job.moveToWait === "function" && bullmq.WaitingError) {
    await job.moveToWait(token);
    return new bullmq.WaitingError();
  }
  await job.moveToDelayed(Date.now(), token);
  return new bullmq.DelayedError();
}

/** What the fence's thread says. */
const RECEIVED = {
  answer({ asks: ids, at }) {
    for (const id of ids) {
      const resolve = asks.get(id);
      asks.delete(id);
      resolve(at);
    }
  },
  park() {
    parkedAt = now();
    if (!fenced()) {
      return;
    }
    if (bullWorkers.size) {
      reconcile();
    } else {
      tellToEnd();
    }
  },
  run() {
    if (stopped) {
      setTimeout(() => then() !== THEN.park && process.exit(EXIT_LIFTED), Math.max(0, parkedAt + drainMs - now()));
    } else {
      reconcile();
    }
  },
  async freeze() {
    const back = [...active.keys()].map(({ bullmq, job, token }) => handBack(bullmq, job, token).catch(() => undefined));
    const late = new Promise((resolve) => setTimeout(resolve, HAND_BACK_MS));
    await Promise.race([Promise.all(back), late]);
    if (fenced()) {
      freeze();
    }
  },
};

/** Bring BullMQ's workers to what the fence says, until it says nothing new: it may change its mind meanwhile. */
async function reconcile() {
  if (reconciling) {
    return;
  }
  reconciling = true;
  try {
    for (let parked = null; parked !== fenced(); ) {
      parked = fenced();
      const workers = [...bullWorkers].filter((worker) => !worker.closing);
      await Promise.all(workers.map(parked ? pause : resume));
      if (parked && fenced()) {
        thread.postMessage({ what: "drained" });
      }
    }
  } finally {
    reconciling = false;
  }
}

/** Pause a worker of BullMQ; returns when nothing of it is under way, or the fence is lifted. */
async function pause(worker) {
  worker.pause(true).catch(() => undefined);
  while (fenced() && (active.size || !worker.isPaused())) {
    await new Promise((resolve) => setTimeout(resolve, PAUSED_MS));
  }
}

/** Resume a worker of BullMQ, as often as it takes: it passes over a resume while the loop that was paused runs out. */
async function resume(worker) {
  while (!fenced() && !worker.closing && worker.isPaused()) {
    await worker.resume();
    await new Promise((done) => setTimeout(done, PAUSED_MS));
  }
}

/** Where nobody knows the jobs: the application's own handlers end it as at a stop. */
function tellToEnd() {
  stopped = true;
  if (process.listenerCount("SIGTERM")) {
    process.emit("SIGTERM", "SIGTERM", SIGNALS.SIGTERM.number);
  } else {
    freeze();
  }
}

/** Stop this thread for good. It returns never; when the fence is lifted the process ends, to be started anew. */
function freeze() {
  Object.keys(SIGNALS).forEach((name) => process.removeAllListeners(name));
  threads.forEach((worker) => worker.terminate());
  Atomics.store(shared, SLOT.FROZEN, 1);
  thread.postMessage({ what: "frozen" });
  waitWhile(SLOT.REVIVED, 0);
  process.reallyExit(EXIT_LIFTED);
}

module.exports = { start };
