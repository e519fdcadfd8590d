/**
 * Connecting the ranks of a process group.
 *
 * @module
 */
import { refusal } from "../ffi/communicator.ts";
import { DistributedError } from "../ffi/errors.ts";
import type { Backend } from "./backend.ts";
import { processEnvironment } from "./environment.ts";
import { CommunicatorGroup } from "./process_group.ts";
import type { Store } from "./store.ts";
import { NativeWork } from "./work.ts";

/** What {@linkcode connect} takes. */
export interface ConnectOptions {
  /** What carries the collectives, and for which device. */
  backend: Backend;
  /** Number of this process in the group. */
  rank: number;
  /** The global rank of each rank of the group. */
  ranks: readonly number[];
  /** Tells the ranks each other's addresses. */
  exchange: Exchange;
  /** Milliseconds for connecting, and for each collective unless told otherwise. */
  timeout: number;
  /** Host name, IP address or network interface that the other ranks reach this one at. */
  address?: string;
}

const encoder = new TextEncoder(), decoder = new TextDecoder();

/** What processes that reach each other over loopback have in common. */
async function machine(): Promise<string> {
  try {
    const [boot, network] = await Promise.all([Deno.readTextFile("/proc/sys/kernel/random/boot_id"), Deno.readLink("/proc/self/ns/net")]);
    return `${boot.trim()} ${network}`;
  } catch {
    return Deno.hostname();
  }
}

/** The address of this machine for others: the first that is neither loopback nor link-local. */
function ownAddress({ name, addressVariable }: Backend): string {
  const usable = Deno.networkInterfaces().filter(({ address }) => !/^(127\.|169\.254\.|::1$|fe80:)/i.test(address));
  const found = usable.find(({ family }) => family === "IPv4") ?? usable[0];
  if (found === undefined) {
    throw new DistributedError(
      `${name}: this machine has no address that others could reach: name one with the option address or ${addressVariable}`,
    );
  }
  return found.address;
}

/** Gives every rank of a group what each of them gives, by rank. All call it equally often. */
export type Exchange = (what: string, value: Uint8Array) => Promise<Uint8Array[]>;

/** Exchanges over a store, for the first group. */
export function exchangeOver(name: string, store: Store, rank: number, size: number, timeout: number): Exchange {
  const deadline = Date.now() + timeout;
  return async (what, value) => {
    await store.set(`${what}/${rank}`, value);
    const keys = Array.from({ length: size }, (_, i) => `${what}/${i}`);
    try {
      return await Promise.all(keys.map((key) => store.get(key, { timeout: Math.max(1, deadline - Date.now()) })));
    } catch (error) {
      const there = await Promise.all(keys.map((key) => store.check([key]).catch(() => true)));
      const missing = there.flatMap((it, i) => it ? [] : [i]);
      if (missing.length === 0) throw error;
      const who = missing.length === 1 ? `rank ${missing[0]}` : `ranks ${missing.join(", ")}`;
      throw new DistributedError(`${name}: ${who} did not arrive within ${timeout} ms`, { rank: missing[0], cause: error });
    }
  };
}

/** Raises what a rank has reported in place of its part. */
function raiseFirst(name: string, parts: readonly Uint8Array[], ranks: readonly number[]): void {
  parts.forEach((part, i) => {
    if (part[0] === FAILED) {
      throw new DistributedError(`${name}: on rank ${ranks[i]}: ${decoder.decode(part.subarray(1))}`, { rank: ranks[i] });
    }
  });
}

const FINE = 0, FAILED = 1;

/** Byte that tells the two apart, and then the bytes or the text of the error. */
function part(result: Uint8Array | Error): Uint8Array {
  const content = result instanceof Error ? encoder.encode(result.message) : result;
  const bytes = new Uint8Array(1 + content.length);
  bytes[0] = result instanceof Error ? FAILED : FINE;
  bytes.set(content, 1);
  return bytes;
}

/**
 * Connects the ranks of a group.
 *
 * @throws {DistributedError} If a rank does not arrive or cannot be reached: on all ranks, where they can be told.
 * @throws {LibraryNotFoundError} If the library is not built.
 */
export async function connect(options: ConnectOptions): Promise<CommunicatorGroup> {
  const { backend, rank, ranks, timeout, exchange } = options,
    { name, device } = backend,
    deadline = Date.now() + timeout,
    size = ranks.length;
  const machines = (await exchange("machine", encoder.encode(await machine()))).map((it) => decoder.decode(it));
  const local = machines.every((it) => it === machines[0]);
  let group: CommunicatorGroup | null = null;
  try {
    let id = 0, blob: Uint8Array | Error;
    try {
      const library = backend.open();
      const address = options.address ?? processEnvironment(backend.addressVariable) ?? (local ? "127.0.0.1" : ownAddress(backend));
      id = library.dg_comm_open(rank, size, encoder.encode(`${address}\0`), device.index);
      if (id === 0) throw new DistributedError(`${name}: ${refusal(library).message}`);
      group = new CommunicatorGroup({ library, id, backend: name, device, rank, ranks, timeout });
      blob = new Uint8Array(library.dg_comm_blob(id, null, 0));
      library.dg_comm_blob(id, blob, blob.length);
    } catch (error) {
      blob = error as Error;
    }
    const blobs = await exchange("blob", part(blob));
    if (blob instanceof Error) throw blob;
    raiseFirst(name, blobs, ranks);
    const all = new Uint8Array(await new Blob(blobs.map((it) => it.subarray(1)) as BlobPart[]).arrayBuffer());
    const { library } = group!, work = library.dg_comm_connect(id, all, all.length, Math.max(1, deadline - Date.now()));
    if (work === 0) throw new DistributedError(`${name}: ${refusal(library).message}`);
    await new NativeWork(group!, { id: work, collective: "connecting", tensors: [] }).done();
    return group!;
  } catch (error) {
    await group?.close();
    throw error;
  }
}
