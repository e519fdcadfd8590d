/**
 * What the benchmarks print and draw.
 *
 * @module
 */
import { barChart } from "../mod.ts";
import type { Column, Result, Side } from "./measure.ts";
import type { Peak } from "./peak/peak.ts";

/** On what it was measured; the first line of `--json`. */
export interface Machine {
  date: string;
  processor: string;
  deno: string;
  pytorch: string | null;
  tensorflow: string | null;
  threads: number;
  rounds: number;
  /** Runnable programs in the last minute, before the benchmarks began: see {@linkcode busy}. */
  load: number;
  peak: Peak | null;
}

/** Whether other programs take a part of the machine that matters. */
export function busy(machine: Machine): boolean {
  return machine.load > 0.7;
}

/** Nanoseconds from core to core and back beyond which they are those of two processors, or of parts of one without a common cache. */
const FAR = 150;

/** Names of the columns. */
export const titles: Readonly<Record<Column, string>> = {
  pytorch: "PyTorch",
  channels_last: "channels-last",
  compile: "torch.compile",
  tensorflow: "TensorFlow.js",
};

function time(ms: number): string {
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(3)} ms`;
}

function cell(side: Side | undefined): string {
  if (side === undefined) return "";
  return "why" in side ? "*" : `${time(side.ms)} ${side.ratio.toFixed(2).padStart(5)}`;
}

/** The head of the table. */
export function head(columns: readonly Column[], scaling: boolean): string {
  const names = columns.map((it) => (it === "tensorflow" ? "TF.js" : titles[it]).padStart(16)).join(" ");
  return `${"row".padEnd(30)} ${"dinograd".padStart(9)} ${names}${
    scaling ? ` ${"1 thread".padStart(9)} speedup PyTorch's` : ""
  }  rate, of peak`;
}

/** A row of the table, and a line for each column that cannot do it. */
export function line(result: Result, columns: readonly Column[]): string {
  const { dinograd, sides, scaling } = result;
  let out = `${result.name.padEnd(30)} ${time(dinograd.ms).padStart(9)} ${columns.map((it) => cell(sides[it]).padStart(16)).join(" ")}`;
  if (scaling) {
    const other = scaling.pytorch === undefined ? "" : scaling.pytorch.speedup.toFixed(2);
    out += ` ${time(scaling.dinograd.ms).padStart(9)} ${scaling.dinograd.speedup.toFixed(2).padStart(7)} ${other.padStart(9)}`;
  }
  if (result.gflops !== undefined) out += `  ${result.gflops.toFixed(0)} GFLOP/s`;
  if (result.gbs !== undefined) out += `  ${result.gbs.toFixed(1)} GB/s`;
  if (result.of_peak !== undefined) out += ` ${(result.of_peak * 100).toFixed(0)} %`;
  const apart = Math.max(...(result.apart ?? []).map(Number));
  if (apart > FAR) out += `  cores ${apart} ns apart`;
  for (const side of Object.values(sides)) if ("why" in side) out += `\n  * ${side.why}`;
  return out;
}

/** The ratios as horizontal bars, an SVG file. */
export function chart(results: readonly Result[], columns: readonly Column[], machine: Machine): string {
  const drawn = columns.filter((it) => results.some(({ sides }) => sides[it] !== undefined && !("why" in sides[it]!)));
  const versions = [["PyTorch", machine.pytorch], ["TensorFlow.js", machine.tensorflow]].filter(([, version]) => version !== null);
  return barChart({
    title: `Time of dinograd / time of the other, ${machine.threads} ${
      machine.threads === 1 ? "thread" : "threads"
    }, float32: left of 1 dinograd is faster`,
    xLabel: `ratio of medians (${machine.processor}, ${versions.map((it) => it.join(" ")).join(", ")}, ${machine.date}${
      busy(machine) ? ", other programs running" : ""
    })`,
    categories: results.map(({ what }) => what),
    series: drawn.map((it) => ({
      name: it === "pytorch" ? "PyTorch, default layout" : it === "channels_last" ? "PyTorch, channels-last" : titles[it],
      values: results.map(({ sides }) => {
        const side = sides[it];
        return side === undefined || "why" in side ? NaN : side.ratio;
      }),
    })),
    reference: 1,
    width: 1000,
  });
}
