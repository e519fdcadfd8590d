/**
 * What is noted while a function is recorded for `compile`: the calls natively, here all that they depend on and what happens on the host.
 *
 * @module
 */
import { nextSequence } from "../autograd/tape.ts";
import type { Device } from "../ffi/device.ts";
import { Frame } from "../ffi/frame.ts";
import { check, libraryOf, openLibraries } from "../ffi/library.ts";
import { observe, type Observer } from "../ffi/observer.ts";
import type { Storage } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import type { Tensor } from "./tensor.ts";

/** Something on the host that a recording takes for granted. */
export interface Guard {
  /** What has changed since, as errors name it; `null` if nothing. */
  changed(): string | null;
  /** What the function itself has changed, asked when its recording has ended. */
  inside?(recorder: Recorder): string | null;
}

/** Computes arguments of a call; `null` if there is no such call any more. */
export type Arguments = () => readonly number[] | null;

/** Work on the host that every repetition does again. */
export interface HostStep {
  /** Number of the native call that it stands before. */
  readonly at: number;
  /** Does it. */
  run(): void;
  /** Takes it back, where that can be done. */
  undo?(): void;
}

/** Arguments of native calls that are computed anew each time. */
export interface Patch {
  /** Number of the native call that it stands before. */
  readonly at: number;
  /** The calls and the number of the first of their arguments, counted behind the frame. */
  readonly places: { readonly at: number; readonly first: number }[];
  /** Computes them. */
  readonly values: Arguments;
  /** They are words of a generator, of which so many counters are taken. */
  readonly drawn?: { readonly generator: object; readonly counters: number };
  /** Which of them counts up by 1 each time. */
  readonly counted?: number;
  /** Takes that back, where something was counted. */
  undo?(): void;
}

/** A gradient as a recording found it. */
export interface GradientBefore {
  readonly tensor: Tensor | null;
  /** References to its memory. */
  readonly references: number;
}

/** A storage that was there before. */
export interface Captured {
  readonly storage: Storage;
  readonly version: number;
  readonly graphVersion: number;
  readonly changes: number;
}

/** The reason that reading values gives. */
export const READS = "it reads values of a tensor (item, data, printing): what follows may depend on them";

const position = new Uint32Array(1);

/** Notes of one recording, from construction to {@linkcode Recorder.end}. */
export class Recorder implements Observer {
  /** Why the function cannot be repeated. */
  reason: string | null = null;
  /** Why this call cannot be repeated, but a later one may be. */
  later: string | null = null;
  /** Storages that were there before, by id. */
  readonly captured: Map<number, Captured> = new Map();
  /** Slots of storages allocated since. */
  readonly made: Map<Storage, number> = new Map();
  /** Those of them, or lent ones, whose one element is a number of the program. */
  readonly constants: Set<Storage> = new Set();
  /** What happens on the host, in order. */
  readonly host: (HostStep | Patch)[] = [];
  /** What is taken for granted. */
  readonly guards: Guard[] = [];
  /** Tensors whose `grad` was read or set, with what it was before. */
  readonly gradients: Map<Tensor, GradientBefore> = new Map();
  /** Sequence of the first node of the graph made since. */
  readonly firstNode: number = nextSequence();
  /** Where the work is. */
  device: Device | null = null;
  readonly #seen: Set<object> = new Set();
  readonly #libraries: readonly KernelLibrary[];
  readonly #zeros = new Frame(1);
  readonly #words: Map<readonly number[], Patch> = new Map();
  /** Pieces of work on the host that are repeated. */
  hostedSteps = 0;
  readonly #assigned: Set<object> = new Set();
  #nested = 0;

