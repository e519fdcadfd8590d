/**
 * How a store's clients and server talk over TCP.
 *
 * The server greets with magic, version and 32 random bytes. The client answers with its own 32 random bytes and an HMAC-SHA-256, under the shared secret, of
 * its role and both numbers; the server shows in the same way that it knows the secret. Each of these messages has a fixed size. Then both send frames:
 * a `u32` with the number of bytes that follow, a `u32` that pairs an answer with its request, a `u8` with the operation or the status, and fields, each a
 * `u32` length and bytes. Little-endian.
 *
 * Nothing is encrypted: the secret keeps strangers out, not those who can read or alter the traffic of a member.
 *
 * @module
 */
import { DistributedError } from "../../ffi/errors.ts";

/** What a request asks for. */
export const Op = { set: 1, get: 2, add: 3, compareSet: 4, wait: 5, check: 6, delete: 7 } as const;

/** How a request was answered; the field of an error is its text. */
export const Status = { ok: 0, error: 1 } as const;

/** What the server thinks of a client's proof. */
export const Verdict = { welcome: 0, stranger: 1, full: 2 } as const;

const encoder = new TextEncoder();

/** "dgstore" and the version of the protocol. */
export const MAGIC: Uint8Array<ArrayBuffer> = Uint8Array.of(...encoder.encode("dgstore"), 1);

/** Bytes of the random numbers and of the proofs. */
export const PROOF_BYTES = 32;

/** Bytes of the messages before the first frame: the greeting, the client's answer, the server's verdict. */
export const GREETING_BYTES: number = MAGIC.length + PROOF_BYTES;
export const ANSWER_BYTES: number = MAGIC.length + 2 * PROOF_BYTES;
export const VERDICT_BYTES: number = 1 + PROOF_BYTES + 4;

/** Bytes of a frame without its fields: length, number, operation. */
export const HEADER_BYTES = 9;

/** The key that proofs are made with. A store without secret goes through the same steps. */
export function proofKey(secret: string): Promise<CryptoKey> {
  const bytes = encoder.encode(`dinograd store\0${secret}`);
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}

function statement(role: "client" | "server", serverNonce: Uint8Array, clientNonce: Uint8Array): Uint8Array<ArrayBuffer> {
  return join([encoder.encode(role), serverNonce, clientNonce]);
}

/** Shows that `role` knows the secret. */
export async function prove(
  key: CryptoKey,
  role: "client" | "server",
  serverNonce: Uint8Array,
  clientNonce: Uint8Array,
): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, statement(role, serverNonce, clientNonce)));
}

/** Checks what {@linkcode prove} made, in constant time. */
export function verify(
  key: CryptoKey,
  role: "client" | "server",
  serverNonce: Uint8Array,
  clientNonce: Uint8Array,
  proof: Uint8Array,
): Promise<boolean> {
  return crypto.subtle.verify("HMAC", key, new Uint8Array(proof), statement(role, serverNonce, clientNonce));
}

/** One array after the other. */
export function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** True for equal bytes. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** A frame, ready to send. */
export function encodeFrame(id: number, tag: number, fields: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const size = fields.reduce((sum, field) => sum + 4 + field.length, HEADER_BYTES);
  const frame = new Uint8Array(size), view = new DataView(frame.buffer);
  view.setUint32(0, size - 4, true);
  view.setUint32(4, id, true);
  frame[8] = tag;
  let at = HEADER_BYTES;
  for (const field of fields) {
    view.setUint32(at, field.length, true);
    frame.set(field, at + 4);
    at += 4 + field.length;
  }
  return frame;
}

/** The fields of a frame; `null` if their lengths do not add up. */
export function decodeFields(body: Uint8Array): Uint8Array[] | null {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength), fields: Uint8Array[] = [];
  for (let at = 0; at < body.length;) {
    if (at + 4 > body.length) return null;
    const end = at + 4 + view.getUint32(at, true);
    if (end > body.length) return null;
    fields.push(body.subarray(at + 4, end));
    at = end;
  }
  return fields;
}

/** A number as a field. */
export function numberField(value: number): Uint8Array {
  return new Uint8Array(Float64Array.of(value).buffer);
}

/** The number in a field of 8 bytes. */
export function fieldNumber(field: Uint8Array): number {
  return new DataView(field.buffer, field.byteOffset, 8).getFloat64(0, true);
}

/** Reads exactly `count` bytes; `null` if the other side closed first. */
export async function readExactly(conn: Deno.Conn, count: number): Promise<Uint8Array<ArrayBuffer> | null> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count;) {
    const read = await conn.read(bytes.subarray(at));
    if (read === null) return null;
    at += read;
  }
  return bytes;
}

/** Writes all bytes. */
export async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

/** Closes what may be closed already. */
export function closeQuietly(resource: { close(): void } | null | undefined): void {
  try {
    resource?.close();
  } catch {
    // Closed by the other side or twice.
  }
}

/** True if only this machine can be reached by this name. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  return name === "localhost" || name === "::1" || /^127(\.\d{1,3}){3}$/.test(name);
}

/** The name to bind or connect to: `localhost` has two addresses, and both sides have to choose the same one. */
export function hostAddress(host: string): string {
  const name = host.replace(/^\[(.*)\]$/, "$1");
  return name.toLowerCase() === "localhost" ? "127.0.0.1" : name;
}

/** A host and port for messages and addresses. */
export function endpoint(host: string, port: number): string {
  return `${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
}

/** Checks that a store that others can reach has a secret. */
export function checkSecret(secret: unknown, host: string, op: string): string {
  if (secret !== undefined && typeof secret !== "string") throw new TypeError(`${op}: secret must be a text, got ${typeof secret}`);
  if (!secret && !isLoopback(host)) {
    throw new DistributedError(
      `${op}: a store at "${host}" can be reached by strangers: give all processes the same secret (option secret or DINOGRAD_SECRET), ` +
        `or use 127.0.0.1`,
    );
  }
  return secret ?? "";
}

/** Checks a port; 0 lets the system choose one where that makes sense. */
export function checkPort(port: number, op: string, least: 0 | 1): number {
  if (!Number.isInteger(port) || port < least || port > 65535) {
    throw new RangeError(`${op}: port must be a whole number from ${least} to 65535, got ${port}`);
  }
  return port;
}
