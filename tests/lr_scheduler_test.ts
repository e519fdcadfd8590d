/** Schedulers against rates recorded from PyTorch (`fixtures/record_optim.py`). */
import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { FormatError, optim, zeros } from "../mod.ts";

const recorded: { schedules: Record<string, number[][]>; metrics: string[] } = JSON.parse(
  Deno.readTextFileSync(new URL("fixtures/optim.json", import.meta.url)),
);

// deno-lint-ignore no-explicit-any
type Any = optim.Optimizer<any>;
type Step = { step(metric?: number): void };

const schedules: Record<string, (o: Any) => optim.LRScheduler> = {
  "LambdaLR": (o) => new optim.LambdaLR(o, (e) => 0.95 ** e),
  "LambdaLR two": (o) => new optim.LambdaLR(o, [(e) => 0.95 ** e, (e) => 1 / (1 + e)]),
  "MultiplicativeLR": (o) => new optim.MultiplicativeLR(o, (e) => 0.9 + 0.01 * e),
  "StepLR": (o) => new optim.StepLR(o, 3),
  "StepLR gamma": (o) => new optim.StepLR(o, 4, { gamma: 0.5 }),
  "MultiStepLR": (o) => new optim.MultiStepLR(o, [8, 2, 8]),
  "ConstantLR": (o) => new optim.ConstantLR(o, { factor: 0.25, totalIters: 4 }),
  "LinearLR": (o) => new optim.LinearLR(o),
  "LinearLR down": (o) => new optim.LinearLR(o, { startFactor: 1, endFactor: 0.1, totalIters: 8 }),
  "ExponentialLR": (o) => new optim.ExponentialLR(o, 0.8),
  "PolynomialLR": (o) => new optim.PolynomialLR(o, { totalIters: 9, power: 2 }),
  "CosineAnnealingLR": (o) => new optim.CosineAnnealingLR(o, 4, { etaMin: 0.01 }),
  "CosineAnnealingWarmRestarts": (o) => new optim.CosineAnnealingWarmRestarts(o, 3, { tMult: 2, etaMin: 0.001 }),
  "CosineAnnealingWarmRestarts plain": (o) => new optim.CosineAnnealingWarmRestarts(o, 4),
  "OneCycleLR": (o) => new optim.OneCycleLR(o, { maxLr: 0.8, totalSteps: 14 }),
  "OneCycleLR linear": (o) =>
    new optim.OneCycleLR(o, {
      maxLr: [0.8, 0.4],
      epochs: 7,
      stepsPerEpoch: 2,
      annealStrategy: "linear",
      threePhase: true,
      pctStart: 0.4,
      divFactor: 10,
    }),
  "OneCycleLR Adam": (o) => new optim.OneCycleLR(o, { maxLr: 0.8, totalSteps: 14, baseMomentum: 0.7 }),
  "SequentialLR": (o) =>
    new optim.SequentialLR(o, [new optim.ConstantLR(o, { factor: 0.1, totalIters: 2 }), new optim.ExponentialLR(o, 0.9)], [4]),
  "SequentialLR three": (o) =>
    new optim.SequentialLR(
      o,
      [new optim.LinearLR(o, { startFactor: 0.1, totalIters: 3 }), new optim.CosineAnnealingLR(o, 6), new optim.StepLR(o, 2)],
      [3, 9],
    ),
  "SequentialLR restarts": (o) =>
    new optim.SequentialLR(
      o,
      [new optim.LinearLR(o, { startFactor: 0.1, totalIters: 3 }), new optim.CosineAnnealingWarmRestarts(o, 4)],
      [3],
    ),
  "SequentialLR multiplicative": (o) =>
    new optim.SequentialLR(o, [new optim.MultiplicativeLR(o, () => 0.9), new optim.MultiStepLR(o, [1, 3])], [5]),
  "ChainedScheduler": (o) =>
    new optim.ChainedScheduler([new optim.ConstantLR(o, { factor: 0.1, totalIters: 3 }), new optim.ExponentialLR(o, 0.9)]),
  "ReduceLROnPlateau": (o) => new optim.ReduceLROnPlateau(o, { patience: 1 }),
  "ReduceLROnPlateau max": (o) =>
    new optim.ReduceLROnPlateau(o, {
      mode: "max",
      factor: 0.5,
      patience: 0,
      cooldown: 2,
      threshold: 0.01,
      thresholdMode: "abs",
      minLr: [0.1, 0.01],
    }),
};

const metrics = recorded.metrics.map((text) => text === "nan" ? NaN : Number(text));

