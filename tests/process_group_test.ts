import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { gloo, WorkStatus } from "../ffi/communicator.ts";
import { communicatorSymbols } from "../ffi/communicator_symbols.ts";
import { frame } from "../ffi/frame.ts";
import { distributed, DistributedError, ones } from "../mod.ts";
import { type Rank, runWorld, withWorld } from "./world/mod.ts";

const backends = ["gloo", "nccl"];

for (const backend of backends) {
  for (const size of backend === "gloo" ? [1, 2, 3, 4, 8] : [1, 2, 4]) {
    Deno.test(`collectives agree with plain loops on ${size} ranks [${backend}]`, () => runWorld(size, "conformance", backend));
  }
  Deno.test(`messages between ranks [${backend}]`, () => runWorld(3, backend === "gloo" ? "messages" : "orderedMessages", backend));
  Deno.test(`sub-groups [${backend}]`, () => runWorld(3, "subgroups", backend));
  Deno.test(`a rank that leaves takes nothing along [${backend}]`, () => runWorld(3, "leavingInTurn", backend));
  Deno.test(`collectives of objects [${backend}]`, () => runWorld(3, "objects", backend));
  Deno.test(`misuse, mismatches and time-outs are named [${backend}]`, () => runWorld(2, "misuse", backend));

  /** Survivors must all tell of rank 1. */
  const survivors = async (ranks: Rank[], text: RegExp) => {
    for (const rank of [0, 2]) {
      const line = await ranks[rank].line("failed");
      assertMatch(String(line.message), text);
      assertEquals([line.rank, line.collective], [1, "allReduce"]);
    }
  };
  const ready = (ranks: Rank[]) => Promise.all(ranks.map((it) => it.line("ready")));
  for (const scenario of ["reducing", "reducingMuch"]) {
    Deno.test(`a killed rank is named by the others: ${scenario} [${backend}]`, () =>
      withWorld(3, scenario, async (ranks) => {
        await ready(ranks);
        ranks[1].kill("SIGKILL");
        await survivors(ranks, /the connection to rank 1 was lost/);
        for (const rank of [0, 2]) assertEquals((await ranks[rank].end()).code, 0);
      }, backend));
    Deno.test(`a stopped rank is named by the others: ${scenario} [${backend}]`, () =>
      withWorld(3, scenario, async (ranks) => {
        await ready(ranks);
        ranks[1].kill("SIGSTOP");
        await survivors(ranks, /timed out after 1[05]00 ms: rank 1 (did not call it|does not answer)/);
        for (const rank of [0, 2]) assertEquals((await ranks[rank].end()).code, 0);
      }, backend));
  }
  Deno.test(`the error that ended a rank is told to the others [${backend}]`, () =>
    withWorld(3, "raising", async (ranks) => {
      await survivors(ranks, /rank 1 raised RangeError: a bad batch/);
      const { code, errors } = await ranks[1].end();
      assertEquals(code, 1);
      assertMatch(errors, /a bad batch/);
    }, backend));
  Deno.test(`a rank that leaves without a word is named [${backend}]`, () =>
    withWorld(3, "leaving", async (ranks) => {
      await survivors(ranks, /the connection to rank 1 was lost/);
    }, backend));
}

for (const size of [2, 3]) {
  Deno.test(`collectives agree with plain loops on ${size} ranks that do not read each other's memory [gloo]`, () =>
    runWorld(size, "conformance", "gloo", { DINOGRAD_PEER_MEMORY: "0" }));
}
for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
  Deno.test(`a rank lost to ${signal} is named by ranks that do not read each other's memory [gloo]`, () =>
    withWorld(
      3,
      "reducingMuch",
      async (ranks) => {
        await Promise.all(ranks.map((it) => it.line("ready")));
        ranks[1].kill(signal);
        for (const rank of [0, 2]) assertEquals((await ranks[rank].line("failed")).rank, 1);
      },
      "gloo",
      [],
      { DINOGRAD_PEER_MEMORY: "0" },
    ));
}

Deno.test("without a process group, collectives say how to make one", async () => {
  assertEquals(distributed.isInitialized(), false);
  assertThrows(() => distributed.allReduce(ones([1])), DistributedError, "await initProcessGroup()");
  assertThrows(() => distributed.getRank(), DistributedError, "initProcessGroup");
  assertThrows(() => distributed.getWorldSize(), DistributedError, "initProcessGroup");
  assertThrows(() => distributed.getBackend(), DistributedError, "initProcessGroup");
  assertThrows(() => distributed.defaultGroup(), DistributedError, "initProcessGroup");
  await assertRejects(() => distributed.newGroup(), DistributedError, "initProcessGroup");
  await assertRejects(() => distributed.destroyProcessGroup(), DistributedError, "initProcessGroup");
});

