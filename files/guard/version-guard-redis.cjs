// Copyright: driftguard.workers contributors
// SPDX-License-Identifier: MIT
"use strict";
/**
 * Redis for the Node guard, over the standard library alone: what REDIS_URL says, and a connection that trusts nobody.
 * Every wait has an end, and every answer a size.
 */

const fs = require("fs");
const net = require("net");
const tls = require("tls");

const CONNECT_MS = 3000;
const ANSWER_MS = 3000;
const MAX_VALUE = 65536;
const MAX_BUFFERED = 4 * MAX_VALUE;
const MAX_LINE = 4096;
const MAX_ELEMENTS = 64;
const MAX_PASSWORD = 4096;
const URL_SHAPE = /^(rediss?|unix):\/\/(?:([^@/?#]*)@)?([^/?#@]*)(\/[^?#]*)?(?:\?([^#]*))?$/;
// The same as docs/worker.md. Limits of time and of connections are the guard's own here, whatever the URL says.
const URL_OPTIONS = [
  "db", "username", "password", "client_name", "protocol", "health_check_interval", "max_connections",
  "socket_timeout", "socket_connect_timeout", "socket_keepalive", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs",
  "ssl_ca_certs", "ssl_ca_data", "ssl_check_hostname", "ssl_ciphers",
];
/** Stands for a value that is larger than any record. */
const TOO_LARGE = Symbol("too large");

/** A setting that is missing or wrong. */
class SettingError extends Error {
  constructor(variable, expected, found, remedy) {
    super(variable);
    Object.assign(this, { variable, expected, found, remedy });
  }
}

/** What Redis answered instead of a value, such as "NOAUTH Authentication required." */
class RedisError extends Error {}

const URL_REMEDY = "write it as redis://user@host:6379/0; percent-encode special characters or use REDIS_PASSWORD_FILE";

function urlError(found) {
  return new SettingError("REDIS_URL", "redis://, rediss:// or unix://", found, URL_REMEDY);
}

/**
 * How to reach Redis, from the settings; the password file wins over the URL.
 *
 * @param {Record<string, string>} environment
 * @returns {{connect: object, secure: boolean, user: string, password: string, database: number, where: string}}
 * @throws {SettingError} the URL can't be understood in full, or a file can't be read; never quotes the URL.
 */
function redisOptions(environment) {
  const url = environment.REDIS_URL;
  if (!url) {
    throw urlError("nothing (unset or empty)");
  }
  const [whole, scheme, credentials = "", host, location = "", query = ""] = URL_SHAPE.exec(url) || [];
  if (whole === undefined) {
    throw urlError("a URL that can't be parsed (not shown, it may hold a password)");
  }
  const given = queryOf(query);
  const [user, ...rest] = credentials.split(":");
  const options = {
    user: decoded(user) || given.username || "",
    password: decoded(rest.join(":")) || given.password || "",
    secure: scheme === "rediss",
    database: databaseOf(scheme, location, given.db),
    connect: scheme === "unix" ? { path: decoded(location) } : addressOf(host),
  };
  if (scheme === "unix" && (host || location.length < 2)) {
    throw urlError("a socket without its absolute path");
  }
  if (environment.REDIS_PASSWORD_FILE) {
    options.password = passwordOf(environment.REDIS_PASSWORD_FILE);
  }
  Object.assign(options.connect, options.secure ? secureOptions(given, environment, options.connect.host) : {});
  if (!options.secure && environment.REDIS_CA_FILE) {
    throw new SettingError("REDIS_CA_FILE", "TLS", "a REDIS_URL without TLS", "use rediss:// in REDIS_URL, or leave it out");
  }
  options.where = scheme + "://" + (options.connect.path || options.connect.host + ":" + options.connect.port) +
    (scheme === "unix" ? " database " : "/") + options.database;
  return options;
}

function decoded(text) {
  try {
    return decodeURIComponent(text || "");
  } catch {
    throw urlError("a percent sign that escapes nothing");
  }
}

function queryOf(query) {
  const found = {};
  for (const [name, value] of new URLSearchParams(query)) {
    if (!URL_OPTIONS.includes(name) || name in found) {
      throw urlError("an unknown option in its query, or one twice");
    }
    found[name] = value;
  }
  return found;
}

function databaseOf(scheme, location, option) {
  const text = option !== undefined ? option : scheme === "unix" ? "" : location.replace(/^\/|\/$/g, "");
  if (!/^[0-9]{0,9}$/.test(text)) {
    throw urlError("a path that isn't the number of a database");
  }
  return Number(text || 0);
}

function addressOf(authority) {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::([0-9]{1,5}))?$/.exec(authority) || [];
  const host = bracketed || decoded(plain);
  if (!host || Number(port || 6379) > 65535) {
    throw urlError("a URL without a host, or with an impossible port");
  }
  return { host, port: Number(port || 6379) };
}

function passwordOf(file) {
  const wrong = (found) => new SettingError("REDIS_PASSWORD_FILE", "a file with the password", file + ": " + found,
    "mount the password as a file that the worker's user can read");
  let text;
  try {
    text = fs.readFileSync(file, "utf8").replace(/[\r\n]+$/, "");
  } catch (error) {
    throw wrong(error.code);
  }
  if (!text || text.length > MAX_PASSWORD) {
    throw wrong(text ? "more than " + MAX_PASSWORD + " characters" : "empty");
  }
  return text;
}

function secureOptions(given, environment, host) {
  const read = (variable, file) => {
    try {
      return file ? fs.readFileSync(file) : undefined;
    } catch (error) {
      throw new SettingError(variable, "a PEM file", file + ": " + error.code, "mount the file there, readable for the worker");
    }
  };
  const no = (value) => ["false", "no", "0"].includes(String(value).toLowerCase());
  const own = environment.REDIS_CA_FILE ? read("REDIS_CA_FILE", environment.REDIS_CA_FILE) : read("REDIS_URL", given.ssl_ca_certs);
  const options = {
    ca: own || given.ssl_ca_data, cert: read("REDIS_URL", given.ssl_certfile), key: read("REDIS_URL", given.ssl_keyfile),
    ciphers: given.ssl_ciphers, rejectUnauthorized: !["none", "optional"].includes(given.ssl_cert_reqs),
    ...(net.isIP(host) ? {} : { servername: host }),
    ...(no(given.ssl_check_hostname) ? { checkServerIdentity: () => undefined } : {}),
  };
  try {
    tls.createSecureContext(options);
  } catch (error) {
    throw new SettingError(environment.REDIS_CA_FILE ? "REDIS_CA_FILE" : "REDIS_URL", "files and ciphers for TLS",
      String(error.code), "mount the certificate authority's PEM file there");
  }
  return options;
}

/** One command as Redis reads it. @param {(string | number)[]} words */
function encoded(words) {
  const parts = words.map((word) => Buffer.from(String(word)));
  return Buffer.concat([
    Buffer.from("*" + parts.length + "\r\n"),
    ...parts.flatMap((part) => [Buffer.from("$" + part.length + "\r\n"), part, Buffer.from("\r\n")])]);
}

/**
 * The answer that begins at a place: its value and where it ends; nothing while it isn't there in full.
 *
 * @throws {Error} it is none, or larger than any answer to the guard's commands.
 */
function parsed(data, at, depth = 0) {
  const end = data.indexOf("\r\n", at);
  if (end < 0 || end - at > MAX_LINE) {
    if (data.length - at > MAX_LINE) {
      throw new Error("an answer that isn't Redis's");
    }
    return undefined;
  }
  const kind = String.fromCharCode(data[at]);
  const text = data.toString("utf8", at + 1, end);
  if (kind === "+") {
    return { value: text, end: end + 2 };
  }
  if (kind === "-") {
    return { value: new RedisError(text), end: end + 2 };
  }
  if (!":$*".includes(kind) || !/^-?[0-9]{1,18}$/.test(text) || depth > 3) {
    throw new Error("an answer that isn't Redis's");
  }
  const number = Number(text);
  if (kind === ":") {
    return { value: number, end: end + 2 };
  }
  if (number < 0) {
    return { value: null, end: end + 2 };
  }
  return kind === "$" ? bulk(data, end + 2, number) : several(data, end + 2, number, depth);
}

function bulk(data, at, length) {
  if (length > MAX_VALUE) {
    return { value: TOO_LARGE, end: Infinity };
  }
  return data.length < at + length + 2 ? undefined : { value: data.subarray(at, at + length), end: at + length + 2 };
}

function several(data, at, count, depth) {
  if (count > MAX_ELEMENTS) {
    throw new Error("an answer with too many parts");
  }
  const value = [];
  for (let end = at; ; ) {
    if (value.length === count) {
      return { value, end };
    }
    const next = parsed(data, end, depth + 1);
    if (!next) {
      return undefined;
    }
    value.push(next.value);
    end = next.end;
  }
}

/** A connection that is made anew when it is lost; each call waits for the one before. */
class Connection {
  /**
   * @param {object} options of redisOptions
   * @param {string} name for CLIENT LIST
   * @param {{channel: string, heard: (message: unknown) => void}} [listening] to a channel; then calls only send
   */
  constructor(options, name, listening) {
    this._options = options;
    this._name = name;
    this._listening = listening;
    this._turn = Promise.resolve();
    this._asked = null;
    this._fail = null;
    this._socket = null;
    this._heard = Date.now();
  }

  /** The file descriptor of its socket, so that it isn't closed with the application's. */
  get descriptor() {
    return this._socket && this._socket._handle ? this._socket._handle.fd : -1;
  }

  /** Milliseconds since Redis last sent anything. */
  get silence() {
    return Date.now() - this._heard;
  }

  /**
   * Send commands in one go; their answers, each a value or a RedisError.
   *
   * @param {(string | number)[][]} commands
   * @throws {Error} Redis can't be reached, refuses the user, or answers nonsense.
   */
  call(commands) {
    const turn = this._turn.then(() => this._call(commands));
    this._turn = turn.catch(() => undefined);
    return turn;
  }

  /** Drop the connection; what waits for an answer fails. */
  close(error = new Error("closed")) {
    const socket = this._socket;
    this._socket = null;
    this._asked = null;
    if (socket) {
      socket.destroy();
    }
    if (this._fail) {
      this._fail(error);
    }
  }

  async _call(commands) {
    if (!this._socket) {
      await this._open();
    }
    return this._listening ? this._send(commands) : this._ask(commands);
  }

  async _open() {
    this._buffer = Buffer.alloc(0);
    await this._limited(CONNECT_MS, "no connection", (done) => {
      const { secure, connect } = this._options;
      const socket = secure ? tls.connect(connect, done) : net.connect(connect, done);
      this._socket = socket;
      socket.setNoDelay(true);
      socket.on("data", (data) => socket === this._socket && this._take(data));
      socket.on("error", (error) => socket === this._socket && this.close(error));
      socket.on("close", () => socket === this._socket && this.close(new Error("connection closed")));
    });
    const { user, password, database } = this._options;
    const greeting = [["CLIENT", "SETNAME", this._name]];
    if (database) {
      greeting.unshift(["SELECT", database]);
    }
    if (password || user) {
      greeting.unshift(user ? ["AUTH", user, password] : ["AUTH", password]);
    }
    const answers = await this._ask(greeting);
    const refused = answers.slice(0, -1).find((answer) => answer instanceof RedisError);
    if (refused) {
      this.close(refused);
      throw refused;
    }
    if (this._listening) {
      this._send([["SUBSCRIBE", this._listening.channel]]);
    }
  }

  _send(commands) {
    this._socket.write(Buffer.concat(commands.map(encoded)));
    return [];
  }

  _ask(commands) {
    return this._limited(ANSWER_MS, "no answer", (done) => {
      this._asked = { answers: [], count: commands.length, done };
      this._send(commands);
    });
  }

  /** Run something to its end within a time; the connection doesn't survive its failure. */
  _limited(milliseconds, what, begin) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.close(new Error(what + " within " + milliseconds / 1000 + " s")), milliseconds);
      const settle = (how) => (value) => {
        clearTimeout(timer);
        this._fail = null;
        how(value);
      };
      this._fail = settle(reject);
      begin(settle(resolve));
    });
  }

  _take(data) {
    this._heard = Date.now();
    this._buffer = this._buffer.length ? Buffer.concat([this._buffer, data]) : data;
    try {
      let at = 0;
      for (let next; at < this._buffer.length && (next = parsed(this._buffer, at)); at = next.end) {
        this._answer(next.value);
      }
      this._buffer = this._buffer.subarray(Math.min(at, this._buffer.length));
      if (at === Infinity) {
        this.close(new Error("an answer that is too large"));
      } else if (this._buffer.length > MAX_BUFFERED) {
        throw new Error("an answer without an end");
      }
    } catch (error) {
      this.close(error);
    }
  }

  _answer(value) {
    const asked = this._asked;
    if (!asked) {
      if (!this._listening) {
        throw new Error("an answer that nobody asked for");
      }
      this._listening.heard(value);
      return;
    }
    asked.answers.push(value);
    // What follows an answer that is too large can't be read any more.
    while (value === TOO_LARGE && asked.answers.length < asked.count) {
      asked.answers.push(TOO_LARGE);
    }
    if (asked.answers.length === asked.count) {
      this._asked = null;
      asked.done(asked.answers);
    }
  }
}

module.exports = { Connection, RedisError, SettingError, TOO_LARGE, redisOptions };
