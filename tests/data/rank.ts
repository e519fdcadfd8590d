/** A rank for the tests of the launcher: its first argument says what it does. */
import { rendezvous } from "../../distributed/rendezvous.ts";

const rank = Number(Deno.env.get("RANK")), start = Number(Deno.env.get("RESTART_COUNT"));
const [mode, ...args] = Deno.args;

/** Waits for all ranks: each then has told its number and process. */
async function meet(): Promise<void> {
  const { store, worldSize } = await rendezvous("env://", { timeout: 20_000 });
  await store.set(`from ${rank}`, `${rank}`);
  await store.wait(Array.from({ length: worldSize }, (_, i) => `from ${i}`));
  await store.close();
  console.log(`rank ${rank} of ${worldSize} is process ${Deno.pid}`);
}

const hang = () => new Promise((done) => setTimeout(done, 60_000));

switch (mode) {
  case "environment": {
    await meet();
    const names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "RESTART_COUNT", "OMP_NUM_THREADS"];
    console.log(names.map((name) => Deno.env.get(name)).join(" "), JSON.stringify(args));
    console.error(`error output of ${rank}`);
    await Deno.stdout.write(new TextEncoder().encode("without newline"));
    break;
  }
  case "fail":
    await meet();
    if (rank === 1) {
      console.error("what went wrong");
      Deno.exit(7);
    }
    Deno.addSignalListener("SIGTERM", () => {}); // only SIGKILL is left
    await hang();
    break;
  case "hang":
    await meet();
    await hang();
    break;
  case "follow": // fails because another rank failed
    await meet();
    if (rank === 0) throw new Error("DistributedError: lost rank 1");
    Deno.kill(Deno.pid, "SIGKILL");
    break;
  case "save":
    Deno.addSignalListener("SIGTERM", () => {
      console.log(`rank ${rank} saves`);
      Deno.exit(0);
    });
    await meet();
    await hang();
    break;
  case "grandchild": {
    const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
    console.log(`grandchild is process ${child.pid}`);
    await meet();
    Deno.exit(rank === 0 ? 1 : 0);
    break;
  }
  case "recover":
    await meet();
    if (start < 2 && rank === start) throw new Error(`failure ${start}`);
    if (start < 2) await hang();
    console.log(`rank ${rank} done after ${start} restarts`);
    break;
  default:
    throw new Error(`what is ${mode}?`);
}
