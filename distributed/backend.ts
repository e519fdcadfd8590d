/**
 * What carries the collectives of process groups: Gloo for CPU tensors, NCCL for CUDA tensors.
 *
 * @module
 */
import { gloo, nccl } from "../ffi/communicator.ts";
import type { CommunicatorLibrary } from "../ffi/communicator_symbols.ts";
import { cpu, type Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DistributedError } from "../ffi/errors.ts";
import { cudaDeviceCount, libraryOf } from "../ffi/library.ts";
import { localRankOf } from "./environment.ts";

/** Name of what carries the collectives. */
export type BackendName = "gloo" | "nccl";

/** What carries the collectives of a group, and for which device. */
export interface Backend {
  /** Its name. */
  readonly name: BackendName;
  /** Where its tensors are. */
  readonly device: Device;
  /** The environment variable that names the network interface to use. */
  readonly addressVariable: string;
  /** Opens its library. */
  open(): CommunicatorLibrary;
}

/**
 * The back end that options ask for: `nccl` for a CUDA device and `gloo` otherwise, unless it is named. `"cuda"` without a number, and `nccl` without a device,
 * are the device of this process's place on its machine.
 *
 * @param rank Number of this process, for its place where the environment does not tell it.
 * @throws {DistributedError} If back end and device do not fit.
 * @throws {DeviceError} If there is no such device.
 */
export function chooseBackend(op: string, name?: BackendName, device?: DeviceLike, rank = 0): Backend {
  const asked = device === undefined ? null : deviceOf(device);
  switch (name ?? (asked?.type === "cuda" ? "nccl" : "gloo")) {
    case "gloo":
      if (asked !== null && asked !== cpu) throw new DistributedError(`${op}: gloo serves cpu tensors, got device ${asked}: use "nccl"`);
      return { name: "gloo", device: cpu, addressVariable: "GLOO_SOCKET_IFNAME", open: gloo };
    case "nccl": {
      if (asked === cpu) throw new DistributedError(`${op}: nccl serves cuda tensors, got device cpu: use "gloo"`);
      const named = asked !== null && device !== "cuda";
      const chosen = named ? asked : deviceOf(`cuda:${(localRankOf() ?? rank) % Math.max(1, cudaDeviceCount())}`);
      libraryOf(chosen); // fails without one
      return { name: "nccl", device: chosen, addressVariable: "NCCL_SOCKET_IFNAME", open: nccl };
    }
    default:
      throw new DistributedError(`${op}: backend must be "gloo" or "nccl", got ${JSON.stringify(name)}`);
  }
}
