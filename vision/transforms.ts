/**
 * Changes to pictures, for single ones `[C, H, W]` and whole batches `[N, C, H, W]`; in a batch each picture draws for itself.
 *
 * @module
 */
import { checkSeed, freshSeed, Random } from "../data/random.ts";
import { workerInfo } from "../data/worker_info.ts";
import { ShapeError } from "../ffi/errors.ts";
import { flip, tensor, where, zeros } from "../ops/mod.ts";
import { checkFloat, checkTensor } from "../ops/native.ts";
import { withContext } from "../tensor/context.ts";
import { textOf } from "../tensor/shape.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A change to a picture or a batch of them. */
export interface Transform {
  /** The changed picture or batch, a tensor of its own or the input itself. */
  call(x: Tensor): Tensor;
}

function checkImage(x: Tensor, op: string): void {
  checkTensor(x, op, "the input");
  if (x.rank !== 3 && x.rank !== 4) throw new ShapeError(`${op}: takes [C, H, W] or [N, C, H, W], got ${textOf(x.shape)}`);
}

function checkProbability(p: number, op: string): void {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`${op}: the probability must be from 0 to 1, got ${p}`);
}

/** Runs `fn` without recording and frees what it leaves behind. */
function quietly(fn: () => Tensor): Tensor {
  return withContext({ grad: false }, () => scope(fn));
}

/** Where the random numbers of a transform stand. */
export interface RandomTransformState {
  /** The state of its generator. */
  random: number[];
}

/** Random numbers of a transform: by seed, and by worker and epoch in the workers of a loader. */
export abstract class RandomTransform {
  readonly #seed: number;
  #random: Random | null = null;

  /** `op` is the name in errors. */
  constructor(seed: number | undefined, op: string) {
    if (seed !== undefined) checkSeed(seed, op);
    this.#seed = seed ?? freshSeed();
  }
  /** Its numbers. */
  protected get random(): Random {
    const worker = workerInfo();
    return this.#random ??= worker === null ? new Random(this.#seed) : new Random(this.#seed, worker.seed, worker.epoch, worker.id);
  }
  /** Where its random numbers stand, for checkpoints. */
  stateDict(): RandomTransformState {
    return { random: this.random.getState() };
  }
  /** Goes on where {@linkcode RandomTransform.stateDict} was called. @throws {RangeError} If that was not it. */
  loadStateDict(state: RandomTransformState): void {
    this.random.setState(state?.random);
  }
}

/** One transform after the other. */
export class Compose implements Transform {
  readonly #transforms: readonly Transform[];

