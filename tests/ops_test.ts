/**
 * Runs the op table: see `op_table.ts`.
 */
import { assert, assertEquals } from "@std/assert";
import { AutogradError, DisposedError, type DType, getThreads, grad, gradcheck, scope, setThreads, type Tensor, tensor } from "../mod.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";
import { build, type Input, list, type Row, type Sample, weight } from "./op_table.ts";
import { families } from "./table/mod.ts";

type Recorded = {
  outputs: { shape: number[]; dtype: string; values: (number | string | boolean)[] }[];
  grads?: ((number | string)[] | null)[];
};

/** Comparison of a result with recorded values. */
function assertClose(actual: Tensor, values: readonly (number | string | boolean)[], tolerance: number, what: string): void {
  const got = actual.data();
  // Half types round the inputs themselves, so that the error of a sum is relative to its largest terms.
  const half = actual.dtype === "float16" || actual.dtype === "bfloat16";
  const largest = half ? values.reduce<number>((most, v) => typeof v === "number" && Math.abs(v) > most ? Math.abs(v) : most, 1) : 1;
  assertEquals(got.length, values.length, `${what}: number of elements`);
  for (let i = 0; i < got.length; i++) {
    const is = Number(got[i]), should = Number(typeof values[i] === "string" ? String(values[i]).replace("inf", "Infinity") : values[i]);
    const same = Object.is(is, should) || is === should || (Number.isNaN(is) && Number.isNaN(should)) ||
      Math.abs(is - should) <= tolerance * Math.max(largest, Math.abs(should));
    assert(same, `${what}: element ${i} is ${is}, PyTorch gives ${should}`);
  }
}

const halfTolerance: Readonly<Partial<Record<DType, number>>> = { float16: 4e-3, bfloat16: 3e-2 };

/** The scalar that is differentiated: outputs weighted element by element. */
function weighted(outputs: readonly Tensor[]): Tensor {
  return outputs.flatMap((y, k) => {
    if (!y.requiresGrad) return [];
    const w = tensor(Float64Array.from({ length: y.numel() }, (_, i) => weight(i % 1009, k % 4)));
    return [y.reshape([-1]).to("float64").mul(w).sum()];
  }).reduce((a, b) => a.add(b));
}

/** The same elements behind other strides: every second element of a larger tensor, and the axes stored in reverse order. */
function asViews(x: Tensor): Tensor[] {
  if (x.rank === 0) return [x];
  const doubled = x.unsqueeze(-1).expand([...x.shape, 2]).contiguous().select(-1, 0);
  const reversed = x.permute(x.shape.map((_, i) => x.rank - 1 - i)).contiguous().permute(x.shape.map((_, i) => x.rank - 1 - i));
  return x.rank >= 3 ? [doubled, reversed, x.channelsLast()] : [doubled, reversed];
}

function call(row: Row, sample: Sample, inputs: readonly Tensor[]): readonly Tensor[] {
  return list(row.fn(...inputs, ...sample.args ?? []));
}

