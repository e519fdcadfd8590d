/**
 * The Gloo back end: process groups of CPU tensors over TCP.
 *
 * @module
 */
import { gloo, refusal } from "../ffi/communicator.ts";
import { DistributedError } from "../ffi/errors.ts";
import { CommunicatorGroup } from "./process_group.ts";
import type { Store } from "./store.ts";
import { NativeWork } from "./work.ts";

/** What {@linkcode connectGloo} takes. */
export interface GlooOptions {
  /** Number of this process in the group. */
  rank: number;
  /** The global rank of each rank of the group. */
  ranks: readonly number[];
  /** Where the ranks leave their addresses; a part of the store that only this group uses. */
  store: Store;
  /** Milliseconds for connecting, and for each collective unless told otherwise. */
  timeout: number;
  /** Host name, IP address or network interface that the other ranks reach this one at. */
  address?: string;
}

const encoder = new TextEncoder(), decoder = new TextDecoder();

function environment(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch {
    return undefined; // no permission to read it: as if it were not set
  }
}

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
function ownAddress(): string {
  const usable = Deno.networkInterfaces().filter(({ address }) => !/^(127\.|169\.254\.|::1$|fe80:)/i.test(address));
  const found = usable.find(({ family }) => family === "IPv4") ?? usable[0];
  if (found === undefined) {
    throw new DistributedError(
      "gloo: this machine has no address that others could reach: name one with the option address or GLOO_SOCKET_IFNAME",
    );
  }
  return found.address;
}

/** The values that all ranks have stored under `name/<rank>`. */
async function collect(options: GlooOptions, name: string, value: Uint8Array | string, deadline: number): Promise<Uint8Array[]> {
  const { store, rank, ranks } = options;
  await store.set(`${name}/${rank}`, value);
  const keys = ranks.map((_, i) => `${name}/${i}`);
  try {
    return await Promise.all(keys.map((key) => store.get(key, { timeout: Math.max(1, deadline - Date.now()) })));
  } catch (error) {
    const there = await Promise.all(keys.map((key) => store.check([key]).catch(() => true)));
    const missing = ranks.filter((_, i) => !there[i]);
    if (missing.length === 0) throw error;
    throw new DistributedError(
      `gloo: ${missing.length === 1 ? "rank" : "ranks"} ${missing.join(", ")} did not arrive within ${options.timeout} ms`,
      { rank: missing[0], cause: error },
    );
  }
}

/**
 * Connects the ranks of a group.
 *
 * @throws {DistributedError} If a rank does not arrive or cannot be reached.
 * @throws {LibraryNotFoundError} If the library is not built.
 */
export async function connectGloo(options: GlooOptions): Promise<CommunicatorGroup> {
  const { rank, ranks, timeout } = options, library = gloo(), deadline = Date.now() + timeout, size = ranks.length;
  let address = options.address ?? environment("GLOO_SOCKET_IFNAME") ?? "";
  if (size > 1) {
    const machines = (await collect(options, "machine", await machine(), deadline)).map((it) => decoder.decode(it));
    if (address === "") address = machines.every((it) => it === machines[0]) ? "127.0.0.1" : ownAddress();
  }
  const id = library.dg_comm_open(rank, size, encoder.encode(`${address}\0`), 0);
  if (id === 0) throw new DistributedError(`gloo: ${refusal(library).message}`);
  const group = new CommunicatorGroup({ library, id, backend: "gloo", device: "cpu", rank, ranks, timeout });
  try {
    const blob = new Uint8Array(library.dg_comm_blob(id, null, 0));
    library.dg_comm_blob(id, blob, blob.length);
    const blobs = size > 1 ? await collect(options, "blob", blob, deadline) : [blob];
    const all = new Uint8Array(await new Blob(blobs as BlobPart[]).arrayBuffer());
    const work = library.dg_comm_connect(id, all, all.length, Math.max(1, deadline - Date.now()));
    if (work === 0) throw new DistributedError(`gloo: ${refusal(library).message}`);
    await new NativeWork(group, { id: work, collective: "connecting", tensors: [] }).done();
    return group;
  } catch (error) {
    await group.close();
    throw error;
  }
}
