/**
 * Attention by itself, and a training step of BERT-small.
 *
 * @module
 */
import { nn, scope, type Tensor } from "../../mod.ts";
import { BertModel } from "../../text/mod.ts";
import { adamw, training } from "./models.ts";
import { labels, type Row, sampled, values } from "./row.ts";

/** BERT-small (4 layers of 512 features and 8 heads) and a classifier of its pooled output, without dropout. */
class BertClassifier extends nn.Module {
  bert = new BertModel({
    hiddenSize: 512,
    numHiddenLayers: 4,
    numAttentionHeads: 8,
    intermediateSize: 2048,
    hiddenDropoutProb: 0,
    attentionProbsDropoutProb: 0,
  });
  head = new nn.Linear(512, 2);
  override forward(words: Tensor): Tensor {
    return this.head.call(this.bert.call(words).poolerOutput!);
  }
}
const sentences = () => ({ x: labels(8 * 128, 30000).reshape([8, 128]), y: labels(8, 2) });

function attention(name: string, what: string, isCausal: boolean, flops: number): Row {
  return {
    name,
    what,
    flops,
    steps: 1,
    checks: 1,
    tolerance: 1e-3,
    inputs: () => Object.fromEntries(["q", "k", "v", "g"].map((key, i) => [key, values([8, 8, 512, 64], i + 1)])),
    setup(t) {
      const [q, k, v] = [t.q, t.k, t.v].map((x) => x.requiresGrad_());
      return {
        step: () =>
          scope(() => {
            for (const x of [q, k, v]) {
              x.grad?.dispose();
              x.grad = null;
            }
            const y = nn.functional.scaledDotProductAttention(q, k, v, { isCausal });
            y.backward(t.g);
            return y.detach();
          }),
        check: (y) => sampled(y, q.grad!, k.grad!, v.grad!),
      };
    },
  };
}

/** The rows. */
export const attentionRows: readonly Row[] = [
  training("bert_small_step", "BERT-small, 8x128 words, AdamW, training step", () => new BertClassifier(), adamw, sentences, {
    flops: 81.1e9,
  }),
  attention("attention_512", "attention 8x8x512x64, forward and backward", false, 64 * 14 * 512 * 512 * 64),
  attention("attention_512_causal", "the same, causal", true, 64 * 7 * 512 * 512 * 64),
];
