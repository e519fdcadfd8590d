/**
 * Fetching a batch from a dataset, in the loader's thread or a worker's.
 *
 * @module
 */
import { defaultCollate } from "./collate.ts";
import type { Dataset, IterableDataset } from "./dataset.ts";

/** True for samples that come one after the other. */
export function isIterable(dataset: object): dataset is IterableDataset<unknown> {
  return Symbol.asyncIterator in dataset;
}

/** The batch at some positions. Asynchronous samples are fetched at the same time. */
export async function fetchBatch(
  dataset: Dataset<unknown>,
  indices: readonly number[],
  collate: ((samples: unknown[]) => unknown) | undefined,
): Promise<unknown> {
  if (collate === undefined && dataset.batch !== undefined) return await dataset.batch(indices);
  const pending = indices.map((index) => dataset.get(index));
  const samples = pending.some((it) => it instanceof Promise) ? await Promise.all(pending) : pending;
  return await (collate ?? defaultCollate)(samples);
}

/** The next `count` samples as a batch; `null` when there are no more, or fewer and `dropLast` is set. */
export async function fetchNext(
  samples: AsyncIterator<unknown>,
  count: number,
  dropLast: boolean,
  collate: ((samples: unknown[]) => unknown) | undefined,
): Promise<{ value: unknown } | null> {
  const group: unknown[] = [];
  while (group.length < count) {
    const next = await samples.next();
    if (next.done) break;
    group.push(next.value);
  }
  if (group.length === 0 || (dropLast && group.length < count)) return null;
  return { value: await (collate ?? defaultCollate)(group) };
}