Deno.test("initProcessGroup() refuses bad options and leaves nothing behind", async () => {
  const store = new distributed.HashStore();
  const refused = (options: unknown, text: string) =>
    assertRejects(() => distributed.initProcessGroup(options as distributed.InitOptions), Error, text);
  await refused({ store, rank: 2, worldSize: 2 }, "rank must be 0 to 1, got 2");
  await refused({ store, rank: 0 }, "rank and worldSize must be given");
  await refused({ store, rank: 0, worldSize: 0 }, "worldSize");
  await refused({ store, rank: 0, worldSize: 1, backend: "mpi" }, 'backend must be "gloo" or "nccl", got "mpi"');
  await refused({ store, rank: 0, worldSize: 1, backend: "nccl", device: "cpu" }, "nccl serves cuda tensors");
  await refused({ store, rank: 0, worldSize: 1, backend: "gloo", device: "cuda" }, "gloo serves cpu tensors");
  await refused({ store, rank: 0, worldSize: 1, timeout: -1 }, "timeout");
  await refused({ store, initMethod: "env://", rank: 0, worldSize: 1 }, "not both");
  await refused({ store, rank: 0, worldSize: 2, timeout: 100 }, "rank 1 did not arrive within 100 ms");
  await store.set("world/machine/1", "elsewhere");
  await store.set("world/blob/1", new Uint8Array(1));
  await refused({ store, rank: 0, worldSize: 2, timeout: 5000, address: "no such place" }, 'no address "no such place" to listen on');
  assertEquals(distributed.isInitialized(), false);
});

Deno.test("native functions of communicators answer random arguments with a status or an id", () => {
  const library = gloo() as unknown as Record<string, (...args: unknown[]) => number>;
  let state = 1;
  const random = () => (state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0, (state >>> 0) / 2 ** 32);
  const below = (n: number) => Math.floor(random() * n);
  const x = ones([2, 3]), y = ones([6]), scratch = new Uint8Array(4096), odd = [NaN, Infinity, -1, 0, 1e300];
  const comms = [0, 1, 2].map(() => {
    const id = library.dg_comm_open(0, 1, new Uint8Array([0]), 0);
    if (id % 2 === 0) library.dg_work_free(library.dg_comm_connect(id, scratch, 1, 1000));
    return id;
  });
  // The ranks of a group of two that nobody joins: its calls fail, and its works end with it.
  comms.push(library.dg_comm_open(1, 2, new TextEncoder().encode("127.0.0.1\0"), 0));
  const left = ["dg_work_wait", "dg_work_wait_elsewhere", "dg_work_join", "dg_comm_open", "dg_comm_close"]; // these take time or the communicators away
  const names = Object.keys(communicatorSymbols).filter((it) => !left.includes(it)) as (keyof typeof communicatorSymbols)[];
  let valid = 0;
  for (let call = 0; call < 20_000; call++) {
    const name = names[below(names.length)];
    frame.begin();
    for (const it of [x, y, x, y]) frame.put(it);
    const args = (communicatorSymbols[name].parameters as readonly string[]).map((type, i) => {
      if (type === "pointer") return random() < 0.05 ? null : frame.pointer;
      if (type === "buffer") return random() < 0.05 ? null : scratch;
      if (type === "f64") return random() < 0.8 ? 1 + below(50) : odd[below(odd.length)];
      if (name === "dg_comm_connect" && i === 2) return below(scratch.length); // as long as what is given
      if (i === 0 && random() < 0.8) return comms[below(comms.length)];
      return random() < 0.9 ? below(6) : below(2 ** 32);
    });
    const result = library[name](...args);
    assert(Number.isInteger(result), `${name} returned ${result}`);
    if (communicatorSymbols[name].result === "u32" && result > 0) valid++;
  }
  assert(valid > 1000, `only ${valid} calls were valid`);
  for (const id of comms) library.dg_comm_close(id);
});

/** Two communicators of one group in this process, with their blobs. */
function pair() {
  const library = gloo(), address = new TextEncoder().encode("127.0.0.1\0");
  const ids = [0, 1].map((rank) => library.dg_comm_open(rank, 2, address, 0));
  const blobs = ids.map((id) => {
    const blob = new Uint8Array(library.dg_comm_blob(id, null, 0));
    library.dg_comm_blob(id, blob, blob.length);
    return blob;
  });
  /** Both connect; what their works come to. */
  const connect = async (blobsOf: (rank: number) => Uint8Array[], timeout = 2000) => {
    const works = ids.map((id, rank) => {
      const all = Uint8Array.from(blobsOf(rank).flatMap((it) => [...it]));
      return library.dg_comm_connect(id, all, all.length, timeout);
    });
    const results: { status: number; text: string }[] = [];
    for (const work of works) {
      const status = await library.dg_work_wait_elsewhere(work, 20_000), bytes = new Uint8Array(512);
      const length = library.dg_work_info(work, new Int32Array(3), bytes, bytes.length);
      results.push({ status, text: new TextDecoder().decode(bytes.subarray(0, length)) });
      library.dg_work_free(work);
    }
    for (const id of ids) library.dg_comm_close(id);
    return results;
  };
  return { blobs, connect };
}

