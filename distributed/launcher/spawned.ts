/**
 * Runs in each process of `spawn`, before its main module: calls the module's function and sends back what comes of it.
 *
 * @module
 */
import "./watchdog.ts";
import { deserialize, serialize } from "node:v8";
import { TcpStore } from "../store/tcp.ts";

/** What a process of `spawn` is to call. */
export interface SpawnTask {
  /** URL of the module. */
  module: string;
  /** The exported function. */
  name: string;
  /** Its arguments after the rank. */
  args: readonly unknown[];
}

/** What came of it: a result, or an error. */
export type SpawnReply = { value: unknown } | { error: { name: string; message: string; stack: string } };

function failed(error: unknown): SpawnReply {
  if (!(error instanceof Error)) return { error: { name: "Error", message: `${Deno.inspect(error)} was thrown`, stack: "" } };
  return { error: { name: error.name, message: error.message, stack: error.stack ?? "" } };
}

const number = (name: string): number => Number(Deno.env.get(name));
const rank = number("RANK");
const store = await TcpStore.open("127.0.0.1", number("DINOGRAD_SPAWN_PORT"), { secret: Deno.env.get("DINOGRAD_SPAWN_SECRET") });
const task: SpawnTask = deserialize(await store.get("task"));
let reply: Uint8Array;
let code = 0;
try {
  const module = await import(task.module);
  if (typeof module[task.name] !== "function") throw new TypeError(`spawn: ${task.module} exports no function "${task.name}"`);
  const value = await module[task.name](rank, ...task.args);
  try {
    reply = serialize({ value });
  } catch (error) {
    throw new TypeError(`spawn: the result of rank ${rank} cannot be sent: ${error instanceof Error ? error.message : error}`);
  }
} catch (error) {
  code = 1;
  reply = serialize(failed(error));
}
await store.set(`reply ${rank}`, reply);
await store.close();
// The module's own main part is not run, and nothing that it left open keeps the process.
Deno.exit(code);
