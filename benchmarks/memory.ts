/**
 * `deno run -A benchmarks/memory.ts [--steps=2000] [--python=python3]`: resident memory of a ResNet-18 training loop (32x3x32x32, SGD) written plainly, written with
 * `scope()`, and in PyTorch, each in a process of its own. Also the time from process start to a first result.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { DataLoader, memory, nn, optim, scope, tensor, TensorDataset } from "../mod.ts";
import { resnet18 } from "../vision/mod.ts";

const options = parseArgs(Deno.args, { string: ["steps", "python", "as"], default: { steps: "2000", python: "python3", as: "" } });
const steps = Number(options.steps);

/** Highest resident memory of this process in MB, from the system's own account. */
function peakResident(): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"))![1]) / 1024;
}

/** The loop itself: nothing but PyTorch's lines, unless `wrap` puts the body into a scope. */
async function train(wrap: (body: () => void) => void): Promise<void> {
  const batch = 32, batches = 20;
  const x = tensor(Float32Array.from({ length: batch * batches * 3 * 32 * 32 }, (_, i) => ((i * 7919) % 2003) / 1001 - 1));
  const y = tensor(BigInt64Array.from({ length: batch * batches }, (_, i) => BigInt(i % 10)));
  const dataset = new TensorDataset(x.reshape([batch * batches, 3, 32, 32]), y);
  const model = resnet18({ cifar: true, numClasses: 10 });
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9 });
  const half: number[] = [];
  for (let step = 0; step < steps;) {
    for await (
      const [images, labels] of new DataLoader(dataset, { batchSize: batch, shuffle: true, seed: 1 })
    ) {
      wrap(() => {
        optimizer.zeroGrad();
        const loss = nn.functional.crossEntropy(model.call(images), labels);
        loss.backward();
        optimizer.step();
      });
      step++;
      if (step === Math.ceil(steps / 2)) half.push(peakResident());
      if (step >= steps) break;
    }
  }
  const { tensors, peakBytes } = memory.stats();
  console.log(JSON.stringify({ peakMB: peakResident(), halfwayMB: half[0], nativePeakMB: peakBytes / 2 ** 20, liveTensors: tensors }));
}

async function child(command: string, args: string[], input?: string): Promise<string> {
  const process = new Deno.Command(command, { args, stdin: input === undefined ? "null" : "piped", stdout: "piped", stderr: "inherit" })
    .spawn();
  if (input !== undefined) {
    const writer = process.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input));
    await writer.close();
  }
  return new TextDecoder().decode((await process.output()).stdout).trim();
}

const pytorch = `
import sys, torch, torch.nn.functional as F
sys.path.insert(0, ${JSON.stringify(decodeURIComponent(new URL(".", import.meta.url).pathname))})
import io, types
source = open(sys.path[0] + "/pytorch.py").read().split("print(json.dumps")[0]
scope = {}
exec(source, scope)
model = scope["ResNet18"](); opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
x = torch.randn(640, 3, 32, 32); y = torch.arange(640) % 10
for step in range(${steps}):
    i = step % 20 * 32
    opt.zero_grad(); F.cross_entropy(model(x[i:i+32]), y[i:i+32]).backward(); opt.step()
print(scope["resource"].getrusage(scope["resource"].RUSAGE_SELF).ru_maxrss / 1024)
`;

if (options.as === "plain") await train((body) => body());
else if (options.as === "scoped") await train((body) => scope(body));
else {
  const self = [Deno.execPath(), "run", "-A", import.meta.url, `--steps=${steps}`];
  for (const kind of ["plain", "scoped"]) console.log(kind.padEnd(8), await child(self[0], [...self.slice(1), `--as=${kind}`]));
  console.log(
    "PyTorch ",
    await child(String(options.python), ["-"], pytorch).catch((error) => `not measured: ${error.message}`),
    "MB peak",
  );
  const first = `import { tensor } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)}; tensor([1, 2]).add(1);`;
  const times: number[] = [];
  for (let i = 0; i < 7; i++) {
    const begin = performance.now();
    await child(Deno.execPath(), ["run", "-A", `data:application/typescript,${encodeURIComponent(first)}`]);
    times.push(performance.now() - begin);
  }
  console.log("start to first result:", times.sort((a, b) => a - b)[3].toFixed(0), "ms (median of 7)");
}
