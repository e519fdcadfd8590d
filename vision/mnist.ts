/**
 * The MNIST handwritten digits.
 *
 * @module
 */
import { TensorDataset } from "../data/dataset.ts";
import { FormatError } from "../ffi/errors.ts";
import { pathOf } from "../io/files.ts";
import { readIdx } from "../io/idx.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Mean and standard deviation of the training pixels, scaled to 0 ... 1. */
export const mnistStatistics: { readonly mean: number; readonly std: number } = { mean: 0.1307, std: 0.3081 };

async function readPart(folder: string, name: string): Promise<Tensor> {
  const paths = [`${folder}/${name}`, `${folder}/${name}.gz`];
  for (const path of paths) {
    try {
      return await readIdx(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new Deno.errors.NotFound(`mnist: neither ${paths.join(" nor ")} exists`);
}

/**
 * MNIST, or a dataset in the same four IDX files (Fashion-MNIST, KMNIST): `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
 * `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, plain or with `.gz`.
 *
 * @param folder Where the files are.
 * @param options.train The training samples, else the test samples. Default `true`.
 * @returns Images, uint8 of shape `[N, 1, H, W]`, and labels, int64 of shape `[N]`.
 * @throws {Deno.errors.NotFound} If a file is missing.
 * @throws {FormatError} If a file is damaged or the files do not fit each other.
 */
export async function mnist(folder: string | URL, options: { train?: boolean } = {}): Promise<TensorDataset<[Tensor, Tensor]>> {
  const base = pathOf(folder).replace(/\/+$/, ""), part = options.train ?? true ? "train" : "t10k";
  const images = await readPart(base, `${part}-images-idx3-ubyte`);
  let labels: Tensor | null = null;
  try {
    labels = await readPart(base, `${part}-labels-idx1-ubyte`);
    if (
      images.dtype !== "uint8" || images.rank !== 3 || labels.dtype !== "uint8" || labels.rank !== 1 || labels.shape[0] !== images.shape[0]
    ) {
      throw new FormatError(
        `mnist: ${base}: expected images [N, H, W] and labels [N] of unsigned bytes, got ${textOf(images.shape)} of ${images.dtype} and ` +
          `${textOf(labels.shape)} of ${labels.dtype}`,
      );
    }
    return new TensorDataset(images.unsqueeze(1), labels.to("int64"));
  } finally {
    images.dispose();
    labels?.dispose();
  }
}
