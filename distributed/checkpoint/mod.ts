/**
 * Checkpoints of long runs.
 *
 * @module
 */
import { DistributedError, FormatError } from "../../ffi/errors.ts";
import { pathOf } from "../../io/files.ts";
import { saveSafetensors } from "../../io/safetensors.ts";
import { defaultGenerator, type GeneratorState } from "../../ops/generator.ts";
import { bytesOf } from "../../tensor/dtype.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { defaultGroup, isInitialized } from "../world.ts";
import { allGatherObject, broadcastObject } from "../objects.ts";
import type { ProcessGroup } from "../process_group.ts";
import { CheckpointFile, type Contents, fileName, FORMAT, listFiles, prune, shardName, sumOf, writeContents } from "./files.ts";
import { decode, encode, isStateful, type Stateful } from "./values.ts";

/** What a checkpoint holds, by name: what has `stateDict()` and `loadStateDict()`, and numbers, strings, arrays, plain objects and tensors. */
export type CheckpointState = Readonly<Record<string, unknown>> & {
  /** Steps done, a whole number: it names the checkpoint. */
  readonly step: number;
};

/** Options of {@linkcode saveCheckpoint}. */
export interface SaveCheckpointOptions {
  /** How many checkpoints of the folder to keep. Default 3. */
  keep?: number;
  /** Let each rank write a part of the tensors, in a file of its own. Default `false`: rank 0 writes all, in one file. */
  sharded?: boolean;
  /** Who saves together. Default: all ranks, or this process alone if there is no process group. */
  group?: ProcessGroup | null;
}

/** Options of {@linkcode loadCheckpoint}. */
export interface LoadCheckpointOptions {
  /** Who loads together. Default: as for {@linkcode saveCheckpoint}. */
  group?: ProcessGroup | null;
  /** Set the default generator of random numbers to where it stood. Default `true`. */
  random?: boolean;
}

/** A checkpoint in a folder. */
export interface CheckpointInfo {
  /** Steps done. */
  readonly step: number;
  /** The file; of a sharded one the index. */
  readonly path: string;
}

const RANDOM = "random state";

function groupOf(group: ProcessGroup | null | undefined): ProcessGroup | null {
  const found = group === undefined ? (isInitialized() ? defaultGroup() : null) : group;
  return found === null || found.size === 1 ? null : found;
}

/** The results of all ranks, or an error on all of them that names the first rank that failed. */
async function together<T>(group: ProcessGroup | null, op: string, work: () => T | Promise<T>): Promise<T[]> {
  let mine: { value: T } | { error: string }, own: unknown = null;
  try {
    mine = { value: await work() };
  } catch (error) {
    if (group === null) throw error;
    own = error;
    mine = { error: error instanceof Error ? `${error.name}: ${error.message}` : String(error) };
  }
  if (group === null) return [(mine as { value: T }).value];
  const all = await allGatherObject(mine, { group });
  const failed = all.findIndex((it) => "error" in it);
  if (failed < 0) return all.map((it) => (it as { value: T }).value);
  if (own !== null) throw own;
  throw new DistributedError(`${op}: rank ${group.ranks[failed]} failed: ${(all[failed] as { error: string }).error}`, {
    rank: group.ranks[failed],
  });
}

/** Which rank writes which tensor: the largest first, each to the rank with the least so far. */
function share(tensors: ReadonlyMap<string, Tensor>, ranks: number): Map<string, Tensor>[] {
  const parts = Array.from({ length: ranks }, () => ({ bytes: 0, tensors: new Map<string, Tensor>() }));
  const size = (x: Tensor) => x.numel() * bytesOf(x.dtype);
  for (const [name, x] of [...tensors].sort(([a, x], [b, y]) => size(y) - size(x) || (a < b ? -1 : 1))) {
    const part = parts.reduce((least, it) => it.bytes < least.bytes ? it : least);
    part.bytes += size(x);
    part.tensors.set(name, x);
  }
  return parts.map((it) => it.tensors);
}

