// `@std/assert` from npm, for machines that do not reach the JSR registry.
// @ts-types="./assert.d.ts"
export * from "npm:deno-std@1.4.0/assert/mod.js";
