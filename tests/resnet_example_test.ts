import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Random } from "../data/random.ts";
import type { Run, Way } from "../examples/resnet/ways.ts";
import { writeDigits } from "./digits.ts";

async function compare(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const path = new URL("../examples/resnet/compare.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", path, ...args] }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

/** Folder with 70 training and 21 test pictures. */
async function digits(): Promise<string> {
  const folder = await Deno.makeTempDir(), random = new Random(1);
  await writeDigits(folder, "train", 70, random);
  await writeDigits(folder, "t10k", 21, random);
  return folder;
}

/** Largest difference of two loss curves. */
function apart(a: Run, b: Run): number {
  assertEquals(a.losses.length, b.losses.length);
  return Math.max(...a.losses.map((it, i) => Math.abs(it - b.losses[i])));
}

Deno.test("examples/resnet: ways that should be equal are, ways that should differ do, and a second run repeats the first", async () => {
  const folder = await digits(), found: (Way & { runs: Run[] })[][] = [];
  for (const name of ["a", "b"]) {
    const { code, out, err } = await compare(
      ...["--data", folder, "--out", `${folder}/${name}`, "--epochs", "2", "--limit", "34"],
      ...["--batch-size", "16", "--small-batch", "3", "--seeds", "1", "--width", "4", "--lr", "0.02"],
    );
    assertEquals(code, 0, err);
    assertStringIncludes(out, "34 training pictures, 2 epochs, 1 seeds");
    assertMatch(out, /Batches of 16, 8 on each rank, 2 steps an epoch[^]*Batches of 6, 3 on each rank, 5 steps an epoch/);
    assertEquals(out.match(/^\| .* \| \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)( \| \d+\.\d\d){2} \| \d+ \| \d+\.\d\d \|$/gm)?.length, 8, out);
    const svg = await Deno.readTextFile(`${folder}/${name}/comparison.svg`);
    assertEquals(svg.match(/<circle/g)?.length, 8);
    assert(!/NaN|Infinity|undefined/.test(svg));
    found.push(JSON.parse(await Deno.readTextFile(`${folder}/${name}/results.json`)).ways);
  }
  const results = ({ runs: [{ losses, accuracy, seconds }] }: Way & { runs: Run[] }) => ({ losses, accuracy, epochs: seconds.length });
  assertEquals(found[1].map(results), found[0].map(results));

  const [one, threads, parallel, ddp, sync, smallOne, smallDdp, smallSync] = found[0].map((it) => it.runs[0]);
  assertEquals([one.losses.length, smallOne.losses.length], [4, 10]);
  assertEquals({ ...threads, seconds: [], steps: [] }, { ...one, seconds: [], steps: [] });
  // SyncBatchNorm sees the joined batch; without it each part is normalised by itself, on ranks as on devices.
  for (const [what, a, b] of [["sync", sync, one], ["small sync", smallSync, smallOne], ["DDP", ddp, parallel]] as const) {
    const distance = apart(a, b);
    assert(distance < 1e-4, `${what}: ${distance}`);
  }
  for (const [what, a, b] of [["DDP", ddp, one], ["small DDP", smallDdp, smallOne]] as const) {
    const distance = apart(a, b);
    assert(distance > 1e-3, `${what}: ${distance}`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("examples/resnet/compare.ts answers bad options", async () => {
  const folder = await digits();
  for (
    const [args, text] of [
      [["--seeds", "0"], '--seeds takes a whole number >= 1, got "0"'],
      [["--speed", "2"], "unknown option --speed"],
      [["--devices", "cpu"], '--devices takes at least two, such as cpu,cpu, got "cpu"'],
      [["--devices", "cpu,tpu"], "--devices: tpu: "],
      [["--batch-size", "9"], "--batch-size must divide by the number of devices 2, got 9"],
      [["--data", "absent"], "--data: mnist: neither absent/"],
      [["--data", folder, "--limit", "20"], "the largest batch needs 64 training pictures, there are 20: raise --limit or lower the batch"],
    ] as const
  ) {
    const { code, err } = await compare(...args);
    assertEquals(code, 2, err);
    assertStringIncludes(err, text);
  }
  await Deno.remove(folder, { recursive: true });
});
