/**
 * Hosts of a small network on this machine, for ranks: network namespaces whose cables end in a switch, each sending at a limited rate. Takes root, `ip` and `tc`.
 */

async function command(name: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(name, { args, stdout: "null", stderr: "piped" }).output();
  if (!success) throw new Error(`${name} ${args.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
}

/** Bytes that a host may send at once: a few of the largest packets. */
const BURST = "192kb";

/** Some hosts with a switch between them. */
export class Hosts implements AsyncDisposable {
  readonly #names: readonly string[];
  readonly #switch: string;

  private constructor(names: readonly string[], hub: string) {
    this.#names = names;
    this.#switch = hub;
  }

  /** Makes `count` hosts that send at `rate`, as `tc` writes it (`"1gbit"`). */
  static async create(count: number, rate: string): Promise<Hosts> {
    const id = Deno.pid % 100000,
      names = Array.from({ length: count }, (_, i) => `dinograd-bench-${id}-${i}`),
      hub = `dinograd-bench-${id}`;
    const hosts = new Hosts(names, hub);
    try {
      await command("ip", "netns", "add", hub);
      await command("ip", "-n", hub, "link", "add", "hub", "type", "bridge");
      await command("ip", "-n", hub, "link", "set", "hub", "up");
      for (const [i, name] of names.entries()) {
        const end = `e${i}`;
        await command("ip", "netns", "add", name);
        await command("ip", "-n", hub, "link", "add", end, "type", "veth", "peer", "name", "cable", "netns", name);
        await command("ip", "-n", hub, "link", "set", end, "master", "hub", "up");
        await command("ip", "-n", name, "address", "add", `${hosts.address(i)}/24`, "dev", "cable");
        for (const device of ["lo", "cable"]) await command("ip", "-n", name, "link", "set", device, "up");
        await command(
          "tc",
          "-n",
          name,
          "qdisc",
          "add",
          "dev",
          "cable",
          "root",
          "handle",
          "1:",
          "tbf",
          "rate",
          rate,
          "burst",
          BURST,
          "latency",
          "100ms",
        );
      }
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Address of a host. */
  address(i: number): string {
    return `10.213.78.${i + 1}`;
  }

  /** Calls the exported function `name` of `module` with the rank and `args` on every host; what rank 0 returns. */
  async run<T>(module: string, name: string, args: readonly unknown[]): Promise<T> {
    const ranks = this.#names.map((host, rank) =>
      new Deno.Command("ip", {
        args: [
          ...["netns", "exec", host, Deno.execPath(), "run", "-A", "--no-check", new URL("host_rank.ts", import.meta.url).href],
          ...[module, name, JSON.stringify(args)],
        ],
        env: {
          RANK: String(rank),
          WORLD_SIZE: String(this.#names.length),
          LOCAL_RANK: "0",
          MASTER_ADDR: this.address(0),
          MASTER_PORT: "29500",
          DINOGRAD_SECRET: "a benchmark between namespaces",
          OMP_NUM_THREADS: "1",
        },
        stdout: "piped",
        stderr: "inherit",
      }).output()
    );
    const [first, ...rest] = await Promise.all(ranks);
    if (![first, ...rest].every((it) => it.success)) throw new Error("a rank failed");
    return JSON.parse(new TextDecoder().decode(first.stdout).trim().split("\n").at(-1)!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#names, this.#switch]) await command("ip", "netns", "delete", name).catch(() => {});
  }
}
