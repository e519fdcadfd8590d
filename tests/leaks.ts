/** Tests that leave no tensor behind. */
import { assertEquals } from "@std/assert";
import { memory, scope } from "../mod.ts";

/** A test inside a scope, after which as many tensors must be alive as before. */
export function test(name: string, fn: () => void | Promise<void>, options?: { ignore?: boolean }): void {
  Deno.test({
    name,
    ignore: options?.ignore ?? false,
    fn: async () => {
      const before = memory.stats().tensors;
      await scope(fn);
      assertEquals(memory.stats().tensors, before, "live tensors after the test");
    },
  });
}

/**
 * Collects garbage until at most so many tensors, or bytes, are alive, and returns how many are. One collection is not always enough: V8 compiles on another thread,
 * and what it looks at there stays.
 */
export async function collected(most: number, what: "tensors" | "bytes" = "tensors"): Promise<number> {
  for (let i = 0; i < 100 && memory.stats()[what] > most; i++) await memory.collect();
  return memory.stats()[what];
}
