import { assertEquals, assertMatch } from "@std/assert";
import { libraryFolder } from "../ffi/locate.ts";

/** What the emulator says of a case of kernels/test/emulation.cu. */
async function emulate(name: string, env: Record<string, string> = {}): Promise<string> {
  const { code, stdout } = await new Deno.Command(`${libraryFolder()}/emulation_tests`, { args: [name], env }).output();
  assertEquals(code, 0, name);
  return new TextDecoder().decode(stdout).trim();
}

const orders = ["forward", "reverse", "shuffle"];

/** Planted bugs and what must be reported of them; the right forms beside them must pass. */
const planted: Readonly<Record<string, RegExp>> = {
  "missing-barrier": /^kernel reverse, block \(0, 0, 0\), thread \(\d+, 0, 0\): race in shared memory/,
  "missing-warp-barrier": /^kernel neighbours, .*: race in shared memory/,
  "write-outside":
    /^kernel copy_first, block \(1, 0, 0\), thread \(43, 0, 0\): writes 4 bytes outside its buffers, 0 bytes behind a block of 1196 bytes$/,
  "read-outside":
    /^kernel copy_first, block \(1, 0, 0\), thread \(43, 0, 0\): reads 4 bytes outside its buffers, 0 bytes behind a block of 1196 bytes$/,
  "read-before": /thread \(0, 0, 0\): reads 4 bytes outside its buffers, 4 bytes before a block of 4 bytes$/,
  "unwritten": /reads 4 bytes that were never written, at byte \d+ of a block of 1024 bytes$/,
  "shared-unwritten": /^kernel shared_unwritten, .*: reads 4 bytes of shared memory that were never written/,
  "shared-outside": /^kernel shared_outside, .*thread \(255, 0, 0\): writes 4 bytes outside its shared memory/,
  "misaligned": /reads 16 bytes at a misaligned address, at byte \d+ of a block of 256 bytes$/,
  "host-pointer": /^kernel copy_first, .*: reads 4 bytes of host memory at 0x/,
  "host-access": /^host code writes device memory at byte 4 of a block of 16 bytes$/,
  "freed": /^kernel copy_first, .*: reads 4 bytes of freed memory/,
  "divided-barrier":
    /^kernel half_barrier, .*: waits at the barrier of line \d+ while other threads of its block wait at that of line \d+$/,
  "lost-lane": /^kernel lost_lane, .*: __shfl_xor_sync: reads lane \d+, which takes no part$/,
  "flag-read-early": /^kernel flag, .*: (race in shared memory: reads what|reads 4 bytes of shared memory that were never written)/,
  "after-failure": /^kernel last_writes, .*: writes 4 bytes outside its buffers, .*\n8\nnothing$/,
  "too-many-threads": /^invalid configuration argument$/,
  "grid-limit": /^(invalid configuration argument\n){3}nothing\nnothing$/,
};

Deno.test("the emulator reports planted bugs with kernel, block and thread, in every order of the threads", async () => {
  for (const [name, expected] of Object.entries(planted)) {
    for (const order of orders) assertMatch(await emulate(name, { DINOGRAD_EMULATED_ORDER: order }), expected, `${name}, ${order}`);
  }
});

Deno.test("the emulator reports nothing of kernels that are right", async () => {
  for (const name of ["barrier", "warp-barrier", "inside", "atomic", "same-value", "flag", "two-reports", "stream-wait"]) {
    for (const order of orders) {
      assertEquals(await emulate(name, { DINOGRAD_EMULATED_ORDER: order, DINOGRAD_EMULATED_RACES: "1" }), "nothing", `${name}, ${order}`);
    }
  }
});

Deno.test("the emulator reports races in device memory when asked to keep its accesses, in every order of the threads", async () => {
  const races = {
    "block-race": /^kernel add_up, .*: race in device memory: reads what thread 0 writes/,
    "two-values": /^kernel store_one, .*: race in device memory: writes what thread \d+ writes/,
    "two-values-of-blocks": /^kernel store_one, .*: race in device memory: writes what thread 0 writes/,
  };
  for (const [name, expected] of Object.entries(races)) {
    for (const order of orders) {
      assertMatch(await emulate(name, { DINOGRAD_EMULATED_RACES: "1", DINOGRAD_EMULATED_ORDER: order }), expected, `${name}, ${order}`);
      assertEquals(await emulate(name, { DINOGRAD_EMULATED_ORDER: order }), "nothing", `${name}, ${order}, not asked`);
    }
  }
});

Deno.test("the emulator reports the use of another device's memory", async () => {
  const text = await emulate("other-device", { DINOGRAD_EMULATED_DEVICES: "2" });
  assertMatch(text, /^kernel copy_first, .*: writes 4 bytes of device 1 while it runs on device 0$/);
});

Deno.test("streams in a random legal order show a missing wait, and nothing where there is one", async () => {
  let found = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const env = { DINOGRAD_EMULATED_STREAMS: "random", DINOGRAD_EMULATED_SEED: String(seed) };
    assertEquals(await emulate("stream-wait", env), "nothing", `seed ${seed}`);
    const text = await emulate("missing-stream-wait", env);
    if (text !== "nothing") {
      assertMatch(text, /^kernel copy_first, .*: reads 4 bytes that were never written/);
      found++;
    }
  }
  if (found < 3) throw new Error(`only ${found} of 12 orders showed the missing wait`);
});

Deno.test("the emulator lists device memory that was not freed", async () => {
  assertEquals(await emulate("leak"), "cuda:0: 100 bytes were not freed\n\nnothing");
});
