/**
 * The header of a safetensors file: its exact rules, read and written.
 *
 * @module
 */
import { FormatError } from "../ffi/errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { duplicateKey } from "./json.ts";

/** Largest JSON header, in bytes, as in the reference implementation. */
export const HEADER_LIMIT = 100_000_000;

// Bits of an element, in the order in which the reference sorts tensors (the last comes first in the file).
const bits: Record<string, number> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};
const order = new Map(Object.keys(bits).map((name, i) => [name, i]));

/** Names in the file of our dtypes. */
const fileNames: Record<DType, string> = {
  float32: "F32",
  float64: "F64",
  float16: "F16",
  bfloat16: "BF16",
  int32: "I32",
  int64: "I64",
  uint8: "U8",
  bool: "BOOL",
};
const ours = new Map(Object.entries(fileNames).map(([dtype, name]) => [name, dtype as DType]));

/** A tensor of a safetensors file, as its header describes it. */
export interface SafetensorsInfo {
  /** Element type as the file names it: `F32`, `BF16`, `I8`, ... */
  readonly type: string;
  /** Our dtype of the same elements; `null` where there is none (`I8`, `F8_E4M3`, ...): such a tensor can be read as bytes only. */
  readonly dtype: DType | null;
  /** Sizes of the axes. */
  readonly shape: readonly number[];
  /** Position of its first byte in the file. */
  readonly start: number;
  /** Number of its bytes. */
  readonly bytes: number;
}

/** What a header says. */
export interface Header {
  /** Tensors by name, in the order of their bytes. */
  readonly tensors: Map<string, SafetensorsInfo>;
  /** The free text entries. */
  readonly metadata: Record<string, string>;
}

/** Size of the JSON text from the first 8 bytes of a file of `fileBytes` bytes. */
export function headerLength(first: Uint8Array, fileBytes: number, what: string): number {
  if (first.length < 8) throw new FormatError(`${what}: too short for a safetensors file: ${first.length} bytes, at least 8 expected`);
  const length = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true);
  if (length > BigInt(HEADER_LIMIT)) {
    throw new FormatError(`${what}: header of ${length} bytes exceeds the limit of ${HEADER_LIMIT}: not a safetensors file?`);
  }
  if (Number(length) + 8 > fileBytes) {
    throw new FormatError(`${what}: header of ${length} bytes reaches past the end of the file (${fileBytes} bytes)`);
  }
  return Number(length);
}

/** Reads and checks the JSON text of a header. */
export function parseHeader(json: Uint8Array, fileBytes: number, what: string): Header {
  const fail = (text: string): never => {
    throw new FormatError(`${what}: ${text}`);
  };
  let text = "", parsed: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    fail("the header is not valid UTF-8");
  }
  if (!text.startsWith("{")) fail(`the header must begin with "{", it begins with ${JSON.stringify(text.slice(0, 1))}`);
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    fail(`the header is not valid JSON: ${error instanceof Error ? error.message : error}`);
  }
  const twice = duplicateKey(text);
  if (twice !== null) fail(`the header names ${JSON.stringify(twice)} twice`);

  let metadata: Record<string, string> = {};
  const found: [string, SafetensorsInfo][] = [];
  const dataStart = 8 + json.length;
  for (const [name, value] of Object.entries(parsed as Record<string, unknown>)) {
    if (!name.isWellFormed()) fail(`the name ${JSON.stringify(name)} is not valid Unicode`);
    if (name === "__metadata__") metadata = parseMetadata(value, fail);
    else found.push([name, parseTensor(name, value, dataStart, fail)]);
  }
  // Empty tensors share their position with the tensor after them.
  found.sort(([, a], [, b]) => a.start - b.start || a.bytes - b.bytes);
  let end = dataStart, previous = "the header";
  for (const [name, info] of found) {
    if (info.start !== end) {
      const kind = info.start < end ? "overlaps" : "leaves a hole after";
      fail(
        `tensor ${JSON.stringify(name)} begins at data byte ${info.start - dataStart}, expected ${end - dataStart}: it ${kind} ${previous}`,
      );
    }
    end += info.bytes;
    previous = JSON.stringify(name);
  }
  if (end !== fileBytes) fail(`the tensors end at byte ${end}, the file has ${fileBytes}`);
  return { tensors: new Map(found), metadata };
}

