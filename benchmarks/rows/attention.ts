/**
 * Attention by itself, and a training step of BERT-small.
 *
 * @module
 */
import { nn, type Tensor } from "../../mod.ts";
import { BertModel } from "../../text/mod.ts";
import { adamw, training } from "./models.ts";
import { bothWays, labels, type Row, values } from "./row.ts";

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
  return bothWays(name, what, (q, t) => nn.functional.scaledDotProductAttention(q, t.k, t.v, { isCausal }), {
    leaves: ["q", "k", "v"],
    flops,
    inputs: () => Object.fromEntries(["q", "k", "v", "g"].map((key, i) => [key, values([8, 8, 512, 64], i + 1)])),
  });
}

/** The rows. */
export const attentionRows: readonly Row[] = [
  training("bert_small_step", "BERT-small, 8x128 words, AdamW, training step", () => new BertClassifier(), adamw, sentences, {
    flops: 81.1e9,
  }),
  attention("attention_512", "attention 8x8x512x64, forward and backward", false, 64 * 14 * 512 * 512 * 64),
  attention("attention_512_causal", "the same, causal", true, 64 * 7 * 512 * 512 * 64),
];
