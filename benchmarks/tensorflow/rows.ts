/**
 * What TensorFlow.js computes in each row. A row is built from the tensors of the file, in TensorFlow's channels-last order where it has pictures. Building or the
 * first step throws where it lacks something: its message is what the benchmark prints.
 *
 * @module
 */
import { type Tensor, tf } from "./tf.ts";

type Inputs = Record<string, Tensor>;
type Build = (t: Inputs) => () => Tensor[];

function forward(fn: (x: Tensor, t: Inputs) => Tensor): Build {
  return (t) => () => [tf.tidy(() => fn(t.x, t))];
}

function bothWays(fn: (x: Tensor, t: Inputs) => Tensor): Build {
  return (t) => {
    const run = tf.valueAndGrad((x: Tensor) => fn(x, t));
    return () =>
      tf.tidy(() => {
        const { value, grad } = "g" in t ? run(t.x, t.g) : run(t.x);
        return [value, grad];
      });
  };
}

/** For models that train convolutions: what the derivative of one says. */
const convolutions: Build = () => () => {
  const x = tf.ones([1, 4, 4, 1]), w = tf.ones([3, 3, 1, 1]);
  tf.grad((w: Tensor) => conv(x, w, 1, 1))(w);
  throw new Error("the model is not written for it");
};

/** Not in the core of TensorFlow.js, or not with a derivative. */
const missing = (what: string): Build => () => {
  throw new Error(`it has no ${what}`);
};

function conv(x: Tensor, w: Tensor, stride: number, padding: number): Tensor {
  return tf.conv2d(x, w, stride, padding, "NHWC", 1, "floor");
}

/** `[N, C, H, W]` to `[N, H, W, C]`, and `[O, I, H, W]` to `[H, W, I, O]`. */
const pictures = (x: Tensor) => tf.transpose(x, [0, 2, 3, 1]), filters = (w: Tensor) => tf.transpose(w, [2, 3, 1, 0]);

/** Parameters and buffers by position, `model.0000.name`. */
function stateOf(t: Inputs): Tensor[] {
  return Object.keys(t).filter((key) => key.startsWith("model.")).sort().map((key) => t[key]);
}

function mlp(t: Inputs): () => Tensor[] {
  const variables = stateOf(t).map((it) => tf.variable(it.rank === 2 ? tf.transpose(it) : it));
  const adam = tf.train.adam(1e-3, 0.9, 0.999, 1e-8), classes = tf.oneHot(t.y, 10);
  const loss = () => {
    let y = t.x;
    for (let i = 0; i < variables.length; i += 2) {
      y = tf.add(tf.matMul(y, variables[i]), variables[i + 1]);
      if (i + 2 < variables.length) y = tf.relu(y);
    }
    return tf.losses.softmaxCrossEntropy(classes, y);
  };
  return () => {
    // AdamW: the decay comes before the step, and the gradients do not see it.
    const { value, grads } = tf.variableGrads(loss);
    tf.tidy(() => variables.forEach((it) => it.assign(tf.mul(it, 1 - 1e-3 * 0.01))));
    adam.applyGradients(grads);
    tf.dispose(grads);
    return [value];
  };
}

/** ResNet-18 in evaluation mode. */
function resnet18(cifar: boolean): Build {
  return (t) => {
    const state = stateOf(t), x = pictures(t.x);
    let at = 0;
    type Layer = (x: Tensor) => Tensor;
    const convNorm = (stride: number, padding: number): Layer => {
      const w = filters(state[at]), [factor, summand, mean, variance] = state.slice(at + 1, at + 5);
      at += 6; // weight, then four of the normalisation and its count
      return (x) => tf.batchNorm(conv(x, w, stride, padding), mean, variance, summand, factor, 1e-5);
    };
    const stem = cifar ? convNorm(1, 1) : convNorm(2, 3);
    const blocks = Array.from({ length: 8 }, (_, i): Layer => {
      const stride = i > 0 && i % 2 === 0 ? 2 : 1, first = convNorm(stride, 1), second = convNorm(1, 1);
      const shortcut = stride === 2 ? convNorm(2, 0) : (x: Tensor) => x;
      return (x) => tf.relu(tf.add(second(tf.relu(first(x))), shortcut(x)));
    });
    const [weight, bias] = state.slice(at), head = tf.transpose(weight);
    return () => [tf.tidy(() => {
      let y = tf.relu(stem(x));
      if (!cifar) y = tf.maxPool(y, 3, 2, 1);
      for (const block of blocks) y = block(y);
      return tf.add(tf.matMul(tf.mean(y, [1, 2]), head), bias);
    })];
  };
}

function convolution(t: Inputs): () => Tensor[] {
  const x = pictures(t.x), w = filters(t.w);
  return () => [tf.tidy(() => conv(x, w, 1, 1))];
}

/** The rows, by name. */
export const rows: Record<string, Build> = {
  matmul_1024: forward((x, t) => tf.matMul(x, t.g)),
  conv3x3_forward: convolution,
  mlp_step: mlp,
  resnet18_step: convolutions,
  unet_step: convolutions,
  pix2pix_step: convolutions,
  shufflenet_step: convolutions,
  resnet18_infer_32: resnet18(true),
  resnet18_infer_224: resnet18(false),
  add_16m: forward((x, t) => tf.add(x, t.g)),
  mul_16m: forward((x, t) => tf.mul(x, t.g)),
  exp_16m: forward((x) => tf.exp(x)),
  relu_16m: bothWays((x) => tf.relu(x)),
  gelu_16m: bothWays((x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1))),
  tanh_16m: bothWays((x) => tf.tanh(x)),
  sigmoid_16m: bothWays((x) => tf.sigmoid(x)),
  sum_16m: forward((x) => tf.sum(x)),
  mean_rows_16m: forward((x) => tf.mean(x, 1)),
  softmax_16m: bothWays((x) => tf.softmax(x, 1)),
  cross_entropy_16m: missing("cross entropy of class numbers: one-hot classes of 4096x4096 would be other work"),
  batch_norm_16m: missing("batch normalisation in training mode with a derivative"),
  batch_norm_16m_channels_last: missing("batch normalisation in training mode with a derivative"),
  layer_norm_16m: missing("layer normalisation in its core"),
};
