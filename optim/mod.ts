/**
 * Optimisers, gradient clipping and learning-rate schedules.
 *
 * @module
 */
export { Adam, type AdamOptions, AdamW } from "./adam.ts";
export { clipGradNorm, clipGradValue } from "./clip.ts";
export {
  ChainedScheduler,
  CompositeScheduler,
  type CycleKey,
  type CyclePhase,
  OneCycleLR,
  type OneCycleOptions,
  type PlateauOptions,
  ReduceLROnPlateau,
  SequentialLR,
} from "./lr_policy.ts";
export {
  ConstantLR,
  CosineAnnealingLR,
  CosineAnnealingWarmRestarts,
  ExponentialLR,
  type Factors,
  LambdaLR,
  LinearLR,
  LRScheduler,
  MultiplicativeLR,
  MultiStepLR,
  PolynomialLR,
  type SchedulerState,
  StepLR,
} from "./lr_scheduler.ts";
export {
  type AnyOptimizer,
  type GroupOptions,
  Optimizer,
  type OptimizerState,
  type ParamGroup,
  type ParamGroupInput,
  type Params,
  type ParamState,
} from "./optimizer.ts";
export { Adagrad, type AdagradOptions, RMSprop, type RMSpropOptions } from "./rmsprop.ts";
export { SGD, type SGDOptions } from "./sgd.ts";
