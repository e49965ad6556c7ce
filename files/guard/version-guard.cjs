// Copyright: driftguard.workers contributors
// SPDX-License-Identifier: MIT
"use strict";
/**
 * Guard of a Node worker: proves at its start which commit it is, then registers and fences it from within.
 *
 *     node --require /opt/driftguard/guard/version-guard.cjs dist/worker.js
 *     node version-guard.cjs --check [--record DIR] [--image-file FILE] [-- COMMAND...]
 *
 * This file holds the five rules of docs/guards.md, which version_guard.py and version_guard.sh hold too; the cases that
 * keep the three together are in contract.json. What goes on while the worker runs is in version-guard-process.cjs (the
 * application's own thread) and version-guard-fence.cjs (a thread beside it). Standard library only, Node 18 and later.
 */

const fs = require("fs");
const path = require("path");
const { isMainThread } = require("worker_threads");

const IMAGE_FILE = "/etc/driftguard/image.json";
const IMAGE_KEYS = ["schema", "fleet", "variant", "release", "revision", "created", "baseName", "baseDigest"];
const GUARD_MOUNT = "/opt/driftguard/guard";
const RECORD_FILES = ["guard.json", "guard.env"];
const DEV_RUNNERS = [
  "tsx", "ts-node", "ts-node-dev", "ts-node-esm", "ts-node-script", "ts-node-cwd", "ts-node-transpile-only",
  "ts-script", "tsnd", "nodemon", "node-dev", "vite-node", "babel-node", "swc-node", "esbuild-register",
  "esbuild-runner", "esno", "watchfiles", "-mwatchfiles", "watchmedo", "watchdog.watchmedo", "-mwatchdog.watchmedo",
  "--reload", "--watch", "--watch-path", "flask --debug",
];
const SEPARATORS = " \t\n/=,:;&|()<>\"'`@{}[]\\$";
const OPTION_VARIABLES = ["NODE_OPTIONS"];
const PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._:/@+,=-";
const SHOWN_BYTES = 80;
const MAX_LINES = 64;
const MAX_LINE_BYTES = 512;
const MAX_FILE_BYTES = 65536;
const MAX_ALLOWED = 32;
const MAX_GENERATION = 10n ** 15n;
const MAX_DEPTH = 200;
const MAX_DIGITS = 4300;
const EXIT_REFUSED = 1;
const EXIT_USAGE = 64;
const USAGE = `usage: version-guard.cjs --check [--record DIR] [--image-file FILE] [-- COMMAND [ARG...]]
       node --require .../version-guard.cjs PROGRAM [ARG...]
Proves that this worker may start here; with --require it then registers and fences it.
  --check            check only; COMMAND may be left out
  --record DIR       directory of the host record (default: /opt/driftguard/guard, else beside the guard)
  --image-file FILE  file baked into the image (default: /etc/driftguard/image.json)
Exit status: 1 refused, 64 wrong usage, else 0. Node can't become another program: see version_guard.sh for that.
`;

/** Thrown where a file isn't what the deployment writes. */
class Malformed extends Error {}

/** Says what was found; refuses where the rules are enforced and warns where they are not. */
class Report {
  /** @param {boolean} enforced */
  constructor(enforced) {
    this.enforced = enforced;
    this.clean = true;
  }

  /** Name a violated rule: ends the process with status 1 when enforced, else returns after a warning. */
  refuse(title, ...lines) {
    if (this.enforced) {
      say(2, "FATAL: " + title, ...lines);
      process.reallyExit(EXIT_REFUSED);
    }
    this.clean = false;
    const short = title.slice(0, -1).replace(/ in production$/, "");
    say(2, "WARNING: " + short + " (not enforced outside production)");
  }
}

/**
 * Check every rule; returns when the worker may start, else ends the process with status 1 after the reason was written.
 *
 * @param {{environment?: Record<string, string>, command?: string[], imageFile?: string, record?: string}} [options]
 *   what to judge; by default this process's own. Texts have one character per byte.
 * @returns {{enforced: boolean, imageFile: string, record: string | null}} what was judged, for the fence.
 */
function runStartupGuards(options = {}) {
  const environment = options.environment || ownEnvironment();
  const command = options.command || [...ownCommand(), ...watched(environment)];
  const imageFile = options.imageFile === undefined ? IMAGE_FILE : options.imageFile;
  const record = options.record === undefined ? recordDirectory() : options.record;
  const production = [environment.WORKER_ENV, environment.NODE_ENV].includes("production");
  const report = new Report(production || record !== null);
  checkRunner(report, environment, command);
  const { GIT_SHA: sha, EXPECTED_GIT_SHA: expected } = environment;
  say(1, "Worker: " + shown(environment.WORKER_TYPE || "unknown"),
    "GIT_SHA: " + (shown(sha || "") || "(not set)"), "EXPECTED_GIT_SHA: " + (shown(expected || "") || "(not set)"));
  checkVersions(report, sha, expected, imageFile, record);
  say(1, report.clean ? "Version check passed: " + shown(sha || "") : "Version not enforced outside production");
  return { enforced: report.enforced, imageFile, record };
}

