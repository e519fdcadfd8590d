/** Stand-ins for MNIST. */
import type { Random } from "../data/random.ts";

/** IDX files of pictures whose bright row says what they are, with noise. */
export async function writeDigits(folder: string, part: string, count: number, random: Random): Promise<void> {
  const images = new Uint8Array(16 + count * 784), labels = new Uint8Array(8 + count);
  const view = new DataView(images.buffer);
  [0x803, count, 28, 28].forEach((word, i) => view.setUint32(4 * i, word));
  [0x801, count].forEach((word, i) => new DataView(labels.buffer).setUint32(4 * i, word));
  for (let i = 0; i < count; i++) {
    const label = labels[8 + i] = random.below(10);
    for (let p = 0; p < 784; p++) images[16 + i * 784 + p] = random.below(40) + (Math.floor(p / 28) >> 1 === label + 2 ? 200 : 0);
  }
  await Deno.writeFile(`${folder}/${part}-images-idx3-ubyte`, images);
  await Deno.writeFile(`${folder}/${part}-labels-idx1-ubyte`, labels);
}
