/**
 * DataParallel: one process, several devices.
 *
 * @module
 */
import { type Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DeviceError } from "../ffi/errors.ts";
import { Module } from "../nn/module.ts";
import { noGrad } from "../autograd/functional.ts";
import { clone, to } from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gather, type Join, scatter } from "./scatter.ts";

/** Options of {@linkcode DataParallel}. */
export interface DataParallelOptions {
  /** Devices to share the batch, the first of which holds the module. Default: the module's alone. */
  devices?: readonly DeviceLike[];
  /** Where outputs are joined. Default: the first device. */
  outputDevice?: DeviceLike;
  /** The batch axis. Default 0. */
  dim?: number;
  /** How outputs are joined, see {@linkcode gather}. Default `"cat"`. */
  join?: Join;
}

/** Runs `body` while the tensors of `module` are its copies on `device`, and puts everything back afterwards. */
function onDevice<R>(module: Module, device: Device, body: () => R): R {
  const restore: (() => void)[] = [], copies: Tensor[] = [];
  const replace = (original: Tensor, copy: Tensor) => {
    if (copy === original) return;
    copies.push(copy);
    restore.push(original.standFor(copy));
  };
  // What forward assigns to properties (counters, new buffers) is the replica's and is lost with it.
  const properties = [...module.modules()].map((it) => [it as unknown as Record<string, unknown>, { ...it }] as const);
  try {
    // Copies of parameters are recorded, so that their gradients flow back and add up in the original.
    for (const parameter of module.parameters()) replace(parameter, to(parameter, device));
    for (const buffer of module.buffers()) replace(buffer, noGrad(() => buffer.device === device ? clone(buffer) : to(buffer, device)));
    return body();
  } finally {
    for (const undo of restore.reverse()) undo();
    for (const [it, values] of properties) {
      for (const name of Object.keys(it)) if (!(name in values)) delete it[name];
      Object.assign(it, values);
    }
    // The graph holds what backward needs of the copies.
    for (const copy of copies) copy.dispose();
  }
}

/**
 * Shares each batch between several devices of one process (`torch.nn.DataParallel`): the inputs are split along axis `dim`, every device runs the
 * module on its piece with a copy of the parameters, and the outputs are joined. In backward the gradients of all devices add up in the
 * module's own parameters.
 *
 * The work of the devices overlaps because nothing waits for a device before a value is read. What forward changes in a replica (running
 * statistics, counters) is lost, except on the first device, which runs the module itself. A batch smaller than the number of devices uses as many as it has rows.
 * Nested inputs and outputs (arrays, plain objects, maps) are split and joined tensor by tensor; other values go to every device.
 *
 * With more than one process, `DistributedDataParallel` is faster: it copies no parameters.
 *
 * @example Two devices, here both the CPU
 * ```ts
 * import { distributed, nn, randn, type Tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using model = new nn.Linear(3, 2);
 * const parallel = new distributed.DataParallel(model, { devices: ["cpu", "cpu"] });
 * const y = parallel.call(randn([5, 3])) as Tensor;
 * assertEquals(y.shape, [5, 2]);
 * ```
 */
export class DataParallel<M extends Module = Module> extends Module {
  /** The module that is run; its parameters lie on the first device. */
  readonly module: M;
  readonly #devices: readonly Device[];
  readonly #output: Device;
  readonly #dim: number;
  readonly #join: Join;

  /**
   * Wraps a module whose parameters and buffers lie on the first device.
   *
   * @throws {DeviceError} If a parameter or buffer lies elsewhere.
   */
  constructor(module: M, options?: DataParallelOptions) {
    super();
    if (!(module instanceof Module)) throw new TypeError(`DataParallel: takes a Module, got ${typeof module}`);
    this.module = module;
    const [holder] = module.parameters();
    const listed = options?.devices ?? [holder?.device ?? "cpu"];
    if (!Array.isArray(listed) || listed.length === 0) {
      throw new RangeError("DataParallel: devices must be a list with at least one device");
    }
    this.#devices = listed.map((it) => deviceOf(it));
    this.#output = options?.outputDevice === undefined ? this.#devices[0] : deviceOf(options.outputDevice);
    this.#dim = options?.dim ?? 0;
    this.#join = options?.join ?? "cat";
    this.#check();
  }

  #check(): void {
    const [first] = this.#devices;
    for (const [kind, list] of [["parameter", this.module.namedParameters()], ["buffer", this.module.namedBuffers()]] as const) {
      for (const [name, tensor] of list) {
        if (tensor.device !== first) {
          throw new DeviceError(
            `DataParallel: ${kind} ${name} is on ${tensor.device}, expected ${first}, the first device: move the module with .to("${first}")`,
          );
        }
      }
    }
  }

  /** Splits the inputs, runs the module on every device and joins the outputs. */
  override forward(...inputs: unknown[]): unknown {
    this.#check();
    const run = (args: readonly unknown[]) => (this.module as Module).call(...args as never[]);
    const pieces = scatter(inputs, this.#devices, this.#dim) as unknown[][];
    // The other devices first: the module itself may change its buffers, which replicas must not see half-way.
    const rest = pieces.slice(1).map((args, i) => onDevice(this.module, this.#devices[i + 1], () => run(args)));
    const outputs = [run(pieces[0]), ...rest];
    return gather(outputs, this.#output, { dim: this.#dim, join: this.#join });
  }
}
