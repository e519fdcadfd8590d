/**
 * Bar charts as SVG.
 *
 * @module
 */
import { escaped, label, palette, ticks } from "./plot.ts";

/** Bars of one colour, one for each category. */
export interface BarSeries {
  /** Name in the legend; without one it is not listed. */
  name?: string;
  /** A value for each category; those that are not finite leave a gap. */
  values: ArrayLike<number>;
  /** CSS colour. Default: the next of a palette that colour-blind readers can tell apart. */
  color?: string;
}

/** What {@linkcode barChart} draws. */
export interface BarChart {
  /** Names of the categories, from top to bottom. */
  categories: readonly string[];
  /** The bars of each category, from top to bottom. */
  series: readonly BarSeries[];
  /** Above the chart. */
  title?: string;
  /** Under the horizontal axis. */
  xLabel?: string;
  /** A value that is marked by a line, such as 1 for ratios. */
  reference?: number;
  /** Width in pixels. Default 800; the height follows from the number of bars. */
  width?: number;
}

const bar = 11, gap = 9, glyph = 6.6;

/**
 * Horizontal bars that start at 0, in groups, with the value beside each, as the text of an SVG file.
 *
 * @throws {RangeError} If a series has not a value for each category, or if there are no categories.
 *
 * @example
 * ```ts
 * import { barChart } from "@dinograd/dinograd";
 * import { assertStringIncludes } from "@std/assert";
 * const svg = barChart({ categories: ["relu", "exp"], series: [{ name: "ratio", values: [0.2, 0.1] }], reference: 1 });
 * assertStringIncludes(svg, ">0.2</text>");
 * ```
 */
export function barChart(chart: BarChart): string {
  const { categories, series, width = 800, reference } = chart;
  if (categories.length === 0) throw new RangeError("barChart: there must be at least one category, got none");
  for (const { name, values } of series) {
    if (values.length !== categories.length) {
      throw new RangeError(`barChart: "${name ?? ""}" has ${values.length} values for ${categories.length} categories`);
    }
  }
  const finite = series.flatMap(({ values }) => Array.from(values)).filter(Number.isFinite);
  if (reference !== undefined && Number.isFinite(reference)) finite.push(reference);
  const low = finite.reduce((a, b) => Math.min(a, b), 0), high = finite.reduce((a, b) => Math.max(a, b), 0);
  const names = Math.min(width * 0.55, 24 + glyph * Math.max(...categories.map((it) => it.length)));
  const marks = ticks(low, high > low ? high : 1, Math.max(2, (width - names) / 90));
  const left = names, right = width - 50, [first, last] = [marks[0], marks[marks.length - 1]];
  const at = (value: number) => left + (value - first) / (last - first) * (right - left);
  const group = Math.max(1, series.length) * bar + gap, top = chart.title ? 74 : 44;
  const bottom = top + categories.length * group + gap / 2, height = bottom + 56;
  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#333">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
  ];
  if (chart.title) out.push(`<text x="16" y="28" font-size="16" font-weight="600">${escaped(chart.title)}</text>`);
  out.push(`<g stroke="#e4e4e4">`);
  for (const mark of marks) out.push(`<path d="M${at(mark).toFixed(1)} ${top}V${bottom}"/>`);
  out.push(`</g><g text-anchor="middle">`);
  for (const mark of marks) out.push(`<text x="${at(mark).toFixed(1)}" y="${bottom + 18}">${label(mark)}</text>`);
  out.push("</g>");
  if (chart.xLabel) out.push(`<text x="${width / 2}" y="${height - 12}" text-anchor="middle">${escaped(chart.xLabel)}</text>`);

  const colors = series.map(({ color }, i) => escaped(color ?? palette[i % palette.length])), room = Math.floor((names - 24) / glyph);
  categories.forEach((category, i) => {
    const y = top + gap / 2 + i * group, middle = y + (series.length * bar) / 2 + 4;
    const shown = category.length > room + 2 ? `${category.slice(0, room - 1)}…` : category;
    out.push(`<text x="${left - 8}" y="${middle.toFixed(1)}" text-anchor="end">${escaped(shown)}</text>`);
    series.forEach(({ values }, k) => {
      const value = values[i];
      if (!Number.isFinite(value)) return;
      const from = Math.min(at(0), at(value)), length = Math.abs(at(value) - at(0)), y0 = y + k * bar;
      out.push(
        `<rect x="${from.toFixed(1)}" y="${y0}" width="${length.toFixed(1)}" height="${bar - 2}" fill="${colors[k]}"/>` +
          `<text x="${(from + length + 4).toFixed(1)}" y="${y0 + bar - 2}" font-size="10">${label(Number(value.toPrecision(2)))}</text>`,
      );
    });
  });
  out.push(`<path d="M${at(0).toFixed(1)} ${top}V${bottom}" stroke="#888"/>`);
  if (reference !== undefined && Number.isFinite(reference)) {
    out.push(`<path d="M${at(reference).toFixed(1)} ${top}V${bottom}" stroke="#333" stroke-dasharray="4 3"/>`);
  }
  let x = 16;
  series.forEach(({ name }, k) => {
    if (!name) return;
    const y = top - 18;
    out.push(
      `<rect x="${x}" y="${y - 10}" width="14" height="10" fill="${colors[k]}"/><text x="${x + 20}" y="${y}">${escaped(name)}</text>`,
    );
    x += 44 + name.length * 7;
  });
  out.push("</svg>");
  return out.join("\n") + "\n";
}