/**
 * Saves the state of a training, so that {@linkcode loadCheckpoint} goes on as if nothing had happened: on the CPU with the same numbers, bit for bit. All
 * ranks call it after the same step and wait for it. The random state of the default generator is saved without being named.
 *
 * Tensors are those of rank 0, or of the rank that writes them if `sharded`: they must be equal on all ranks, as those of `DistributedDataParallel`, its
 * buffers and optimiser are. Everything else is saved from every rank.
 *
 * The checkpoint appears whole or not at all, whenever the process or machine stops, and older ones are removed only after that. One of the same step is
 * replaced; later ones, which an abandoned run left, are removed. The folder belongs on a file system that all hosts see: every rank reads it.
 *
 * @param folder Where to; made if it does not exist.
 * @param state What to save, by name; `step` names the checkpoint.
 * @param options.keep Default 3.
 * @param options.sharded Default `false`.
 * @param options.group Default: all ranks.
 * @returns The file.
 * @throws {TypeError} If a value cannot be saved.
 * @throws {DistributedError} On all other ranks if one fails.
 *
 * @example A run that is cut off and goes on
 * ```ts
 * import { distributed, nn, ones, optim } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const folder = await Deno.makeTempDir();
 * async function train(steps: number): Promise<number[]> {
 *   using model = new nn.Linear(1, 1, { bias: false });
 *   model.weight.detach().fill_(1);
 *   using optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
 *   const found = await distributed.loadCheckpoint<{ losses: number[] }>(folder, { model, optimizer });
 *   const losses = found?.losses ?? [];
 *   for (let step = found?.step ?? 0; step < steps; step++) {
 *     optimizer.zeroGrad();
 *     const loss = model.call(ones([1, 1])).square().sum();
 *     loss.backward();
 *     optimizer.step();
 *     losses.push(loss.item());
 *     await distributed.saveCheckpoint(folder, { model, optimizer, losses, step: step + 1 });
 *   }
 *   return losses;
 * }
 * await train(2);
 * const resumed = await train(4);
 * await Deno.remove(folder, { recursive: true });
 * assertEquals(resumed, await train(4));
 * await Deno.remove(folder, { recursive: true });
 * ```
 */
export async function saveCheckpoint(folder: string | URL, state: CheckpointState, options: SaveCheckpointOptions = {}): Promise<string> {
  const op = "saveCheckpoint", { keep = 3, sharded = false } = options, group = groupOf(options.group), place = pathOf(folder);
  if (!Number.isSafeInteger(keep) || keep < 1) throw new RangeError(`${op}: keep must be a whole number >= 1, got ${keep}`);
  if (typeof state !== "object" || state === null || !Number.isSafeInteger(state.step) || state.step < 0 || state.step >= 1e10) {
    throw new RangeError(`${op}: the state must have a step, a whole number from 0 to 9999999999, got ${state?.step}`);
  }
  if (RANDOM in state) throw new RangeError(`${op}: "${RANDOM}" is saved by itself, give the value another name`);
  const { step } = state, path = `${place}/${fileName(step, sharded)}`;
  // What stateDict() makes is freed at the end.
  return await scope(async () => {
    const tensors = new Map<string, Tensor>(), ranks = group?.size ?? 1, rank = group?.rank ?? 0;
    const all = await together(group, op, () => {
      const entries = Object.entries(state).map(([name, it]) => [name, encode(isStateful(it) ? it.stateDict() : it, name, tensors)]);
      return {
        step,
        names: [...tensors.keys()].join("\n"),
        text: JSON.stringify({ ...Object.fromEntries(entries), [RANDOM]: defaultGenerator.getState() }),
      };
    });
    const other = all.findIndex((it) => it.step !== step || it.names !== all[0].names);
    if (other >= 0 && group !== null) {
      const reason = all[other].step !== all[0].step ? `step ${all[other].step}, rank 0 ${all[0].step}` : "other tensors than rank 0";
      throw new DistributedError(`${op}: rank ${group.ranks[other]} saves ${reason}`, { rank: group.ranks[other] });
    }
    const texts = [...new Set(all.map((it) => it.text))], stateOf = all.map((it) => texts.indexOf(it.text));
    const parts = sharded ? share(tensors, ranks) : [tensors, ...new Array<Map<string, Tensor>>(ranks - 1).fill(new Map())];
    const tag = await tagOf(group), shards = sharded ? parts.map((_, i) => shardName(step, tag, i, ranks)) : [];
    const sums = await together(group, op, async () => {
      const own: Record<string, number> = Object.fromEntries([...parts[rank]].map(([name, x]) => [name, sumOf(x)]));
      if (rank === 0 || sharded) await Deno.mkdir(place, { recursive: true });
      if (sharded) await saveSafetensors(`${place}/${shards[rank]}`, parts[rank]);
      return own;
    });
    await together(group, op, async () => {
      if (rank !== 0) return;
      const states = texts.map((it) => JSON.parse(it));
      const contents: Contents = { format: FORMAT, step, ranks, states, stateOf, sums: Object.assign({}, ...sums), shards };
      await writeContents(path, contents, tensors);
      prune(place, step, keep, fileName(step, sharded));
    });
    return path;
  });
}

