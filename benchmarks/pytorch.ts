/** The other sides of the benchmarks: processes that answer commands, a line of JSON each way. */
import { Peer } from "./peer.ts";

/** A process: a line to it, a line back. */
export class Side {
  readonly #peer: Peer;

  /** Takes over a process. */
  constructor(peer: Peer) {
    this.#peer = peer;
  }

  /** The next line that it writes. */
  async line(): Promise<Record<string, unknown>> {
    return JSON.parse(await this.#peer.line());
  }

  /** Sends a command and waits for the answer. */
  async ask(command: Record<string, unknown>): Promise<Record<string, unknown>> {
    return JSON.parse(await this.#peer.ask(JSON.stringify(command)));
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.#peer.close();
  }
}

/** PyTorch in a process of its own. */
export class PyTorch extends Side {
  /** Starts `script` of this folder with `args`; PyTorch uses so many threads. */
  constructor(python: string, script: string, args: readonly string[], threads: number) {
    const path = new URL(script, import.meta.url).pathname, count = String(threads);
    super(new Peer("the PyTorch process", python, [path, ...args], { BENCH_THREADS: count, OMP_NUM_THREADS: count }));
  }
}

/** TensorFlow.js in a process of its own, which fetches it from npm. */
export class TensorFlow extends Side {
  /** It uses so many threads. */
  constructor(threads: number) {
    const args = ["run", "-A", "--no-check", new URL("tensorflow/main.ts", import.meta.url).href];
    super(new Peer("the TensorFlow.js process", Deno.execPath(), args, { BENCH_THREADS: String(threads) }));
  }
}
