import { distributed, DistributedError } from "@dinograd/dinograd";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { freePort } from "./free_port.ts";
import * as wire from "../distributed/store/protocol.ts";
import { StoreClient } from "../distributed/store/client.ts";

const { FileStore, HashStore, PrefixStore, StoreServer, TcpStore } = distributed;
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const { encodeFrame, numberField, Op, PROOF_BYTES, readExactly, writeAll } = wire;
const loopback = "127.0.0.1";

/** Runs `fn` with two handles on one store. */
type Pair = (fn: (a: distributed.Store, b: distributed.Store) => Promise<void>) => Promise<void>;

const kinds: Record<string, Pair> = {
  HashStore: async (fn) => {
    const store = new HashStore({ timeout: 5000 });
    await fn(store, store);
    await store.close();
  },
  PrefixStore: async (fn) => {
    const whole = new HashStore({ timeout: 5000 });
    await fn(new PrefixStore("part", whole), new PrefixStore("part", whole));
    await whole.close();
  },
  TcpStore: async (fn) => {
    const a = await TcpStore.open(loopback, 0, { isMaster: true, secret: "s", timeout: 5000 });
    const b = await TcpStore.open(loopback, a.port, { secret: "s", timeout: 5000 });
    try {
      await fn(a, b);
    } finally {
      await b.close();
      await a.close();
    }
  },
  FileStore: async (fn) => {
    const folder = await Deno.makeTempDir(), path = `${folder}/store`;
    const a = await FileStore.open(path, { worldSize: 2, timeout: 5000 }), b = await FileStore.open(path, { worldSize: 2, timeout: 5000 });
    await fn(a, b);
    await a.close();
    await Deno.stat(path);
    await b.close();
    await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
    await Deno.remove(folder, { recursive: true });
  },
};

for (const [kind, pair] of Object.entries(kinds)) {
  Deno.test(`${kind}() keeps, counts, compares and deletes`, () =>
    pair(async (a, b) => {
      await a.set("key", "välue");
      assertEquals(text(await b.get("key")), "välue");
      await b.set("key", Uint8Array.of(0, 255));
      assertEquals(await a.get("key"), Uint8Array.of(0, 255));
      await a.set("empty", "");
      assertEquals((await b.get("empty")).length, 0);
      assertEquals([await a.check(["key", "empty"]), await a.check(["key", "none"]), await a.check([])], [true, false, true]);
      const sums = await Promise.all([...Array(20).keys()].map((i) => (i % 2 ? a : b).add("count", 2)));
      assertEquals(sums.sort((x, y) => x - y), [...Array(20).keys()].map((i) => 2 * i + 2));
      assertEquals([await a.add("count", -50), text(await b.get("count"))], [-10, "-10"]);
      assertEquals(text(await a.compareSet("lock", "x", "y")), "x");
      assertEquals(await b.check(["lock"]), false);
      assertEquals(text(await a.compareSet("lock", null, "a")), "a");
      assertEquals(text(await b.compareSet("lock", null, "b")), "a");
      assertEquals(text(await b.compareSet("lock", "a", "c")), "c");
      assertEquals([await b.delete("lock"), await a.delete("lock"), await a.check(["lock"])], [true, false, false]);
    }));

  Deno.test(`${kind}() waits for keys, and names those that do not come`, () =>
    pair(async (a, b) => {
      const got = b.get("late"), all = b.wait(["late", "later"]);
      await a.set("late", "1");
      assertEquals(text(await got), "1");
      await a.set("later", "2");
      await all;
      await a.wait([]);
      const error = await assertRejects(() => b.wait(["late", "never"], { timeout: 30 }), DistributedError, "waited 30 ms for");
      assertStringIncludes(error.message, 'never"');
      assert(!error.message.includes("late"));
      await assertRejects(() => a.get("never", { timeout: 30 }), DistributedError, "never");
      assertEquals(await a.check(["late"]), true);
    }));

  Deno.test(`${kind}() refuses what is no key, value, amount or timeout`, () =>
    pair(async (a) => {
      await assertRejects(() => a.set("", "x"), DistributedError, "not empty");
      await assertRejects(() => a.get(3 as unknown as string), DistributedError, "text");
      await assertRejects(() => a.set("k".repeat(1025), "x"), DistributedError, "limit is 1024");
      await assertRejects(() => a.set("k", new Uint8Array(16 * 2 ** 20 + 1)), DistributedError, "limit is 16777216");
      await assertRejects(() => a.set("k", 1 as unknown as string), TypeError, "a text or a Uint8Array");
      await assertRejects(() => a.add("k", 0.5), RangeError, "whole number, got 0.5");
      await assertRejects(() => a.get("k", { timeout: 0 }), RangeError, "timeout");
      await assertRejects(() => a.wait("k" as unknown as string[]), TypeError);
      await a.set("k", "word");
      await assertRejects(() => a.add("k", 1), DistributedError, '"k" is not a whole number'.slice(3));
      await a.set("n", `${Number.MAX_SAFE_INTEGER}`);
      await assertRejects(() => a.add("n", 1), DistributedError, "2^53");
    }));
}

