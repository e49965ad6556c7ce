// SPDX-License-Identifier: MIT
// Counts what it is told to count; the result is a key that a test can look at.

import { readFileSync } from "node:fs";

import { Job, Worker } from "bullmq";
import { Redis, RedisOptions } from "ioredis";

import { describe, Work } from "./work";

function connectionOptions(): RedisOptions {
  const file = process.env.REDIS_PASSWORD_FILE;
  const password = file ? readFileSync(file, "utf8").trim() : undefined;
  return { password, maxRetriesPerRequest: null };
}

const url = process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0";
const prefix = process.env.BULLMQ_PREFIX ?? "bull";
const results = new Redis(url, connectionOptions());

const worker = new Worker<Work, string>(
  process.env.WORKER_TYPE ?? "work",
  async (job: Job<Work, string>) => {
    const result = describe(job.data, process.env.GIT_SHA ?? "unknown");
    await results.hset(`${prefix}:results`, String(job.id), result);
    return result;
  },
  { connection: new Redis(url, connectionOptions()), prefix, concurrency: Number(process.env.WORKER_CONCURRENCY ?? 1) },
);
worker.on("error", (error) => console.error(error.message));

async function stop(): Promise<void> {
  await worker.close();
  await results.quit();
  process.exit(0);
}

process.on("SIGTERM", () => void stop());
console.log("node-app at work");
