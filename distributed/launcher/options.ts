/**
 * The launcher's command line.
 *
 * @module
 */
import { cudaDeviceCount } from "../../ffi/library.ts";
import { processEnvironment } from "../environment.ts";

/** A command line that makes no sense; answered with the message and no stack. */
export class UsageError extends Error {
  /** Name of the class, as printed. */
  override name = "UsageError";
}

/** What the launcher does. */
export interface LaunchOptions {
  /** Ranks on this machine. */
  procs: number;
  /** Number of machines. */
  nodes: number;
  /** Number of this machine, from 0. */
  nodeRank: number;
  /** Where machine 0's launcher serves the store; port 0 for a free one, on one machine only. */
  host: string;
  port: number;
  /** How many times all ranks are started again after a failure. Machine 0's count. */
  maxRestarts: number;
  /** Folder for the output of each rank. */
  logDir: string | undefined;
  /** Milliseconds between `SIGTERM` and `SIGKILL`. */
  grace: number;
  /** Milliseconds that the launchers of all machines have to join. */
  joinTimeout: number;
  /** Milliseconds without a sign of life after which a machine counts as lost. */
  nodeTimeout: number;
  /** Arguments for Deno. */
  denoArgs: string[];
  /** The script: a path or URL. */
  script: string;
  /** Its arguments. */
  scriptArgs: string[];
}

/** The text of `--help`. */
export const USAGE = `Starts a script as several processes that train together.

usage: deno run -A launch.ts [options] script.ts [arguments of the script]

  --nproc-per-node N         processes on this machine: a number, "gpu" (one a GPU), "cpu" (one a core),
                             or "auto" (GPUs if there are any, else cores); default 1
  --standalone               one machine, the store on loopback at a free port (the default for one machine)
  --nnodes N                 number of machines, each with its own launcher; default 1
  --node-rank N              number of this machine, from 0; default: NODE_RANK, GROUP_RANK or SLURM_NODEID
  --rdzv-endpoint HOST:PORT  where the launcher of machine 0 serves the store; the same on all machines
  --master-addr HOST, --master-port PORT
                             the same in two options; the port is 29500 by default
  --max-restarts N           start all ranks again after a failure, at most N times; default 0
  --log-dir DIR              also write the output of each rank to DIR/start_K/rank_N.stdout.log and .stderr.log
  --grace-period SECONDS     from SIGTERM to SIGKILL when ranks are ended; default 10
  --join-timeout SECONDS     how long launchers wait for each other; default 600
  --node-timeout SECONDS     silence after which a machine counts as lost; default 15
  --deno-args "ARGS"         options for Deno in the ranks, separated by spaces; -A unless they grant permissions
  --help                     this text

Each rank gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, NODE_RANK, MASTER_ADDR, MASTER_PORT, RESTART_COUNT,
DINOGRAD_SECRET and, unless it is set, OMP_NUM_THREADS = cores / processes. Launchers of several machines need the same
DINOGRAD_SECRET in their environment. A rank that fails ends all others.`;

const NAMES = [
  "nproc-per-node",
  "nnodes",
  "node-rank",
  "rdzv-endpoint",
  "master-addr",
  "master-port",
  "max-restarts",
  "log-dir",
  "grace-period",
  "join-timeout",
  "node-timeout",
  "deno-args",
] as const;
const FLAGS = ["standalone", "help"] as const;
type Name = typeof NAMES[number];

/** Splits the command line; underscores do for hyphens, as with torchrun. */
function split(args: readonly string[]): { values: Map<Name, string>; flags: Set<string>; rest: string[] } {
  const values = new Map<Name, string>(), flags = new Set<string>();
  let at = 0;
  for (; at < args.length && args[at].startsWith("-"); at++) {
    if (args[at] === "--") {
      at++;
      break;
    }
    const [, written, value] = /^--?([^=]*)(?:=([\s\S]*))?$/.exec(args[at])!;
    const name = written === "h" ? "help" : written.replaceAll("_", "-");
    if ((FLAGS as readonly string[]).includes(name)) {
      if (value !== undefined) throw new UsageError(`--${name} takes no value`);
      flags.add(name);
    } else if ((NAMES as readonly string[]).includes(name)) {
      const given = value ?? args[++at];
      if (given === undefined) throw new UsageError(`--${name} needs a value`);
      values.set(name as Name, given);
    } else {
      throw new UsageError(`there is no option ${args[at]}; --help lists them`);
    }
  }
  return { values, flags, rest: args.slice(at) };
}

