/** A progress bar for terminals, plain lines elsewhere. */

/** Shows how far a training is. */
export class Progress {
  readonly #total: number;
  readonly #terminal = Deno.stderr.isTerminal();
  readonly #start = performance.now();
  #shown = 0;

  /** @param total Samples until the end. */
  constructor(total: number) {
    this.#total = total;
  }

  /** Shows that `done` samples are through, at most ten times a second; away from a terminal each tenth of the way. */
  show(done: number, loss: number): void {
    const now = performance.now(), last = done >= this.#total;
    if (this.#terminal ? !last && now - this.#shown < 100 : Math.floor(this.#shown * 10) === Math.floor(done / this.#total * 10)) return;
    this.#shown = this.#terminal ? now : done / this.#total;
    const seconds = (now - this.#start) / 1000, rate = done / seconds, left = Math.ceil((this.#total - done) / rate);
    const text = `${String(Math.floor(done / this.#total * 100)).padStart(3)} %  loss ${loss.toFixed(4)}  ${rate.toFixed(0)} images/s  ` +
      (last ? `${seconds.toFixed(1)} s` : `${left} s left`);
    if (!this.#terminal) return console.error(text);
    const filled = Math.round(done / this.#total * 30);
    Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K[${"=".repeat(filled)}${" ".repeat(30 - filled)}] ${text}${last ? "\n" : ""}`));
  }
}
