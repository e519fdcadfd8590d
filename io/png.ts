/**
 * PNG pictures of 8 bits a channel, written and read.
 *
 * @module
 */
import { FormatError } from "../ffi/errors.ts";

/** A picture: rows from the top, pixels from the left, channels together. */
export interface Picture {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** 1 gray, 2 gray and alpha, 3 red, green, blue, 4 and alpha. */
  readonly channels: 1 | 2 | 3 | 4;
  /** `height * width * channels` values. */
  readonly data: Uint8Array;
}

const signature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** PNG's colour type by number of channels, and back. */
const colorTypes = [-1, 0, 4, 2, 6];
const channelsOf: Readonly<Record<number, 1 | 2 | 3 | 4>> = { 0: 1, 2: 3, 4: 2, 6: 4 };
/** Largest picture that is decoded, in bytes. */
const LIMIT = 2 ** 30;

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(12 + data.length), view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

async function through(bytes: Uint8Array, stream: CompressionStream | DecompressionStream, limit = Infinity): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  for await (const part of new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(stream)) {
    total += part.length;
    parts.push(part);
    if (total > limit) break;
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * Encodes a picture as PNG.
 *
 * @throws {RangeError} If the sizes and the data do not fit each other.
 *
 * @example
 * ```ts
 * import { decodePng, encodePng } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const file = await encodePng({ width: 2, height: 1, channels: 1, data: new Uint8Array([0, 255]) });
 * assertEquals([...(await decodePng(file)).data], [0, 255]);
 * ```
 */
export async function encodePng({ width, height, channels, data }: Picture): Promise<Uint8Array<ArrayBuffer>> {
  const whole = [width, height].every((size) => Number.isSafeInteger(size) && size > 0 && size < 2 ** 31);
  if (!whole || !(colorTypes[channels] >= 0) || width * height * channels !== data.length) {
    throw new RangeError(
      `encodePng: ${width} x ${height} pixels of ${channels} channels take ${width * height * channels} values, got ${data.length}`,
    );
  }
  const stride = width * channels, filtered = new Uint8Array(height * (stride + 1));
  const candidates = [0, 1, 2].map(() => new Uint8Array(stride));
  for (let row = 0; row < height; row++) {
    // Of the filters none, left and above the one with the smallest sum of differences, as the specification advises.
    const at = row * stride;
    const costs = [0, 0, 0];
    for (let i = 0; i < stride; i++) {
      const value = data[at + i];
      const values = [value, value - (i < channels ? 0 : data[at + i - channels]), value - (row === 0 ? 0 : data[at - stride + i])];
      for (let f = 0; f < 3; f++) {
        candidates[f][i] = values[f];
        costs[f] += Math.abs((values[f] << 24) >> 24);
      }
    }
    const best = costs.indexOf(Math.min(...costs));
    filtered[row * (stride + 1)] = best;
    filtered.set(candidates[best], row * (stride + 1) + 1);
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, colorTypes[channels], 0, 0, 0], 8);
  const packed = await through(filtered, new CompressionStream("deflate"));
  const parts = [new Uint8Array(signature), chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", new Uint8Array(0))];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

interface Chunks {
  header: Uint8Array | null;
  packed: Uint8Array<ArrayBuffer>[];
}

function readChunks(file: Uint8Array): Chunks {
  const found: Chunks = { header: null, packed: [] };
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = 8;;) {
    if (at + 12 > file.length) throw new FormatError(`decodePng: truncated: ${file.length} bytes without the closing IEND chunk`);
    const length = view.getUint32(at);
    if (at + 12 + length > file.length) {
      throw new FormatError(`decodePng: truncated: a chunk at byte ${at} takes ${12 + length} bytes, ${file.length - at} are left`);
    }
    const type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const data = file.subarray(at + 8, at + 8 + length);
    if (view.getUint32(at + 8 + length) !== crc32(file.subarray(at + 4, at + 8 + length))) {
      throw new FormatError(`decodePng: the check sum of chunk ${JSON.stringify(type)} at byte ${at} is wrong`);
    }
    if (type === "IHDR") found.header ??= data;
    else if (type === "IDAT") found.packed.push(data as Uint8Array<ArrayBuffer>);
    else if (type === "IEND") return found;
    else if (type !== "PLTE" && (file[at + 4] & 0x20) === 0) {
      throw new FormatError(`decodePng: unknown critical chunk ${JSON.stringify(type)}`);
    }
    at += 12 + length;
  }
}

/**
 * Decodes a PNG of 8 bits a channel: gray or red, green, blue, with or without alpha.
 *
 * @throws {FormatError} If it is damaged, or of another kind (a palette, 16 bits, interlaced).
 */
export async function decodePng(file: Uint8Array): Promise<Picture> {
  if (!signature.every((byte, i) => file[i] === byte)) throw new FormatError("decodePng: not a PNG file: the first 8 bytes are others");
  const { header, packed } = readChunks(file);
  if (header === null || header.length !== 13) throw new FormatError("decodePng: no IHDR chunk of 13 bytes");
  const view = new DataView(header.buffer, header.byteOffset);
  const width = view.getUint32(0), height = view.getUint32(4), [depth, color, , , interlaced] = header.subarray(8);
  const channels = channelsOf[color];
  if (depth !== 8 || channels === undefined || interlaced !== 0) {
    throw new FormatError(
      `decodePng: takes 8 bits a channel, gray or RGB, not interlaced; got ${depth} bits, colour type ${color}${
        interlaced ? ", interlaced" : ""
      }`,
    );
  }
  const stride = width * channels, expected = height * (stride + 1);
  if (width === 0 || height === 0 || expected > LIMIT) {
    throw new FormatError(`decodePng: ${width} x ${height} pixels, expected 1 to ${LIMIT} bytes`);
  }
  let raw: Uint8Array;
  try {
    raw = await through(new Uint8Array(await new Blob(packed).arrayBuffer()), new DecompressionStream("deflate"), expected);
  } catch (error) {
    throw new FormatError(`decodePng: damaged pixel data: ${error instanceof Error ? error.message : error}`);
  }
  if (raw.length !== expected) throw new FormatError(`decodePng: ${raw.length} bytes of pixel data, expected ${expected}`);
  const data = new Uint8Array(height * stride);
  for (let row = 0; row < height; row++) unfilter(raw, row, data, stride, channels);
  return { width, height, channels, data };
}

function unfilter(raw: Uint8Array, row: number, out: Uint8Array, stride: number, channels: number): void {
  const from = row * (stride + 1) + 1, to = row * stride, filter = raw[from - 1];
  if (filter > 4) throw new FormatError(`decodePng: unknown filter ${filter} in row ${row}, expected 0 to 4`);
  for (let i = 0; i < stride; i++) {
    const left = i < channels ? 0 : out[to + i - channels];
    const above = row === 0 ? 0 : out[to - stride + i];
    const corner = row === 0 || i < channels ? 0 : out[to - stride + i - channels];
    const guess = filter === 0
      ? 0
      : filter === 1
      ? left
      : filter === 2
      ? above
      : filter === 3
      ? (left + above) >> 1
      : paeth(left, above, corner);
    out[to + i] = raw[from + i] + guess;
  }
}

function paeth(left: number, above: number, corner: number): number {
  const p = left + above - corner, a = Math.abs(p - left), b = Math.abs(p - above), c = Math.abs(p - corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
