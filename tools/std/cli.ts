// `@std/cli` from npm, for machines that do not reach the JSR registry. (The package lacks a file that the rest of `cli` needs.)
// @ts-types="./cli.d.ts"
export * from "npm:deno-std@1.4.0/cli/parse_args.js";
