/**
 * What the environment says about a process's place in a job: our launcher's variables, which are PyTorch's, or those of Slurm and Open MPI.
 *
 * @module
 */
import { DistributedError } from "../ffi/errors.ts";
import { isLoopback } from "./store/protocol.ts";

/** Variables by name; absent ones are `undefined`. */
export type Environment = (name: string) => string | undefined;

/** Who started the processes. */
export type Starter = "environment" | "slurm" | "openmpi";

/** A process's place in its job. */
export interface Place {
  /** Who started the processes: RANK and WORLD_SIZE are set (`"environment"`, as by the launcher), or `"slurm"` or `"openmpi"`. */
  starter: Starter;
  /** Number of this process, from 0. */
  rank: number;
  /** Number of processes. */
  worldSize: number;
  /** Number of this process on its machine, from 0. */
  localRank: number;
  /** Number of processes on this machine, if known. */
  localWorldSize: number | undefined;
}

/** The variables of this process; those that it may not read are absent. */
export function processEnvironment(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch {
    return undefined;
  }
}

/** The value of the first variable that is set and not empty, and its name. */
function first(env: Environment, names: readonly string[]): [name: string, value: string] | undefined {
  for (const name of names) {
    const value = env(name);
    if (value !== undefined && value !== "") return [name, value];
  }
}

/** A whole number from `least` to `most`. */
function whole(env: Environment, names: readonly string[], least: number, most: number): number | undefined {
  const found = first(env, names);
  if (found === undefined) return undefined;
  const [name, text] = found, value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  const range = most === Infinity ? `>= ${least}` : `from ${least} to ${most}`;
  throw new DistributedError(`${name} must be a whole number ${range}, got "${text}"`);
}

const VARIABLES: Record<Starter, Record<"rank" | "worldSize" | "localRank" | "localWorldSize", string[]>> = {
  environment: { rank: ["RANK"], worldSize: ["WORLD_SIZE"], localRank: ["LOCAL_RANK"], localWorldSize: ["LOCAL_WORLD_SIZE"] },
  openmpi: {
    rank: ["OMPI_COMM_WORLD_RANK"],
    worldSize: ["OMPI_COMM_WORLD_SIZE"],
    localRank: ["OMPI_COMM_WORLD_LOCAL_RANK"],
    localWorldSize: ["OMPI_COMM_WORLD_LOCAL_SIZE"],
  },
  slurm: { rank: ["SLURM_PROCID"], worldSize: ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], localRank: ["SLURM_LOCALID"], localWorldSize: [] },
};

/** Who started this process as one of several; Open MPI before Slurm, which may have started `mpirun`. */
export function starterOf(env: Environment = processEnvironment): Starter | undefined {
  return (["environment", "openmpi", "slurm"] as const).find((starter) => first(env, VARIABLES[starter].rank) !== undefined) ??
    (first(env, ["WORLD_SIZE"]) ? "environment" : undefined);
}

/**
 * The place of this process in its job.
 *
 * @throws {DistributedError} If a variable is missing or is no number that makes sense.
 */
export function placeOf(env: Environment = processEnvironment): Place {
  const starter = starterOf(env);
  if (starter === undefined) {
    throw new DistributedError(
      "RANK and WORLD_SIZE are not set, and neither are the variables of Slurm or Open MPI: start the script with the launcher " +
        "(deno run -A distributed/launch.ts --nproc-per-node 2 script.ts), srun or mpirun, or give rank and worldSize",
    );
  }
  const names = VARIABLES[starter];
  const rank = whole(env, names.rank, 0, Infinity), worldSize = whole(env, names.worldSize, 1, Infinity);
  if (rank === undefined) throw new DistributedError(`${names.rank[0]} is not set: expected the number of this process, from 0`);
  if (worldSize === undefined) throw new DistributedError(`${names.worldSize.at(-1)} is not set: expected the number of processes`);
  if (rank >= worldSize) {
    throw new DistributedError(`${names.rank[0]} is ${rank}, but there are only ${worldSize} processes, counted from 0`);
  }
  const localWorldSize = names.localWorldSize.length > 0 ? whole(env, names.localWorldSize, 1, worldSize) : tasksHere(env);
  const localRank = whole(env, names.localRank, 0, (localWorldSize ?? worldSize) - 1) ??
    (isLoopback(env("MASTER_ADDR") ?? "") ? rank : localWorldSize ? rank % localWorldSize : 0);
  return { starter, rank, worldSize, localRank, localWorldSize };
}

/** Number of this process on its machine, if whoever started it has said so. @throws {DistributedError} If it is no number. */
export function localRankOf(env: Environment = processEnvironment): number | undefined {
  const starter = starterOf(env);
  return starter === undefined ? undefined : whole(env, VARIABLES[starter].localRank, 0, Infinity);
}

/** Slurm's `SLURM_STEP_TASKS_PER_NODE`, such as `4(x2),3`, as far as it is the same on all nodes. */
function tasksHere(env: Environment): number | undefined {
  const match = /^(\d+)(\(x\d+\))?$/.exec(first(env, ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"])?.[1] ?? "");
  return match ? Number(match[1]) : undefined;
}

/** The first host of a list as Slurm writes it: `gpu[07-09,12],login` begins with `gpu07`. */
export function firstHost(list: string): string {
  const host = /^(?:[^,[]|\[[^\]]*\])+/.exec(list)?.[0].replace(/\[([^\],-]*)[^\]]*\]/g, "$1");
  if (!host) throw new DistributedError(`SLURM_NODELIST: cannot tell the first host of "${list}"`);
  return host;
}

/**
 * Where the store of this job is: `MASTER_ADDR` and `MASTER_PORT`; under Slurm the first host and a port made from the number of the job, and under Open MPI on
 * one machine this machine.
 *
 * @throws {DistributedError} If it cannot be told.
 */
export function masterOf(place: Place, env: Environment = processEnvironment): { host: string; port: number } {
  const named = first(env, ["MASTER_ADDR"])?.[1], port = whole(env, ["MASTER_PORT"], 1, 65535);
  const oneMachine = place.localWorldSize === place.worldSize || place.worldSize === 1;
  if (place.starter === "slurm") {
    const nodes = first(env, ["SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"])?.[1];
    const alone = oneMachine || env("SLURM_NNODES") === "1";
    const host = named ?? (alone ? "127.0.0.1" : nodes && firstHost(nodes));
    if (!host) throw new DistributedError("neither MASTER_ADDR nor SLURM_NODELIST is set: expected the host of rank 0");
    return { host, port: port ?? 15_000 + (whole(env, ["SLURM_JOB_ID", "SLURM_JOBID"], 0, Infinity) ?? 0) % 10_000 };
  }
  if (place.starter === "openmpi") {
    const host = named ?? (oneMachine ? "127.0.0.1" : undefined);
    if (!host) throw new DistributedError("MASTER_ADDR is not set: name the host of rank 0, as in mpirun -x MASTER_ADDR=$(hostname) ...");
    return { host, port: port ?? 29_500 };
  }
  if (!named) throw new DistributedError("MASTER_ADDR is not set: expected the host of rank 0, such as 127.0.0.1");
  if (port === undefined) throw new DistributedError("MASTER_PORT is not set: expected the port of the store, such as 29500");
  return { host: named, port };
}
