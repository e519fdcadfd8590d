// Attention modules, encoders and BERT against values recorded from PyTorch and transformers; what they do with bad input; that they learn.
import {
  type DType,
  DTypeError,
  manualSeed,
  memory,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  scope,
  ShapeError,
  type Tensor,
  tensor,
} from "@dinograd/dinograd";
import { bertConfig, BertModel, bertStateDict } from "@dinograd/dinograd/text";
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertThrows, device } from "./device.ts";
import { test as leavesNothing } from "./leaks.ts";

interface Recorded {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly values: readonly (number | boolean)[];
}
interface Case {
  readonly state: Record<string, Recorded>;
  readonly inputs: Record<string, Recorded>;
  readonly outputs: readonly Recorded[];
  readonly weights: readonly Recorded[];
  readonly input_grads: Record<string, Recorded | null>;
  readonly grads: Record<string, Recorded | null>;
}
type Inputs = Record<string, Tensor>;

const recorded: Record<string, Case> = JSON.parse(Deno.readTextFileSync(new URL("./fixtures/transformer.json", import.meta.url)));
const test = (name: string, fn: () => void) =>
  leavesNothing(`${name} [${device}]`, () => {
    manualSeed(5);
    fn();
  });
const build = (it: Recorded) => tensor(it.values.map(Number), { dtype: "float64" }).to(it.dtype).reshape([...it.shape]).clone();

function close(actual: Tensor, expected: Recorded, what: string): void {
  assertEquals(actual.shape, expected.shape, what);
  actual.data().forEach((v: number | bigint, i: number) =>
    assertAlmostEquals(Number(v), Number(expected.values[i]), 1e-7 * Math.max(1, Math.abs(Number(expected.values[i]))), `${what}[${i}]`)
  );
}

const wide = { dtype: "float64" } as const, first = { batchFirst: true, ...wide };
const attend = (options: nn.MultiheadAttentionInputs) => (module: nn.Module, t: Inputs): (Tensor | null)[] => {
  const key = t.key ?? t.query, masks = { keyPaddingMask: t.key_padding_mask, attnMask: t.attn_mask };
  const { output, weights } = (module as nn.MultiheadAttention).call(t.query, key, t.value ?? key, { ...masks, ...options });
  return [output, weights];
};
const encode = (module: nn.Module, t: Inputs) => [
  (module as nn.TransformerEncoderLayer).call(t.src, { mask: t.src_mask, srcKeyPaddingMask: t.src_key_padding_mask }),
];
const understand = (module: nn.Module, t: Inputs) => {
  const { lastHiddenState, poolerOutput } = (module as BertModel).call(t.input_ids, {
    attentionMask: t.attention_mask,
    tokenTypeIds: t.token_type_ids,
  });
  return [lastHiddenState, poolerOutput];
};
const layer = { dimFeedforward: 5, dropout: 0, ...wide };
const tiny = {
  vocabSize: 11,
  hiddenSize: 8,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 10,
  maxPositionEmbeddings: 6,
  hiddenDropoutProb: 0,
  attentionProbsDropoutProb: 0,
  ...wide,
};

const modules: Record<string, [() => nn.Module, (module: nn.Module, inputs: Inputs) => (Tensor | null)[]]> = {
  "MultiheadAttention": [() => new nn.MultiheadAttention(6, 2, wide), attend({})],
  "MultiheadAttention fused": [() => new nn.MultiheadAttention(6, 2, first), attend({ needWeights: false })],
  "MultiheadAttention fused, positions first": [() => new nn.MultiheadAttention(6, 3, wide), attend({ needWeights: false })],
  "MultiheadAttention causal": [() => new nn.MultiheadAttention(6, 2, first), attend({ needWeights: false, isCausal: true })],
  "MultiheadAttention masks": [() => new nn.MultiheadAttention(4, 2, first), attend({ averageAttnWeights: false })],
  "MultiheadAttention float mask": [() => new nn.MultiheadAttention(4, 2, { bias: false, ...first }), attend({ needWeights: false })],
  "MultiheadAttention cross": [() => new nn.MultiheadAttention(6, 2, { kdim: 5, vdim: 3, ...wide }), attend({})],
  "MultiheadAttention keys of another": [() => new nn.MultiheadAttention(4, 2, wide), attend({ needWeights: false })],
  "MultiheadAttention more keys": [() => new nn.MultiheadAttention(4, 2, { addBiasKV: true, addZeroAttn: true, ...first }), attend({})],
  "MultiheadAttention unbatched": [() => new nn.MultiheadAttention(4, 2, wide), attend({})],
  "TransformerEncoderLayer": [() => new nn.TransformerEncoderLayer(4, 2, { ...layer, dimFeedforward: 7 }), encode],
  "TransformerEncoderLayer normFirst": [
    () =>
      new nn.TransformerEncoderLayer(4, 2, {
        ...layer,
        dimFeedforward: 7,
        activation: "gelu",
        normFirst: true,
        batchFirst: true,
        layerNormEps: 1e-3,
      }),
    encode,
  ],
  "TransformerEncoderLayer without bias": [() => new nn.TransformerEncoderLayer(4, 1, { ...layer, bias: false }), encode],
  "TransformerEncoder": [() => {
    using one = new nn.TransformerEncoderLayer(4, 2, { ...layer, batchFirst: true });
    return new nn.TransformerEncoder(one, 2, { norm: new nn.LayerNorm(4, wide) });
  }, encode],
  "BertModel": [() => new BertModel(tiny), understand],
  "BertModel relative_key": [() => new BertModel({ ...tiny, positionEmbeddingType: "relative_key", hiddenAct: "relu" }), understand],
  "BertModel relative_key_query": [
    () => new BertModel({ ...tiny, positionEmbeddingType: "relative_key_query", hiddenAct: "gelu_new" }),
    understand,
  ],
};

