/**
 * Training on several devices and in several processes.
 *
 * @module
 */
export { DataParallel, type DataParallelOptions } from "./data_parallel.ts";
export { gather, type Join, scatter } from "./scatter.ts";
export { DEFAULT_STORE_TIMEOUT, HashStore, PrefixStore, type Store, type WaitOptions } from "./store.ts";
export type { StoreLimits } from "./store/table.ts";
export { StoreServer, type StoreServerOptions } from "./store/server.ts";
export { TcpStore, type TcpStoreOptions } from "./store/tcp.ts";
export { FileStore, type FileStoreOptions } from "./store/file.ts";
export { type Rendezvous, rendezvous, type RendezvousOptions } from "./rendezvous.ts";
export type { Environment } from "./environment.ts";
export { spawn, type SpawnOptions } from "./spawn.ts";
export { DistributedEvaluationSampler, DistributedSampler, type DistributedSamplerOptions, type ShareOptions } from "./sampler.ts";
