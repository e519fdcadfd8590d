/**
 * Neural network modules: `nn.Module`, layers, containers, losses; `nn.functional`, `nn.init`.
 *
 * @module
 */
export { type Layer, Module, type WalkOptions } from "./module.ts";
export { Parameter } from "./parameter.ts";
export type { ForwardHook, ForwardPreHook, FullBackwardHook, Handle } from "./hooks.ts";
export type { LoadResult, StateDict } from "./state_dict.ts";
export { ModuleDict, ModuleList, ParameterList, Sequential } from "./container.ts";
export * from "./activation.ts";
export * from "./padding.ts";
export * from "./pooling.ts";
export * from "./shape.ts";
export * from "./shuffle.ts";
export * from "./upsampling.ts";
