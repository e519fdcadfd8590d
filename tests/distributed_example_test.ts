import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const path = (name: string) => new URL(`../${name}`, import.meta.url).pathname;

async function launch(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const all = ["run", "-A", "--no-check", path("distributed/launch.ts"), "--nproc-per-node", "2", "--deno-args", "-A --no-check", ...args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: all }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

Deno.test("examples/distributed trains on two ranks and goes on from its checkpoint", async () => {
  const folder = await Deno.makeTempDir(), script = path("examples/distributed/train.ts");
  const first = await launch(script, "20", folder);
  assertEquals(first.code, 0, first.err);
  assertStringIncludes(first.out, "training on 2 ranks");
  const second = await launch(script, "21", folder);
  assertStringIncludes(second.out, "going on after epoch 20");
  const accuracy = Number(/test accuracy (\S+) of 500 points/.exec(second.out)?.[1]);
  assertMatch(String(accuracy > 0.9), /true/, second.out + second.err);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("examples/ddp_quickstart.ts fits the same line on every rank, on one rank and on two", async () => {
  const script = path("examples/ddp_quickstart.ts"), line = /rank \d: (weight .*)/g;
  const { code, out, err } = await launch(script);
  assertEquals(code, 0, err);
  const found = [...out.matchAll(line)].map((it) => it[1]);
  assertEquals(found, ["weight 1.000 1.000 1.000, bias 0.500", "weight 1.000 1.000 1.000, bias 0.500"]);
  const alone = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", script] }).output();
  assertStringIncludes(new TextDecoder().decode(alone.stdout), "rank 0: weight 1.000 1.000 1.000, bias 0.500");
});
