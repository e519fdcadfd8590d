/**
 * Padding as modules: {@linkcode pad} with its settings.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** What the padding modules share. */
export abstract class Pad extends Module {
  /** Positions in front and behind each axis, the last axis first. */
  readonly padding: readonly number[];
  /** How and with what they are filled. */
  readonly options: ops.PadOptions;

  /**
   * Makes the layer.
   *
   * @param axes Number of padded axes.
   * @param padding One number for all sides, or two per axis, the last axis first.
   * @param options How and with what they are filled.
   */
  constructor(axes: number, padding: number | readonly number[], options: ops.PadOptions) {
    super();
    this.padding = typeof padding === "number" ? new Array<number>(2 * axes).fill(padding) : [...padding];
    this.options = options;
    if (this.padding.length !== 2 * axes) {
      throw new RangeError(`${this.constructor.name}: padding must be a number or ${2 * axes} of them, got [${this.padding.join(", ")}]`);
    }
  }
  /** The padded input. */
  override forward(x: Tensor): Tensor {
    return ops.pad(x, this.padding, this.options);
  }
  /** The settings. */
  override extraRepr(): string {
    const value = this.options.value === undefined ? "" : `, value=${this.options.value}`;
    return `padding=[${this.padding.join(", ")}]${value}`;
  }
}

/** Zeros around the last axis. */
export class ZeroPad1d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 2: `[left, right]`.
   */
  constructor(padding: number | readonly number[]) {
    super(1, padding, {});
  }
}

/** Zeros around the last two axes. */
export class ZeroPad2d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 4: `[left, right, top, bottom]`.
   */
  constructor(padding: number | readonly number[]) {
    super(2, padding, {});
  }
}

/** Zeros around the last three axes. */
export class ZeroPad3d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 6: `[left, right, top, bottom, front, back]`.
   */
  constructor(padding: number | readonly number[]) {
    super(3, padding, {});
  }
}

/** A value around the last axis. */
export class ConstantPad1d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 2: `[left, right]`.
   * @param value What to fill with.
   */
  constructor(padding: number | readonly number[], value: number) {
    super(1, padding, { value });
  }
}

/** A value around the last two axes. */
export class ConstantPad2d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 4: `[left, right, top, bottom]`.
   * @param value What to fill with.
   */
  constructor(padding: number | readonly number[], value: number) {
    super(2, padding, { value });
  }
}

/** A value around the last three axes. */
export class ConstantPad3d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 6: `[left, right, top, bottom, front, back]`.
   * @param value What to fill with.
   */
  constructor(padding: number | readonly number[], value: number) {
    super(3, padding, { value });
  }
}

/** Elements mirrored at the border, which is not repeated, around the last axis. */
export class ReflectionPad1d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 2: `[left, right]`.
   */
  constructor(padding: number | readonly number[]) {
    super(1, padding, { mode: "reflect" });
  }
}

/** Elements mirrored at the border, which is not repeated, around the last two axes. */
export class ReflectionPad2d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 4: `[left, right, top, bottom]`.
   */
  constructor(padding: number | readonly number[]) {
    super(2, padding, { mode: "reflect" });
  }
}

/** Elements mirrored at the border, which is not repeated, around the last three axes. */
export class ReflectionPad3d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 6: `[left, right, top, bottom, front, back]`.
   */
  constructor(padding: number | readonly number[]) {
    super(3, padding, { mode: "reflect" });
  }
}

/** The border's elements repeated around the last axis. */
export class ReplicationPad1d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 2: `[left, right]`.
   */
  constructor(padding: number | readonly number[]) {
    super(1, padding, { mode: "replicate" });
  }
}

/** The border's elements repeated around the last two axes. */
export class ReplicationPad2d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 4: `[left, right, top, bottom]`.
   */
  constructor(padding: number | readonly number[]) {
    super(2, padding, { mode: "replicate" });
  }
}

/** The border's elements repeated around the last three axes. */
export class ReplicationPad3d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 6: `[left, right, top, bottom, front, back]`.
   */
  constructor(padding: number | readonly number[]) {
    super(3, padding, { mode: "replicate" });
  }
}

/** Elements of the other end around the last axis. */
export class CircularPad1d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 2: `[left, right]`.
   */
  constructor(padding: number | readonly number[]) {
    super(1, padding, { mode: "circular" });
  }
}

/** Elements of the other end around the last two axes. */
export class CircularPad2d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 4: `[left, right, top, bottom]`.
   */
  constructor(padding: number | readonly number[]) {
    super(2, padding, { mode: "circular" });
  }
}

/** Elements of the other end around the last three axes. */
export class CircularPad3d extends Pad {
  /**
   * Makes the layer.
   *
   * @param padding One number for all sides, or 6: `[left, right, top, bottom, front, back]`.
   */
  constructor(padding: number | readonly number[]) {
    super(3, padding, { mode: "circular" });
  }
}

markTransient(
  ZeroPad1d,
  ZeroPad2d,
  ZeroPad3d,
  ConstantPad1d,
  ConstantPad2d,
  ConstantPad3d,
  ReflectionPad1d,
  ReflectionPad2d,
  ReflectionPad3d,
  ReplicationPad1d,
  ReplicationPad2d,
  ReplicationPad3d,
  CircularPad1d,
  CircularPad2d,
  CircularPad3d,
);