Deno.test("a rank that does not know its peer's token is refused", async () => {
  const { blobs, connect } = pair(), forged = blobs[1].slice();
  forged[12] ^= 1; // the token follows version, rank and size
  const [other, refusing] = await connect((rank) => [blobs[0], rank === 0 ? forged : blobs[1]]);
  assertEquals(refusing.status, WorkStatus.lost);
  assertMatch(refusing.text, /what connected to rank 1 is not rank 0 of this group/);
  // The other has its answer before that, or is told.
  if (other.status !== WorkStatus.done) assertEquals(other.text, refusing.text);
});

Deno.test("strangers at the ports of a communicator end a connection at most", async () => {
  for (let i = 0; i < 10; i++) {
    const { blobs, connect } = pair();
    for (const [rank, blob] of blobs.entries()) {
      // Behind the token and the host: the length and bytes of each address, that of the rank itself empty; a port follows the family.
      const view = new DataView(blob.buffer), address = 32 + view.getUint32(28, true) + 4 + (rank === 0 ? 4 : 0);
      const port = view.getUint16(address + 2);
      if (i % 3 === rank) continue;
      const stranger = await Deno.connect({ hostname: "127.0.0.1", port });
      if (i % 2 === 0) await stranger.write(crypto.getRandomValues(new Uint8Array(300)));
      stranger.close();
    }
    for (const { status, text } of await connect(() => blobs, 300)) {
      assert(status === WorkStatus.done || text.length > 10, `${status}: ${text}`);
    }
  }
});

Deno.test("blobs that do not fit are refused with what is wrong", async () => {
  for (
    const [change, text] of [
      [(it: Uint8Array[]) => [it[1], it[0]], /the blob of rank 0 of 2 is that of rank 1 of 2/],
      [(it: Uint8Array[]) => [it[0], it[1].subarray(0, 50)], /end within that of rank 1/],
      [(it: Uint8Array[]) => [...it, new Uint8Array(3)], /3 bytes behind the blobs of 2 ranks/],
      [(it: Uint8Array[]) => [Uint8Array.from(it[0], (byte, i) => i === 0 ? 9 : byte), it[1]], /speaks version 9/],
    ] as const
  ) {
    const { blobs, connect } = pair();
    for (const result of await connect(() => change(blobs))) assertMatch(result.text, text);
  }
});

Deno.test("communicator symbols are the functions of communicator.h and nccl/open.h, name by name", async () => {
  const headers = ["communicator.h", "nccl/open.h"].map((it) => Deno.readTextFile(new URL(`../kernels/${it}`, import.meta.url)));
  const header = (await Promise.all(headers)).join("\n");
  const table = await Deno.readTextFile(new URL("../ffi/communicator_symbols.ts", import.meta.url));
  const types: Record<string, string> = { uint32_t: "u32", int32_t: "i32", double: "f64", "const dg_tensor*": "pointer" };
  const ffiType = (c: string) => types[c] ?? (c.endsWith("*") ? "buffer" : `no FFI type for ${c}`);
  const declared = new Map<string, string[]>();
  for (const [, result, name, list] of header.matchAll(/DG_EXPORT\s+(\w+)\s+(dg_\w+)\(([^)]*)\);/g)) {
    const parameters = list === "void" ? [] : list.split(",").map((it) => /^(.*?[\s*])(\w+)$/.exec(it.trim())!);
    declared.set(name, [...parameters.map((it) => `${ffiType(it[1].trim())} ${it[2]}`), ffiType(result)]);
  }
  const written = new Map<string, string[]>();
  for (const [, name, body] of table.matchAll(/^ {2}(dg_\w+): \{(.*\},$|[\s\S]*?^ {2}\},$)/gm)) {
    const parameters = [...body.matchAll(/"(\w+)", \/\/ (\w+)/g)].map((it) => `${it[1]} ${it[2]}`);
    if (name !== "dg_work_wait_elsewhere") written.set(name, [...parameters, /result: "(\w+)"/.exec(body)![1]]);
  }
  assertEquals(written, declared);
  assertEquals(Object.keys(communicatorSymbols).filter((it) => !declared.has(it)), ["dg_work_wait_elsewhere"]);
});
