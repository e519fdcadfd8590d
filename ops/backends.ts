/**
 * Settings of the native libraries.
 *
 * @module
 */
import { cpu } from "../ffi/device.ts";
import { check, cudaIfPresent, libraryOf } from "../ffi/library.ts";
import { unrepeatable } from "../tensor/recorder.ts";

/** What the CPU library may do. */
export interface CpuBackend {
  /**
   * Computes float32 convolutions with 3x3 and 4x4 kernels by Winograd's F(4x4, KxK), which takes 1/4 of the multiplications, with stride 2
   * 1/1.8 (3x3) and 1/2.6 (4x4). The relative error (root mean square) is below 1e-5 instead of below 1e-6; the largest single error grows
   * with the number of channels, to 2e-5 of the largest result for 512. Default `true`.
   */
  winograd: boolean;
}

/** What the CUDA library may do. */
export interface CudaBackend {
  /**
   * Rounds the operands of float32 products (matrices and convolutions) to 10 bits (TF32), which tensor cores multiply many times faster, at a relative
   * error about 1e-3 instead of 1e-6. Default `false`. Without a CUDA device it is `false` and setting it does nothing.
   */
  allowTf32: boolean;
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
  /** The CUDA library. */
  readonly cuda: CudaBackend;
} = {
  cpu: {
    get winograd(): boolean {
      return libraryOf(cpu).dg_conv_get_winograd() !== 0;
    },
    set winograd(on: boolean) {
      unrepeatable("it sets backends.cpu.winograd");
      const library = libraryOf(cpu);
      check(library.dg_conv_set_winograd(on ? 1 : 0), library);
    },
  },
  cuda: {
    get allowTf32(): boolean {
      return cudaIfPresent()?.dg_get_tf32() === 1;
    },
    set allowTf32(on: boolean) {
      unrepeatable("it sets backends.cuda.allowTf32");
      const library = cudaIfPresent();
      if (library !== null) check(library.dg_set_tf32(on ? 1 : 0), library);
    },
  },
};
