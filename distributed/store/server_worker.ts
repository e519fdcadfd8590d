/**
 * The thread of a store's server in a process whose main thread may be waiting elsewhere.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { StoreServer, type StoreServerOptions } from "./server.ts";

parentPort!.once("message", async (options: StoreServerOptions) => {
  try {
    const server = await StoreServer.start(options);
    parentPort!.once("message", async (linger: number) => {
      await server.drained(linger);
      server.close();
      parentPort!.postMessage("closed");
    });
    parentPort!.postMessage({ port: server.port });
  } catch (error) {
    parentPort!.postMessage({ error: error instanceof Error ? error.message : `${error}` });
  }
});
