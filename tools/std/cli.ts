// `@std/cli` from npm, for machines that do not reach the JSR registry.
// @ts-types="./cli.d.ts"
export * from "npm:deno-std@1.4.0/cli/mod.js";
