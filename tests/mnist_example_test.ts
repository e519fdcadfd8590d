import { readImage } from "@dinograd/dinograd";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Random } from "../data/random.ts";
import { writeDigits } from "./digits.ts";

/** Runs a program of the example. */
async function run(program: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const path = new URL(`../examples/mnist/${program}.ts`, import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", path, ...args] }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

Deno.test("examples/mnist trains, writes its results and predicts the same in a new process", async () => {
  const folder = await Deno.makeTempDir(), random = new Random(1);
  await writeDigits(folder, "train", 200, random);
  await writeDigits(folder, "t10k", 40, random);
  const options = ["--data", folder, "--epochs", "1", "--batch-size", "50", "--width", "4"];
  const first = await run("train", ...options, "--out", `${folder}/a`);
  assertEquals(first.code, 0, first.err);
  assertStringIncludes(first.out, "200 training and 40 test pictures");
  assertStringIncludes(first.err, "images/s");
  assert(!first.err.includes("\r"), "no bar away from a terminal");
  const accuracy = first.out.trim().split("\n").at(-1)!;
  assertMatch(accuracy, /^test accuracy 0\.\d+$/);
  assertStringIncludes(await Deno.readTextFile(`${folder}/a/learning_curve.svg`), "</svg>");
  using picture = await readImage(`${folder}/a/misclassified.png`);
  assertEquals(picture.shape[0], 1);

  const model = `${folder}/a/model.safetensors`;
  const predicted = await run("predict", "--data", folder, "--model", model);
  assertEquals(predicted.out.trim(), accuracy, predicted.err);
  const single = await run("predict", "--model", model, `${folder}/a/misclassified.png`);
  assertMatch(single.out, /^\d: \d+\.\d\d % {3}\d: /);

  const second = await run("train", ...options, "--out", `${folder}/b`);
  assertEquals(second.out.replaceAll(`${folder}/b`, `${folder}/a`).replace(/trained in .*/, ""), first.out.replace(/trained in .*/, ""));
  assertEquals(await Deno.readFile(`${folder}/b/model.safetensors`), await Deno.readFile(model));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("examples/mnist trains on two ranks as on one, and predicts the same afterwards", async () => {
  const folder = await Deno.makeTempDir(), random = new Random(1), here = (name: string) => new URL(`../${name}`, import.meta.url).pathname;
  await writeDigits(folder, "train", 200, random);
  await writeDigits(folder, "t10k", 41, random);
  const launch = async (...args: string[]) => {
    const all = ["run", "-A", "--no-check", here("distributed/launch.ts"), "--nproc-per-node", "2", "--deno-args", "-A --no-check"];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: [...all, here("examples/mnist/train.ts"), ...args] })
      .output();
    return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
  };
  const { code, out, err } = await launch("--data", folder, "--epochs", "1", "--batch-size", "50", "--width", "4", "--out", `${folder}/a`);
  assertEquals(code, 0, err);
  assertStringIncludes(out, "[rank 0] 200 training and 41 test pictures, 2294 parameters, 4 steps on 2 ranks");
  assert(!out.includes("[rank 1]"), out);
  const accuracy = out.trim().split("\n").at(-1)!.replace("[rank 0] ", "");
  const predicted = await run("predict", "--data", folder, "--model", `${folder}/a/model.safetensors`);
  assertEquals(predicted.out.trim(), accuracy, predicted.err);
  const refused = await launch("--data", folder, "--batch-size", "51");
  assertEquals(refused.code, 2);
  assertStringIncludes(refused.err, "--batch-size must divide by the number of ranks 2, got 51");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("examples/mnist answers bad options", async () => {
  for (
    const [program, args, text] of [
      ["train", ["--epochs", "0"], '--epochs takes a whole number >= 1, got "0"'],
      ["train", ["--lr", "fast"], '--lr takes a number >= 0, got "fast"'],
      ["train", ["--speed", "2"], "unknown option --speed"],
      ["train", ["more"], "unexpected argument more"],
      ["predict", ["--model", "absent.safetensors"], "absent.safetensors does not exist: train a model first"],
    ] as const
  ) {
    const { code, err } = await run(program, ...args);
    assertEquals(code, 2);
    assertStringIncludes(err, text);
  }
  const { code, out } = await run("train", "--help");
  assertEquals(code, 0);
  assertStringIncludes(out, "--batch-size");
});
