/**
 * The CUDA devices: what there is, waiting, events, streams, captured steps (compare `torch.cuda`).
 *
 * @module
 */
import { type Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DisposedError } from "../ffi/errors.ts";
import { check, cudaDeviceCount, errorOf, lastError, libraryOf } from "../ffi/library.ts";

import { unrepeatable } from "./recorder.ts";

export { capture, CapturedStep } from "./capture.ts";

/** Number of CUDA devices; 0 where there is no CUDA library, driver or GPU. */
export function deviceCount(): number {
  return cudaDeviceCount();
}

/**
 * True when there is a CUDA device to use. Why there is none says the error that using `"cuda"` raises.
 *
 * @example
 * ```ts
 * import { cuda, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const device = cuda.isAvailable() ? "cuda" : "cpu";
 * assertEquals(ones([2], { device }).sum().item(), 2);
 * ```
 */
export function isAvailable(): boolean {
  return cudaDeviceCount() > 0;
}

/** What a device is. */
export interface DeviceProperties {
  /** Name of the product. */
  readonly name: string;
  /** Size of its memory in bytes. */
  readonly totalMemory: number;
  /** Bytes of it that are free. */
  readonly freeMemory: number;
  /** Number of multiprocessors. */
  readonly multiprocessors: number;
  /** Compute capability, as 9 and 0. */
  readonly computeCapability: readonly [major: number, minor: number];
  /** Bytes of shared memory that a block may use. */
  readonly sharedMemoryPerBlock: number;
  /** Threads that a multiprocessor holds. */
  readonly threadsPerMultiprocessor: number;
  /** Clock in kHz. */
  readonly clockRate: number;
}

/** Properties of a device (default: the first GPU). @throws {DeviceError} If there is no such device. */
export function properties(device: DeviceLike = "cuda"): DeviceProperties {
  const place = deviceOf(device), library = libraryOf(place), numbers = new Float64Array(8), name = new Uint8Array(256);
  check(library.dg_device_properties(place.index, numbers, name, name.length), library);
  const [totalMemory, freeMemory, multiprocessors, major, minor, sharedMemoryPerBlock, threadsPerMultiprocessor, clockRate] = numbers;
  return {
    name: new TextDecoder().decode(name.subarray(0, name.indexOf(0))),
    totalMemory,
    freeMemory,
    multiprocessors,
    computeCapability: [major, minor],
    sharedMemoryPerBlock,
    threadsPerMultiprocessor,
    clockRate,
  };
}

/**
 * Waits until a device (default: the first GPU) has done all that it was given. Errors that only the device saw, such as an index out of range, come out here
 * at the latest.
 */
export function synchronize(device: DeviceLike = "cuda"): void {
  const place = deviceOf(device), library = libraryOf(place);
  check(library.dg_synchronize(place.index), library);
}

/** What a device was given since the library was loaded. */
export interface RuntimeStats {
  /** Kernels started. */
  readonly launches: number;
  /** Calls that waited for the device. */
  readonly synchronisations: number;
  /** Bytes copied to the device. */
  readonly bytesToDevice: number;
  /** Bytes copied from it. */
  readonly bytesFromDevice: number;
  /** Graphs launched. */
  readonly graphLaunches: number;
  /** Calls of a library of NVIDIA's, for products of matrices. */
  readonly libraryCalls: number;
}

/**
 * Counts of what a device (default: the first GPU) was given; differences of two calls show what some code costs.
 *
 * @example
 * ```ts
 * import { cuda, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * if (cuda.isAvailable()) {
 *   const x = ones([100], { device: "cuda" }), before = cuda.runtimeStats();
 *   x.exp();
 *   assertEquals(cuda.runtimeStats().launches - before.launches, 1);
 * }
 * ```
 */
export function runtimeStats(device: DeviceLike = "cuda"): RuntimeStats {
  const place = deviceOf(device), library = libraryOf(place), out = new Float64Array(8);
  check(library.dg_runtime_stats(place.index, out), library);
  const [launches, synchronisations, bytesToDevice, bytesFromDevice, graphLaunches, libraryCalls] = out;
  return { launches, synchronisations, bytesToDevice, bytesFromDevice, graphLaunches, libraryCalls };
}

const streams = ["computation", "communication"] as const;
/** A queue of a device: work in one goes on beside that in the other. */
export type StreamName = typeof streams[number];

const current = new Map<Device, number>();

