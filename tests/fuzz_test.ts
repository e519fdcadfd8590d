import { assert } from "@std/assert";
import { cpu } from "../ffi/device.ts";
import { libraryOf } from "../ffi/library.ts";
import { symbols } from "../ffi/symbols.ts";
import * as dinograd from "../mod.ts";

/** A small generator, so that a failure can be repeated. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

const CALLS = 100_000;

/** Runs `fn` under a memory limit, so that a random size cannot take the machine's memory. */
function limited(fn: () => void): void {
  dinograd.memory.setLimit(64 * 2 ** 20);
  try {
    fn();
  } finally {
    dinograd.memory.setLimit(0);
  }
}

Deno.test("native functions answer 100,000 random argument combinations with a status", () =>
  limited(() => {
    const random = generator(1), below = (n: number) => Math.floor(random() * n);
    const library = libraryOf(cpu) as unknown as Record<string, (...args: unknown[]) => number>;
    const ids = Array.from({ length: 8 }, () => libraryOf(cpu).dg_alloc(2048, 1, 0));
    const bytes = new ArrayBuffer(4096 * 144), doubles = new Float64Array(bytes), words = new Uint32Array(bytes);
    const pointer = Deno.UnsafePointer.of(words);
    const odd = [NaN, Infinity, -1, 0.5, 1e18, 2 ** 53, 2 ** 31, 1e300];
    const size = () => random() < 0.05 ? odd[below(odd.length)] : below(5);
    const scratch = new Uint8Array(4096);
    const left = new Set(["dg_set_threads", "dg_memory_limit", "dg_memory_release_cache", "dg_wrap", "dg_free"]); // these would change the run itself
    const names = Object.keys(symbols).filter((name) => !left.has(name)) as (keyof typeof symbols)[];
    let valid = 0;
    for (let call = 0; call < CALLS; call++) {
      if (call % 4 === 0) {
        const shape = [size(), size(), size(), size()];
        for (let slot = 0; slot < 16; slot++) {
          const at = slot * 18, rank = random() < 0.9 ? 4 : below(12);
          words[at * 2] = random() < 0.05 ? below(2 ** 32) : ids[below(ids.length)];
          words[at * 2 + 1] = (random() < 0.7 ? 0 : below(9)) | rank << 8;
          doubles[at + 1] = random() < 0.05 ? odd[below(odd.length)] : below(3);
          let step = 1;
          for (let axis = 7; axis >= 0; axis--) {
            doubles[at + 2 + axis] = random() < 0.1 ? size() : shape[axis] ?? 0;
            doubles[at + 10 + axis] = random() < 0.1 ? size() : step;
            if (axis < 4) step *= Math.max(1, shape[axis] || 1);
          }
        }
      }
      const name = names[below(names.length)];
      const args = (symbols[name].parameters as readonly string[]).map((type) => {
        switch (type) {
          case "pointer":
            return random() < 0.02 ? null : pointer;
          case "buffer":
            return random() < 0.05 ? null : scratch;
          case "f64":
            return random() < 0.3 ? odd[below(odd.length)] : below(9);
          case "i32":
            return random() < 0.9 ? below(6) - 1 : below(2 ** 32) - 2 ** 31;
          default:
            return random() < 0.7 ? below(16) : random() < 0.5 ? 0xffffffff : below(2 ** 32);
        }
      });
      const status = library[name](...args);
      assert(Number.isInteger(status), `${name} returned ${status}`);
      if (symbols[name].result === "i32" && status === 0) valid++;
      if ((name === "dg_alloc" || name === "dg_storage_alias") && status !== 0) library.dg_free(status);
    }
    assert(valid > CALLS / 100, `only ${valid} calls were valid: the draw is too wild to test the kernels`);
    for (const id of ids) library.dg_free(id);
  }));

Deno.test("public functions answer random arguments with a result or a typed error", () =>
  limited(() => {
    const random = generator(2), below = (n: number) => Math.floor(random() * n);
    const values = (): unknown =>
      [
        null,
        undefined,
        NaN,
        -1,
        0,
        2,
        1000,
        "x",
        [],
        [2, 2],
        [-1, 3],
        {},
        true,
        dinograd.tensor(1),
        dinograd.tensor([1, 2, 3]),
        dinograd.ones([2, 3]),
        dinograd.zeros([0, 2]),
        dinograd.tensor([1, 0], { dtype: "int64" }),
        dinograd.tensor([true, false]),
        dinograd.ones([2, 3, 4, 5]).permute([3, 1, 0, 2]),
      ][below(20)];
    const left = new Set(["setThreads", "setDefaultDType", "setDefaultDevice", "gradcheck", "saveSafetensors"]); // the last would write files
    const functions = Object.entries(dinograd).filter(([name, value]) =>
      typeof value === "function" && !left.has(name) && !/^[A-Z]/.test(name)
    ) as [string, (...args: unknown[]) => unknown][];
    for (let call = 0; call < 4000; call++) {
      const [name, fn] = functions[below(functions.length)];
      dinograd.scope(() => {
        try {
          const result = fn(...Array.from({ length: 1 + below(4) }, values));
          if (result instanceof Promise) result.catch(() => {});
        } catch (error) {
          assert(error instanceof Error, `${name} threw ${error}`);
          assert(!(error instanceof dinograd.NativeError), `${name}: ${error}`);
        }
      });
    }
  }));