function whole(text: string, name: string, least: number, most = 1_000_000): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw new UsageError(`${name} must be a whole number from ${least} to ${most}, got "${text}"`);
}

function seconds(text: string | undefined, name: string, byDefault: number): number {
  if (text === undefined) return byDefault * 1000;
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value <= 1_000_000) return value * 1000;
  throw new UsageError(`--${name} must be a number of seconds, got "${text}"`);
}

function processes(text: string): number {
  if (text === "cpu") return navigator.hardwareConcurrency;
  if (text !== "auto" && text !== "gpu") {
    if (!/^\d+$/.test(text)) throw new UsageError(`--nproc-per-node must be a number, "auto", "gpu" or "cpu", got "${text}"`);
    return whole(text, "--nproc-per-node", 1, 4096);
  }
  const count = cudaDeviceCount();
  if (count > 0) return count;
  if (text === "gpu") throw new UsageError("--nproc-per-node gpu: no CUDA device was found");
  return navigator.hardwareConcurrency;
}

function endpointOf(values: ReadonlyMap<Name, string>, nodes: number): { host: string; port: number } {
  const endpoint = values.get("rdzv-endpoint"), address = values.get("master-addr"), port = values.get("master-port");
  const least = nodes > 1 ? 1 : 0;
  if (endpoint === undefined) {
    if (nodes > 1 && address === undefined) {
      throw new UsageError("--nnodes above 1 needs --rdzv-endpoint HOST:PORT, the same on all machines");
    }
    const byDefault = nodes > 1 ? 29_500 : 0;
    return { host: address ?? "127.0.0.1", port: port === undefined ? byDefault : whole(port, "--master-port", least, 65535) };
  }
  if (address !== undefined || port !== undefined) throw new UsageError("--rdzv-endpoint excludes --master-addr and --master-port");
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(endpoint);
  if (match === null) throw new UsageError(`--rdzv-endpoint must be HOST:PORT, got "${endpoint}"`);
  return { host: match[1] ?? match[2], port: match[3] === undefined ? 29_500 : whole(match[3], "--rdzv-endpoint: the port", least, 65535) };
}

/** What the environment says is this machine's number. */
function ownNumber(nodes: number): string {
  const found = ["NODE_RANK", "GROUP_RANK", "SLURM_NODEID"].map((name) => processEnvironment(name)).find((value) => value);
  if (nodes === 1) return "0";
  if (found === undefined) throw new UsageError("--nnodes above 1 needs --node-rank: the number of this machine, from 0");
  return found;
}

/**
 * Reads the command line; `null` if it asks for help.
 *
 * @throws {UsageError} If it makes no sense.
 */
export function parseOptions(args: readonly string[]): LaunchOptions | null {
  const { values, flags, rest } = split(args);
  if (flags.has("help")) return null;
  const nodes = whole(values.get("nnodes") ?? "1", "--nnodes", 1);
  if (flags.has("standalone")) {
    if (nodes > 1) throw new UsageError("--standalone is for one machine: it excludes --nnodes above 1");
    const other = (["rdzv-endpoint", "master-addr", "master-port"] as const).find((name) => values.has(name));
    if (other) throw new UsageError(`--standalone chooses the endpoint: it excludes --${other}`);
  }
  const nodeRank = whole(values.get("node-rank") ?? ownNumber(nodes), "--node-rank", 0, nodes - 1);
  const endpoint = endpointOf(values, nodes);
  const denoArgs = (values.get("deno-args") ?? "").split(/\s+/).filter((it) => it !== "");
  if (!denoArgs.some((it) => /^(-[ARWNESP]|--(allow|deny|permission))/.test(it))) denoArgs.unshift("-A");
  const [script, ...scriptArgs] = rest;
  if (script === undefined) throw new UsageError("no script: expected launch.ts [options] script.ts [arguments]; --help says more");
  return {
    procs: processes(values.get("nproc-per-node") ?? "1"),
    nodes,
    nodeRank,
    ...endpoint,
    maxRestarts: whole(values.get("max-restarts") ?? "0", "--max-restarts", 0),
    logDir: values.get("log-dir"),
    grace: seconds(values.get("grace-period"), "grace-period", 10),
    joinTimeout: Math.max(1, seconds(values.get("join-timeout"), "join-timeout", 600)),
    nodeTimeout: Math.max(1000, seconds(values.get("node-timeout"), "node-timeout", 15)),
    denoArgs,
    script,
    scriptArgs,
  };
}
