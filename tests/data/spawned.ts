/** Functions for the tests of `spawn`. */
import { rendezvous } from "../../distributed/rendezvous.ts";

export default async function (
  rank: number,
  base: number,
  data: Float32Array,
): Promise<{ sum: number; sizes: Map<string, number>; name?: string }> {
  const { store, worldSize } = await rendezvous("env://", { timeout: 20_000 });
  const sum = await store.add("sum", base + rank);
  await store.wait(["sum"]);
  await store.close();
  return { sum, sizes: new Map([["world", worldSize], ["data", data.length]]), name: Deno.env.get("NAME") };
}

export async function fail(rank: number, how: string): Promise<unknown> {
  if (rank !== 1) await new Promise((done) => setTimeout(done, 60_000));
  if (how === "throw") throw new RangeError("out of it");
  if (how === "value") throw "a text";
  if (how === "kill") Deno.kill(Deno.pid, "SIGKILL");
  if (how === "exit") {
    console.error("last words");
    Deno.exit(3);
  }
  return () => {};
}

export function quit(rank: number): void {
  if (rank === 0) Deno.exit(0);
}

if (import.meta.main) throw new Error("the main part was run");
