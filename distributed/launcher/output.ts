/**
 * The output of ranks: prefixed lines on the terminal, log files, and the last lines for the report of a failure.
 *
 * @module
 */

/** Bytes of a line after which it is written in parts. */
const LONGEST = 64 * 1024;
/** Lines of error output that a report shows. */
const TAIL = 40;

const encoder = new TextEncoder(), decoder = new TextDecoder();
const NEWLINE = 10;

/** What bytes are written to. */
export interface Writer {
  /** Writes some of the bytes and says how many. */
  write(bytes: Uint8Array): Promise<number>;
}

/** Writes whole lines of several ranks one after the other. After an error, as when nobody reads any more, the rest is dropped. */
export class Sink {
  readonly #writer: Writer;
  #turn: Promise<void> = Promise.resolve();
  #broken = false;

  constructor(writer: Writer) {
    this.#writer = writer;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#turn = this.#turn.then(async () => {
      try {
        for (let at = 0; at < bytes.length && !this.#broken;) at += await this.#writer.write(bytes.subarray(at));
      } catch {
        this.#broken = true;
      }
    });
  }

  /** Writes lines of text. */
  line(text: string): Promise<void> {
    return this.write(encoder.encode(`${text}\n`));
  }
}

/** The last lines of what went through. */
export class Tail {
  readonly #lines: string[] = [];

  add(line: string): void {
    this.#lines.push(line.length > 2000 ? `${line.slice(0, 2000)}...` : line);
    if (this.#lines.length > TAIL) this.#lines.shift();
  }
  /** The lines, the oldest first. */
  get lines(): string[] {
    return [...this.#lines];
  }
}

/** Copies a rank's output to its places until it ends. */
export async function follow(
  source: ReadableStream<Uint8Array>,
  options: { prefix: string; sink: Sink | null; log: Sink | null; tail: Tail | null },
): Promise<void> {
  const prefix = encoder.encode(options.prefix);
  let rest: Uint8Array = new Uint8Array(0);
  const emit = async (line: Uint8Array) => {
    options.tail?.add(decoder.decode(line));
    const whole = new Uint8Array(prefix.length + line.length + 1);
    whole.set(prefix);
    whole.set(line, prefix.length);
    whole[whole.length - 1] = NEWLINE;
    await options.sink?.write(whole);
  };
  try {
    for await (const chunk of source) {
      await options.log?.write(chunk);
      let start = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
        await emit(joined(rest, chunk.subarray(start, end)));
        rest = new Uint8Array(0);
        start = end + 1;
      }
      rest = joined(rest, chunk.subarray(start));
      if (rest.length > LONGEST) {
        await emit(rest);
        rest = new Uint8Array(0);
      }
    }
  } catch {
    // The pipe was closed while a process of the rank's still held the other end.
  }
  if (rest.length > 0) await emit(rest);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.length === 0) return b.slice();
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
