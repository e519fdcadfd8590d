/**
 * The process groups of this process.
 *
 * @module
 */
import { DistributedError } from "../ffi/errors.ts";
import { provideGroup } from "../nn/sync_batch_norm.ts";
import type { Backend } from "./backend.ts";
import type { ProcessGroup } from "./process_group.ts";
import type { Store } from "./store.ts";

/** What `initProcessGroup` has made. */
export interface World {
  /** All ranks. */
  readonly group: ProcessGroup;
  /** What carries the collectives of groups unless told otherwise. */
  readonly backend: Backend;
  /** Where they met. */
  readonly store: Store;
  /** It is closed with the group. */
  readonly ownStore: boolean;
  /** Milliseconds that a collective may take unless told otherwise. */
  readonly timeout: number;
  /** Where the others reach this rank, if that was named. */
  readonly address: string | undefined;
  /** Those of `newGroup` that are open. */
  readonly groups: Set<ProcessGroup>;
  /** Ends the watch for errors that nothing catches. */
  readonly stop: () => void;
}

let world: World | null = null;

provideGroup(() => world?.group ?? null);

/** Sets or forgets the world. */
export function setWorld(value: World | null): void {
  world = value;
}

/** The world, for the function `op`. @throws {DistributedError} Before `initProcessGroup`. */
export function theWorld(op: string): World {
  if (world === null) {
    throw new DistributedError(
      `${op}: there is no process group: call await initProcessGroup() first, in a process that the launcher started`,
    );
  }
  return world;
}

/** True between `initProcessGroup` and `destroyProcessGroup`. */
export function isInitialized(): boolean {
  return world !== null;
}

/** The group of all ranks. @throws {DistributedError} Before `initProcessGroup`. */
export function defaultGroup(): ProcessGroup {
  return theWorld("defaultGroup").group;
}

/** The rank in a group of a global rank. */
export function within(op: string, group: ProcessGroup, rank: number, what: string): number {
  const found = group.ranks.indexOf(rank);
  if (found < 0) throw new RangeError(`${op}: ${what} must be one of the group's ranks ${group.ranks.join(", ")}, got ${rank}`);
  return found;
}
