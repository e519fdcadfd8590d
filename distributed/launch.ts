/**
 * Starts a script as several processes that train together: the counterpart of torchrun.
 *
 * ```sh
 * deno run -A distributed/launch.ts --nproc-per-node 2 train.ts --epochs 3
 * ```
 *
 * On several machines, the same command on each with its number, and one secret for all:
 *
 * ```sh
 * export DINOGRAD_SECRET=...   # the same random text everywhere
 * deno run -A distributed/launch.ts --nnodes 2 --node-rank 0 --rdzv-endpoint host0:29500 --nproc-per-node 8 train.ts
 * ```
 *
 * Each rank finds its place by `rendezvous("env://")`. A rank that fails ends all others, on all machines, and its error comes last in the output; with
 * `--max-restarts` all are started again, and go on from their last checkpoint. Ranks also end when their launcher is killed. The exit code is that of the rank
 * that failed first. `--help` lists the options.
 *
 * @module
 */
import { launch } from "./launcher/run.ts";

if (import.meta.main) Deno.exit(await launch(Deno.args));
