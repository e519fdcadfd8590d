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