/** The variables that the process was given, byte for byte; process.env would have replaced what isn't UTF-8. */
function ownEnvironment() {
  try {
    const entries = fs.readFileSync("/proc/self/environ", "latin1").split("\0").filter((entry) => entry.includes("="));
    return plainObject(entries.map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]));
  } catch {
    return plainObject(Object.entries(process.env));
  }
}

/** The command line as it was given; process.argv has a path made absolute in it. */
function ownCommand() {
  try {
    return fs.readFileSync("/proc/self/cmdline", "latin1").split("\0").slice(0, -1);
  } catch {
    return [process.argv0, ...process.execArgv, ...process.argv.slice(1)];
  }
}

/** "node --watch" runs the program in a child whose command line doesn't say so. */
function watched(environment) {
  return environment.WATCH_REPORT_DEPENDENCIES === undefined ? [] : ["--watch"];
}

function plainObject(entries) {
  const made = Object.create(null);
  for (const [key, value] of entries) {
    made[key] = value;
  }
  return made;
}

/** Where the host record has to be; null where no host record is mounted. */
function recordDirectory() {
  if (exists(GUARD_MOUNT)) {
    return GUARD_MOUNT;
  }
  return RECORD_FILES.some((name) => exists(path.join(__dirname, name))) ? __dirname : null;
}

function exists(file) {
  try {
    fs.lstatSync(file);
    return true;
  } catch (error) {
    return error.code !== "ENOENT" && error.code !== "ENOTDIR";
  }
}

function checkRunner(report, environment, command) {
  const places = [["the command", command.join(" ")]];
  for (const name of OPTION_VARIABLES.filter((name) => environment[name] !== undefined)) {
    places.push([name, environment[name]]);
  }
  for (const [place, text] of places) {
    const runner = findRunner(text);
    if (runner !== null) {
      report.refuse("Running via " + runner + " in production!",
        "  Expected: the built program itself, started without a development runner",
        "  Found:    " + runner + " in " + place,
        "  Remedy:   name the built program in the service's command or the image's CMD, for example" +
          " node dist/worker.js, not npx tsx src/worker.ts");
      return;
    }
  }
}

/** The first of DEV_RUNNERS whose words are all among the words of a command line, or null. */
function findRunner(text) {
  const words = new Set([...text].map((character) => (SEPARATORS.includes(character) ? " " : character)).join("").split(" "));
  return DEV_RUNNERS.find((runner) => runner.split(" ").every((word) => words.has(word))) || null;
}

/** Rules 2 to 5; outside production the first violation ends them, since the later ones would only repeat it. */
function checkVersions(report, sha, expected, imageFile, record) {
  const [image, problem] = load(imageFile, parseImage);
  const unstamped = problem === "missing" && record === null;
  if (sha === undefined || !isHex(sha, 40)) {
    refuseSha(report, sha);
  } else if (problem && !unstamped) {
    refuseFile(report, "Image file", imageFile, problem);
  } else if (image && image.revision !== sha) {
    refuseOverride(report, sha, image.revision, imageFile);
  } else {
    if (unstamped) {
      say(1, "NOTE: " + shown(imageFile) + " is missing and no host record is mounted: GIT_SHA is taken on trust");
    }
    if (expected && expected !== sha) {
      refuseMismatch(report, sha, expected);
    } else if (record !== null) {
      checkRecord(report, record, image.release + ":" + image.revision);
    }
  }
}

function refuseSha(report, sha) {
  let fault = "is not a full commit SHA";
  if (!sha) {
    fault = sha === undefined ? "is not set" : "is empty";
  } else if (sha === "unknown") {
    fault = "is 'unknown'";
  }
  report.refuse("GIT_SHA " + fault + " in production!",
    "  Expected: the full commit SHA from the image build, 40 lowercase hexadecimal digits",
    "  Found:    " + (sha ? "'" + shown(sha) + "'" : "nothing"),
    "This worker CANNOT run - may be stale code.",
    "  Remedy:   build the image with the worker_image module or --build-arg GIT_SHA=<full SHA>;" +
      " never set GIT_SHA at deploy time");
}

function refuseFile(report, what, file, problem) {
  const image = what === "Image file";
  report.refuse(what + " is " + problem + "!",
    "  Expected: " + shown(file) + " as the " + (image ? "image build" : "deployment") + " wrote it",
    "  Found:    it is " + problem,
    "This worker CANNOT run - " + (image ? "may be stale code." : "nothing says which release this host allows."),
    image ? "  Remedy:   build the image with the worker_image module, and mount nothing over this file"
      : "  Remedy:   deploy to this host again; its guard directory is mounted read-only at " + GUARD_MOUNT);
}

