/**
 * A worker's knowledge of itself.
 *
 * @module
 */
import type { WorkerInfo } from "./worker_protocol.ts";

export type { WorkerInfo };

let info: WorkerInfo | null = null;

/** In a worker of a `DataLoader`: which one it is. `null` on the main thread. */
export function workerInfo(): WorkerInfo | null {
  return info;
}

/** Set once, by the worker. */
export function setWorkerInfo(value: WorkerInfo): void {
  info = value;
}
