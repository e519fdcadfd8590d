/** Ranks that a test kills or stops, or that end by an error: the others write how they learned of it. */
import { distributed, DistributedError, ones } from "../../mod.ts";

function say(event: string, details: Record<string, unknown> = {}): void {
  console.log(JSON.stringify({ event, ...details }));
}

/** Reduces until that fails. */
async function until(bytes: number, timeout: number): Promise<void> {
  const { device } = distributed.defaultGroup();
  const x = ones([Math.min(bytes / 4, device.type === "cpu" ? Infinity : 2 ** 20)]); // emulated devices are slow
  say("ready");
  for (;;) {
    try {
      await distributed.allReduce(x, { op: "max", asyncOp: true, timeout }).done();
    } catch (error) {
      if (!(error instanceof DistributedError)) throw error;
      say("failed", { message: error.message, rank: error.rank, collective: error.collective });
      return;
    }
  }
}

/** Small collectives: mostly between them when the fault comes. */
export const reducing = (): Promise<void> => until(64, 1000);
/** Large ones: mostly within one. */
export const reducingMuch = (): Promise<void> => until(16 << 20, 1500);

/** Once rank 1 is through the second, all ranks are past the first: nobody is joining the group any more. */
function together(): void {
  for (let i = 0; i < 2; i++) distributed.allReduce(ones([16]), { op: "max", asyncOp: true }).wait(20_000);
}

/** Rank 1 raises. */
export async function raising(rank: number): Promise<void> {
  if (rank !== 1) return await until(64, 20_000);
  together();
  throw new RangeError("a bad batch");
}

/** Rank 1 leaves without a word. */
export async function leaving(rank: number): Promise<void> {
  if (rank !== 1) return await until(64, 20_000);
  together();
  Deno.exit(0);
}