function refuseOverride(report, sha, baked, imageFile) {
  report.refuse("GIT_SHA was overridden at deploy time!",
    "  Expected: " + baked + " (baked into " + shown(imageFile) + ")",
    "  Found:    " + sha + " (environment)",
    "This worker CANNOT run - may be stale code.",
    "  Remedy:   remove GIT_SHA from the service's environment and env files; it comes from the image alone");
}

function refuseMismatch(report, sha, expected) {
  const short = expected.length >= 7 && sha.startsWith(expected);
  report.refuse("Version mismatch!",
    "  Image SHA:    " + sha,
    "  Expected SHA: " + shown(expected),
    "This worker is running STALE code. Exiting.",
    "  Remedy:   " + (short ? "set EXPECTED_GIT_SHA to all 40 digits; a short SHA is never compared"
      : "recreate the container from the expected commit's image, or deploy the commit this image was built from"));
}

function checkRecord(report, directory, own) {
  const file = directory + "/" + RECORD_FILES[0];
  const [record, problem] = load(file, parseRecord);
  if (record === null) {
    refuseFile(report, "Host record", file, problem);
  } else if (!record.allowed.includes(own)) {
    report.refuse("This host does not allow this release!",
      "  Expected: " + record.allowed.join(" or "),
      "  Found:    " + own + " (this image)",
      "This worker is running STALE code. Exiting.",
      "  Remedy:   recreate the container from an allowed release, or deploy this image's commit to this host");
  }
}

/** What parse makes of a file, and "" - or null, and what is wrong: missing, unreadable or malformed. */
function load(file, parse) {
  try {
    if (exists(file) && !fs.statSync(file, { throwIfNoEntry: false })?.isFile()) {
      return [null, "unreadable"]; // opening a pipe or a device could hang
    }
    return [parse(readBounded(file)), ""];
  } catch (error) {
    if (error instanceof Malformed) {
      return [null, "malformed"];
    }
    return [null, error.code === "ENOENT" ? "missing" : "unreadable"];
  }
}

function readBounded(file) {
  const descriptor = fs.openSync(file, "r");
  try {
    const buffer = Buffer.alloc(MAX_FILE_BYTES + 1);
    let length = 0;
    for (let count = -1; count !== 0 && length < buffer.length; length += count) {
      count = fs.readSync(descriptor, buffer, length, buffer.length - length, null);
    }
    return buffer.subarray(0, length);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** The release and the revision in an image file of one key per line. @throws {Malformed} it has another form. */
function parseImage(data) {
  // NUL bytes are dropped because no shell's "read" can see them, and all guards must judge alike.
  const lines = data.toString("latin1").replaceAll("\0", "").split("\n");
  if (lines[lines.length - 1] === "") {
    lines.pop();
  }
  demand(lines.length >= 3 && lines.length <= MAX_LINES && lines[0] === "{" && lines[lines.length - 1] === "}");
  const found = Object.create(null);
  lines.slice(1, -1).forEach((line, index) => {
    const end = index === lines.length - 3 ? '"' : '",';
    demand(line.length <= MAX_LINE_BYTES);
    const [whole, key, value] = /^ {2}"([A-Za-z]+)": "([A-Za-z0-9 ._:/@+,=-]+)",?$/.exec(line) || [];
    demand(whole !== undefined && line === '  "' + key + '": "' + value + end && !(key in found));
    found[key] = value;
  });
  demand(IMAGE_KEYS.every((key) => key in found) && found.schema === "1");
  demand(belongTogether(found.release, found.revision));
  return { release: found.release, revision: found.revision };
}

/**
 * The fleet of a release record and what it allows, each "<release>:<sha>".
 *
 * @param {Buffer} data
 * @throws {Malformed} it isn't a record.
 */
function parseRecord(data) {
  demand(data.length <= MAX_FILE_BYTES);
  const record = parseJson(decodeUtf8(data));
  demand(field(record, "schema", "bigint") === 1n);
  const generation = field(record, "generation", "bigint");
  demand(generation >= 1n && generation <= MAX_GENERATION);
  const fleet = field(record, "fleet", "string");
  demand(/^[a-z][a-z0-9-]{0,30}[a-z0-9]$/.test(fleet) && !fleet.endsWith("\n"));
  const target = pair(field(record, "target", "object"));
  const list = field(record, "allowed", "object");
  demand(Array.isArray(list) && list.length <= MAX_ALLOWED);
  const allowed = list.map(pair);
  demand(allowed.includes(target) && new Set(allowed).size === allowed.length);
  const phase = field(record, "phase", "string");
  demand(phase === "rolling" || (phase === "settled" && allowed.length === 1));
  return { fleet, allowed };
}

function pair(entry) {
  const release = field(entry, "releaseId", "string");
  const sha = field(entry, "sha", "string");
  demand(belongTogether(release, sha));
  return release + ":" + sha;
}

function field(holder, name, kind) {
  demand(holder !== null && typeof holder === "object" && !Array.isArray(holder));
  const value = holder[name];
  demand(typeof value === kind && value !== null);
  return value;
}

function demand(condition) {
  if (!condition) {
    throw new Malformed();
  }
}

function decodeUtf8(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new Malformed();
  }
}

/**
 * JSON in which no key comes twice and whole numbers stay apart from others, which JSON.parse can't tell: whole ones
 * become a bigint, all other numbers NaN.
 */
function parseJson(text) {
  let at = 0;
  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    at += found ? found[0].length : 0;
    return found && found[0];
  };
  const blank = () => take(/[ \t\n\r]*/y);
  const is = (character) => {
    blank();
    const found = text[at] === character;
    at += found ? 1 : 0;
    return found;
  };
  const string = () => {
    blank();
    const found = take(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y);
    demand(found !== null);
    return JSON.parse(found);
  };
  const sequence = (end, item) => {
    if (is(end)) {
      return;
    }
    do {
      item();
    } while (is(","));
    demand(is(end));
  };
  const value = (depth) => {
    demand(depth < MAX_DEPTH);
    if (is("{")) {
      const made = Object.create(null);
      sequence("}", () => {
        const key = string();
        demand(is(":") && !(key in made));
        made[key] = value(depth + 1);
      });
      return made;
    }
    if (is("[")) {
      const made = [];
      sequence("]", () => made.push(value(depth + 1)));
      return made;
    }
    if (text[at] === '"') {
      return string();
    }
    const word = take(/-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null/y);
    demand(word !== null);
    if (/^-?[0-9]+$/.test(word)) {
      demand(word.length <= MAX_DIGITS);
      return BigInt(word);
    }
    return { true: true, false: false, null: null }[word] ?? (word === "null" ? null : NaN);
  };
  const made = value(0);
  blank();
  demand(at === text.length);
  return made;
}