function optimizer(kind: "SGD" | "Adam"): Any {
  const groups = [0.5, 0.05].map((lr) => ({ params: [zeros([1], { requiresGrad: true })], lr }));
  return kind === "Adam" ? new optim.Adam(groups) : new optim.SGD(groups, { momentum: 0.9 });
}

function advance(scheduler: optim.LRScheduler, i: number): void {
  if (scheduler instanceof optim.ReduceLROnPlateau) (scheduler as Step).step(metrics[i]);
  else scheduler.step();
}

function check(o: Any, expected: readonly number[], what: string): void {
  const group = o.paramGroups[0];
  const actual = [...o.paramGroups.map((it: { lr: number }) => it.lr), group.momentum ?? group.betas[0]];
  actual.forEach((value, i) => assertAlmostEquals(value, expected[i], 1e-13, `${what}, value ${i}`));
}

Deno.test("every recorded schedule is tested", () => {
  assertEquals(Object.keys(schedules).sort(), Object.keys(recorded.schedules).sort());
});

for (const [name, make] of Object.entries(schedules)) {
  const kind = name.endsWith("Adam") ? "Adam" : "SGD";
  Deno.test(`${name} sets PyTorch's rates`, () => {
    const o = optimizer(kind), scheduler = make(o);
    recorded.schedules[name].forEach((expected, i) => {
      check(o, expected, `step ${i}`);
      assertEquals(scheduler.getLastLr(), o.paramGroups.map((group) => group.lr));
      advance(scheduler, i);
    });
  });

  Deno.test(`${name} goes on from its state dictionary`, () => {
    const first = optimizer(kind), one = make(first);
    for (let i = 0; i < 6; i++) advance(one, i);
    const second = optimizer(kind), two = make(second);
    two.loadStateDict(
      JSON.parse(
        JSON.stringify(one.stateDict(), (_, v) => v === Infinity || v === -Infinity ? String(v) : v),
        (key, v) => key === "best" ? Number(v) : v,
      ),
    );
    second.loadStateDict(first.stateDict());
    for (let i = 6; i < 14; i++) {
      check(second, recorded.schedules[name][i], `step ${i}`);
      advance(two, i);
    }
  });
}

Deno.test("schedulers refuse bad arguments", () => {
  const o = optimizer("SGD"), other = optimizer("SGD");
  assertThrows(() => new optim.StepLR({} as Any, 3), TypeError, "StepLR: takes an optimiser, got object");
  assertThrows(() => new optim.StepLR(o, 0), RangeError, "StepLR: stepSize must be a whole number >= 1, got 0");
  assertThrows(() => new optim.LambdaLR(o, [() => 1]), TypeError, "LambdaLR: takes a function, or one for each of the 2 groups");
  assertThrows(() => new optim.ConstantLR(o, { factor: 2 }), RangeError, "factor must be between 0 and 1, got 2");
  assertThrows(() => new optim.LinearLR(o, { startFactor: 0 }), RangeError, "startFactor must be between 0 (excluded) and 1, got 0");
  assertThrows(() => new optim.OneCycleLR(o, { maxLr: 1 }), RangeError, "totalSteps, or epochs and stepsPerEpoch");
  assertThrows(() => new optim.OneCycleLR(o, { maxLr: [1], totalSteps: 3 }), RangeError, "maxLr needs 2 values, got 1");
  assertThrows(() => new optim.ReduceLROnPlateau(o, { factor: 1 }), RangeError, "factor must be below 1, got 1");
  assertThrows(() => new optim.ReduceLROnPlateau(o).step(), TypeError, "step takes the metric, a number, got undefined");
  const part = new optim.ExponentialLR(o, 0.9);
  assertThrows(() => new optim.SequentialLR(o, [part], [2]), RangeError, "1 schedulers need 0 milestones, got 1");
  assertThrows(() => new optim.SequentialLR(other, [part], []), RangeError, "scheduler 0 belongs to another optimiser");
  assertThrows(() => new optim.ChainedScheduler([new optim.ReduceLROnPlateau(o)]), TypeError, "whose step needs a metric");
  assertThrows(() => part.loadStateDict({}), FormatError, "ExponentialLR.loadStateDict: no last_epoch");
  assertThrows(() => part.loadStateDict({ last_epoch: "3" }), FormatError, "last_epoch must be a number, got string");
});

Deno.test("OneCycleLR refuses a step after its last", () => {
  const scheduler = new optim.OneCycleLR(optimizer("SGD"), { maxLr: 1, totalSteps: 3 });
  for (let i = 0; i < 3; i++) scheduler.step();
  assertThrows(() => scheduler.step(), RangeError, "step 4 comes after the last of 3");
});