for (const [family, rows] of Object.entries(families)) {
  const recorded: Record<string, Recorded[]> = JSON.parse(Deno.readTextFileSync(new URL(`fixtures/ops/${family}.json`, import.meta.url)));
  for (const row of rows) {
    const expected = recorded[row.name] ?? [];
    const differentiable = (sample: Sample) => (row.gradient ?? true) && sample.inputs.some((it) => it.grad && it.dtype === "float64");
    const make = (sample: Sample, dtype: DType = "float64", requiresGrad = false) =>
      sample.inputs.map((it: Input) => build(it, dtype, requiresGrad));

    test(`${row.name}() equals PyTorch in every dtype [${device}]`, () => {
      assertEquals(expected.length, row.samples.length, `recorded samples of ${row.name}: run tests/fixtures/record_ops.ts ${family}`);
      row.samples.forEach((sample, n) =>
        scope(() => {
          for (const dtype of ["float64", ...row.dtypes ?? ["float32", "float16", "bfloat16"]] as DType[]) {
            const tolerance = dtype === "float64" ? 1e-9 : dtype === "float32" ? row.tolerance ?? 1e-5 : halfTolerance[dtype] ?? 0;
            const outputs = call(row, sample, make(sample, dtype));
            assertEquals(outputs.length, expected[n].outputs.length);
            outputs.forEach((y, k) => {
              const want = expected[n].outputs[k];
              assertEquals([...y.shape], want.shape, `sample ${n} output ${k}: shape`);
              if (dtype === "float64") assertEquals(y.dtype as string, want.dtype, `sample ${n} output ${k}: dtype`);
              assertClose(y, want.values, tolerance, `sample ${n} output ${k} in ${dtype}`);
            });
          }
        })
      );
    });

    test(`${row.name}() gives the same for views and any number of threads [${device}]`, () => {
      row.samples.forEach((sample, n) =>
        scope(() => {
          const inputs = make(sample);
          const want = call(row, sample, inputs).map((y) => [...y.data()].map(Number));
          inputs.forEach((x, i) => {
            for (const seen of asViews(x)) {
              const outputs = call(row, sample, inputs.map((it, k) => k === i ? seen : it));
              outputs.forEach((y, k) => assertClose(y, want[k], 1e-12, `sample ${n}, input ${i} as a view with strides ${seen.strides}`));
            }
          });
          if (device.type !== "cpu") return;
          const threads = getThreads();
          setThreads(1);
          const single = call(row, sample, inputs).map((y) => [...y.data()].map(Number));
          setThreads(threads);
          assertEquals(single, want, `sample ${n} with one thread`);
        })
      );
    });

    if (row.samples.some(differentiable)) {
      test(`${row.name}() differentiates [${device}]`, () => {
        row.samples.forEach((sample, n) =>
          scope(() => checkGradients(row, sample, expected[n], `sample ${n}`, make(sample, "float64", true)))
        );
      });
    }

    test(`${row.name}() answers bad input [${device}]`, () => {
      for (const bad of row.errors ?? []) {
        assertThrows(() => row.fn(...bad.inputs.map((it) => build(it)), ...bad.args ?? []), bad.error, bad.message);
      }
      const sample = row.samples[0];
      sample.inputs.forEach(({ optional }, i) => {
        const inputs = make(sample);
        inputs[i].dispose();
        assertThrows(() => call(row, sample, inputs), DisposedError, "disposed");
        if (optional) return;
        // deno-lint-ignore no-explicit-any
        assertThrows(() => call(row, sample, make(sample).map((x, k) => k === i ? null as any : x)), TypeError);
      });
    });
  }
}

function checkGradients(row: Row, sample: Sample, expected: Recorded, what: string, inputs: Tensor[]): void {
  const leaves = inputs.filter((x) => x.requiresGrad);
  if (leaves.length === 0 || expected.grads === undefined) return;
  const outputs = call(row, sample, inputs);
  weighted(outputs).backward();
  inputs.forEach((x, i) => {
    if (!x.requiresGrad) return;
    const want = expected.grads![i];
    if (want === null) assert(x.grad === null || x.grad.ne(0).sum().item() === 0, `${what}: input ${i} has a gradient, PyTorch gives none`);
    else assertClose(x.grad!, want, 1e-8, `${what}: gradient of input ${i}`);
  });
  // A second backward accumulates, and an input used twice gets both gradients.
  const once = leaves.map((x) => x.grad === null ? null : [...x.grad.data()].map(Number));
  const again = call(row, sample, inputs), twin = call(row, sample, inputs);
  weighted(again).add(weighted(twin)).backward();
  leaves.forEach((x, i) => {
    if (once[i] !== null) assertClose(x.grad!, once[i]!.map((v) => 3 * v), 1e-8, `${what}: accumulated gradient of leaf ${i}`);
    x.grad?.dispose();
    x.grad = null;
  });
  if (sample.kink || leaves.some((x) => x.numel() > 200)) return;
  gradcheck((...all) => call(row, sample, all), inputs);
  const outputWeights = call(row, sample, inputs).filter((y) => y.requiresGrad).map((y, k) =>
    tensor(Float64Array.from({ length: y.numel() }, (_, i) => weight(i % 1009, k % 4)), { requiresGrad: true })
  );
  // The derivative as a function of the inputs and of the gradient that flows in.
  const derivative = (...all: Tensor[]): Tensor[] => {
    const own = all.slice(0, inputs.length), flowing = all.slice(inputs.length);
    const ys = call(row, sample, own).filter((y) => y.requiresGrad);
    const total = ys.map((y, k) => y.reshape([-1]).to("float64").mul(flowing[k]).sum()).reduce((a, b) => a.add(b));
    const results = grad(total, own.filter((x) => x.requiresGrad), { createGraph: true, allowUnused: true });
    return results.filter((g) => g !== null && g.requiresGrad) as Tensor[];
  };
  if (row.second ?? true) gradcheck(derivative, [...inputs, ...outputWeights]);
  else assertThrows(() => weighted(derivative(...inputs, ...outputWeights)).backward(), AutogradError, "second derivative");
}
