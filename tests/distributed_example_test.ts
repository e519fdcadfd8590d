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
