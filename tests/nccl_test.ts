import { assert, assertEquals, assertMatch } from "@std/assert";
import { runWorld, withWorld } from "./world/mod.ts";

const script = new URL("world/stand_in.ts", import.meta.url).href;

for (const name of ["group", "arguments", "nonBlocking", "abort"]) {
  Deno.test(`the stand-in for NCCL behaves as documented: ${name}`, () => standIn(name));
}

Deno.test("the stand-in for NCCL shows a missing wait for what it reads", () =>
  standIn("missingWait", { DINOGRAD_EMULATED_STREAMS: "random" }));

/** Runs a case of world/stand_in.ts. */
async function standIn(name: string, env: Record<string, string> = {}): Promise<void> {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", script, name],
    env: { NO_COLOR: "1", DINOGRAD_EMULATED_CUDA: "1", DINOGRAD_EMULATED_DEVICES: "2", ...env },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
}

Deno.test("streams in a random order: what does not wait for a work is caught, what waits is right [nccl]", async () => {
  let early = 0;
  for (const seed of ["1", "2", "3"]) {
    const env = { DINOGRAD_EMULATED_STREAMS: "random", DINOGRAD_EMULATED_SEED: seed };
    await withWorld(
      2,
      "missingWait",
      async (ranks) => {
        for (const rank of ranks) {
          early += Number((await rank.line("read")).early);
          const { code, errors } = await rank.end();
          assert(code === 0, errors);
        }
      },
      "nccl",
      [],
      env,
    );
  }
  assert(early > 0, "no order showed the missing wait");
});

Deno.test("steps with collectives in a random order of the streams [nccl]", () =>
  runWorld(2, "steps", "nccl", { DINOGRAD_EMULATED_STREAMS: "random" }));
Deno.test("steps with collectives; waiting for a work does not wait for the device [nccl]", () => runWorld(3, "steps", "nccl"));
Deno.test("a work that fails after the device was made to wait for it: the read that needs it says so [nccl]", () =>
  runWorld(2, "failsLater", "nccl"));

// The other ranks report to rank 0: it must not be missed itself.
for (
  const [signal, text] of [["SIGKILL", /the connection to rank 0 was lost/], [
    "SIGSTOP",
    /timed out after 1000 ms: rank 0 does not answer/,
  ]] as const
) {
  for (const silent of ["0", "1"]) {
    Deno.test(`rank 0 ends by ${signal}: the others name it, ${silent === "1" ? "without" : "with"} a word of NCCL's [nccl]`, () =>
      withWorld(
        3,
        "reducing",
        async (ranks) => {
          for (const rank of ranks) await rank.line("ready");
          ranks[0].kill(signal);
          for (const rank of ranks.slice(1)) {
            const line = await rank.line("failed");
            assertMatch(String(line.message), text);
            assertEquals([line.rank, line.collective], [0, "allReduce"]);
            assertEquals((await rank.end()).code, 0);
          }
        },
        "nccl",
        [],
        { DINOGRAD_EMULATED_NCCL_SILENT: silent },
      ));
  }
}
