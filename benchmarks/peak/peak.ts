/**
 * The machine's measured peak: `peak.cpp`, compiled for this processor and run.
 *
 * @module
 */

/** What the machine can do with so many threads. */
export interface Peak {
  /** Multiply-adds in registers, 10^9 operations a second. */
  readonly gflops: number;
  /** Memory, 10^9 bytes a second. */
  readonly gbs: number;
  /** Floats in a vector. */
  readonly width: number;
}

/** Nanoseconds that a word takes from one core to another and back, by the program that {@linkcode measurePeak} has left in `folder`; `null` without one. */
export async function measureApart(folder: string): Promise<number | null> {
  try {
    const { stdout } = await new Deno.Command(`${folder}/peak`, { args: ["apart"] }).output();
    return JSON.parse(new TextDecoder().decode(stdout)).apart || null;
  } catch {
    return null;
  }
}

/** Measures it; `null` without a C++ compiler. */
export async function measurePeak(threads: number, folder: string): Promise<Peak | null> {
  const program = `${folder}/peak`, source = new URL("peak.cpp", import.meta.url).pathname;
  try {
    const built = await new Deno.Command(Deno.env.get("CXX") ?? "c++", {
      args: ["-O3", "-march=native", "-fopenmp", source, "-o", program],
      stderr: "null",
    }).output();
    if (!built.success) return null;
    const { stdout } = await new Deno.Command(program, { args: [String(threads)] }).output();
    return JSON.parse(new TextDecoder().decode(stdout));
  } catch {
    return null;
  }
}