/** Number of the stream that a device's work goes to. */
export function currentStream(device: Device): number {
  return current.get(device) ?? 0;
}

/**
 * Gives the native work of `fn` to a stream of its own; all else goes to `"computation"`. What one stream writes and the other reads needs an
 * {@linkcode Event} between them.
 *
 * @param fn Not asynchronous.
 * @returns What `fn` returns.
 *
 * @example A copy beside the computation
 * ```ts
 * import { cuda, ones } from "@dinograd/dinograd";
 * if (cuda.isAvailable()) {
 *   const batch = ones([1000], { device: "cpu" }).pinMemory();
 *   using copied = new cuda.Event();
 *   const x = cuda.withStream("cuda", "communication", () => {
 *     const y = batch.to("cuda", { nonBlocking: true });
 *     copied.record();
 *     return y;
 *   });
 *   copied.wait();
 *   x.sum();
 * }
 * ```
 */
export function withStream<T>(device: DeviceLike, stream: StreamName, fn: () => T): T {
  unrepeatable("it changes streams");
  const place = deviceOf(device), library = libraryOf(place), number = streams.indexOf(stream), before = current.get(place) ?? 0;
  if (number < 0) throw new RangeError(`withStream: there are ${streams.join(" and ")}, got ${JSON.stringify(stream)}`);
  const choose = (next: number) => {
    check(library.dg_set_stream(place.index, next), library);
    current.set(place, next);
  };
  choose(number);
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError("withStream: the function must not be asynchronous");
    return result;
  } finally {
    choose(before);
  }
}

const events = new FinalizationRegistry<{ device: Device; id: number }>(({ device, id }) => void libraryOf(device).dg_event_free(id));

/**
 * A mark in a stream: tells when a device has come so far, makes another stream wait for it, and measures time.
 *
 * @example Time between two marks
 * ```ts
 * import { cuda, ones } from "@dinograd/dinograd";
 * import { assert } from "@std/assert";
 * if (cuda.isAvailable()) {
 *   using start = new cuda.Event(), end = new cuda.Event();
 *   const x = ones([512, 512], { device: "cuda" });
 *   start.record();
 *   x.matmul(x);
 *   end.record();
 *   end.synchronize();
 *   assert(start.elapsed(end) >= 0);
 * }
 * ```
 */
export class Event implements Disposable {
  /** The device whose streams it marks. */
  readonly device: Device;
  #id: number;

  /** An event of a device (default: the first GPU). @throws {DeviceError} If there is no such device. */
  constructor(device: DeviceLike = "cuda") {
    this.device = deviceOf(device);
    const library = libraryOf(this.device);
    this.#id = library.dg_event_create(this.device.index);
    if (this.#id === 0) throw errorOf(3, lastError(library));
    events.register(this, { device: this.device, id: this.#id }, this);
  }

  #check(op: string): void {
    if (this.#id === 0) throw new DisposedError(`${op}: the event has been disposed`);
  }

  /** Marks where the current stream stands. */
  record(): void {
    this.#check("record");
    const library = libraryOf(this.device);
    check(library.dg_event_record(this.#id), library);
  }
  /** Makes the current stream wait for the mark; the program goes on. */
  wait(): void {
    this.#check("wait");
    const library = libraryOf(this.device);
    check(library.dg_event_wait(this.#id), library);
  }
  /** Waits until the device has come to the mark. */
  synchronize(): void {
    this.#check("synchronize");
    const library = libraryOf(this.device);
    check(library.dg_event_synchronize(this.#id), library);
  }
  /** True when the device has come to the mark. */
  query(): boolean {
    this.#check("query");
    const library = libraryOf(this.device), done = new Uint32Array(1);
    check(library.dg_event_query(this.#id, done), library);
    return done[0] !== 0;
  }
  /** Milliseconds from this mark to that of `end`, both reached. @throws {RangeError} If one was never recorded. */
  elapsed(end: Event): number {
    this.#check("elapsed");
    end.#check("elapsed");
    const library = libraryOf(this.device), milliseconds = new Float64Array(1);
    check(library.dg_event_elapsed(this.#id, end.#id, milliseconds), library);
    return milliseconds[0];
  }

  /** Frees the event. A second call does nothing. */
  dispose(): void {
    if (this.#id === 0) return;
    events.unregister(this);
    libraryOf(this.device).dg_event_free(this.#id);
    this.#id = 0;
  }
  /** The same as {@linkcode Event.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
