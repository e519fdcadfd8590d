/**
 * Running a program on a GPU: call by call, or, once nothing changes between two runs but what the device counts by itself, as a graph.
 *
 * @module
 */
import type { Device } from "../ffi/device.ts";
import { Frame } from "../ffi/frame.ts";
import { check } from "../ffi/library.ts";
import { allocate, type Storage } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import { currentStream } from "../tensor/cuda.ts";
import { bytesOf } from "../tensor/dtype.ts";
import type { HostStep, Patch } from "../tensor/recorder.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Input, Output } from "./recording.ts";

const CAPTURES = 8; // graphs that may be given up, before no further one is made
const frame = new Frame(2);

/** See the module's comment. Arguments and results have places of their own, which a graph can name. */
export class GraphRunner {
  readonly #library: KernelLibrary;
  readonly #device: Device;
  readonly #program: number;
  /** Counters of a generator that a run takes; -1 where no graph can count them. */
  readonly #counters: number;
  readonly #inputs: (Storage | null)[];
  readonly #outputs: (Storage | null)[];
  #graph = 0;
  #captures = 0;
  #changed = true;

  constructor(
    library: KernelLibrary,
    device: Device,
    program: number,
    host: readonly (HostStep | Patch)[],
    inputs: readonly Input[],
    outputs: number,
  ) {
    this.#library = library;
    this.#device = device;
    this.#program = program;
    this.#counters = countersOf(host);
    this.#inputs = inputs.map(() => null);
    this.#outputs = new Array<Storage | null>(outputs).fill(null);
  }

  /** What a graph holds is another now. */
  change(): void {
    this.#changed = true;
  }

  /** True if a value of the program has moved as the device moves it from launch to launch. */
  moves(step: Patch, argument: number, from: readonly number[], to: readonly number[]): boolean {
    if (step.drawn !== undefined) {
      if (argument < 2) return from[argument] === to[argument];
      return to[2] + to[3] * 2 ** 32 - (from[2] + from[3] * 2 ** 32) === this.#counters;
    }
    return argument === step.counted && to[argument] === from[argument] + 1;
  }

  /** Copies an argument to its place, whose storage is returned. */
  take(i: number, x: Tensor): Storage {
    let last = 0;
    x.shape.forEach((size, axis) => last += Math.max(0, size - 1) * x.strides[axis]);
    const own = this.#inputs[i] ??= made(x.numel() === 0 ? 0 : (last + 1) * bytesOf(x.dtype), this.#device, x.shape);
    // An axis of stride 0 has one element in memory.
    const shape = x.shape.map((size, axis) => x.strides[axis] === 0 ? Math.min(size, 1) : size), { strides, dtypeCode } = x;
    const header = (storage: Storage, offset: number) => frame.put({ storage, shape, strides, offset, dtypeCode, disposed: false });
    const t = frame.begin();
    check(this.#library.dg_copy(t, header(own, 0), header(x.storage, x.offset)), this.#library);
    return own;
  }

  /** The place of a result. */
  place(i: number, { bytes, shape }: Output): Storage {
    return this.#outputs[i] ??= made(bytes, this.#device, shape);
  }

  /** Copies a result from its place. */
  give(i: number, to: Storage): void {
    const from = this.#outputs[i]!;
    if (to.bytes === 0) return;
    const header = (storage: Storage) => frame.put({ storage, shape: [to.bytes], strides: [1], offset: 0, dtypeCode: 6, disposed: false });
    const t = frame.begin();
    check(this.#library.dg_copy(t, header(to), header(from)), this.#library);
  }

  /** Runs the program. @returns A status. */
  run(): number {
    const changed = this.#changed, library = this.#library;
    this.#changed = false;
    if (changed) this.#drop();
    if (this.#graph === 0 && !changed) this.#capture();
    return this.#graph !== 0 && currentStream(this.#device) === 0 ? library.dg_graph_launch(this.#graph) : this.#runCalls();
  }

  #runCalls(): number {
    this.#drop(); // its counters would be behind
    return this.#library.dg_program_run(this.#program);
  }

  #drop(): void {
    if (this.#graph === 0) return;
    this.#library.dg_graph_free(this.#graph);
    this.#graph = 0;
  }

  /** Makes a graph of the program; what cannot be one goes on call by call. */
  #capture(): void {
    if (this.#counters < 0 || this.#captures >= CAPTURES || currentStream(this.#device) !== 0) return;
    const library = this.#library, { index } = this.#device;
    this.#captures++;
    if (library.dg_capture_begin(index) !== 0) return;
    const status = library.dg_program_run(this.#program), graph = library.dg_capture_end(index, this.#counters);
    if (status === 0) this.#graph = graph;
    else {
      this.#captures = CAPTURES;
      if (graph !== 0) library.dg_graph_free(graph);
    }
  }

  /** True while the program is a graph. */
  get captured(): boolean {
    return this.#graph !== 0;
  }

  /** Frees the graph and the places. */
  [Symbol.dispose](): void {
    this.#drop();
    for (const storage of [...this.#inputs, ...this.#outputs]) storage?.release();
  }
}

function made(bytes: number, device: Device, shape: readonly number[]): Storage {
  const storage = allocate(bytes, device, shape);
  storage.retain();
  return storage;
}

/** Counters of a generator that a run takes, the same for all generators; -1 if they differ. */
function countersOf(host: readonly (HostStep | Patch)[]): number {
  const sums = new Map<object, number>();
  for (const step of host) {
    if ("values" in step && step.drawn !== undefined) {
      sums.set(step.drawn.generator, (sums.get(step.drawn.generator) ?? 0) + step.drawn.counters);
    }
  }
  const different = new Set(sums.values());
  return different.size > 1 ? -1 : [...different, 0][0];
}
