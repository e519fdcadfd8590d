/**
 * The IDX format: one array of numbers, as MNIST is distributed.
 *
 * A file is two zero bytes, a type code, the number of axes, each size (32 bits, big-endian) and the elements, row-major and big-endian.
 *
 * @module
 */
import { FormatError } from "../ffi/errors.ts";
import { fromArray, tensor } from "../ops/mod.ts";
import type { DType } from "../tensor/dtype.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { pathOf } from "./files.ts";

interface Kind {
  readonly name: string;
  readonly bytes: number;
  readonly dtype: DType;
}

/** Type codes of the format; types that no tensor holds are read into the next larger one. */
const kinds: Readonly<Record<number, Kind>> = {
  0x08: { name: "unsigned byte", bytes: 1, dtype: "uint8" },
  0x09: { name: "signed byte", bytes: 1, dtype: "int32" },
  0x0b: { name: "short", bytes: 2, dtype: "int32" },
  0x0c: { name: "int", bytes: 4, dtype: "int32" },
  0x0d: { name: "float", bytes: 4, dtype: "float32" },
  0x0e: { name: "double", bytes: 8, dtype: "float64" },
};

/** Largest array that a compressed file may unpack to, in bytes. */
const UNPACKED_LIMIT = 4 * 2 ** 30;

/**
 * Reads an IDX file, plain or compressed with gzip.
 *
 * @param file A path, or the content of a file.
 * @returns uint8 for unsigned bytes, int32 for signed bytes, shorts and ints, float32 for floats, float64 for doubles.
 * @throws {FormatError} If it is not an IDX file or has fewer or more bytes than its sizes say.
 *
 * @example
 * ```ts
 * import { readIdx } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const file = new Uint8Array([0, 0, 0x08, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]);
 * assertEquals((await readIdx(file)).tolist(), [[7, 8, 9]]);
 * ```
 */
export async function readIdx(file: string | URL | Uint8Array): Promise<Tensor> {
  const name = file instanceof Uint8Array ? "IDX data" : pathOf(file);
  let bytes: Uint8Array = file instanceof Uint8Array ? file : await Deno.readFile(file);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) bytes = await unzip(bytes, name);
  return parse(bytes, name);
}

async function unzip(bytes: Uint8Array, name: string): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  try {
    for await (const part of stream) {
      total += part.length;
      if (total > UNPACKED_LIMIT) break;
      parts.push(part);
    }
  } catch (error) {
    throw new FormatError(
      `${name}: damaged or truncated gzip data after ${total} bytes: ${error instanceof Error ? error.message : error}`,
    );
  }
  if (total > UNPACKED_LIMIT) throw new FormatError(`${name}: unpacks to more than ${UNPACKED_LIMIT} bytes`);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function parse(bytes: Uint8Array, name: string): Tensor {
  if (bytes.length < 4) throw new FormatError(`${name}: too short for an IDX file: ${bytes.length} bytes, at least 4 expected`);
  const [zero0, zero1, code, rank] = bytes;
  if (zero0 !== 0 || zero1 !== 0) throw new FormatError(`${name}: not an IDX file: begins with ${zero0}, ${zero1}, expected 0, 0`);
  const kind = kinds[code];
  if (kind === undefined) {
    const known = Object.keys(kinds).map((it) => `0x0${Number(it).toString(16)}`).join(", ");
    throw new FormatError(`${name}: unknown IDX type code 0x${code.toString(16).padStart(2, "0")}, expected one of ${known}`);
  }
  if (rank < 1 || rank > 8) throw new FormatError(`${name}: ${rank} axes, expected 1 to 8`);
  const start = 4 + 4 * rank;
  if (bytes.length < start) throw new FormatError(`${name}: truncated: ${bytes.length} bytes, the header of ${rank} axes takes ${start}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const count = shape.reduce((product, size) => product * size, 1), expected = start + count * kind.bytes;
  if (bytes.length !== expected) {
    throw new FormatError(
      `${name}: ${bytes.length < expected ? "truncated" : "too long"}: ${bytes.length} bytes, ${
        textOf(shape)
      } of ${kind.name} takes ${expected}`,
    );
  }
  return elements(bytes, view, start, count, code, shape);
}

function elements(bytes: Uint8Array, view: DataView, start: number, count: number, code: number, shape: number[]): Tensor {
  switch (code) {
    case 0x08:
      return tensorOf(bytes.slice(start) as Uint8Array<ArrayBuffer>, shape);
    case 0x09:
      return tensorOf(Int32Array.from({ length: count }, (_, i) => view.getInt8(start + i)), shape);
    case 0x0b:
      return tensorOf(Int32Array.from({ length: count }, (_, i) => view.getInt16(start + 2 * i)), shape);
    case 0x0c:
      return tensorOf(Int32Array.from({ length: count }, (_, i) => view.getInt32(start + 4 * i)), shape);
    case 0x0d:
      return tensorOf(Float32Array.from({ length: count }, (_, i) => view.getFloat32(start + 4 * i)), shape);
    default:
      return tensorOf(Float64Array.from({ length: count }, (_, i) => view.getFloat64(start + 8 * i)), shape);
  }
}

function tensorOf(data: Parameters<typeof fromArray>[0], shape: number[]): Tensor {
  return data.length > 0 ? fromArray(data, shape) : tensor(data).reshape(shape);
}