Deno.test("HashStore() keeps its limits and rejects calls after close", async () => {
  const store = new HashStore({ limits: { keys: 2, totalBytes: 20, valueBytes: 12 } });
  await store.set("a", "123456789012");
  await assertRejects(() => store.set("b", "123456789012"), DistributedError, "exceed 20 bytes");
  await store.set("b", "1");
  await assertRejects(() => store.set("c", "1"), DistributedError, "exceed 2 keys");
  assertEquals(await store.delete("a"), true);
  await store.set("c", "123456789012");
  const waiting = assertRejects(() => store.get("never"), DistributedError, 'closed while waiting for "never"');
  await store.close();
  await waiting;
  await assertRejects(() => store.set("a", "1"), DistributedError, "closed");
  assertThrows(() => new HashStore({ limits: { keys: 0 } }), RangeError, "limit keys");
  assertThrows(() => new HashStore({ limits: { size: 1 } as Record<string, number> }), TypeError, 'no limit "size"');
  assertThrows(() => new HashStore({ timeout: NaN }), RangeError, "timeout");
  assertThrows(() => new PrefixStore("", store), TypeError, "prefix");
});

Deno.test("TcpStore() answers while the main thread of its master is blocked", async () => {
  const store = await TcpStore.open(loopback, 0, { isMaster: true, secret: "s" });
  const code = `const { distributed } = await import(${JSON.stringify(new URL("../mod.ts", import.meta.url).href)});
const store = await distributed.TcpStore.open("${loopback}", ${store.port});
await store.set("from child", "x");
await store.close();`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", code], env: { DINOGRAD_SECRET: "s" } });
  // Nothing of this thread's event loop runs meanwhile.
  const { success, stderr } = child.outputSync();
  assert(success, text(stderr));
  assertEquals(await store.check(["from child"]), true);
  await store.close();
});

Deno.test("TcpStore() and StoreServer() say what is wrong with an address, a port or a secret", async () => {
  const server = await StoreServer.start({ secret: "right" }), port = server.port;
  await assertRejects(() => TcpStore.open(loopback, port, { secret: "wrong" }), DistributedError, "compare DINOGRAD_SECRET");
  await assertRejects(() => TcpStore.open(loopback, port), DistributedError, "compare DINOGRAD_SECRET");
  await assertRejects(() => TcpStore.open(loopback, port, { isMaster: true }), DistributedError, `127.0.0.1:${port} is in use`);
  await assertRejects(() => StoreServer.start({ port }), DistributedError, `127.0.0.1:${port} is in use`);
  await assertRejects(() => StoreServer.start({ hostname: "0.0.0.0" }), DistributedError, "can be reached by strangers");
  await assertRejects(() => TcpStore.open("10.1.2.3", 4000), DistributedError, "can be reached by strangers");
  await assertRejects(
    () => StoreServer.start({ hostname: "198.51.100.1", secret: "s" }),
    DistributedError,
    "cannot serve at 198.51.100.1:0",
  );
  await assertRejects(() => TcpStore.open(loopback, 70000), RangeError, "port");
  await assertRejects(() => TcpStore.open("", 1), TypeError, "host");
  server.close();
  await assertRejects(() => TcpStore.open(loopback, port, { timeout: 100 }), DistributedError, "no store answers at 127.0.0.1:");
});