for (const [name, [make, call]] of Object.entries(modules)) {
  test(`${name} equals the recorded one: state, outputs, gradients`, () => {
    const want = recorded[name];
    using module = make();
    const state = Object.fromEntries(Object.entries(want.state).map(([key, value]) => [key, build(value)]));
    assertEquals(Object.keys(module.stateDict()), Object.keys(state));
    module.loadStateDict(state);
    const inputs = Object.fromEntries(
      Object.entries(want.inputs).map(([key, value]) => [key, key in want.input_grads ? build(value).requiresGrad_() : build(value)]),
    );
    const outputs = call(module, inputs).filter((y) => y !== null);
    assertEquals(outputs.length, want.outputs.length);
    outputs.forEach((y, i) => close(y, want.outputs[i], `output ${i}`));
    outputs.map((y, i) => y.mul(build(want.weights[i])).sum()).reduce((a, b) => a.add(b)).backward();
    for (const [key, value] of Object.entries(want.input_grads)) close(inputs[key].grad!, value!, `gradient of ${key}`);
    for (const [key, parameter] of module.namedParameters()) {
      const expected = want.grads[key];
      if (expected !== null) close(parameter.grad!, expected, `gradient of ${key}`);
      else assert(parameter.grad === null || parameter.grad.abs().sum().item() === 0, `${key} has a gradient`);
    }
    for (const input of Object.values(inputs)) input.grad?.dispose();
  });
}

test("MultiheadAttention gives the same whether weights are asked for or not, and in evaluation mode drops nothing", () => {
  using attention = new nn.MultiheadAttention(8, 2, { dropout: 0.5, batchFirst: true });
  const x = randn([2, 5, 8]);
  const dropped = attention.call(x, x, x).weights!;
  assert(dropped.eq(0).sum().item() > 0, "no weight was dropped");
  attention.eval();
  const { output, weights } = attention.call(x, x, x), fused = attention.call(x, x, x, { needWeights: false });
  assertEquals(fused.weights, null);
  assert(output.sub(fused.output).abs().max().item() < 1e-6);
  assert(weights!.sum(-1).sub(1).abs().max().item() < 1e-6);
});

test("MultiheadAttention answers bad input", () => {
  assertThrows(() => new nn.MultiheadAttention(6, 4), RangeError, "4 heads do not divide 6 features");
  assertThrows(() => new nn.MultiheadAttention(6, 2, { dropout: 2 }), RangeError, "dropout must be in [0, 1], got 2");
  assertThrows(() => new nn.MultiheadAttention(0, 1), RangeError, "embedDim must be a whole number >= 1, got 0");
  using attention = new nn.MultiheadAttention(4, 2, { batchFirst: true });
  const x = ones([2, 3, 4]), call = (...inputs: unknown[]) => attention.call(...inputs as [Tensor, Tensor, Tensor]);
  assertThrows(() => call(x, x, ones([2, 4, 4])), ShapeError, "key and value must have one length");
  assertThrows(() => call(x, ones([2, 3, 5]), x), ShapeError, "last axes must be 4, 4 and 4");
  assertThrows(() => call(x, ones([1, 3, 4]), ones([1, 3, 4])), ShapeError, "one number of samples");
  assertThrows(() => call(ones([4]), x, x), ShapeError, "3 axes, or 2 without samples");
  assertThrows(() => call(x, x, x, { isCausal: true }), TypeError, "give the mask, too");
  assertThrows(() => call(x, x, x, { attnMask: ones([3, 4]) }), ShapeError, "attnMask must be [3, 3] or [4, 3, 3], got [3, 4]");
  assertThrows(() => call(x, x, x, { keyPaddingMask: ones([3], { dtype: "bool" }) }), ShapeError, "keyPaddingMask must be [2, 3], got [3]");
  assertThrows(() => call(x, x, x, { attnMask: ones([3, 3], { dtype: "int64" }) }), TypeError, "bool or floating point, got int64");
  assertThrows(() => call(x, null, x), TypeError, "the key must be a tensor, got null");
  assertThrows(() => call(x.double(), x.double(), x.double()), DTypeError);
});

