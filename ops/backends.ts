/**
 * Settings of the native libraries.
 *
 * @module
 */
import { cpu } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";

/** What the CPU library may do. */
export interface CpuBackend {
  /**
   * Computes float32 convolutions with 3x3 kernels and stride 1 by Winograd's F(4x4, 3x3), which takes a quarter of the multiplications at a
   * relative error below 1e-5 instead of below 1e-6. Default `true`.
   */
  winograd: boolean;
}

/**
 * Settings by library (compare `torch.backends`). They hold for the whole process.
 *
 * @example Exact 3x3 convolutions
 * ```ts
 * import { backends } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * backends.cpu.winograd = false;
 * assertEquals(backends.cpu.winograd, false);
 * backends.cpu.winograd = true;
 * ```
 */
export const backends: {
  /** The CPU library. */
  readonly cpu: CpuBackend;
} = {
  cpu: {
    get winograd(): boolean {
      return libraryOf(cpu).dg_conv_get_winograd() !== 0;
    },
    set winograd(on: boolean) {
      const library = libraryOf(cpu);
      check(library.dg_conv_set_winograd(on ? 1 : 0), library);
    },
  },
};
