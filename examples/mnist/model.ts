/** The convolutional network of the MNIST example. */
import { nn, type Tensor } from "@dinograd/dinograd";

/** Convolution, BatchNorm and ReLU. The convolution needs no bias: BatchNorm has one. */
function block(inputs: number, outputs: number): nn.Layer[] {
  return [new nn.Conv2d(inputs, outputs, 3, { padding: 1, bias: false }), new nn.BatchNorm2d(outputs), new nn.ReLU()];
}

/** Three stages at 28, 14 and 7 pixels, then an average over the picture: 10 logits. */
export class DigitNet extends nn.Module {
  features: nn.Sequential;
  classifier: nn.Linear;

  constructor(width = 16) {
    super();
    this.features = new nn.Sequential(
      ...block(1, width),
      new nn.MaxPool2d(2),
      ...block(width, 2 * width),
      ...block(2 * width, 2 * width),
      new nn.MaxPool2d(2),
      ...block(2 * width, 4 * width),
      new nn.AdaptiveAvgPool2d(1),
      new nn.Flatten(),
    );
    this.classifier = new nn.Linear(4 * width, 10);
  }

  /** Logits `[N, 10]` of normalised pictures `[N, 1, 28, 28]`. */
  override forward(x: Tensor): Tensor {
    return this.classifier.call(this.features.call(x));
  }
}