test("a query that sees no key gives the output bias, with and without weights", () => {
  using attention = new nn.MultiheadAttention(4, 2, { batchFirst: true });
  noGrad(() => attention.outProj.bias!.fill_(3));
  const x = randn([1, 2, 4]), attnMask = tensor([[true, true], [false, false]]);
  for (const needWeights of [true, false]) {
    assertEquals(attention.call(x, x, x, { attnMask, needWeights }).output.select(1, 0).tolist(), [[3, 3, 3, 3]]);
  }
});

test("TransformerEncoder has copies of the layer, of its class and mode", () => {
  class Own extends nn.TransformerEncoderLayer {}
  using one = new Own(4, 2, { dimFeedforward: 5 });
  one.eval();
  using encoder = new nn.TransformerEncoder(one, 2);
  const [a, b] = encoder.layers;
  assert(a !== one && a !== b && a instanceof Own && !a.training);
  assertEquals(b.linear1.weight.tolist(), one.linear1.weight.tolist());
  noGrad(() => a.linear1.weight.fill_(0));
  assert(one.linear1.weight.abs().sum().item() > 0, "the given layer changed with its copy");
  assertThrows(() => new nn.TransformerEncoder(one, 0), RangeError, "numLayers must be a whole number >= 1, got 0");
  assertThrows(() => new nn.TransformerEncoder(new nn.ReLU() as never, 1), TypeError, "must be a TransformerEncoderLayer");
  assertThrows(() => new nn.TransformerEncoderLayer(4, 2, { activation: "tanh" as never }), RangeError, 'got "tanh"');
});

test("BertModel starts as transformers does, and takes checkpoints by their names", () => {
  using bert = new BertModel({ ...tiny, vocabSize: 3000, padTokenId: 3, dtype: "float32" }, { addPoolingLayer: false });
  const words = bert.embeddings.wordEmbeddings.weight.detach();
  assertAlmostEquals(words.std().item(), 0.02, 5e-4);
  assertEquals(words.select(0, 3).abs().sum().item(), 0);
  assertEquals(bert.pooler, null);
  using model = new BertModel(tiny);
  const checkpoint: Record<string, Tensor> = { "cls.predictions.bias": ones([11]), "bert.embeddings.position_ids": ones([1, 6]) };
  for (const [key, value] of Object.entries(model.stateDict())) {
    checkpoint[`bert.${key}`.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = value.add(1);
  }
  const before = model.pooler!.dense.bias!.tolist() as number[];
  model.loadStateDict(bertStateDict(checkpoint));
  assertEquals(model.pooler!.dense.bias!.tolist(), before.map((x) => x + 1));
  assertEquals(bertConfig({ hidden_size: 8, num_attention_heads: 2, architectures: ["BertForMaskedLM"] }), {
    hiddenSize: 8,
    numAttentionHeads: 2,
  });
});

test("BertModel answers bad input", () => {
  using bert = new BertModel(tiny);
  const ids = (...shape: number[]) => ones(shape, { dtype: "int64" });
  assertThrows(() => bert.call(ids(1, 7)), ShapeError, "[N, L] with L from 1 to 6, got [1, 7]");
  assertThrows(() => bert.call(ids(3)), ShapeError, "got [3]");
  assertThrows(
    () => bert.call(ids(1, 3), { attentionMask: ids(1, 4) }),
    ShapeError,
    "attentionMask must be [N, L] or [N, L, L] as the words, got [1, 4]",
  );
  assertThrows(() => bert.call(ids(1, 2).mul(11)), RangeError);
  assertThrows(() => new BertModel({ hiddenSize: 10, numAttentionHeads: 4 }), RangeError, "4 heads do not divide 10 features");
  assertThrows(() => new BertModel({ hiddenAct: "tanh" as never }), RangeError, "hiddenAct must be one of gelu");
  assertThrows(() => new BertModel({ vocabSize: 0 }), RangeError, "vocabSize must be a whole number >= 1, got 0");
  assertThrows(() => new BertModel({ positionEmbeddingType: "rotary" as never }), RangeError, "got rotary");
});

test("a small BERT learns which words stand first, with dropout, and leaves no tensor behind", () => {
  using bert = new BertModel({ ...tiny, hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1, initializerRange: 0.2, dtype: "float32" });
  using head = new nn.Linear(8, 2);
  const words = tensor([[1, 4, 5], [2, 4, 5], [1, 6, 3], [2, 6, 3]], { dtype: "int64" }), labels = tensor([0, 1, 0, 1], { dtype: "int64" });
  const optimizer = new optim.AdamW([...bert.parameters(), ...head.parameters()], { lr: 0.01 });
  const step = () =>
    scope(() => {
      optimizer.zeroGrad();
      const loss = nn.functional.crossEntropy(head.call(bert.call(words).poolerOutput!), labels);
      loss.backward();
      optimizer.step();
      return loss.item();
    });
  const start = step(), before = memory.stats().tensors;
  let last = start;
  for (let i = 0; i < 40; i++) last = step();
  assert(last < 0.3 * start, `loss ${start} became ${last}`);
  assertEquals(memory.stats().tensors, before);
  optimizer.zeroGrad();
  for (const state of Object.values(optimizer.stateDict().state)) {
    for (const x of Object.values(state)) if (x instanceof Object && "dispose" in x) (x as Tensor).dispose();
  }
});
