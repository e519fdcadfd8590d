/**
 * Einstein summation: products and sums written with one letter an axis.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { scope } from "../tensor/scope.ts";
import { numelOf, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { mul } from "./binary.ts";
import { bmm, mm } from "./matmul.ts";
import { checkTensor } from "./native.ts";
import { sum } from "./reduction.ts";
import { diagonal, expand, permute, reshape } from "./view.ts";

/** A tensor with a label for each axis. An axis under an ellipsis has its distance from the ellipsis' end as label: "0" is its last. */
interface Term {
  readonly x: Tensor;
  readonly labels: readonly string[];
}

/** The labels of one side of the equation; `covered` axes lie under an ellipsis. */
function labelsOf(text: string, covered: number, equation: string): string[] {
  const labels: string[] = [];
  for (let i = 0; i < text.length; i++) {
    if (/[A-Za-z]/.test(text[i])) {
      labels.push(text[i]);
    } else if (text.startsWith("...", i) && !labels.some(isCovered) && !text.includes("...", i + 3)) {
      for (let k = covered - 1; k >= 0; k--) labels.push(String(k));
      i += 2;
    } else {
      throw new ShapeError(`einsum: "${equation}" has an unexpected "${text[i]}" at "${text}"`);
    }
  }
  return labels;
}

function isCovered(label: string): boolean {
  return /[0-9]/.test(label);
}

function termOf(text: string, x: Tensor, equation: string): Term {
  const named = text.replace("...", "").length, ellipsis = text.includes("...");
  if (ellipsis ? x.rank < named : x.rank !== named) {
    throw new ShapeError(`einsum: "${text}" in "${equation}" does not name the axes of ${textOf(x.shape)}`);
  }
  let labels = labelsOf(text, x.rank - named, equation);
  // A letter that occurs twice in one term takes the diagonal of its axes.
  for (let second = 1; second < labels.length; second++) {
    const first = labels.indexOf(labels[second]);
    if (first === second) continue;
    if (x.shape[first] !== x.shape[second]) {
      throw new ShapeError(
        `einsum: "${labels[second]}" stands for sizes ${x.shape[first]} and ${x.shape[second]} in "${text}" of ${textOf(x.shape)}`,
      );
    }
    x = diagonal(x, 0, first, second);
    labels = [...labels.filter((_, i) => i !== first && i !== second), labels[second]];
    second = 0;
  }
  return { x, labels };
}

function resultLabels(explicit: string | undefined, terms: readonly Term[], covered: number, equation: string): string[] {
  const all = terms.flatMap((term) => term.labels);
  if (explicit !== undefined) {
    const labels = labelsOf(explicit, covered, equation);
    labels.forEach((label, i) => {
      if (labels.indexOf(label) !== i) throw new ShapeError(`einsum: "${label}" occurs twice in the result of "${equation}"`);
      if (!all.includes(label)) throw new ShapeError(`einsum: "${label}" in the result of "${equation}" names no axis of an operand`);
    });
    return labels;
  }
  return labelsOf("...", covered, equation);
}

/** Sums `term` over the axes whose label `keep` refuses. */
function reduced(term: Term, keep: (label: string) => boolean): Term {
  const axes = term.labels.flatMap((label, i) => keep(label) ? [] : [i]);
  return axes.length === 0 ? term : { x: sum(term.x, axes, { dtype: term.x.dtype }), labels: term.labels.filter(keep) };
}

/** The axes of `term` in the order of `labels`; those that it lacks get size 1. */
function arranged(term: Term, labels: readonly string[]): Tensor {
  const order = labels.filter((label) => term.labels.includes(label));
  const y = permute(term.x, order.map((label) => term.labels.indexOf(label)));
  if (order.length === labels.length) return y;
  let next = 0;
  return reshape(y, labels.map((label) => order.includes(label) ? y.shape[next++] : 1));
}

