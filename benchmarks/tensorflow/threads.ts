/**
 * Lets the WebAssembly back end of TensorFlow.js use threads in Deno. Under Node.js it refuses them; it looks for a browser instead, whose classic workers are
 * made here of module workers.
 *
 * @module
 */
import process from "node:process";

const threads = Number(Deno.env.get("BENCH_THREADS") ?? "2");
// deno-lint-ignore no-explicit-any
const world = globalThis as any;

Object.defineProperty(process.versions, "node", { value: undefined });
world.window = world;
// It takes half of these: it counts on two logical processors a core.
Object.defineProperty(navigator, "hardwareConcurrency", { get: () => threads * 2 });

const plainFetch = fetch;
world.fetch = (from: string | URL | Request, init?: RequestInit) =>
  typeof from === "string" && from.startsWith("/") ? plainFetch(new URL(`file://${from}`)) : plainFetch(from, init);

/** The program that the workers run: it comes as a Blob, and workers want text. */
let program = "";
world.Blob = class extends Blob {
  constructor(parts: BlobPart[], options?: BlobPropertyBag) {
    super(parts, options);
    if (typeof parts[0] === "string" && parts[0].startsWith("var WasmBackendModuleThreadedSimd")) program = parts[0];
  }
};

world.Worker = class extends Worker {
  constructor(url: string | URL) {
    const start = `
      let program = "";
      globalThis.importScripts = () => (0, eval)(program);
      delete globalThis.process;
      const waiting = [];
      self.onmessage = (event) => waiting.push(event);
      const script = await (await fetch(${JSON.stringify(String(url))})).text();
      (0, eval)(script.replace('"use strict";', ""));
      const handle = self.onmessage;
      self.onmessage = (event) => {
        if (event.data.cmd === "load") program = event.data.urlOrBlob;
        handle(event);
      };
      for (const event of waiting) self.onmessage(event);`;
    super(URL.createObjectURL(new Blob([start], { type: "text/javascript" })), { type: "module" });
  }
  // deno-lint-ignore no-explicit-any
  override postMessage(message: any, ...rest: any[]): void {
    super.postMessage(message?.cmd === "load" ? { ...message, urlOrBlob: program } : message, ...rest);
  }
};
