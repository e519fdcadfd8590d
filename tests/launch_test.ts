import { distributed, DistributedError } from "@dinograd/dinograd";
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { freePort } from "./free_port.ts";

const launcher = new URL("../distributed/launch.ts", import.meta.url).pathname,
  script = new URL("./data/rank.ts", import.meta.url).pathname;

/** A launcher under way. */
class Launched {
  readonly child: Deno.ChildProcess;
  out = "";
  err = "";
  readonly #ended: Promise<unknown>;

  constructor(args: string[], env: Record<string, string> = {}) {
    this.child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", launcher, ...args],
      env: { NO_COLOR: "1", OMP_NUM_THREADS: "", ...env },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const read = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)) add(text);
    };
    this.#ended = Promise.all([read(this.child.stdout, (it) => this.out += it), read(this.child.stderr, (it) => this.err += it)]);
  }
  /** Waits until the output has so many matches. */
  async until(pattern: RegExp, count = 1): Promise<RegExpMatchArray[]> {
    for (let tries = 0; tries < 3000; tries++) {
      const found = [...this.out.matchAll(pattern)];
      if (found.length >= count) return found;
      await new Promise((done) => setTimeout(done, 10));
    }
    this.child.kill("SIGKILL");
    throw new Error(`not in the output: ${pattern}\n${this.out}\n${this.err}`);
  }
  /** The processes of the ranks, when they have met. */
  async pids(count: number): Promise<number[]> {
    return (await this.until(/is process (\d+)\n/g, count)).map(([, pid]) => Number(pid));
  }
  /** The exit code. */
  async code(): Promise<number> {
    const { code } = await this.child.status;
    await this.#ended;
    return code;
  }
}

/** True if the process is there and not a zombie that waits for its parent. */
function alive(pid: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return false;
  }
}

async function assertGone(pids: number[]): Promise<void> {
  for (let tries = 0; tries < 500 && pids.some(alive); tries++) await new Promise((done) => setTimeout(done, 10));
  assertEquals(pids.filter(alive), []);
}

