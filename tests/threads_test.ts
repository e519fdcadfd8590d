import { assertEquals, assertThrows } from "@std/assert";
import { getThreads, setThreads } from "../mod.ts";
import { device } from "./device.ts";
import { shared } from "./threads_work.ts";

/** A worker that does so many rounds and answers with the total, or as soon as it starts. */
function start(rounds: number, threads: number, early = false): { worker: Worker; answer: Promise<number | string> } {
  const worker = new Worker(new URL("./threads_worker.ts", import.meta.url), { type: "module" });
  const answer = new Promise<number | string>((done, fail) => {
    worker.onmessage = ({ data }) => done(data);
    worker.onerror = (event) => fail(new Error(event.message));
  });
  worker.postMessage({ rounds, threads, early });
  return { worker, answer };
}

Deno.test("workers share their work among threads at once, each its own", async () => {
  // The number of threads is the process's: it changes while others work.
  const threads = getThreads(), expected = shared(8), workers = [1, 2, 3].map((n) => start(8, 1 + n % threads));
  assertEquals(shared(8), expected); // while they work
  for (const { worker, answer } of workers) {
    assertEquals(await answer, expected);
    worker.terminate();
  }
  setThreads(threads);
  assertEquals(shared(8), expected);
});

/** Threads of this process that share work, but those in `known`. */
function helpers(known: readonly string[] = []): string[] {
  return [...Deno.readDirSync("/proc/self/task")].map(({ name }) => name).filter((name) => {
    try {
      return !known.includes(name) && Deno.readTextFileSync(`/proc/self/task/${name}/comm`).trim() === "dinograd";
    } catch {
      return false; // ended meanwhile
    }
  });
}

Deno.test({
  name: "a worker that is ended at work takes its threads with it",
  ignore: Deno.build.os !== "linux" || device.type !== "cpu",
  async fn() {
    const expected = shared(5), before = helpers(), { worker, answer } = start(10, getThreads(), true);
    assertEquals(await answer, "started");
    const until = performance.now() + 60_000, wait = () => new Promise((done) => setTimeout(done, 20));
    while (helpers(before).length < getThreads() - 1 && performance.now() < until) await wait();
    assertEquals(helpers(before).length, getThreads() - 1);
    worker.terminate();
    assertEquals(shared(5), expected);
    while (helpers(before).length > 0 && performance.now() < until) await wait();
    assertEquals(helpers(before), []);
  },
});

Deno.test("setThreads() takes 1 to the number of processors, and results stay", () => {
  const threads = getThreads(), expected = shared(3);
  try {
    for (let count = 1; count <= threads; count++) {
      setThreads(count);
      assertEquals(getThreads(), count);
      assertEquals(shared(3), expected);
    }
    for (const wrong of [0, -1, 2 ** 20, 1.5, NaN]) assertThrows(() => setThreads(wrong), RangeError, "setThreads");
  } finally {
    setThreads(threads);
  }
});
