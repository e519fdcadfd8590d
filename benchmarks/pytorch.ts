/** The other side of the benchmarks: a Python process that answers commands, a line of JSON each way. */
import { Peer } from "./peer.ts";

/** The PyTorch process: a line to it, a line back. */
export class PyTorch {
  readonly #peer: Peer;

  /** Starts `script` of this folder with `args`; PyTorch uses so many threads. */
  constructor(python: string, script: string, args: readonly string[], threads: number) {
    const path = new URL(script, import.meta.url).pathname;
    this.#peer = new Peer("the PyTorch process", python, [path, ...args], {
      BENCH_THREADS: String(threads),
      OMP_NUM_THREADS: String(threads),
    });
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