Deno.test("launch gives each rank its place and prefixes its output", async () => {
  const folder = await Deno.makeTempDir();
  const run = new Launched(["--nproc-per-node", "2", "--standalone", "--log-dir", folder, script, "environment", "a b", "--nnodes"]);
  assertEquals(await run.code(), 0, run.err);
  const threads = Math.max(1, Math.floor(navigator.hardwareConcurrency / 2));
  for (const rank of [0, 1]) {
    assertStringIncludes(run.out, `[rank ${rank}] ${rank} ${rank} 2 2 0 0 0 ${threads} ["a b","--nnodes"]\n`);
    assertStringIncludes(run.out, `[rank ${rank}] without newline\n`);
    assertStringIncludes(run.err, `[rank ${rank}] error output of ${rank}\n`);
    assertStringIncludes(await Deno.readTextFile(`${folder}/start_0/rank_${rank}.stdout.log`), `is process`);
    assertEquals(await Deno.readTextFile(`${folder}/start_0/rank_${rank}.stderr.log`), `error output of ${rank}\n`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("launch ends all ranks when one fails, also those that do not want to", async () => {
  const run = new Launched(["--nproc-per-node=3", "--grace-period=0.2", script, "fail"]), pids = await run.pids(3);
  assertEquals(await run.code(), 7);
  assert(!pids.some(alive));
  assertMatch(run.err, /launch: rank 1 failed first: exit code 7 after [\d.]+ s \(process \d+, local rank 1 of machine 0, .*\)\n/);
  assert(run.err.endsWith("launch: its error output ends with\n  what went wrong\n"), run.err);
});

Deno.test("launch reports a rank that was killed, and names the cause rather than what followed", async () => {
  const run = new Launched(["--nproc-per-node", "2", script, "hang"]), [pid, other] = await run.pids(2);
  Deno.kill(pid, "SIGKILL");
  assertEquals(await run.code(), 137);
  assert(!alive(other));
  assertMatch(run.err, new RegExp(`rank \\d failed first: ended by SIGKILL after [\\d.]+ s \\(process ${pid},`));
  const follow = new Launched(["--nproc-per-node", "2", script, "follow"]);
  assertEquals(await follow.code(), 137);
  assertStringIncludes(follow.err, "launch: rank 1 failed first: ended by SIGKILL");
});

Deno.test("launch leaves nothing behind that a rank started", async () => {
  const run = new Launched(["--nproc-per-node", "2", script, "grandchild"]);
  const pids = await run.pids(4);
  assertEquals(await run.code(), 1);
  await assertGone(pids);
});

Deno.test("launch: its ranks end when it is killed, also one that is stopped", async () => {
  const run = new Launched(["--nproc-per-node", "2", script, "hang"]), pids = await run.pids(2);
  Deno.kill(pids[0], "SIGSTOP");
  run.child.kill("SIGKILL");
  await assertGone(pids);
  await run.code();
});

Deno.test("launch passes signals on and lets ranks finish", async () => {
  for (const [signal, code] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
    const run = new Launched(["--nproc-per-node", "2", "--max-restarts", "3", script, signal === "SIGTERM" ? "save" : "hang"]);
    const pids = await run.pids(2);
    run.child.kill(signal);
    assertEquals(await run.code(), code);
    assert(!pids.some(alive));
    if (signal === "SIGTERM") { for (const rank of [0, 1]) assertStringIncludes(run.out, `rank ${rank} saves`); }
    assertStringIncludes(run.err, `launch: ${signal} on machine 0`);
    assert(!run.err.includes("again"));
  }
});

Deno.test("launch starts all ranks again, so many times", async () => {
  const run = new Launched(["--nproc-per-node", "2", "--max-restarts", "2", script, "recover"]);
  assertEquals(await run.code(), 0, run.err);
  for (const rank of [0, 1]) assertStringIncludes(run.out, `rank ${rank} done after 2 restarts`);
  assertStringIncludes(run.err, "starting all ranks again (restart 2 of 2)");
  const less = new Launched(["--nproc-per-node", "2", "--max-restarts", "1", script, "recover"]);
  assertEquals(await less.code(), 1);
  assertStringIncludes(less.err, "Error: failure 1");
});

/** Two launchers as two machines. */
function machines(args: string[], env: Record<string, string> = { DINOGRAD_SECRET: "s" }): [Launched, Launched] {
  const endpoint = `127.0.0.1:${freePort()}`;
  return [0, 1].map((node) =>
    new Launched(
      [
        "--nnodes",
        "2",
        "--node-rank",
        `${node}`,
        "--rdzv-endpoint",
        endpoint,
        "--nproc-per-node",
        `${node + 1}`,
        "--node-timeout",
        "2",
        ...args,
      ],
      env,
    )
  ) as [Launched, Launched];
}

Deno.test("launch on two machines: ranks are counted through, and a failure on one starts both again", async () => {
  const [a, b] = machines(["--max-restarts", "2", script, "recover"]);
  assertEquals([await a.code(), await b.code()], [0, 0], a.err + b.err);
  assertStringIncludes(a.out, "[rank 0] rank 0 done after 2 restarts");
  for (const rank of [1, 2]) assertStringIncludes(b.out, `[rank ${rank}] rank ${rank} done after 2 restarts`);
  for (const { err } of [a, b]) assertStringIncludes(err, "launch: rank 1 failed first");
});

Deno.test("launch on two machines: a launcher that is killed ends the other machine's ranks", async () => {
  for (const victim of [0, 1]) {
    const both = machines([script, "hang"]), pids = (await Promise.all(both.map((it, i) => it.pids(i + 1)))).flat();
    both[victim].child.kill("SIGKILL");
    const other = both[1 - victim];
    assertEquals(await other.code(), 1);
    await assertGone(pids);
    assertMatch(other.err, victim === 0 ? /the launcher of machine 0 is gone/ : /machine 1 has shown no sign of life for 2 s/);
    await both[victim].code();
  }
});

Deno.test("launch on two machines: a signal at one ends both", async () => {
  const [a, b] = machines(["--max-restarts", "1", script, "hang"]), pids = [...await a.pids(1), ...await b.pids(2)];
  b.child.kill("SIGTERM");
  assertEquals([await a.code(), await b.code()], [143, 143]);
  await assertGone(pids);
  assertStringIncludes(a.err, "launch: SIGTERM on machine 1");
});

Deno.test("launch says which machines do not come, come twice or count differently", async () => {
  const endpoint = `127.0.0.1:${freePort()}`, common = ["--nnodes", "2", "--rdzv-endpoint", endpoint];
  const first = new Launched([...common, "--node-rank", "0", "--join-timeout", "4", script, "hang"]);
  // Whoever comes first says how many there are.
  const store = await distributed.TcpStore.open("127.0.0.1", Number(endpoint.split(":")[1]));
  await store.wait(["launch/node 0"]);
  await store.close();
  const three = new Launched(["--nnodes", "3", "--rdzv-endpoint", endpoint, "--node-rank", "2", "--join-timeout", "30", script, "hang"]);
  assertEquals(await three.code(), 1);
  assertStringIncludes(three.err, "launch: --nnodes is 3 here and 2 on another machine");
  const twice = new Launched([...common, "--node-rank", "0", script, "hang"]);
  assertEquals(await twice.code(), 1);
  assertStringIncludes(twice.err, `${endpoint} is in use`);
  assertEquals(await first.code(), 1);
  assertStringIncludes(first.err, "launch: the launchers of machines 1 did not join in 4 s");
});

Deno.test("launch explains a command line that makes no sense", async () => {
  const cases: [string[], string][] = [
    [[], "no script"],
    [["--no-such", script], "there is no option --no-such"],
    [["--nproc-per-node"], "--nproc-per-node needs a value"],
    [["--nproc-per-node", "two", script], '"auto", "gpu" or "cpu", got "two"'],
    [["--nproc-per-node", "0", script], 'from 1 to 4096, got "0"'],
    [["--nnodes", "2", script], "needs --node-rank"],
    [["--nnodes", "2", "--node-rank", "0", script], "needs --rdzv-endpoint HOST:PORT"],
    [["--nnodes", "2", "--node-rank", "2", "--rdzv-endpoint", "a:1", script], "--node-rank must be a whole number from 0 to 1"],
    [["--nnodes", "2", "--node-rank", "0", "--rdzv-endpoint", "10.0.0.1:1", script], "set DINOGRAD_SECRET to the same random text"],
    [["--rdzv-endpoint", "a:b:c", script], 'must be HOST:PORT, got "a:b:c"'],
    [["--standalone", "--master-port", "1", script], "--standalone chooses the endpoint: it excludes --master-port"],
    [["--standalone=yes", script], "--standalone takes no value"],
    [["--max-restarts=-1", script], "--max-restarts must be a whole number"],
    [["--grace-period", "soon", script], '--grace-period must be a number of seconds, got "soon"'],
    [["--log-dir", "/proc/none", script], "cannot make /proc/none/start_0"],
  ];
  await Promise.all(cases.map(async ([args, message]) => {
    const run = new Launched(args, { DINOGRAD_SECRET: "", NODE_RANK: "", GROUP_RANK: "", SLURM_NODEID: "" }), code = await run.code();
    assert(code === 1 || code === 2, `${code} ${args}`);
    assertStringIncludes(run.err, message);
    assert(!run.err.includes(" at file:"), run.err);
  }));
  const help = new Launched(["--help"]);
  assertEquals(await help.code(), 0);
  assertStringIncludes(help.out, "--nproc-per-node N");
});

const module = new URL("./data/spawned.ts", import.meta.url);

Deno.test("spawn() calls a function in several processes", async () => {
  const options = { nprocs: 3, args: [10, new Float32Array(4)], env: { NAME: "x" }, quiet: true };
  const results = await distributed.spawn<{ sum: number; sizes: Map<string, number>; name: string }>(module, options);
  assertEquals(Math.max(...results.map(({ sum }) => sum)), 33);
  for (const { sizes, name } of results) assertEquals([sizes, name], [new Map([["world", 3], ["data", 4]]), "x"]);
});

Deno.test("spawn() rejects with the error of the first rank that fails, and ends the others", async () => {
  const cases = [
    ["throw", "spawn: rank 1: RangeError: out of it"],
    ["value", 'spawn: rank 1: Error: "a text" was thrown'],
    ["kill", "spawn: rank 1 failed: ended by SIGKILL"],
    ["exit", "spawn: rank 1 failed: exit code 3; its error output ends with\n  last words"],
    ["function", "the result of rank 1 cannot be sent"],
  ];
  await Promise.all(cases.map(async ([how, message]) => {
    const options = { nprocs: 2, args: [how], name: "fail", quiet: true };
    const error = await assertRejects(() => distributed.spawn(module, options), DistributedError, message);
    if (how === "throw") assertStringIncludes(error.stack!, "data/spawned.ts");
  }));
});

Deno.test("spawn() says what is wrong with what it was given", async () => {
  const { spawn } = distributed, quiet = true;
  await assertRejects(() => spawn(module, { name: "none", quiet }), DistributedError, 'exports no function "none"');
  await assertRejects(() => spawn(module, { name: "quit", quiet }), DistributedError, "rank 0 ended without a result");
  await assertRejects(() => spawn(new URL("./data/missing.ts", import.meta.url), { quiet }), DistributedError, "missing.ts");
  await assertRejects(
    () => spawn(module, { nprocs: 2, name: "fail", args: ["wait"], timeout: 50, grace: 100, quiet }),
    DistributedError,
    "spawn: not done after 50 ms: rank 0",
  );
  await assertRejects(() => spawn(module, { nprocs: 0 }), RangeError, "nprocs");
  await assertRejects(() => spawn(module, { timeout: 0 }), RangeError, "timeout");
  await assertRejects(() => spawn("nothing"), TypeError, "URL");
  await assertRejects(() => spawn(module, { args: [() => {}] }), TypeError, "spawn: args cannot be sent to another process");
});
