import { distributed, DistributedError } from "@dinograd/dinograd";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { freePort } from "./free_port.ts";
import { firstHost, masterOf, placeOf } from "../distributed/environment.ts";

const { rendezvous, StoreServer } = distributed;
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const environment = (variables: Record<string, string>): distributed.Environment => (name) => variables[name];

/** Each rank greets the next. */
async function meet(ranks: Promise<distributed.Rendezvous>[]): Promise<number[]> {
  const met = await Promise.all(ranks);
  await Promise.all(met.map(({ store, rank }) => store.set(`from ${rank}`, `${rank}`)));
  for (const { store, rank, worldSize } of met) {
    assertEquals(text(await store.get(`from ${(rank + 1) % worldSize}`)), `${(rank + 1) % worldSize}`);
  }
  await Promise.all(met.map(({ store }) => store.close()));
  return met.map(({ localRank }) => localRank);
}

Deno.test("rendezvous() of env://, also twice in a row", async () => {
  const port = `${freePort()}`;
  const env = (rank: number, more = {}) =>
    environment({ RANK: `${rank}`, WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1", MASTER_PORT: port, ...more });
  for (let i = 0; i < 2; i++) assertEquals(await meet([0, 1].map((rank) => rendezvous("env://", { env: env(rank) }))), [0, 1]);
  const secret = { DINOGRAD_SECRET: "s", LOCAL_RANK: "0" };
  assertEquals(await meet([1, 0].map((rank) => rendezvous(undefined, { env: env(rank, secret) }))), [0, 0]);
});

Deno.test("rendezvous() of env:// in a store that the launcher serves, with a prefix of its own for each start", async () => {
  const server = await StoreServer.start({ secret: "s" });
  for (const prefix of ["start 0", "start 1"]) {
    const env = (rank: number) =>
      environment({
        RANK: `${rank}`,
        WORLD_SIZE: "3",
        LOCAL_RANK: `${rank}`,
        MASTER_ADDR: "localhost",
        MASTER_PORT: `${server.port}`,
        DINOGRAD_SECRET: "s",
        DINOGRAD_AGENT_STORE: "1",
        DINOGRAD_STORE_PREFIX: prefix,
      });
    assertEquals(await meet([0, 1, 2].map((rank) => rendezvous("env://", { env: env(rank) }))), [0, 1, 2]);
  }
  server.close();
});

Deno.test("rendezvous() of tcp:// and file://", async () => {
  const none = environment({}), port = freePort(), folder = await Deno.makeTempDir();
  await meet([0, 1].map((rank) => rendezvous(`tcp://127.0.0.1:${port}?rank=${rank}&world_size=2`, { env: none })));
  await meet([0, 1].map((rank) => rendezvous(`tcp://127.0.0.1:${port}`, { env: none, rank, worldSize: 2 })));
  await meet([0, 1].map((rank) => rendezvous(new URL(`file://${folder}/a%20store?world_size=2`), { env: none, rank })));
  await meet([rendezvous(`file://${folder}/alone`, { env: environment({ SLURM_PROCID: "0", SLURM_NTASKS: "1" }) })]);
  assertEquals([...Deno.readDirSync(folder)], []);
  await Deno.remove(folder);
});

Deno.test("rendezvous() tells of ranks that come twice and of different numbers of processes", async () => {
  const server = await StoreServer.start({ secret: "s" }), folder = await Deno.makeTempDir();
  const variables = {
    WORLD_SIZE: "2",
    MASTER_ADDR: "127.0.0.1",
    MASTER_PORT: `${server.port}`,
    DINOGRAD_SECRET: "s",
    DINOGRAD_AGENT_STORE: "1",
  };
  const env = (more: Record<string, string>) => environment({ ...variables, ...more });
  const first = await rendezvous("env://", { env: env({ RANK: "1" }) });
  await assertRejects(
    () => rendezvous("env://", { env: env({ RANK: "0", WORLD_SIZE: "3" }) }),
    DistributedError,
    "rank 0 was told that there are 3 processes, another rank that there are 2",
  );
  const url = `file://${folder}/store`, options = { rank: 1, worldSize: 2, env: environment({}) };
  const code = `const { distributed } = await import(${JSON.stringify(new URL("../mod.ts", import.meta.url).href)});
await distributed.rendezvous(${JSON.stringify(url)}, { rank: 1, worldSize: 2 });`;
  const { stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", code] }).output();
  assertEquals(text(stderr), "");
  await assertRejects(() => rendezvous(url, options), DistributedError, "rank 1 is here already");
  await first.store.close();
  server.close();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("rendezvous() says what is missing or wrong", async () => {
  const whole = { RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29500" };
  const cases: [Record<string, string | undefined>, string][] = [
    [{ RANK: undefined, WORLD_SIZE: undefined }, "RANK and WORLD_SIZE are not set"],
    [{ RANK: undefined }, "RANK is not set"],
    [{ RANK: "" }, "RANK is not set"],
    [{ RANK: "one" }, 'RANK must be a whole number >= 0, got "one"'],
    [{ RANK: "-1" }, 'RANK must be a whole number >= 0, got "-1"'],
    [{ RANK: "2" }, "RANK is 2, but there are only 2 processes, counted from 0"],
    [{ WORLD_SIZE: undefined }, "WORLD_SIZE is not set"],
    [{ WORLD_SIZE: "0" }, 'WORLD_SIZE must be a whole number >= 1, got "0"'],
    [{ LOCAL_RANK: "x" }, 'LOCAL_RANK must be a whole number from 0 to 1, got "x"'],
    [{ LOCAL_WORLD_SIZE: "3" }, 'LOCAL_WORLD_SIZE must be a whole number from 1 to 2, got "3"'],
    [{ MASTER_ADDR: undefined }, "MASTER_ADDR is not set"],
    [{ MASTER_PORT: undefined }, "MASTER_PORT is not set"],
    [{ MASTER_PORT: "99999" }, 'MASTER_PORT must be a whole number from 1 to 65535, got "99999"'],
    [{ MASTER_ADDR: "10.0.0.1" }, "same secret (option secret or DINOGRAD_SECRET)"],
  ];
  for (const [change, message] of cases) {
    const env = environment({ ...whole, ...change } as Record<string, string>);
    await assertRejects(() => rendezvous("env://", { env }), DistributedError, message);
  }
  const env = environment({}), given = { env, rank: 0, worldSize: 2 };
  await assertRejects(() => rendezvous("env://", { env }), DistributedError, "start the script with the launcher");
  await assertRejects(
    () => rendezvous("http://a", given),
    DistributedError,
    'expected env://, tcp://host:port or file:///path, got "http://a"',
  );
  await assertRejects(() => rendezvous("nonsense", given), DistributedError, 'got "nonsense"');
  await assertRejects(() => rendezvous("tcp://127.0.0.1", given), DistributedError, "expected a host and a port");
  await assertRejects(() => rendezvous("file://host/path", given), DistributedError, "expected file:///path");
  await assertRejects(() => rendezvous("file:///", given), DistributedError, "expected file:///path");
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1", { env }), DistributedError, "rank is not known");
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1?rank=0", { env }), DistributedError, "worldSize is not known");
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1?rank=x", { env }), DistributedError, 'rank must be a whole number, got "x"');
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1?size=2", given), DistributedError, 'not "size"');
  await assertRejects(
    () => rendezvous("tcp://127.0.0.1:1", { ...given, rank: 2 }),
    DistributedError,
    "rank must be a whole number from 0 to 1",
  );
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1", { ...given, worldSize: 0.5 }), DistributedError, "worldSize must be");
  await assertRejects(() => rendezvous("tcp://127.0.0.1:1", { ...given, timeout: -1 }), RangeError, "timeout");
});

Deno.test("placeOf() and masterOf() read what Slurm sets", () => {
  const env = environment({
    SLURM_PROCID: "5",
    SLURM_NTASKS: "8",
    SLURM_LOCALID: "1",
    SLURM_NNODES: "2",
    SLURM_TASKS_PER_NODE: "4(x2)",
    SLURM_NODELIST: "gpu[07-08]",
    SLURM_JOB_ID: "1234567",
  });
  const place = placeOf(env);
  assertEquals(place, { starter: "slurm", rank: 5, worldSize: 8, localRank: 1, localWorldSize: 4 });
  assertEquals(masterOf(place, env), { host: "gpu07", port: 15_000 + 4567 });
  const alone = environment({ SLURM_PROCID: "1", SLURM_NTASKS: "2", SLURM_NNODES: "1", SLURM_NODELIST: "gpu07", MASTER_PORT: "4000" });
  assertEquals(masterOf(placeOf(alone), alone), { host: "127.0.0.1", port: 4000 });
  for (
    const [list, host] of [["a", "a"], ["a,b", "a"], ["n[01-03,07]-ib,x", "n01-ib"], ["r[1-2]n[3,4]", "r1n3"], ["10.0.0.1", "10.0.0.1"]]
  ) assertEquals(firstHost(list), host);
  assertThrows(() => firstHost(","), DistributedError, "cannot tell the first host");
  const lost = environment({ SLURM_PROCID: "1", SLURM_NTASKS: "2", SLURM_NNODES: "2" });
  assertThrows(() => masterOf(placeOf(lost), lost), DistributedError, "SLURM_NODELIST");
  assertThrows(() => placeOf(environment({ SLURM_PROCID: "1" })), DistributedError, "SLURM_NTASKS is not set");
});

Deno.test("placeOf() and masterOf() read what Open MPI sets, before what Slurm does", () => {
  const variables = {
    OMPI_COMM_WORLD_RANK: "3",
    OMPI_COMM_WORLD_SIZE: "4",
    OMPI_COMM_WORLD_LOCAL_RANK: "1",
    OMPI_COMM_WORLD_LOCAL_SIZE: "2",
    SLURM_PROCID: "0",
    SLURM_NTASKS: "2",
  };
  const place = placeOf(environment(variables));
  assertEquals(place, { starter: "openmpi", rank: 3, worldSize: 4, localRank: 1, localWorldSize: 2 });
  assertThrows(() => masterOf(place, environment(variables)), DistributedError, "mpirun -x MASTER_ADDR");
  assertEquals(masterOf(place, environment({ MASTER_ADDR: "a", MASTER_PORT: "1" })), { host: "a", port: 1 });
  assertEquals(masterOf({ ...place, localWorldSize: 4 }, environment(variables)), { host: "127.0.0.1", port: 29_500 });
});
