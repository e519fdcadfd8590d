/** Ranks on hosts of their own: network namespaces with a cable between them, which a test cuts. Root may make them, most containers' users may not. */
import { assertEquals, assertMatch } from "@std/assert";
import { withWorld } from "./world/mod.ts";

async function ip(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ip", { args, stdout: "null", stderr: "piped" }).output();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

const hosts = [0, 1].map((i) => ({ name: `dinograd-${Deno.pid}-${i}`, cable: `dg${Deno.pid % 1e6}-${i}`, address: `10.213.77.${i + 1}` }));

async function remove(): Promise<void> {
  for (const { name } of hosts) await ip("netns", "delete", name).catch(() => {});
}

async function build(): Promise<void> {
  for (const { name } of hosts) await ip("netns", "add", name);
  await ip("link", "add", hosts[0].cable, "type", "veth", "peer", "name", hosts[1].cable);
  for (const { name, cable, address } of hosts) {
    await ip("link", "set", cable, "netns", name);
    await ip("-n", name, "address", "add", `${address}/30`, "dev", cable);
    for (const device of ["lo", cable]) await ip("-n", name, "link", "set", device, "up");
  }
}

/** Why there can be no namespaces here, or `null`. */
async function refusal(): Promise<string | null> {
  try {
    await build();
    return null;
  } catch (error) {
    return error instanceof Deno.errors.NotFound ? "there is no ip command" : (error as Error).message.trim();
  } finally {
    await remove().catch(() => {});
  }
}

const reason = await refusal();
if (reason !== null) console.log(`tests of a cut network are skipped: ${reason}`);

for (const scenario of ["reducing", "reducingMuch"]) {
  Deno.test({
    name: `a cut network is an error within the time-out, on both sides: ${scenario}`,
    ignore: reason !== null,
    fn: async () => {
      await build();
      try {
        await withWorld(
          2,
          scenario,
          async (ranks) => {
            await Promise.all(ranks.map((it) => it.line("ready")));
            await ip("-n", hosts[0].name, "link", "set", hosts[0].cable, "down");
            for (const [i, rank] of ranks.entries()) {
              const line = await rank.line("failed");
              assertMatch(String(line.message), new RegExp(`timed out after 1[05]00 ms: rank ${1 - i} (did not call it|does not answer)`));
              assertEquals([line.rank, line.collective], [1 - i, "allReduce"]);
              assertEquals((await rank.end()).code, 0);
            }
          },
          "gloo",
          hosts.map(({ name }) => ["ip", "netns", "exec", name]),
        );
      } finally {
        await remove();
      }
    },
  });
}
