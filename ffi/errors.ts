/**
 * The typed errors of dinograd. Each says what was done, what was given and what would be right.
 *
 * @module
 */

/** Base class of the errors that dinograd raises. */
export class DinogradError extends Error {
  /** Name of the class, as printed. */
  override name = "DinogradError";
}

/** Shapes, sizes, strides or axes that do not fit the operation. */
export class ShapeError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "ShapeError";
}

/** An element type that the operation does not take. */
export class DTypeError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "DTypeError";
}

/** Tensors on different devices, or a device that does not exist or failed. */
export class DeviceError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "DeviceError";
}

/** The memory limit or the machine's memory is exhausted. */
export class OutOfMemoryError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "OutOfMemoryError";
}

/** A tensor was used after `dispose()` or after the scope that owned it ended. */
export class DisposedError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "DisposedError";
}

/** Misuse of automatic differentiation. */
export class AutogradError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "AutogradError";
}

/** What a {@linkcode DistributedError} is about. */
export interface DistributedErrorOptions extends ErrorOptions {
  /** The rank that failed, stopped answering or differs from the others. */
  rank?: number;
  /** The collective that was under way. */
  collective?: string;
}

/** A process group failed or was misused. */
export class DistributedError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "DistributedError";
  /** The rank that failed, stopped answering or differs from the others; `null` where none can be named. */
  readonly rank: number | null;
  /** The collective that was under way, as `"allReduce"`; `null` outside of one. */
  readonly collective: string | null;

  /** An error about a rank or a collective, where one can be named. */
  constructor(message?: string, options: DistributedErrorOptions = {}) {
    const { rank, collective, ...rest } = options;
    super(message, rest);
    this.rank = rank ?? null;
    this.collective = collective ?? null;
  }
}

/** A native library is missing or of another version; the message holds the command that builds it. */
export class LibraryNotFoundError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "LibraryNotFoundError";
}

/** A defect of a native library. */
export class NativeError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "NativeError";
}

/** A file or message that does not have the format it should have. */
export class FormatError extends DinogradError {
  /** Name of the class, as printed. */
  override name = "FormatError";
}
