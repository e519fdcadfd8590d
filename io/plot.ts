/**
 * Line charts as SVG.
 *
 * @module
 */

/** A line of a chart. */
export interface Series {
  /** Name in the legend; without one it is not listed. */
  name?: string;
  /** Positions along the horizontal axis. */
  x: ArrayLike<number>;
  /** Values; those that are not finite leave a gap. */
  y: ArrayLike<number>;
  /** CSS colour. Default: the next of a palette that colour-blind readers can tell apart. */
  color?: string;
  /** Width of the line. Default 2. */
  width?: number;
  /** From 0 to 1. Default 1. */
  opacity?: number;
  /** Dots at the points. Default `false`. */
  markers?: boolean;
  /** Axis that the values belong to. Default `"left"`. */
  axis?: "left" | "right";
}

/** What {@linkcode lineChart} draws. */
export interface Chart {
  /** The lines. */
  series: readonly Series[];
  /** Above the chart. */
  title?: string;
  /** Under the horizontal axis. */
  xLabel?: string;
  /** Beside the left axis. */
  yLabel?: string;
  /** Beside the right axis. */
  rightLabel?: string;
  /** Bounds of the horizontal axis. Default: those of the positions. */
  xRange?: readonly [number, number];
  /** Bounds of the left axis. Default: those of the values, rounded. */
  yRange?: readonly [number, number];
  /** Bounds of the right axis. */
  rightRange?: readonly [number, number];
  /** Width in pixels. Default 800. */
  width?: number;
  /** Height in pixels. Default 450. */
  height?: number;
}

/** Colours that colour-blind readers can tell apart. */
export const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/** Numbers at even, round distances (1, 2 or 5 times a power of ten) that cover `low` to `high` with about `count` steps. */
export function ticks(low: number, high: number, count: number, cover = true): number[] {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((it) => it * power >= rough * 0.999)! * power;
  const first = cover ? Math.floor(low / step + 1e-9) : Math.ceil(low / step - 1e-9);
  const last = cover ? Math.ceil(high / step - 1e-9) : Math.floor(high / step + 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(Math.min(digits, 100))));
}

function bounds(values: Iterable<number>): [number, number] {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  return low < high ? [low, high] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
}

interface Scale {
  readonly marks: readonly number[];
  at(value: number): number;
}

function scale([low, high]: readonly [number, number], marks: number[], from: number, to: number): Scale {
  return { marks, at: (value) => from + (value - low) / (high - low) * (to - from) };
}

const escapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** Text as SVG takes it. */
export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => escapes[c]);
}

/** A number under an axis. */
export function label(value: number): string {
  return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential() : value.toLocaleString("en", {
    maximumFractionDigits: 6,
  });
}

function path(line: Series, x: Scale, y: Scale): string {
  let d = "", pen = false;
  for (let i = 0; i < Math.min(line.x.length, line.y.length); i++) {
    const drawn = Number.isFinite(line.x[i]) && Number.isFinite(line.y[i]);
    if (drawn) d += `${pen ? "L" : "M"}${x.at(line.x[i]).toFixed(1)} ${y.at(line.y[i]).toFixed(1)}`;
    pen = drawn;
  }
  return d;
}

/**
 * A line chart with axes, grid, legend and title, as the text of an SVG file.
 *
 * @throws {RangeError} If a line has not as many positions as values.
 *
 * @example
 * ```ts
 * import { lineChart } from "@dinograd/dinograd";
 * import { assertStringIncludes } from "@std/assert";
 * const svg = lineChart({ title: "Loss", series: [{ name: "train", x: [0, 1, 2], y: [3, 1, 0.5] }] });
 * assertStringIncludes(svg, "<svg");
 * ```
 */
