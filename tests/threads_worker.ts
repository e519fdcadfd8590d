/** A worker of threads_test.ts: does so many rounds of work and answers with what came out, `early` with "started". */
import { setThreads } from "../mod.ts";
import { shared } from "./threads_work.ts";

const port = globalThis as unknown as {
  onmessage: (event: MessageEvent<{ rounds: number; threads: number; early: boolean }>) => void;
  postMessage(answer: number | string): void;
};

port.onmessage = ({ data }) => {
  setThreads(data.threads);
  if (data.early) port.postMessage("started");
  const total = shared(data.rounds);
  if (!data.early) port.postMessage(total);
};