Deno.test("TcpStore() waits for a master that comes later", async () => {
  const port = freePort();
  const opening = TcpStore.open(loopback, port, { timeout: 10_000 });
  await new Promise((done) => setTimeout(done, 60));
  const server = await StoreServer.start({ port });
  const store = await opening;
  await store.set("a", "b");
  const waiting = assertRejects(() => store.get("never"), DistributedError, "closed the connection");
  server.close();
  await waiting;
  await assertRejects(() => store.set("a", "b"), DistributedError, "closed the connection");
  await store.close();
});

Deno.test("TcpStore() tells a store from something else", async () => {
  const other = Deno.listen({ hostname: loopback, port: 0 });
  const serving = (async () => {
    const conn = await other.accept();
    await writeAll(conn, new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    await conn.read(new Uint8Array(1));
    conn.close();
  })();
  await assertRejects(() => TcpStore.open(loopback, other.addr.port, { timeout: 5000 }), DistributedError, "is not a dinograd store");
  await serving;
  other.close();
});

/** True if the other side closes the connection. */
async function closes(conn: Deno.Conn): Promise<boolean> {
  try {
    while (await conn.read(new Uint8Array(256)) !== null);
    return true;
  } catch {
    return true; // reset
  }
}

Deno.test("StoreServer() cuts off strangers: silent, talking garbage, or repeating another's proof", async () => {
  const server = await StoreServer.start({ secret: "s", patience: 100 }), { port } = server;
  const store = await TcpStore.open(loopback, port, { secret: "s" });
  const silent = await Deno.connect({ hostname: loopback, port });
  assert(await closes(silent));
  silent.close();
  const garbage = await Deno.connect({ hostname: loopback, port });
  await writeAll(garbage, new Uint8Array(300).fill(65)).catch(() => {});
  assert(await closes(garbage));
  garbage.close();
  // A server's own greeting sent back proves nothing.
  const mirror = await Deno.connect({ hostname: loopback, port });
  const greeting = (await readExactly(mirror, 8 + PROOF_BYTES))!;
  await writeAll(mirror, new Uint8Array([...greeting, ...greeting.subarray(8)]));
  assertEquals((await readExactly(mirror, 1))![0], 1);
  assert(await closes(mirror));
  mirror.close();
  // More silent strangers than there are places: members still get in.
  const crowd = await Promise.all([...Array(300)].map(() => Deno.connect({ hostname: loopback, port })));
  const late = await TcpStore.open(loopback, port, { secret: "s", timeout: 5000 });
  await late.set("a", "b");
  assertEquals(text(await store.get("a")), "b");
  for (const conn of crowd) conn.close();
  await late.close();
  await store.close();
  server.close();
});

/** A connection that has shown the secret. */
async function member(port: number, secret: string): Promise<Deno.Conn> {
  const conn = await Deno.connect({ hostname: loopback, port }), key = await wire.proofKey(secret);
  const theirs = (await readExactly(conn, wire.GREETING_BYTES))!.subarray(wire.MAGIC.length), ours = new Uint8Array(PROOF_BYTES);
  await writeAll(conn, wire.join([wire.MAGIC, ours, await wire.prove(key, "client", theirs, ours)]));
  const verdict = (await readExactly(conn, wire.VERDICT_BYTES))!;
  assertEquals(verdict[0], wire.Verdict.welcome);
  return conn;
}

Deno.test("StoreServer() cuts off members that send what is no frame, too much, or too slowly", async () => {
  const server = await StoreServer.start({ secret: "s", patience: 100, limits: { valueBytes: 1000 } }), { port } = server;
  const honest = await TcpStore.open(loopback, port, { secret: "s" });
  await assertRejects(() => honest.set("k", new Uint8Array(1001)), DistributedError, "limit is 1000");
  const client = () => StoreClient.connect({ host: loopback, port, secret: "s", timeout: 5000 });
  const bad = await client();
  await assertRejects(() => bad.request(99, [], 1000, "x"), DistributedError, "operation 99");
  await assertRejects(() => bad.request(Op.set, [], 1000, "x"), DistributedError, "0 fields, expected 2");
  await assertRejects(() => bad.request(Op.get, [new Uint8Array(3), new Uint8Array(1)], 1000, "x"), DistributedError, "no timeout");
  await assertRejects(() => bad.request(Op.get, [numberField(NaN), Uint8Array.of(65)], 1000, "x"), DistributedError, "timeout");
  await assertRejects(() => bad.request(Op.check, [Uint8Array.of(255)], 1000, "x"), DistributedError, "UTF-8");
  await assertRejects(() => bad.request(Op.add, [Uint8Array.of(65), numberField(0.5)], 1000, "x"), DistributedError, "whole number");
  await assertRejects(() => bad.request(Op.set, [Uint8Array.of(65), new Uint8Array(5000)], 1000, "x"), DistributedError, "connection");
  await bad.close();
  const raw = async (bytes: Uint8Array) => {
    const conn = await member(port, "s");
    await writeAll(conn, bytes);
    assert(await closes(conn));
    conn.close();
  };
  await raw(new Uint8Array(64).fill(255));
  await raw(encodeFrame(1, Op.set, [Uint8Array.of(65), new Uint8Array(100)]).subarray(0, 50));
  const broken = encodeFrame(1, Op.set, [Uint8Array.of(65), new Uint8Array(100)]);
  broken[9] = 255;
  await raw(broken);
  await honest.set("k", "still here");
  await honest.close();
  server.close();
});

Deno.test("StoreServer() serves many clients and refuses one too many", async () => {
  const server = await StoreServer.start({ secret: "s", limits: { connections: 40 } }), { port } = server;
  const clients = await Promise.all([...Array(40)].map(() => TcpStore.open(loopback, port, { secret: "s", timeout: 20_000 })));
  await assertRejects(() => TcpStore.open(loopback, port, { secret: "s" }), DistributedError, "no more room for connections");
  await Promise.all(clients.map(async (store, i) => {
    await store.set(`rank ${i}`, `${i}`);
    await store.wait([...Array(40).keys()].map((j) => `rank ${j}`));
    assertEquals(text(await store.get(`rank ${39 - i}`)), `${39 - i}`);
  }));
  await Promise.all(clients.map((store) => store.close()));
  server.close();
});

Deno.test("FileStore() among processes, one of which dies in mid-write", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/store`;
  const store = await FileStore.open(path);
  const code = `const { distributed } = await import(${JSON.stringify(new URL("../mod.ts", import.meta.url).href)});
const store = await distributed.FileStore.open(${JSON.stringify(path)});
for (let i = 0; i < 50; i++) await store.add("count", 1);
await store.close();`;
  const children = [1, 2].map(() => new Deno.Command(Deno.execPath(), { args: ["eval", code] }).output());
  for (let i = 0; i < 50; i++) await store.add("count", 1);
  for (const child of children) assertEquals(text((await child).stderr), "");
  assertEquals(await store.add("count", 0), 150);
  const half = encodeFrame(0, 1, [new Uint8Array(5), new Uint8Array(500)]).subarray(0, 100);
  await Deno.writeFile(path, half, { append: true });
  await store.set("after", "x");
  const fresh = await FileStore.open(path);
  assertEquals([text(await fresh.get("after")), text(await fresh.get("count"))], ["x", "150"]);
  await fresh.close();
  await store.close();
  await assertRejects(() => store.set("a", "b"), DistributedError, "closed");
  await store.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("FileStore() refuses files of others, full ones and ones that are held", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/store`;
  await Deno.writeTextFile(`${folder}/notes`, "my notes, not to be overwritten");
  await assertRejects(() => FileStore.open(`${folder}/notes`), DistributedError, "is not a dinograd store");
  assertEquals(await Deno.readTextFile(`${folder}/notes`), "my notes, not to be overwritten");
  await assertRejects(() => FileStore.open(`${folder}/none/store`), DistributedError, "cannot open");
  const store = await FileStore.open(path, { timeout: 100, limits: { totalBytes: 100 } });
  await store.set("a", new Uint8Array(50));
  await assertRejects(() => store.set("a", new Uint8Array(50)), DistributedError, "is full");
  using held = await Deno.open(path, { read: true, write: true });
  await held.lock(true);
  await assertRejects(() => store.check(["a"]), DistributedError, "another process holds");
  await held.unlock();
  assertEquals(await store.check(["a"]), true);
  await store.close();
  await Deno.remove(folder, { recursive: true });
});
