/**
 * Training on several devices and in several processes.
 *
 * @module
 */
export { DataParallel, type DataParallelOptions } from "./data_parallel.ts";
export { DistributedDataParallel, type DistributedDataParallelOptions, type JoinOptions } from "./ddp/mod.ts";
export type { GradBucket } from "./ddp/buckets.ts";
export { allReduceHook, bf16CompressHook, type BucketReduction, type CommHook, fp16CompressHook } from "./ddp/comm_hooks.ts";
export {
  type CheckpointInfo,
  type CheckpointState,
  listCheckpoints,
  loadCheckpoint,
  type LoadCheckpointOptions,
  type LoadedCheckpoint,
  saveCheckpoint,
  type SaveCheckpointOptions,
} from "./checkpoint/mod.ts";
export type { Stateful } from "./checkpoint/values.ts";
export * as parallel from "./scatter.ts";
export type { Join } from "./scatter.ts";
export {
  allGather,
  allGatherIntoTensor,
  allReduce,
  allToAll,
  allToAllSingle,
  barrier,
  broadcast,
  destroyProcessGroup,
  gather,
  getBackend,
  getRank,
  getWorldSize,
  type GroupOptions,
  type InitOptions,
  initProcessGroup,
  newGroup,
  type NewGroupOptions,
  recv,
  reduce,
  reduceScatter,
  reduceScatterTensor,
  scatter,
  send,
} from "./collectives.ts";
export { defaultGroup, isInitialized } from "./world.ts";
export type { BackendName } from "./backend.ts";
export { allGatherObject, broadcastObject, gatherObject, MAX_OBJECT_BYTES, type ObjectOptions, scatterObject } from "./objects.ts";
export { type CollectiveOptions, DEFAULT_TIMEOUT, type MessageOptions, type ProcessGroup, type ReduceOptions } from "./process_group.ts";
export type { ReduceOp, Work } from "./work.ts";
export { DEFAULT_STORE_TIMEOUT, HashStore, PrefixStore, type Store, type WaitOptions } from "./store.ts";
export type { StoreLimits } from "./store/table.ts";
export { StoreServer, type StoreServerOptions } from "./store/server.ts";
export { TcpStore, type TcpStoreOptions } from "./store/tcp.ts";
export { FileStore, type FileStoreOptions } from "./store/file.ts";
export { type Rendezvous, rendezvous, type RendezvousOptions } from "./rendezvous.ts";
export type { Environment } from "./environment.ts";
export { spawn, type SpawnOptions } from "./spawn.ts";
export { DistributedEvaluationSampler, DistributedSampler, type DistributedSamplerOptions, type ShareOptions } from "./sampler.ts";