type Fail = (text: string) => never;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseMetadata(value: unknown, fail: Fail): Record<string, string> {
  if (value === null) return {};
  if (!isRecord(value)) return fail("__metadata__ must be an object of strings");
  for (const [key, entry] of Object.entries(value)) {
    if (typeof entry !== "string") fail(`__metadata__[${JSON.stringify(key)}] must be a string, got ${JSON.stringify(entry)}`);
  }
  return value as Record<string, string>;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Shows a part of a header in an error, shortened. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function parseTensor(name: string, value: unknown, dataStart: number, fail: Fail): SafetensorsInfo {
  const label = `tensor ${shown(name)}`;
  if (!isRecord(value)) return fail(`${label} must be an object, got ${shown(value)}`);
  const { dtype: type, shape, data_offsets: offsets } = value;
  if (typeof type !== "string" || !Object.hasOwn(bits, type)) {
    return fail(`${label} has the unknown dtype ${shown(type)}, expected one of ${Object.keys(bits).join(", ")}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    return fail(`${label}: the shape must be an array of whole numbers >= 0, got ${shown(shape)}`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1]) {
    return fail(`${label}: data_offsets must be two whole numbers, the first not above the second, got ${shown(offsets)}`);
  }
  let total = bits[type];
  for (const size of shape) {
    total *= size;
    if (!Number.isSafeInteger(total)) fail(`${label}: the shape ${shown(shape)} overflows`);
  }
  if (total % 8 !== 0) fail(`${label}: ${total} bits of ${type} do not fill whole bytes`);
  const bytes = offsets[1] - offsets[0];
  if (total / 8 !== bytes) fail(`${label}: ${type} of shape ${shown(shape)} takes ${total / 8} bytes, data_offsets span ${bytes}`);
  if (!Number.isSafeInteger(dataStart + offsets[1])) fail(`${label}: data_offsets ${shown(offsets)} overflow`);
  const dtype = ours.get(type) ?? null;
  return { type, dtype, shape: shape.map((size) => size + 0), start: dataStart + offsets[0], bytes };
}

/** A tensor to be written. */
export interface Planned {
  /** Its name. */
  readonly name: string;
  /** Its dtype. */
  readonly dtype: DType;
  /** Its sizes. */
  readonly shape: readonly number[];
  /** Number of its bytes. */
  readonly bytes: number;
}

/** The order of the tensors in the file and its first bytes: those of the reference implementation. */
export function formatHeader(
  planned: readonly Planned[],
  metadata: Record<string, string>,
): { head: Uint8Array<ArrayBuffer>; sorted: Planned[] } {
  const rank = (it: Planned): number => order.get(fileNames[it.dtype])!;
  // By size of element so that all are aligned, then by name (in code points, not UTF-16 units).
  const keys = new Map(planned.map((it) => [it.name, new TextEncoder().encode(it.name)]));
  const sorted = [...planned].sort((a, b) => rank(b) - rank(a) || compareBytes(keys.get(a.name)!, keys.get(b.name)!));
  const entries: string[] = [];
  if (Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let at = 0;
  for (const { name, dtype, shape, bytes } of sorted) {
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype: fileNames[dtype], shape, data_offsets: [at, at += bytes] })}`);
  }
  const json = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > HEADER_LIMIT) throw new FormatError(`saveSafetensors: a header of ${padded} bytes exceeds the limit of ${HEADER_LIMIT}`);
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  return { head, sorted };
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
