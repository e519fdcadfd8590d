import { AutogradError, FormatError, grad, memory, nn, noGrad, ones, ShapeError, Tensor, tensor, zeros } from "@dinograd/dinograd";
import { assert, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

/** A test that ends with the live tensors it began with. */
class Scale extends nn.Module {
  weight: nn.Parameter;
  runningMean: Tensor;
  readonly size: number;
  constructor(size: number) {
    super();
    this.size = size;
    this.weight = nn.Parameter.take(ones([size]));
    this.runningMean = this.registerBuffer("runningMean", zeros([size]));
    this.registerBuffer("scratch", zeros([1]), { persistent: false });
  }
  override forward(x: Tensor): Tensor {
    return x.mul(this.weight);
  }
}

class Net extends nn.Module {
  first = new Scale(2);
  layerTwo = new nn.Sequential(new Scale(2), new nn.ReLU());
  bias = nn.Parameter.take(zeros([2]));
  override forward(x: Tensor): Tensor {
    return this.layerTwo.call(this.first.call(x)).add(this.bias);
  }
}

test("Module finds parameters, buffers and modules in order, with snake_case names", () => {
  using net = new Net();
  assertEquals([...net.namedParameters()].map(([name]) => name), ["bias", "first.weight", "layer_two.0.weight"]);
  assertEquals([...net.namedBuffers()].map(([name]) => name), [
    "first.running_mean",
    "first.scratch",
    "layer_two.0.running_mean",
    "layer_two.0.scratch",
  ]);
  assertEquals([...net.namedModules()].map(([name]) => name), ["", "first", "layer_two", "layer_two.0", "layer_two.1"]);
  assertEquals([...net.namedChildren()].map(([name]) => name), ["first", "layer_two"]);
  assertEquals([...net.parameters({ recurse: false })].length, 1);
  assert(net.getParameter("layerTwo.0.weight") === net.getParameter("layer_two.0.weight"));
  assert(net.getBuffer("first.runningMean") === net.first.runningMean);
  assertThrows(() => net.getParameter("first.wieght"), RangeError, 'has no "wieght", it has: weight');
  assertThrows(() => net.getSubmodule("third"), RangeError, "it has: first, layer_two");
});

test("Module names one shared parameter or module once, but saves it twice", () => {
  class Tied extends nn.Module {
    a = new Scale(2);
    b = this.a;
    other = this.a.weight;
  }
  using net = new Tied();
  assertEquals([...net.namedParameters()].map(([name]) => name), ["other"]);
  assertEquals([...net.modules()].length, 2);
  assertEquals(Object.keys(net.stateDict()), ["other", "a.weight", "a.running_mean", "b.weight", "b.running_mean"]);
});

test("registerParameter(), registerBuffer() and addModule() refuse bad names and values", () => {
  using net = new nn.Module();
  assertThrows(() => net.addModule("a.b", new nn.ReLU()), RangeError, 'no "."');
  using spare = nn.Parameter.take(zeros([1]));
  assertThrows(() => net.registerParameter("forward", spare), RangeError, 'already has a member "forward"');
  assertThrows(() => net.registerParameter("p", zeros([1]) as nn.Parameter), TypeError, "wrap it in new Parameter()");
  assertThrows(() => net.addModule("m", 3 as unknown as nn.Module), TypeError, "must be a Module");
  net.addModule("act", new nn.ReLU());
  net.registerParameter("p", nn.Parameter.take(zeros([1])));
  net.registerBuffer("b", null);
  assertEquals(Object.keys(net.stateDict()), ["p"]);
  assertEquals([...net.children()].length, 1);
});

test("stateDict() and loadStateDict() round trip, and refuse what does not fit without changing anything", () => {
  using net = new Net();
  using other = new Net();
  noGrad(() => {
    net.first.weight.fill_(3);
    net.first.runningMean.fill_(5);
  });
  const state = net.stateDict();
  assertEquals(Object.keys(state), ["bias", "first.weight", "first.running_mean", "layer_two.0.weight", "layer_two.0.running_mean"]);
  assert(!state.bias.requiresGrad);
  assertEquals(other.loadStateDict(state), { missingKeys: [], unexpectedKeys: [] });
  assertEquals(other.first.weight.tolist(), [3, 3]);
  assertEquals(other.first.runningMean.tolist(), [5, 5]);
  const { bias: _, ...rest } = state;
  noGrad(() => net.first.weight.fill_(4));
  const error = assertThrows(() => other.loadStateDict({ ...rest, extra: zeros([1]) }), FormatError);
  assertEquals(error.message, 'loadStateDict: the state does not fit Net: missing: "bias"; unexpected: "extra"');
  assertThrows(
    () => other.loadStateDict({ ...state, "first.weight": zeros([3]) }),
    ShapeError,
    '"first.weight" has shape [3] in the state, expected [2]',
  );
  assertEquals(other.first.weight.tolist(), [3, 3]);
  assertEquals(other.loadStateDict(new Map(Object.entries({ ...rest, extra: zeros([1]) })), { strict: false }), {
    missingKeys: ["bias"],
    unexpectedKeys: ["extra"],
  });
  assertEquals(other.first.weight.tolist(), [4, 4]);
  assertThrows(() => other.loadStateDict({ bias: 1 } as unknown as nn.StateDict), TypeError, '"bias" must be a tensor');
});

test("train(), eval(), apply(), requiresGrad_() and zeroGrad() reach every module", () => {
  using net = new Net();
  assert(net.training && net.layerTwo.at(0).training);
  net.eval();
  assert([...net.modules()].every((module) => !module.training));
  net.train();
  const order: string[] = [];
  net.apply((module) => order.push(module.constructor.name));
  assertEquals(order, ["Scale", "Scale", "ReLU", "Sequential", "Net"]);
  net.call(ones([1, 2])).sum().backward();
  assertEquals(net.bias.grad!.tolist(), [1, 1]);
  net.zeroGrad({ setToNull: false });
  assertEquals(net.bias.grad!.tolist(), [0, 0]);
  net.zeroGrad();
  assertEquals(net.bias.grad, null);
  net.requiresGrad_(false);
  assert([...net.parameters()].every((p) => !p.requiresGrad));
  assertThrows(() => net.train(1 as unknown as boolean), TypeError, "mode must be a boolean");
});

test("to() converts in place and keeps each parameter's identity", () => {
  using net = new Net();
  const { weight } = net.first;
  net.registerBuffer("count", tensor(3, { dtype: "int64" }));
  net.call(ones([1, 2])).sum().backward();
  net.double();
  assert(net.first.weight === weight && weight.dtype === "float64" && weight.requiresGrad && weight.isLeaf);
  assertEquals(weight.grad!.dtype, "float64");
  assertEquals(net.first.runningMean.dtype, "float64");
  assertEquals(net.getBuffer("count").dtype, "int64");
  assertEquals(net.call(ones([1, 2], { dtype: "float64" })).dtype, "float64");
  assertThrows(() => net.to("int32"), TypeError, "floating point");
  net.to({ dtype: "float32", device: "cpu" });
  assertEquals(weight.dtype, "float32");
});

test("forward-pre hooks change the input, forward hooks the output, until removed", () => {
  using net = new Scale(2);
  const pre = net.registerForwardPreHook((_, [x]) => (x as Tensor).add(1));
  const post = net.registerForwardHook((module, inputs, output) => {
    assert(module === net);
    assertEquals((inputs[0] as Tensor).tolist(), [2, 2]);
    return (output as Tensor).mul(10);
  });
  assertEquals(net.call(ones([2])).tolist(), [20, 20]);
  assertEquals(net.forward(ones([2])).tolist(), [1, 1]);
  pre.remove();
  post.remove();
  assertEquals(net.call(ones([2])).tolist(), [1, 1]);
});

test("full backward hooks see both gradients and may change the input's", () => {
  using net = new Scale(2);
  noGrad(() => net.weight.fill_(3));
  let seen: unknown;
  const handle = net.registerFullBackwardHook((_, gradInput, gradOutput) => {
    seen = [gradInput.map((g) => g?.tolist()), gradOutput.map((g) => g?.tolist())];
    return gradInput.map((g) => g?.mul(100) ?? null);
  });
  const x = ones([2], { requiresGrad: true });
  net.call(x).mul(2).sum().backward();
  assertEquals(seen, [[[6, 6]], [[2, 2]]]);
  assertEquals(x.grad!.tolist(), [600, 600]);
  assertEquals(net.weight.grad!.tolist(), [2, 2]);
  net.call(ones([2])).sum().backward(); // no input takes a gradient
  assertEquals(seen, [[undefined], [[1, 1]]]);
  handle.remove();
  seen = null;
  const [dx] = grad(net.call(x).sum(), [x]);
  assertEquals(dx.tolist(), [3, 3]);
  assertEquals(seen, null);
  x.grad!.dispose();
});

test("setData() refuses backward through what saved the old elements", () => {
  using net = new Scale(2);
  const y = net.call(ones([2], { requiresGrad: true }));
  net.double();
  assertThrows(() => y.sum().backward(), Error, "was changed in place afterwards");
});

test("toString() shows the tree", () => {
  using net = new Net();
  assertEquals(
    String(net),
    "Net(\n  (first): Scale()\n  (layer_two): Sequential(\n    (0): Scale()\n    (1): ReLU(inplace=false)\n  )\n)",
  );
});

test("ModuleList, ModuleDict and ParameterList hold their entries by position and name", () => {
  using list = new nn.ModuleList([new Scale(1)]);
  list.append(new Scale(2));
  assertEquals([list.length, list.at(-1).size], [2, 2]);
  assertEquals([...list.namedParameters()].map(([name]) => name), ["0.weight", "1.weight"]);
  assertThrows(() => list.at(2), RangeError, "index 2 is outside 2 entries");
  using dict = new nn.ModuleDict({ camelCase: new Scale(1), forward: new Scale(1) });
  assertEquals([...dict.namedParameters()].map(([name]) => name), ["camelCase.weight", "forward.weight"]);
  using removed = dict.get("camelCase")!;
  assert(dict.delete("camelCase") && !dict.has("camelCase") && removed instanceof Scale);
  using params = new nn.ParameterList([nn.Parameter.take(zeros([2])), nn.Parameter.take(zeros([3]))]);
  assertEquals(Object.keys(params.stateDict()), ["0", "1"]);
});

test("Sequential takes modules or names, and lets go of results in between", () => {
  using model = new nn.Sequential({ act: new nn.Tanh(), flat: new nn.Flatten() });
  assertEquals([...model.namedChildren()].map(([name]) => name), ["act", "flat"]);
  model.append(new nn.Sigmoid());
  const x = ones([2, 3], { requiresGrad: true });
  const before = memory.stats().tensors;
  const y = noGrad(() => model.call(x));
  assertEquals(memory.stats().tensors, before + 1);
  assert(y instanceof Tensor);
  model.call(x).sum().backward();
  const t = Math.tanh(1), s = 1 / (1 + Math.exp(-t));
  assert(Math.abs(Number(x.grad!.data()[0]) - s * (1 - s) * (1 - t * t)) < 1e-6);
  x.grad!.dispose();
  assertThrows(() => new nn.Sequential(3 as unknown as nn.Layer), TypeError, "must be a Module");
});

test("parametersToVector() and vectorToParameters() are each other's inverse", () => {
  using from = new nn.Linear(3, 2);
  using into = new nn.Linear(3, 2);
  const vector = nn.utils.parametersToVector(from.parameters());
  assertEquals(vector.shape, [8]);
  nn.utils.vectorToParameters(vector, into.parameters());
  assertEquals(into.weight.tolist(), from.weight.tolist());
  assertEquals(into.bias!.tolist(), from.bias!.tolist());
  vector.sum().backward();
  assertEquals(from.bias!.grad!.tolist(), [1, 1]);
  assertThrows(
    () => nn.utils.vectorToParameters(ones([7]), into.parameters()),
    ShapeError,
    "expected a vector of 8 elements, got shape [7]",
  );
});

test("setData() keeps the handle, and refuses a result of operations", () => {
  const x = ones([2], { requiresGrad: true });
  x.setData(zeros([3], { dtype: "float64" }));
  assertEquals([x.shape, x.dtype, x.requiresGrad], [[3], "float64", true]);
  assertThrows(() => x.mul(2).setData(zeros([3])), AutogradError, "made by mul, only a leaf can be given other elements");
  assertThrows(() => x.setData(zeros([3], { dtype: "int64" })), AutogradError, "int64 cannot hold");
});

test("state-dict names are snake_case of camelCase properties, others as they are", () => {
  class Names extends nn.Module {
    weightIhL0 = nn.Parameter.take(zeros([1]));
    inProjWeight = nn.Parameter.take(zeros([1]));
    Mixed_5b = new nn.ReLU();
    kept_name = nn.Parameter.take(zeros([1]));
    fcHTML = nn.Parameter.take(zeros([1]));
    conv1 = nn.Parameter.take(zeros([1]));
  }
  using names = new Names();
  assertEquals(Object.keys(names.stateDict()), ["weight_ih_l0", "in_proj_weight", "kept_name", "fc_html", "conv1"]);
  assertEquals([...names.namedChildren()].map(([name]) => name), ["Mixed_5b"]);
});

test("hooks inside a Sequential may keep what they see", () => {
  using model = new nn.Sequential(new nn.Tanh(), new nn.Sigmoid(), new nn.Flatten());
  let seen: Tensor | null = null;
  model.at(1).registerForwardHook((_module, _inputs, output) => void (seen = output as Tensor));
  noGrad(() => model.call(zeros([1, 2])));
  assertEquals(seen!.tolist(), [[0.5, 0.5]]);
});
