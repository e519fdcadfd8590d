/**
 * The workers of one iteration of a `DataLoader`.
 *
 * @module
 */
import { DinogradError } from "../ffi/errors.ts";
import { decode, type Reply, type Request, type SentError, type WorkerSource } from "./worker_protocol.ts";

/** An error in a worker of a `DataLoader`; its stack goes on with the worker's. */
export class WorkerError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "WorkerError";
}

function workerError(id: number, error: SentError): WorkerError {
  const made = new WorkerError(`DataLoader: worker ${id}: ${error.name}: ${error.message}`);
  const sent = error.stack || `${error.name}: ${error.message}`;
  made.stack = `${made.name}: ${made.message}\n    in worker ${id}: ${sent.split("\n").join("\n    ")}`;
  return made;
}

/** Milliseconds that a worker gets to finish its batch and free its memory before it is stopped. */
const PATIENCE = 2000;

interface Waiting {
  resolve(value: { value: unknown } | null): void;
  reject(error: Error): void;
}

class PoolWorker {
  readonly #worker: Worker;
  readonly #waiting: Waiting[] = [];
  #failure: Error | null = null;
  #ended: (() => void) | null = null;

  constructor(id: number) {
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: `DataLoader ${id}` });
    this.#worker.onmessage = ({ data: reply }: MessageEvent<Reply>) => {
      if (reply.kind === "ended") this.#ended?.();
      else if (reply.kind === "error") this.#fail(workerError(id, reply.error));
      else this.#waiting.shift()?.resolve(reply.kind === "done" ? null : { value: reply.value });
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const place = event.filename ? ` (${event.filename}:${event.lineno})` : "";
      this.#fail(workerError(id, { name: "Error", message: `${event.message}${place}`, stack: "" }));
    };
    this.#worker.onmessageerror = () => this.#fail(new WorkerError(`DataLoader: worker ${id}: its batch cannot be sent to another thread`));
  }

  send(request: Request): void {
    this.#worker.postMessage(request);
  }

  ask(indices: readonly number[] | number, dropLast: boolean): Promise<{ value: unknown } | null> {
    const { promise, resolve, reject } = Promise.withResolvers<{ value: unknown } | null>();
    promise.catch(() => {}); // whoever awaits it hears of it; nobody does after a break
    if (this.#failure !== null) reject(this.#failure);
    else {
      this.#waiting.push({ resolve, reject });
      this.send({ kind: "batch", indices, dropLast });
    }
    return promise;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const it of this.#waiting.splice(0)) it.reject(error);
  }

  async end(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((done) => {
      this.#ended = done;
      timer = setTimeout(done, PATIENCE);
      this.send({ kind: "end" });
    });
    clearTimeout(timer);
    this.#worker.terminate();
  }
}

/** Asks workers for batches in turn and hands them out in the order asked for. */
export class Pool {
  readonly #workers: PoolWorker[];
  readonly #stopped = new Int32Array(new SharedArrayBuffer(4));
  readonly #ahead: Promise<{ value: unknown } | null>[] = [];
  readonly #depth: number;
  #asked = 0;
  #ending: Promise<void> | null = null;

  /**
   * @param source Where the workers find the dataset.
   * @param count Number of workers.
   * @param prefetch Batches that each works ahead.
   */
  constructor(source: WorkerSource, count: number, prefetch: number, seed: number, epoch: number) {
    this.#workers = Array.from({ length: count }, (_, id) => new PoolWorker(id));
    this.#depth = count * prefetch;
    this.#workers.forEach((worker, id) => worker.send({ kind: "start", source, info: { id, count, seed, epoch }, stopped: this.#stopped }));
  }

  /** Asks for batches until enough are under way; `more` names the next, or `null` at the end. */
  fill(more: () => readonly number[] | number | null, dropLast: boolean): void {
    while (this.#ahead.length < this.#depth) {
      const indices = more();
      if (indices === null) return;
      this.#ahead.push(this.#workers[this.#asked++ % this.#workers.length].ask(indices, dropLast));
    }
  }

  /** The batch asked for first; `null` when there is none. */
  async take(): Promise<{ value: unknown } | null> {
    const first = await (this.#ahead.shift() ?? null);
    return first === null ? null : { value: decode(first.value) };
  }

  /** Stops the workers: each finishes the batch it is making, at most, and frees its memory. */
  end(): Promise<void> {
    Atomics.store(this.#stopped, 0, 1);
    return this.#ending ??= Promise.all(this.#workers.map((worker) => worker.end())).then(() => {});
  }
}