export function lineChart(chart: Chart): string {
  const { width = 800, height = 450, series } = chart;
  for (const line of series) {
    if (line.x.length !== line.y.length) {
      throw new RangeError(`lineChart: "${line.name ?? ""}" has ${line.x.length} positions and ${line.y.length} values`);
    }
  }
  const onRight = series.filter((it) => it.axis === "right"), onLeft = series.filter((it) => it.axis !== "right");
  const box = { left: 70, right: width - (onRight.length > 0 ? 70 : 25), top: chart.title ? 74 : 44, bottom: height - 56 };
  const across = chart.xRange ?? bounds(series.flatMap((it) => Array.from(it.x)));
  const x = scale(across, ticks(...across, width / 90, false), box.left, box.right);
  const vertical = (lines: readonly Series[], range: readonly [number, number] | undefined): Scale => {
    const marks = ticks(...(range ?? bounds(lines.flatMap((it) => Array.from(it.y)))), height / 70, range === undefined);
    return scale(range ?? [marks[0], marks[marks.length - 1]], marks, box.bottom, box.top);
  };
  const left = vertical(onLeft, chart.yRange), right = onRight.length > 0 ? vertical(onRight, chart.rightRange) : null;
  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="13" fill="#333">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<clipPath id="box"><rect x="${box.left - 4}" y="${box.top - 4}" width="${box.right - box.left + 8}" height="${
      box.bottom - box.top + 8
    }"/></clipPath>`,
  ];
  if (chart.title) out.push(`<text x="${box.left}" y="28" font-size="18" font-weight="600">${escaped(chart.title)}</text>`);

  out.push(`<g stroke="#e4e4e4">`);
  for (const mark of left.marks) out.push(`<path d="M${box.left} ${left.at(mark).toFixed(1)}H${box.right}"/>`);
  out.push(`</g><g stroke="#888" fill="none"><path d="M${box.left} ${box.top}V${box.bottom}H${box.right}"/>`);
  if (right) out.push(`<path d="M${box.right} ${box.top}V${box.bottom}"/>`);
  for (const mark of x.marks) out.push(`<path d="M${x.at(mark).toFixed(1)} ${box.bottom}v5"/>`);
  out.push(`</g><g text-anchor="middle">`);
  for (const mark of x.marks) out.push(`<text x="${x.at(mark).toFixed(1)}" y="${box.bottom + 20}">${label(mark)}</text>`);
  if (chart.xLabel) out.push(`<text x="${(box.left + box.right) / 2}" y="${height - 12}">${escaped(chart.xLabel)}</text>`);
  const middle = (box.top + box.bottom) / 2;
  if (chart.yLabel) out.push(`<text transform="translate(20 ${middle}) rotate(-90)">${escaped(chart.yLabel)}</text>`);
  if (chart.rightLabel) out.push(`<text transform="translate(${width - 14} ${middle}) rotate(-90)">${escaped(chart.rightLabel)}</text>`);
  out.push(`</g><g text-anchor="end">`);
  for (const mark of left.marks) out.push(`<text x="${box.left - 8}" y="${(left.at(mark) + 4).toFixed(1)}">${label(mark)}</text>`);
  out.push("</g>");
  for (const mark of right?.marks ?? []) {
    out.push(`<text x="${box.right + 8}" y="${(right!.at(mark) + 4).toFixed(1)}">${label(mark)}</text>`);
  }

  out.push(`<g clip-path="url(#box)" fill="none" stroke-linejoin="round" stroke-linecap="round">`);
  const colors = series.map((line, i) => escaped(line.color ?? palette[i % palette.length]));
  series.forEach((line, i) => {
    const y = line.axis === "right" ? right! : left, opacity = line.opacity ?? 1;
    out.push(`<path d="${path(line, x, y)}" stroke="${colors[i]}" stroke-width="${line.width ?? 2}" stroke-opacity="${opacity}"/>`);
    if (!line.markers) return;
    for (let k = 0; k < line.x.length; k++) {
      if (!Number.isFinite(line.x[k]) || !Number.isFinite(line.y[k])) continue;
      const at = `cx="${x.at(line.x[k]).toFixed(1)}" cy="${y.at(line.y[k]).toFixed(1)}"`;
      out.push(`<circle ${at} r="4" fill="${colors[i]}" stroke="#fff"/>`);
    }
  });
  out.push("</g>");

  let at = box.left;
  series.forEach((line, i) => {
    if (!line.name) return;
    const y = box.top - 18;
    out.push(
      `<path d="M${at} ${y - 4}h22" stroke="${colors[i]}" stroke-width="3"/><text x="${at + 28}" y="${y}">${escaped(line.name)}</text>`,
    );
    at += 56 + line.name.length * 7;
  });
  out.push("</svg>");
  return out.join("\n") + "\n";
}
