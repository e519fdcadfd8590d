// Bar charts: what is drawn where, and bad input.
import { barChart } from "@dinograd/dinograd";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";

/** Left end and width of the bars, in order. */
function bars(svg: string): [number, number][] {
  return [...svg.matchAll(/<rect x="([\d.-]+)" y="[\d.-]+" width="([\d.]+)" height="9"/g)].map((
    [, x, width],
  ) => [Number(x), Number(width)]);
}

Deno.test("barChart() draws bars from 0 in the proportion of their values, gaps, names and values", () => {
  const svg = barChart({
    title: "a < b",
    xLabel: "ratio",
    categories: ["one & two", "three"],
    series: [{ name: "first", values: [1, 2] }, { name: "second", values: [NaN, 0.512], color: "red" }],
    reference: 1,
  });
  const drawn = bars(svg);
  assertEquals(drawn.length, 3);
  assert(drawn.every(([x]) => x === drawn[0][0]), "all start at 0");
  assert(Math.abs(drawn[1][1] / drawn[0][1] - 2) < 1e-3 && Math.abs(drawn[2][1] / drawn[0][1] - 0.512) < 1e-3);
  for (const text of ["a &lt; b", "one &amp; two", ">three<", ">first<", ">second<", ">0.51<", 'fill="red"', "stroke-dasharray"]) {
    assertStringIncludes(svg, text);
  }
});

Deno.test("barChart() draws negative values, zeros and nothing at all", () => {
  const [[from, length]] = bars(barChart({ categories: ["a", "b"], series: [{ values: [-1, 1] }] }));
  const [, [zero]] = bars(barChart({ categories: ["a", "b"], series: [{ values: [-1, 1] }] }));
  assert(Math.abs(from + length - zero) < 0.11, "a negative bar ends at 0");
  for (const values of [[0], [NaN], [Infinity], [1e-12], [-3]]) {
    for (const reference of [undefined, NaN, 1]) {
      const svg = barChart({ categories: ["x".repeat(500)], series: [{ values }], reference });
      assert(!/NaN|Infinity|undefined/.test(svg), `${values}`);
    }
  }
  assert(!/NaN/.test(barChart({ categories: ["a"], series: [] })));
});

Deno.test("barChart() refuses what does not fit", () => {
  assertThrows(() => barChart({ categories: [], series: [] }), RangeError, "at least one category");
  assertThrows(
    () => barChart({ categories: ["a"], series: [{ name: "s", values: [1, 2] }] }),
    RangeError,
    '"s" has 2 values for 1 categories',
  );
});
