/**
 * `deno run -A benchmarks/all_reduce.ts [--rounds=15] [--nprocs=2]`: the all-reduce of a process group over Gloo beside Gloo's own, called from C++
 * (`all_reduce.cpp`, compiled for the occasion), over loopback, taking turns in one run. Medians, and the median ratio.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { distributed, noGrad, zeros } from "../mod.ts";
import { median } from "./measure.ts";
import { Peer } from "./peer.ts";

interface Work {
  rounds: number;
  program: string;
  folder: string;
}

/** Milliseconds of one all-reduce here and there, by bytes. */
type Times = { bytes: number; ours: number[]; theirs: number[] }[];

const sizes = [1e3, 1e4, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 25 << 20, 100 << 20];

/** Runs in each rank. */
export async function measure(rank: number, { rounds, program, folder }: Work): Promise<Times> {
  await distributed.initProcessGroup();
  const gloo = new Peer("Gloo's side", program, [String(rank), String(distributed.getWorldSize()), folder]);
  await gloo.line();
  const result: Times = [];
  for (const bytes of sizes) {
    const x = zeros([Math.ceil(bytes / 4)]),
      times = Math.max(1, Math.min(200, Math.round(5e7 / bytes))),
      ours: number[] = [],
      theirs: number[] = [];
    for (let round = -2; round < rounds; round++) {
      distributed.barrier();
      const start = performance.now();
      noGrad(() => {
        for (let i = 0; i < times; i++) distributed.allReduce(x);
      });
      const ms = (performance.now() - start) / times;
      distributed.barrier();
      const theirMs = Number(await gloo.ask(`${4 * x.numel()} ${times}`));
      if (round >= 0) ours.push(ms), theirs.push(theirMs);
    }
    x.dispose();
    result.push({ bytes, ours, theirs });
  }
  await gloo.close();
  await distributed.destroyProcessGroup();
  return result;
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, { string: ["rounds", "nprocs"], default: { rounds: "15", nprocs: "2" } });
  const folder = await Deno.makeTempDir({ prefix: "dinograd_all_reduce_" }), program = `${folder}/all_reduce`;
  try {
    const source = new URL("all_reduce.cpp", import.meta.url).pathname;
    const compat = new URL("../kernels/gloo/compat", import.meta.url).pathname;
    const { success, stderr } = await new Deno.Command(Deno.env.get("CXX") ?? "g++", {
      args: ["-std=c++17", "-O3", "-march=native", source, "-o", program, "-idirafter", compat, "-lgloo", "-lpthread"],
    }).output();
    if (!success) throw new Error(`all_reduce.cpp does not compile:\n${new TextDecoder().decode(stderr)}`);
    const work: Work = { rounds: Number(options.rounds), program, folder };
    const [times] = await distributed.spawn<Times>(import.meta.url, {
      nprocs: Number(options.nprocs),
      name: "measure",
      args: [work],
      env: { OMP_NUM_THREADS: "1" },
    });
    console.log(`${"bytes".padStart(11)} ${"dinograd".padStart(12)} ${"Gloo".padStart(12)}  ratio`);
    for (const { bytes, ours, theirs } of times) {
      const ratio = median(ours.map((it, i) => it / theirs[i]));
      console.log(
        `${String(bytes).padStart(11)} ${`${median(ours).toFixed(3)} ms`.padStart(12)} ${`${median(theirs).toFixed(3)} ms`.padStart(12)}  ${
          ratio.toFixed(2)
        }`,
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
