/** Accuracy of a model on a dataset. */
import { DataLoader, distributed, nn, noGrad, scope, type Tensor, type TensorDataset } from "@dinograd/dinograd";
import { prepare } from "./data.ts";

/** What {@linkcode evaluate} finds. */
export interface Evaluation {
  /** Part of the samples whose largest logit is that of their label. */
  accuracy: number;
  /** Mean cross entropy. */
  loss: number;
  /** The others: position, label and what the model said. */
  wrong: { index: number; label: number; predicted: number }[];
}

/**
 * Evaluates `model` in eval mode, where BatchNorm uses its running statistics, so that no result depends on the batch. With a process group each rank
 * evaluates its part, and all get the whole result.
 */
export async function evaluate(model: nn.Module, dataset: TensorDataset<[Tensor, Tensor]>): Promise<Evaluation> {
  const training = model.training;
  const [{ device }] = model.parameters();
  model.eval();
  const wrong: Evaluation["wrong"] = [];
  const parallel = distributed.isInitialized();
  const share = parallel ? { numReplicas: distributed.getWorldSize(), rank: distributed.getRank() } : { numReplicas: 1, rank: 0 };
  const sampler = new distributed.DistributedEvaluationSampler(dataset, share);
  let at = 0, loss = 0;
  for await (const [pictures, labels] of new DataLoader(dataset, { batchSize: 500, sampler })) {
    const { predicted, sum } = scope(() =>
      noGrad(() => {
        const logits = (model as nn.Layer).call(prepare.call(pictures.to(device))) as Tensor;
        const entropy = nn.functional.crossEntropy(logits, labels.to(device), { reduction: "sum" });
        return { predicted: logits.argmax(1).tolist() as number[], sum: entropy.item() };
      })
    );
    (labels.tolist() as number[]).forEach((label, i) => {
      if (label !== predicted[i]) wrong.push({ index: (at + i) * share.numReplicas + share.rank, label, predicted: predicted[i] });
    });
    at += predicted.length;
    loss += sum;
    pictures.dispose();
    labels.dispose();
  }
  model.train(training);
  const parts = parallel ? await distributed.allGatherObject({ at, loss, wrong }) : [{ at, loss, wrong }];
  const all = parts.flatMap((it) => it.wrong).sort((a, b) => a.index - b.index), count = parts.reduce((sum, it) => sum + it.at, 0);
  return { accuracy: (count - all.length) / count, loss: parts.reduce((sum, it) => sum + it.loss, 0) / count, wrong: all };
}