  /** Starts recording. */
  constructor() {
    this.#libraries = openLibraries();
    this.#libraries.forEach((library, i) => {
      const status = library.dg_record_begin();
      if (status === 0) return;
      for (const open of this.#libraries.slice(0, i)) open.dg_program_free(open.dg_record_end());
      check(status, library);
    });
    observe(this);
    recorder = this;
  }

  /** Stops recording. @returns Library and id of the program; `null` if no call was made, or the calls cannot be kept. */
  end(): { library: KernelLibrary; program: number } | null {
    observe(null);
    recorder = null;
    const wanted = this.device === null ? null : libraryOf(this.device);
    let result: { library: KernelLibrary; program: number } | null = null;
    for (const library of this.#libraries) {
      const program = library.dg_record_end();
      if (library === wanted && program !== 0) result = { library, program };
      else if (program !== 0) library.dg_program_free(program);
    }
    if (wanted !== null && result === null) this.refuse("it makes more native calls than a recording holds");
    return result;
  }

  /** The function cannot be repeated. */
  refuse(reason: string): void {
    this.reason ??= reason;
  }

  /** This call cannot be repeated: it does what happens once, such as making an optimiser's state. */
  postpone(reason: string): void {
    this.later ??= reason;
  }

  /** Native calls so far. */
  position(): number {
    if (this.device === null) return 0;
    const library = libraryOf(this.device);
    check(library.dg_record_position(position), library);
    return position[0];
  }

  #place(device: Device): void {
    this.device ??= device;
    if (this.device !== device) this.refuse(`it works on ${this.device} and on ${device}`);
    else if (!this.#libraries.includes(libraryOf(device))) this.postpone("it is the first use of the device");
  }

  named(storage: Storage): void {
    this.#place(storage.device);
    if (this.made.has(storage) || this.captured.has(storage.id)) return;
    const { version, graphVersion, changes } = storage;
    this.captured.set(storage.id, { storage, version, graphVersion, changes });
  }

  allocated(storage: Storage, zeroed: boolean): void {
    this.#place(storage.device);
    if (this.reason !== null || this.later !== null) return;
    const library = libraryOf(storage.device), slot = new Uint32Array(1);
    check(library.dg_record_storage(storage.id, slot), library);
    this.made.set(storage, slot[0]);
    if (!zeroed || storage.bytes === 0) return;
    const bytes = { storage, shape: [storage.bytes], strides: [1], offset: 0, dtypeCode: 6, disposed: false };
    check(library.dg_fill(this.#zeros.begin(), this.#zeros.put(bytes), 0), library);
  }

  filled(storage: Storage): void {
    this.#place(storage.device);
    if (storage.bytes > 8) {
      this.refuse("it makes a tensor of an array of the program: pass it as an argument, or make it before");
      return;
    }
    if (this.constants.has(storage)) return;
    this.constants.add(storage);
    storage.retain();
  }

  /** Keeps a guard of `key`, made at the first call for it. */
  once<K extends object>(key: K, make: (key: K) => Guard): void {
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.guards.push(make(key));
  }

  /** `grad` of `x` is about to be read or set. */
  gradient(x: Tensor, value: Tensor | null): void {
    if (!this.gradients.has(x)) this.gradients.set(x, { tensor: value, references: value === null ? 0 : value.storage.references });
  }

  /** Words of a generator were taken, and how to take the next ones. */
  random(generator: object, counters: number, words: readonly number[], values: Arguments, undo: () => void): void {
    const patch: Patch = { at: this.position(), places: [], values, drawn: { generator, counters }, undo };
    this.host.push(patch);
    this.#words.set(words, patch);
  }

  /** The next call takes words of a generator from argument `first` on. */
  draws(words: readonly number[], first: number): void {
    this.#words.get(words)?.places.push({ at: this.position(), first });
  }

  /** Arguments of the next call that are computed anew each time; number `counted` counts up by 1. */
  patch(values: Arguments, counted?: number): void {
    const at = this.position();
    this.host.push({ at, places: [{ at, first: 0 }], values, counted });
  }

  /** A count on the host that each repetition moves. */
  count(run: () => void, undo: () => void): void {
    this.host.push({ at: this.position(), run, undo });
  }

  /** The mode of a module is about to be set by `run`, before anything has asked for it or not. */
  assign(module: object, run: () => void): void {
    this.host.push({ at: this.position(), run });
    if (!this.#seen.has(module)) this.#assigned.add(module);
  }

  /** True for a module whose mode was set before it was asked for: what it was does not matter. */
  assigns(module: object): boolean {
    return this.#assigned.has(module);
  }

  /** Runs work on the host that each repetition does again; not what it does by calling this once more. */
  hosted(run: () => void): void {
    if (this.#nested++ === 0) {
      this.host.push({ at: this.position(), run });
      this.hostedSteps++;
    }
    try {
      run();
    } finally {
      this.#nested--;
    }
  }
}

/** The recording under way on this thread. */
export let recorder: Recorder | null = null;

/** The function that is being recorded, if one is, does what cannot be repeated. */
export function unrepeatable(reason: string): void {
  if (recorder !== null) recorder.refuse(reason);
}

/** Work on the host that a repeated step does again, such as a scheduler's. */
export function hosted(run: () => void): void {
  if (recorder === null) run();
  else recorder.hosted(run);
}