function isHex(text, length) {
  return text.length === length && /^[0-9a-f]*$/.test(text) && !text.endsWith("\n");
}

function belongTogether(release, sha) {
  return isHex(sha, 40) && release.slice(0, 13) === sha.slice(0, 12) + "." && isHex(release.slice(13), 12);
}

/** At most SHOWN_BYTES of a value nobody vouches for; what could forge a log line becomes one question mark. */
function shown(value) {
  const plain = [...value.slice(0, SHOWN_BYTES)].map((character) => (PLAIN.includes(character) ? character : "\0"));
  return plain.join("").replace(/\0+/g, "?") + (value.length > SHOWN_BYTES ? "..." : "");
}

/** Write lines, each after "[version] "; a closed or clogged log must not change the verdict. */
function say(descriptor, ...lines) {
  try {
    fs.writeSync(descriptor, lines.map((line) => "[version] " + line.replace(/[^ -~]+/g, "?") + "\n").join(""));
  } catch {
    // there is nobody left to tell
  }
}

/** What the process itself starts with: the rules, then the fence; returns when the application may run. */
function protect(options = {}) {
  if (!isMainThread) {
    return; // a thread of an application that has been admitted
  }
  const judged = runStartupGuards(options);
  require("./version-guard-process.cjs").start(judged);
}

/** Run as a program. @returns {number} the exit status. */
function main(words) {
  const options = {};
  let rest = words;
  for (; rest.length && rest[0] !== "--"; ) {
    const option = rest[0];
    if (option === "--help") {
      fs.writeSync(1, USAGE);
      return 0;
    }
    if (option === "--check") {
      [options.check, rest] = [true, rest.slice(1)];
    } else if (["--record", "--image-file"].includes(option) && rest.length > 1) {
      [options[option], rest] = [rest[1], rest.slice(2)];
    } else {
      return usage("unknown option, or option without its value: " + shown(option));
    }
  }
  if (!options.check) {
    return usage("only --check: Node can't become another program");
  }
  // As bytes, which process.argv has lost.
  const bytes = ownCommand();
  const command = rest.length ? bytes.slice(bytes.length - rest.length + 1) : [];
  runStartupGuards({ command, imageFile: options["--image-file"], record: options["--record"] });
  return 0;
}

function usage(fault) {
  fs.writeSync(2, "version-guard: " + fault + "\n" + USAGE);
  return EXIT_USAGE;
}

module.exports = { protect, runStartupGuards, load, parseImage, parseRecord, say, shown, exists, Malformed, IMAGE_FILE };

if (require.main === module) {
  process.exitCode = main(process.argv.slice(2));
} else if (module.parent && module.parent.id === "internal/preload") {
  protect();
}