  /**
   * Joins transforms.
   *
   * @param transforms The first is applied first.
   */
  constructor(transforms: readonly Transform[]) {
    this.#transforms = transforms;
  }
  /** The input changed by all. */
  call(x: Tensor): Tensor {
    return quietly(() => this.#transforms.reduce((y, transform) => transform.call(y), x));
  }
  /** The states of the random transforms inside, by position. */
  stateDict(): Record<string, unknown> {
    const entries = [...this.#transforms.entries()].filter(([, it]) => it instanceof RandomTransform || it instanceof Compose);
    return Object.fromEntries(entries.map(([i, it]) => [i, (it as RandomTransform | Compose).stateDict()]));
  }
  /** Goes on where {@linkcode Compose.stateDict} was called. @throws {RangeError} If the transforms were others. */
  loadStateDict(state: Record<string, unknown>): void {
    const own = Object.keys(this.stateDict()).join(", "), given = Object.keys(state ?? {}).join(", ");
    if (own !== given) throw new RangeError(`Compose: the state is that of random transforms at [${given}], here they are at [${own}]`);
    for (const [i, it] of Object.entries(state)) (this.#transforms[Number(i)] as RandomTransform | Compose).loadStateDict(it as never);
  }
}

/** uint8 pictures to float32 from 0 to 1; other dtypes are converted and multiplied by `scale`. */
export class ToFloat implements Transform {
  readonly #scale: number;

  /**
   * Multiplies by `scale`.
   *
   * @param scale What the values are multiplied by. Default 1 / 255.
   */
  constructor(scale: number = 1 / 255) {
    this.#scale = scale;
  }
  /** float32 values. */
  call(x: Tensor): Tensor {
    checkTensor(x, "ToFloat", "the input");
    return quietly(() => x.to("float32").mul(this.#scale));
  }
}

/** `(x - mean) / std`, per channel or for all. */
export class Normalize implements Transform {
  readonly #mean: readonly number[];
  readonly #std: readonly number[];

  /**
   * Subtracts `mean` and divides by `std`.
   *
   * @param mean One number, or one per channel.
   * @param std The same; above 0.
   */
  constructor(mean: number | readonly number[], std: number | readonly number[]) {
    this.#mean = typeof mean === "number" ? [mean] : mean;
    this.#std = typeof std === "number" ? [std] : std;
    if (this.#mean.length !== this.#std.length || this.#mean.length === 0) {
      throw new ShapeError(`Normalize: ${this.#mean.length} means and ${this.#std.length} deviations, expected as many of both`);
    }
    if (!this.#mean.every(Number.isFinite)) throw new RangeError(`Normalize: the means must be finite, got [${this.#mean}]`);
    if (!this.#std.every((it) => it > 0)) throw new RangeError(`Normalize: the deviations must be above 0, got [${this.#std}]`);
  }
  /** The normalised picture. @throws {DTypeError} For whole numbers: apply {@linkcode ToFloat} first. */
  call(x: Tensor): Tensor {
    checkImage(x, "Normalize");
    checkFloat(x, "Normalize");
    const channels = x.shape[x.rank - 3], count = this.#mean.length;
    if (count !== 1 && count !== channels) {
      throw new ShapeError(`Normalize: ${count} means for the ${channels} channels of ${textOf(x.shape)}`);
    }
    return quietly(() => {
      if (count === 1) return x.sub(this.#mean[0]).div(this.#std[0]);
      const column = (values: readonly number[]): Tensor => tensor(values, { dtype: x.dtype, device: x.device }).reshape([count, 1, 1]);
      return x.sub(column(this.#mean)).div(column(this.#std));
    });
  }
}

/** Left and right exchanged, with a probability. */
export class RandomHorizontalFlip extends RandomTransform implements Transform {
  readonly #p: number;

  /**
   * Flips with probability `p`.
   *
   * @param p Probability. Default 0.5.
   */
  constructor(p = 0.5, options: { seed?: number } = {}) {
    super(options.seed, "RandomHorizontalFlip");
    checkProbability(p, "RandomHorizontalFlip");
    this.#p = p;
  }
  /** The pictures, some of them flipped. */
  call(x: Tensor): Tensor {
    checkImage(x, "RandomHorizontalFlip");
    return quietly(() => {
      if (x.rank === 3) return this.random.uniform() < this.#p ? flip(x, -1) : x;
      const chosen = Array.from({ length: x.shape[0] }, () => this.random.uniform() < this.#p);
      if (!chosen.includes(true)) return x;
      return where(tensor(chosen, { dtype: "bool", device: x.device }).reshape([-1, 1, 1, 1]), flip(x, -1), x);
    });
  }
}

/** How {@linkcode RandomCrop} crops. */
export interface RandomCropOptions {
  /** Pixels added on each side before. Default 0. */
  padding?: number;
  /** Their value. Default 0. */
  fill?: number;
  /** Seed of the positions. Default: the next of `manualSeed`'s generator. */
  seed?: number;
}

/** A part at a random position, of the picture with a border around it. */
export class RandomCrop extends RandomTransform implements Transform {
  readonly #size: readonly [number, number];
  readonly #padding: number;
  readonly #fill: number;

  /**
   * Cuts out parts of `size`.
   *
   * @param size Height and width of the part, or one number for both.
   */
  constructor(size: number | readonly [number, number], options: RandomCropOptions = {}) {
    super(options.seed, "RandomCrop");
    this.#size = typeof size === "number" ? [size, size] : size;
    this.#padding = options.padding ?? 0;
    this.#fill = options.fill ?? 0;
    for (const it of this.#size) {
      if (!Number.isInteger(it) || it < 1) throw new RangeError(`RandomCrop: size must be whole and >= 1, got ${it}`);
    }
    if (!Number.isInteger(this.#padding) || this.#padding < 0) {
      throw new RangeError(`RandomCrop: padding must be a whole number >= 0, got ${this.#padding}`);
    }
  }
  /** The parts. @throws {ShapeError} If they are larger than the picture with its border. */
  call(x: Tensor): Tensor {
    checkImage(x, "RandomCrop");
    const [h, w] = x.shape.slice(-2), [height, width] = this.#size, p = this.#padding;
    if (height > h + 2 * p || width > w + 2 * p) {
      throw new ShapeError(`RandomCrop: ${height} x ${width} does not fit into ${h} x ${w} with a border of ${p}`);
    }
    return quietly(() => {
      const lead = x.shape.slice(0, -2);
      const out = zeros([...lead, height, width], { dtype: x.dtype, device: x.device });
      if (this.#fill !== 0) out.fill_(this.#fill);
      const whole = x.rank === 3 ? [[out, x]] : Array.from({ length: x.shape[0] }, (_, i) => [out.select(0, i), x.select(0, i)]);
      for (const [to, from] of whole) {
        // Position of the part relative to the picture; what is outside stays the border.
        const top = this.random.below(h + 2 * p - height + 1) - p, left = this.random.below(w + 2 * p - width + 1) - p;
        const y0 = Math.max(top, 0),
          x0 = Math.max(left, 0),
          rows = Math.min(top + height, h) - y0,
          columns = Math.min(left + width, w) - x0;
        if (rows <= 0 || columns <= 0) continue;
        to.narrow(1, y0 - top, rows).narrow(2, x0 - left, columns).copy_(from.narrow(1, y0, rows).narrow(2, x0, columns));
      }
      return out;
    });
  }
}

/** How {@linkcode RandomErasing} erases. */
export interface RandomErasingOptions {
  /** Probability for a picture. Default 0.5. */
  p?: number;
  /** Smallest and largest part of the area. Default `[0.02, 0.33]`. */
  area?: readonly [number, number];
  /** Smallest and largest ratio of height to width. Default `[0.3, 3.3]`. */
  ratio?: readonly [number, number];
  /** A number, one per channel, or `"random"` for normally distributed noise per pixel. Default 0. */
  value?: number | readonly number[] | "random";
  /** Seed. Default: the next of `manualSeed`'s generator. */
  seed?: number;
}

/** Erases a random rectangle (Zhong et al. 2017): area and ratio are drawn, the logarithm of the ratio evenly, up to ten times until it fits. */
export class RandomErasing extends RandomTransform implements Transform {
  readonly #p: number;
  readonly #area: readonly [number, number];
  readonly #ratio: readonly [number, number];
  readonly #value: number | readonly number[] | "random";

  /**
   * Erases as the options say.
   *
   * @param options See {@linkcode RandomErasingOptions}.
   */
  constructor(options: RandomErasingOptions = {}) {
    super(options.seed, "RandomErasing");
    const { p = 0.5, area = [0.02, 0.33], ratio = [0.3, 3.3], value = 0 } = options;
    checkProbability(p, "RandomErasing");
    if (!(area[0] > 0 && area[0] <= area[1] && area[1] <= 1)) {
      throw new RangeError(`RandomErasing: area must be two numbers in order, above 0, at most 1, got [${area}]`);
    }
    if (!(ratio[0] > 0 && ratio[0] <= ratio[1] && ratio[1] < Infinity)) {
      throw new RangeError(`RandomErasing: ratio must be two numbers in order, above 0, got [${ratio}]`);
    }
    if (typeof value === "string" && value !== "random") {
      throw new RangeError(`RandomErasing: value must be numbers or "random", got "${value}"`);
    }
    [this.#p, this.#area, this.#ratio, this.#value] = [p, area, ratio, value];
  }
  /** A copy of the pictures, some of them with a rectangle erased; the input itself when none is chosen. */
  call(x: Tensor): Tensor {
    checkImage(x, "RandomErasing");
    const [channels, h, w] = x.shape.slice(-3);
    const value = this.#value;
    if (typeof value === "object" && value.length !== 1 && value.length !== channels) {
      throw new ShapeError(`RandomErasing: ${value.length} values for the ${channels} channels of ${textOf(x.shape)}`);
    }
    if (value === "random") checkFloat(x, "RandomErasing with random values");
    return quietly(() => {
      let out: Tensor | null = null;
      for (let i = 0; i < (x.rank === 3 ? 1 : x.shape[0]); i++) {
        const part = this.random.uniform() < this.#p ? this.#rectangle(h, w) : null;
        if (part === null) continue;
        out ??= x.clone();
        const [top, left, height, width] = part, picture = x.rank === 3 ? out : out.select(0, i);
        const hole = picture.narrow(1, top, height).narrow(2, left, width);
        if (typeof value === "number") hole.fill_(value);
        else if (value !== "random") hole.copy_(tensor(value, { dtype: x.dtype, device: x.device }).reshape([-1, 1, 1]).expand(hole.shape));
        else {
          const noise = Float64Array.from({ length: hole.numel() }, () => this.random.normal());
          hole.copy_(tensor(noise, { dtype: x.dtype, device: x.device }).reshape(hole.shape));
        }
      }
      return out ?? x;
    });
  }

  #rectangle(h: number, w: number): [number, number, number, number] | null {
    const [low, high] = this.#ratio.map(Math.log);
    for (let attempt = 0; attempt < 10; attempt++) {
      const area = this.random.between(...this.#area) * h * w, ratio = Math.exp(this.random.between(low, high));
      const height = Math.round(Math.sqrt(area * ratio)), width = Math.round(Math.sqrt(area / ratio));
      if (height >= 1 && width >= 1 && height < h && width < w) {
        return [this.random.below(h - height + 1), this.random.below(w - width + 1), height, width];
      }
    }
    return null;
  }
}
