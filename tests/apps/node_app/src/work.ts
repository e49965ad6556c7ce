// SPDX-License-Identifier: MIT

export interface Work {
  number: number;
}

/** What a job comes to, and which commit came to it. */
export function describe(work: Work, commit: string): string {
  return `${work.number} by ${commit}`;
}
