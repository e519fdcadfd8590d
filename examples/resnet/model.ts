/** The network of the comparison, from the blocks of `vision/models`. */
import { nn, type Tensor } from "@dinograd/dinograd";
import { BasicBlock } from "@dinograd/dinograd/vision";

/** A residual network for small pictures with 8 layers of weights: three blocks at 28, 14 and 7 pixels (He et al. 2015, section 4.2, n = 1). */
export class SmallResNet extends nn.Module {
  features: nn.Sequential;
  classifier: nn.Linear;

  /** @param width Channels of the first block; the others have two and four times as many. */
  constructor(width = 16) {
    super();
    this.features = new nn.Sequential(
      new nn.Conv2d(1, width, 3, { padding: 1, bias: false }),
      new nn.BatchNorm2d(width),
      new nn.ReLU(),
      new BasicBlock(width, width),
      new BasicBlock(width, 2 * width, 2),
      new BasicBlock(2 * width, 4 * width, 2),
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
