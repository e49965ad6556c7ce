// SPDX-License-Identifier: MIT
"use strict";
// Adds jobs as a Node application does: node produce.js REDIS_URL PREFIX QUEUE COUNT; prints {"ids": [...]}.

const { Queue } = require("bullmq");
const { Redis } = require("ioredis");

async function main([url, prefix, queueName, count]) {
  const connection = new Redis(url, { maxRetriesPerRequest: null });
  const queue = new Queue(queueName, { connection, prefix });
  const numbers = Array.from({ length: Number(count) }, (_, number) => number);
  const jobs = await queue.addBulk(numbers.map((number) => (
    { name: "work", data: { number }, opts: { jobId: `job-${number}`, attempts: 1 } })));
  console.log(JSON.stringify({ ids: jobs.map((job) => job.id) }));
  await queue.close();
  await connection.quit();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
