/**
 * Pictures as tensors: reading, writing, grids.
 *
 * @module
 */
import { FormatError, ShapeError } from "../ffi/errors.ts";
import { writeAll, writeFileAtomic } from "../io/files.ts";
import { decodePng, encodePng } from "../io/png.ts";
import { fromArray, zeros } from "../ops/mod.ts";
import { checkDType, checkTensor } from "../ops/native.ts";
import { textOf } from "../tensor/shape.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Reads a PNG picture.
 *
 * @param file A path, or the content of a file.
 * @returns uint8, shape `[C, H, W]`: 1 channel for gray, 3 for red, green, blue, one more with alpha.
 * @throws {FormatError} If it is damaged or of a kind that `decodePng` does not take.
 */
export async function readImage(file: string | URL | Uint8Array): Promise<Tensor> {
  try {
    const { width, height, channels, data } = await decodePng(file instanceof Uint8Array ? file : await Deno.readFile(file));
    return scope(() => fromArray(data as Uint8Array<ArrayBuffer>, [height, width, channels]).permute([2, 0, 1]).contiguous());
  } catch (error) {
    if (error instanceof FormatError && !(file instanceof Uint8Array)) throw new FormatError(`${file}: ${error.message}`);
    throw error;
  }
}

/**
 * Writes a picture as PNG; the file appears whole or not at all.
 *
 * @param path Where to.
 * @param image uint8, shape `[H, W]` or `[C, H, W]` with 1 to 4 channels.
 * @throws {DTypeError} If it is not uint8: scale it and convert with `.to("uint8")`.
 */
export async function writeImage(path: string | URL, image: Tensor): Promise<void> {
  checkTensor(image, "writeImage", "the image");
  checkDType(image, ["uint8"], "writeImage", "the image");
  const [height, width] = image.shape.slice(-2), channels = image.rank === 3 ? image.shape[0] : 1;
  if (image.rank < 2 || image.rank > 3 || channels < 1 || channels > 4) {
    throw new ShapeError(`writeImage: takes [H, W] or [C, H, W] with 1 to 4 channels, got ${textOf(image.shape)}`);
  }
  const data = scope(() => (image.rank === 3 ? image.permute([1, 2, 0]) : image).data()) as Uint8Array;
  const bytes = await encodePng({ width, height, channels: channels as 1 | 2 | 3 | 4, data });
  writeFileAtomic(path, (file) => writeAll(file, bytes));
}

/**
 * Pictures side by side in rows (`torchvision.utils.make_grid`).
 *
 * @param images Shape `[N, C, H, W]`.
 * @param options.columns Pictures in a row. Default 8.
 * @param options.padding Pixels between and around them. Default 2.
 * @param options.background Value of the space between. Default 0.
 * @returns Shape `[C, rows * (H + padding) + padding, columns * (W + padding) + padding]`.
 */
export function makeGrid(images: Tensor, options: { columns?: number; padding?: number; background?: number } = {}): Tensor {
  checkTensor(images, "makeGrid", "the images");
  if (images.rank !== 4) throw new ShapeError(`makeGrid: takes [N, C, H, W], got ${textOf(images.shape)}`);
  const { columns = 8, padding = 2, background = 0 } = options;
  if (!Number.isInteger(columns) || columns < 1) throw new RangeError(`makeGrid: columns must be a whole number >= 1, got ${columns}`);
  if (!Number.isInteger(padding) || padding < 0) throw new RangeError(`makeGrid: padding must be a whole number >= 0, got ${padding}`);
  const [count, channels, height, width] = images.shape;
  const across = Math.max(1, Math.min(columns, count)), down = Math.ceil(count / across);
  return scope(() => {
    const shape = [channels, down * (height + padding) + padding, across * (width + padding) + padding];
    const grid = zeros(shape, { dtype: images.dtype, device: images.device }).fill_(background);
    for (let i = 0; i < count; i++) {
      const top = padding + Math.floor(i / across) * (height + padding), left = padding + (i % across) * (width + padding);
      grid.narrow(1, top, height).narrow(2, left, width).copy_(images.select(0, i));
    }
    return grid;
  });
}