/** Product of two terms, summed over the labels that `keep` refuses. */
function contracted(left: Term, right: Term, sizes: ReadonlyMap<string, number>, keep: (label: string) => boolean): Term {
  const size = (label: string): number => sizes.get(label)!;
  const shared = (label: string): boolean => left.labels.includes(label) && right.labels.includes(label);
  const a = reduced(left, (label) => keep(label) || shared(label)), b = reduced(right, (label) => keep(label) || shared(label));
  const batch = a.labels.filter((label) => shared(label) && keep(label)), inner = a.labels.filter((label) => !keep(label));
  const rows = a.labels.filter((label) => !shared(label)), columns = b.labels.filter((label) => !shared(label));
  const labels = [...batch, ...rows, ...columns];
  if (inner.length === 0) return { x: mul(arranged(a, labels), arranged(b, labels)), labels };
  // A label of size 1 in one term broadcasts.
  const matrix = (term: Term, order: readonly string[], shape: readonly number[]): Tensor => {
    const y = arranged(term, order);
    const full = order.map((label, i) => shared(label) ? size(label) : y.shape[i]);
    return reshape(expand(y, full), shape);
  };
  const count = (list: readonly string[], term: Term): number => numelOf(list.map((label) => term.x.shape[term.labels.indexOf(label)]));
  const s = numelOf(batch.map(size)), m = count(rows, a), n = count(columns, b), k = numelOf(inner.map(size));
  const shape = [
    ...batch.map(size),
    ...rows.map((l) => a.x.shape[a.labels.indexOf(l)]),
    ...columns.map((l) => b.x.shape[b.labels.indexOf(l)]),
  ];
  const y = batch.length === 0
    ? mm(matrix(a, [...rows, ...inner], [m, k]), matrix(b, [...inner, ...columns], [k, n]))
    : bmm(matrix(a, [...batch, ...rows, ...inner], [s, m, k]), matrix(b, [...batch, ...inner, ...columns], [s, k, n]));
  return { x: reshape(y, shape), labels };
}

/**
 * Einstein summation (`torch.einsum`): letters name axes; the result is the product of the operands, summed over every letter that the
 * right side of `->` does not name.
 *
 * A letter twice in one operand takes its diagonal; `...` stands for further axes, which broadcast; without `->` the result has the axes of `...`
 * and then the letters that occur once, in alphabetical order. Operands are combined from left to right as batched matrix products.
 *
 * @param equation Such as `"bij,bjk->bik"`. Spaces are ignored.
 * @param operands One tensor for each term left of `->`, of one numeric dtype.
 * @throws {ShapeError} If the equation is malformed, does not fit the operands, or a letter stands for different sizes.
 *
 * @example
 * ```ts
 * import { einsum, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const a = tensor([[1, 2], [3, 4]]);
 * assertEquals(einsum("ii", a).item(), 5); // trace
 * assertEquals(einsum("ij->ji", a).tolist(), [[1, 3], [2, 4]]);
 * assertEquals(einsum("ij,j->i", a, tensor([1, -1])).tolist(), [-1, -1]);
 * ```
 */
export function einsum(equation: string, ...operands: readonly Tensor[]): Tensor {
  if (typeof equation !== "string") throw new TypeError(`einsum: the equation must be a string, got ${typeof equation}`);
  operands.forEach((x, i) => checkTensor(x, "einsum", `operand ${i}`, i > 0 ? operands[0] : undefined));
  const sides = equation.replaceAll(" ", "").split("->"), inputs = sides[0].split(",");
  if (sides.length > 2 || inputs.length !== operands.length || operands.length === 0) {
    throw new ShapeError(`einsum: "${equation}" has ${inputs.length} terms for ${operands.length} operands`);
  }
  return scope(() => {
    const terms = inputs.map((text, i) => termOf(text, operands[i], equation));
    const covered = Math.max(...inputs.map((text, i) => text.includes("...") ? operands[i].rank - text.replace("...", "").length : 0));
    const result = resultLabels(sides[1], terms, covered, equation);
    if (sides[1] === undefined) {
      const letters = inputs.join("").replaceAll(".", "");
      result.push(...[...letters].filter((l) => letters.indexOf(l) === letters.lastIndexOf(l)).sort());
    }
    const sizes = new Map<string, number>();
    for (const { x, labels } of terms) {
      labels.forEach((label, i) => {
        const known = sizes.get(label) ?? 1, size = x.shape[i];
        if (known !== 1 && size !== 1 && known !== size) {
          const what = isCovered(label) ? "an axis under ..." : `"${label}"`;
          throw new ShapeError(`einsum: ${what} stands for sizes ${known} and ${size} in "${equation}"`);
        }
        if (known === 1) sizes.set(label, size);
      });
    }
    let current = terms[0];
    for (let i = 1; i < terms.length; i++) {
      const later = new Set(terms.slice(i + 1).flatMap((term) => term.labels));
      current = contracted(current, terms[i], sizes, (label) => result.includes(label) || later.has(label));
    }
    current = reduced(current, (label) => result.includes(label));
    const y = permute(current.x, result.map((label) => current.labels.indexOf(label)));
    return operands.includes(y) ? y.alias() : y;
  });
}
