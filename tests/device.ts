/**
 * The device that tests run on: `DINOGRAD_DEVICE`, the CPU by default. A test file that imports this module makes its tensors there, and draws the same numbers
 * in every run. For `cuda` the emulated library is chosen unless `DINOGRAD_EMULATED_CUDA` says otherwise.
 */
import * as std from "@std/assert";
import { cuda, type Device, device as deviceOf, type DeviceLike, manualSeed, setDefaultDevice } from "../mod.ts";

/** The device under test. */
export const device: Device = deviceOf((Deno.env.get("DINOGRAD_DEVICE") ?? "cpu") as DeviceLike);
if (device.type === "cuda") {
  if (Deno.env.get("DINOGRAD_EMULATED_CUDA") === undefined) Deno.env.set("DINOGRAD_EMULATED_CUDA", "1");
  if (Deno.env.get("DINOGRAD_EMULATED_DEVICES") === undefined) Deno.env.set("DINOGRAD_EMULATED_DEVICES", "4");
}
setDefaultDevice(device);
manualSeed(20);

/** Runs `fn` and waits for the device, which only then tells of errors in the elements. */
export function awaited<T>(fn: () => T): T {
  const result = fn();
  if (device.type === "cuda") cuda.synchronize(device);
  return result;
}

/** `assertThrows` of `@std/assert`, waiting for the device inside: an index out of range that only the device sees is told later. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  // deno-lint-ignore no-explicit-any
  errorClass: new (...args: any[]) => E,
  text?: string,
  what?: string,
): E {
  return std.assertThrows(() => awaited(fn), errorClass, text, what);
}
