/**
 * Training on several devices.
 *
 * @module
 */
export { DataParallel, type DataParallelOptions } from "./data_parallel.ts";
export { gather, type Join, scatter } from "./scatter.ts";
