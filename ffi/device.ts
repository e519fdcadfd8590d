/**
 * Devices: the CPU and the CUDA GPUs.
 *
 * @module
 */
import { DeviceError } from "./errors.ts";

/** Kind of device. */
export type DeviceType = "cpu" | "cuda";

/** A device that tensors live on. There is one object per device, so devices compare with `===`. */
export class Device {
  /** Kind of device. */
  readonly type: DeviceType;
  /** Number among the devices of its kind. */
  readonly index: number;
  /** Type and index as a tensor header holds them. */
  readonly code: number;

  /** Use {@linkcode device} instead: it returns the one object of a device. */
  constructor(type: DeviceType, index: number) {
    this.type = type;
    this.index = index;
    this.code = (type === "cuda" ? 1 : 0) | index << 8;
  }

  /** `cpu` or `cuda:0`. */
  toString(): string {
    return this.type === "cpu" ? "cpu" : `cuda:${this.index}`;
  }
}

/** A device or its name. */
export type DeviceLike = Device | "cpu" | "cuda" | `cuda:${number}`;

/** The CPU. */
export const cpu: Device = new Device("cpu", 0);
const gpus: Device[] = [];

/**
 * The device of a name: `"cpu"`, `"cuda"` (the first GPU) or `"cuda:1"`.
 *
 * @throws {DeviceError} If the name is none of these.
 *
 * @example Comparing devices
 * ```ts
 * import { device } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * assert(device("cuda:0") === device("cuda"));
 * assertEquals(`${device("cuda:1")}`, "cuda:1");
 * ```
 */
export function device(name: DeviceLike): Device {
  if (name instanceof Device) return name;
  if (name === "cpu") return cpu;
  const match = /^cuda(?::(\d{1,2}))?$/.exec(String(name));
  if (match === null) throw new DeviceError(`device: unknown device "${name}", expected "cpu", "cuda" or "cuda:<index>"`);
  const index = Number(match[1] ?? 0);
  return gpus[index] ??= new Device("cuda", index);
}
