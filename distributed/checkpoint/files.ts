/**
 * The files of checkpoints: which there are, writing them so that each is whole, and reading them with a check of every byte.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import { FormatError } from "../../ffi/errors.ts";
import { writeAll, writeFileAtomic } from "../../io/files.ts";
import { openSafetensors, type Safetensors, saveSafetensors } from "../../io/safetensors.ts";
import { readChunks } from "../../ops/bytes.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** What a checkpoint says of itself. */
export interface Contents {
  /** {@linkcode FORMAT}. */
  format: string;
  /** The step after which it was saved. */
  step: number;
  /** Number of ranks that saved it. */
  ranks: number;
  /** States, JSON of `encode`; equal ones stand once. */
  states: Record<string, unknown>[];
  /** Which of the states each rank has. */
  stateOf: number[];
  /** CRC-32 of the elements of each tensor. */
  sums: Record<string, number>;
  /** The files with tensors, beside this one; none if they are in this file. */
  shards: string[];
}

/** Name and version of the format. */
export const FORMAT = "dinograd checkpoint 1";

const KEY = "dinograd.checkpoint", SUM = "dinograd.checkpoint.sum";
const NAME = /^checkpoint-(\d{10})\.(safetensors|json)$/,
  SHARD = /^checkpoint-\d{10}\.[0-9a-f]{8}\.\d+-of-\d+\.safetensors$/;
const TEMPORARY = /^\.checkpoint-\d{10}\..*\.tmp$/;

const stem = (step: number) => `checkpoint-${String(step).padStart(10, "0")}`;

/** File of the checkpoint of a step, with its tensors or beside them. */
export function fileName(step: number, sharded: boolean): string {
  return `${stem(step)}.${sharded ? "json" : "safetensors"}`;
}

/** File of the tensors of a rank. The tag tells them from those of an earlier run that saved the same step. */
export function shardName(step: number, tag: string, rank: number, ranks: number): string {
  return `${stem(step)}.${tag}.${rank}-of-${ranks}.safetensors`;
}

/** The steps that a folder has whole checkpoints of, and their files, oldest first. */
export function listFiles(folder: string): { step: number; file: string }[] {
  let names: string[];
  try {
    names = [...Deno.readDirSync(folder)].map((it) => it.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  const found = names.flatMap((file) => {
    const match = NAME.exec(file);
    return match === null ? [] : [{ step: Number(match[1]), file }];
  });
  return found.sort((a, b) => a.step - b.step || a.file.localeCompare(b.file));
}

/** CRC-32 of the elements, row-major. */
export function sumOf(x: Tensor): number {
  let sum = 0;
  readChunks(x, (chunk) => sum = crc32(chunk, sum));
  return sum;
}

/** Writes a checkpoint with its tensors, or without if they are in shards. */
export async function writeContents(path: string, contents: Contents, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
  // With a sum: nothing else would notice a digit that changed.
  const text = JSON.stringify(contents), bytes = new TextEncoder().encode(text), sum = String(crc32(bytes));
  if (contents.shards.length === 0) return await saveSafetensors(path, tensors, { metadata: { [KEY]: text, [SUM]: sum } });
  writeFileAtomic(path, (file) => {
    writeAll(file, new TextEncoder().encode(`${sum}\n`));
    writeAll(file, bytes);
  });
}

function parse(path: string, text: string, sum: string): Contents {
  const own = crc32(new TextEncoder().encode(text));
  if (own !== Number(sum)) {
    throw new FormatError(`${path}: the file is damaged: what it says of itself has sum ${own}, expected ${Number(sum)}`);
  }
  const contents: Contents = JSON.parse(text);
  if (contents?.format === FORMAT) return contents;
  throw new FormatError(`${path}: expected format "${FORMAT}", got ${JSON.stringify(contents?.format)}`);
}

/** An open checkpoint. */
export class CheckpointFile implements Disposable {
  /** What it says of itself. */
  readonly contents: Contents;
  readonly #path: string;
  readonly #files: Safetensors[] = [];

  /**
   * Opens a checkpoint.
   *
   * @throws {FormatError} If it is none, or a part is missing or damaged; the message says what.
   */
  constructor(path: string) {
    this.#path = path;
    try {
      this.contents = path.endsWith(".json") ? this.#readIndex(path) : this.#readWhole(path);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #readWhole(path: string): Contents {
    const file = openSafetensors(path);
    this.#files.push(file);
    const { [KEY]: text, [SUM]: own } = file.metadata;
    if (text === undefined || own === undefined) throw new FormatError(`${path}: not a checkpoint, a safetensors file of something else`);
    const contents = parse(path, text, own);
    const missing = Object.keys(contents.sums).find((name) => !file.has(name));
    if (missing !== undefined) throw new FormatError(`${path}: tensor ${JSON.stringify(missing)} is missing`);
    return contents;
  }

  #readIndex(path: string): Contents {
    const text = Deno.readTextFileSync(path), at = text.indexOf("\n"), own = text.slice(0, Math.max(0, at));
    if (!/^\d{1,10}$/.test(own)) throw new FormatError(`${path}: not a checkpoint`);
    const contents = parse(path, text.slice(at + 1), own), folder = path.slice(0, path.lastIndexOf("/") + 1);
    for (const shard of contents.shards) {
      try {
        this.#files.push(openSafetensors(folder + shard));
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) throw new FormatError(`${path}: its part ${shard} is missing`, { cause: error });
        throw error;
      }
    }
    const missing = Object.keys(contents.sums).find((name) => !this.#files.some((it) => it.has(name)));
    if (missing !== undefined) throw new FormatError(`${path}: tensor ${JSON.stringify(missing)} is in none of its parts`);
    return contents;
  }

  /** Reads a tensor and checks its elements. */
  tensor(name: string): Tensor {
    const file = this.#files.find((it) => it.has(name));
    if (file === undefined) throw new FormatError(`${this.#path}: tensor ${JSON.stringify(name)} is missing`);
    const x = file.get(name, { device: "cpu" }), sum = sumOf(x), expected = this.contents.sums[name];
    if (sum === expected) return x;
    x.dispose();
    throw new FormatError(`${this.#path}: tensor ${JSON.stringify(name)} is damaged: its sum is ${sum}, expected ${expected}`);
  }

  /** Closes the files. */
  close(): void {
    for (const file of this.#files) file.close();
  }

  /** The same, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/**
 * Removes all checkpoints but the last `keep` up to `step`, those after it (of a run that was abandoned), and what writes that were cut off left behind.
 */
export function prune(folder: string, step: number, keep: number, written: string): void {
  const all = listFiles(folder), kept = all.filter((it) => it.step <= step && (it.step < step || it.file === written)).slice(-keep);
  const needed = new Set<string>(kept.map((it) => it.file));
  for (const { file } of kept) {
    if (!file.endsWith(".json")) continue;
    using open = new CheckpointFile(`${folder}/${file}`);
    for (const shard of open.contents.shards) needed.add(shard);
  }
  for (const { name } of [...Deno.readDirSync(folder)]) {
    if (!needed.has(name) && (NAME.test(name) || SHARD.test(name) || TEMPORARY.test(name))) remove(`${folder}/${name}`);
  }
}
