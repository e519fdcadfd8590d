/**
 * The worker of a `DataLoader`: makes its dataset and answers requests for batches, one after the other.
 *
 * @module
 */
import { unpinAll } from "../ffi/pinned.ts";
import { collect, freeAll, pressed } from "../ffi/storage.ts";
import type { Dataset } from "./dataset.ts";
import { fetchBatch, fetchNext, isIterable } from "./fetch.ts";
import { setWorkerInfo } from "./worker_info.ts";
import { encode, type Reply, type Request } from "./worker_protocol.ts";

// The part of a worker's global scope that is used here.
const port = globalThis as unknown as {
  onmessage: (event: MessageEvent<Request>) => void;
  postMessage(message: Reply, transfer?: ArrayBuffer[]): void;
  close(): void;
};

let dataset: object | undefined, samples: AsyncIterator<unknown> | undefined;
let stopped: Int32Array = new Int32Array(1);
let tail: Promise<void> = Promise.resolve();

async function start(request: Request & { kind: "start" }): Promise<void> {
  const { source } = request;
  setWorkerInfo(request.info);
  const module = await import(source.module);
  dataset = await module[source.name](...source.args) as object;
  if (isIterable(dataset)) samples = dataset[Symbol.asyncIterator]();
}

async function answer({ indices, dropLast }: Request & { kind: "batch" }): Promise<void> {
  if (pressed()) await collect();
  const transfer: ArrayBuffer[] = [];
  let reply: Reply;
  if (typeof indices === "number") {
    const next = await fetchNext(samples!, indices, dropLast, undefined);
    reply = next === null ? { kind: "done" } : { kind: "batch", value: encode(next.value, transfer) };
  } else {
    const value = await fetchBatch(dataset as Dataset<unknown>, indices, undefined);
    reply = { kind: "batch", value: encode(value, transfer) };
  }
  port.postMessage(reply, transfer);
}

async function handle(request: Request): Promise<void> {
  if (request.kind === "end") {
    await samples?.return?.();
    unpinAll();
    freeAll();
    port.postMessage({ kind: "ended" });
    port.close();
    return;
  }
  if (Atomics.load(stopped, 0) !== 0) return;
  if (request.kind === "start") {
    stopped = request.stopped;
    await start(request);
  } else if (dataset !== undefined) await answer(request);
}

port.onmessage = ({ data: request }) => {
  tail = tail.then(() => handle(request)).catch((error) => {
    const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
    port.postMessage({ kind: "error", error: { name, message, stack: stack ?? "" } });
  });
};
