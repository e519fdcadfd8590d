/**
 * State dicts: tensors by name, and copying them into a module.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { FormatError, ShapeError } from "../ffi/errors.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** Tensors by PyTorch's dotted names, as `layer1.0.weight`. */
export type StateDict = Record<string, Tensor>;

/** What did not match when a state dict was loaded without `strict`. */
export interface LoadResult {
  /** Names that the module has and the state lacks. */
  readonly missingKeys: string[];
  /** Names that the state has and the module lacks. */
  readonly unexpectedKeys: string[];
}

const WRAPPED = "module.";

/** Without the `module.` that PyTorch puts before all names when a module wrapped for several devices is saved, unless it is meant. */
function withoutPrefix(state: ReadonlyMap<string, Tensor>, targets: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
  const wrapped = (names: Iterable<string>) => [...names].filter((it) => it.startsWith(WRAPPED)).length;
  if (state.size === 0 || wrapped(state.keys()) < state.size || wrapped(targets.keys()) > 0) return state;
  return new Map([...state].map(([name, x]) => [name.slice(WRAPPED.length), x]));
}

/** Copies `state` into `targets`, all of it or nothing. */
export function loadInto(
  targets: ReadonlyMap<string, Tensor>,
  state: Readonly<StateDict> | ReadonlyMap<string, Tensor>,
  strict: boolean,
  name: string,
): LoadResult {
  if (typeof state !== "object" || state === null) {
    throw new TypeError(`loadStateDict: the state must be an object or a Map of tensors, got ${state === null ? "null" : typeof state}`);
  }
  const given = withoutPrefix(new Map<string, Tensor>(state instanceof Map ? state : Object.entries(state)), targets);
  for (const [key, value] of given) {
    if (!(value instanceof Tensor)) {
      throw new TypeError(`loadStateDict: "${key}" must be a tensor, got ${value === null ? "null" : typeof value}`);
    }
    value.checkAlive("loadStateDict");
  }
  const missingKeys = [...targets.keys()].filter((key) => !given.has(key));
  const unexpectedKeys = [...given.keys()].filter((key) => !targets.has(key));
  const misfits = [...targets].filter(([key, target]) => given.has(key) && !sameShape(given.get(key)!.shape, target.shape))
    .map(([key, target]) => `"${key}" has shape ${textOf(given.get(key)!.shape)} in the state, expected ${textOf(target.shape)}`);
  const refused = strict && (missingKeys.length > 0 || unexpectedKeys.length > 0);
  if (refused || misfits.length > 0) {
    const parts = [...misfits];
    if (refused && missingKeys.length > 0) parts.push(`missing: ${listed(missingKeys)}`);
    if (refused && unexpectedKeys.length > 0) parts.push(`unexpected: ${listed(unexpectedKeys)}`);
    const message = `loadStateDict: the state does not fit ${name}: ${parts.join("; ")}`;
    throw refused ? new FormatError(message) : new ShapeError(message);
  }
  noGrad(() => {
    for (const [key, target] of targets) {
      const source = given.get(key);
      if (source === undefined || source === target) continue;
      target.copy_(source);
    }
  });
  return { missingKeys, unexpectedKeys };
}

function listed(keys: readonly string[]): string {
  const shown = keys.slice(0, 20).map((key) => `"${key}"`).join(", ");
  return keys.length > 20 ? `${shown} and ${keys.length - 20} more` : shown;
}