/** Eight hexadecimal digits that all ranks have. */
async function tagOf(group: ProcessGroup | null): Promise<string> {
  const tag = crypto.randomUUID().slice(0, 8);
  return group === null ? tag : await broadcastObject(tag, group.ranks[0], { group });
}

/** The whole checkpoints of a folder, oldest first; none if there is no such folder. */
export function listCheckpoints(folder: string | URL): CheckpointInfo[] {
  const place = pathOf(folder);
  return listFiles(place).map(({ step, file }) => ({ step, path: `${place}/${file}` }));
}

/** What {@linkcode loadCheckpoint} returns: what was saved under other names than those that were restored. */
export type LoadedCheckpoint<T = Record<string, unknown>> = T & {
  /** Steps done. */
  step: number;
};

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound && !/\.(safetensors|json)$/.test(path)) return true; // a run that has not saved yet
    throw error;
  }
}

/**
 * Goes on from a checkpoint of {@linkcode saveCheckpoint}. All ranks call it; all load the one that rank 0 finds. Everything is read and checked before
 * anything is changed.
 *
 * As many ranks as saved it each get what they had. With another number of ranks, each gets what rank 0 had, and random numbers and the place in a loader's
 * epoch are not the same as they would have been.
 *
 * @param path The folder, for its latest checkpoint; or the file of one.
 * @param state What to restore, by the names that it was saved under; each has `loadStateDict()`.
 * @param options.random Default `true`.
 * @param options.group Default: all ranks.
 * @returns The other values; tensors among them are on the CPU. `null` if the folder has no checkpoint.
 * @throws {FormatError} If the file is damaged or no checkpoint, or lacks a name; the message says what is wrong with it.
 * @throws {DistributedError} On all other ranks if one fails.
 */
export async function loadCheckpoint<T extends object = Record<string, unknown>>(
  path: string | URL,
  state: Readonly<Record<string, Stateful>> = {},
  options: LoadCheckpointOptions = {},
): Promise<LoadedCheckpoint<T> | null> {
  const op = "loadCheckpoint", group = groupOf(options.group), place = pathOf(path);
  for (const [name, it] of Object.entries(state)) {
    if (!isStateful(it)) {
      throw new TypeError(`${op}: ${name} must have stateDict() and loadStateDict(), got ${it === null ? "null" : typeof it}`);
    }
  }
  const rank = group?.rank ?? 0;
  const [found] = await together(
    group,
    op,
    () => rank !== 0 ? null : isFolder(place) ? listCheckpoints(place).at(-1)?.path ?? null : place,
  );
  if (found === null) return null;
  return await scope(async () => {
    const [loaded, generator] = await read(found, state, group, op);
    for (const [name, it] of Object.entries(state)) it.loadStateDict(loaded[name] as never);
    if (options.random ?? true) defaultGenerator.setState(generator);
    return Object.fromEntries(Object.entries(loaded).filter(([name]) => !(name in state) && name !== RANDOM)) as LoadedCheckpoint<T>;
  });
}

/** Reads this rank's state from a file. */
async function read(
  path: string,
  wanted: Readonly<Record<string, Stateful>>,
  group: ProcessGroup | null,
  op: string,
): Promise<[Record<string, unknown>, GeneratorState]> {
  let loaded: Record<string, unknown> = {};
  await together(group, op, () => {
    using file = new CheckpointFile(path);
    const { ranks, states, stateOf } = file.contents, rank = group?.rank ?? 0;
    const own = states[stateOf[ranks === (group?.size ?? 1) ? rank : 0]];
    const missing = Object.keys(wanted).find((name) => !(name in own));
    if (missing !== undefined) {
      const names = Object.keys(own).filter((it) => it !== RANDOM).join(", ");
      throw new FormatError(`${path}: has no "${missing}", it has ${names}`);
    }
    loaded = decode(own, (name) => file.tensor(name)) as Record<string, unknown>;
  });
  return [loaded, loaded[RANDOM] as GeneratorState];
}
