/**
 * Values of the host for collectives of a group.
 *
 * @module
 */
import { cpu } from "../ffi/device.ts";
import { fromArray } from "../ops/creation.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { ProcessGroup } from "./process_group.ts";

/** An array as a tensor where those of the group are. */
export function placed(array: Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>, group: ProcessGroup): Tensor {
  const host = fromArray(array);
  if (group.device === cpu) return host;
  using source = host;
  return source.to(group.device);
}
