/** A rank of a test's world: `rank.ts scenario rank size store backend`. */
import { type DeviceLike, distributed, setDefaultDevice } from "../../mod.ts";
import { conformance } from "./conformance.ts";
import * as ddp from "./ddp.ts";
import * as faults from "./faults.ts";
import { leavingInTurn, objects, subgroups } from "./groups.ts";
import { messages, orderedMessages } from "./messages.ts";
import { misuse } from "./misuse.ts";
import { resume, resumeSharded } from "./resume.ts";
import * as streams from "./streams.ts";
import { syncBatchNorm } from "./sync_batch_norm.ts";

const scenarios: Record<string, (rank: number, size: number) => Promise<void>> = {
  conformance,
  leavingInTurn,
  messages,
  misuse,
  objects,
  orderedMessages,
  resume,
  resumeSharded,
  subgroups,
  syncBatchNorm,
  ...ddp,
  ...faults,
  ...streams,
};

const [scenario, rank, size, store, backend] = Deno.args;
if (backend === "nccl") setDefaultDevice(`cuda:${rank}` as DeviceLike);
await distributed.initProcessGroup({
  backend: backend as distributed.BackendName,
  initMethod: `file://${store}`,
  rank: Number(rank),
  worldSize: Number(size),
  timeout: 60_000,
});
await scenarios[scenario](Number(rank), Number(size));
if (distributed.isInitialized()) await distributed.destroyProcessGroup();
