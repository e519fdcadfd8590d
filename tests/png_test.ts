import { decodePng, encodePng, FormatError, type Picture } from "@dinograd/dinograd";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Random } from "../data/random.ts";

const fixture = (channels: number): Promise<Uint8Array> => Deno.readFile(new URL(`fixtures/png_${channels}.png`, import.meta.url));

Deno.test("decodePng() reads each filter and number of channels", async () => {
  for (const channels of [1, 2, 3, 4]) {
    const picture = await decodePng(await fixture(channels));
    assertEquals([picture.width, picture.height, picture.channels], [7, 10, channels as Picture["channels"]]);
    const stride = 7 * channels;
    const wanted = Uint8Array.from({ length: 10 * stride }, (_, i) => {
      const x = i % stride, y = Math.floor(i / stride);
      return x * 37 + y * 91 + x * y * 13;
    });
    assertEquals(picture.data, wanted);
  }
});

Deno.test("encodePng() writes what decodePng() reads", async () => {
  const random = new Random(3);
  for (const channels of [1, 2, 3, 4] as const) {
    for (const [width, height] of [[1, 1], [5, 3], [64, 33]]) {
      const smooth = Uint8Array.from({ length: width * height * channels }, (_, i) => i >> 3);
      const noise = smooth.map(() => random.below(256));
      for (const data of [smooth, noise]) assertEquals((await decodePng(await encodePng({ width, height, channels, data }))).data, data);
    }
  }
});

Deno.test("encodePng() and decodePng() say what is wrong", async () => {
  const data = new Uint8Array(6);
  await assertRejects(() => encodePng({ width: 2, height: 2, channels: 1, data }), RangeError, "take 4 values, got 6");
  await assertRejects(() => encodePng({ width: 0, height: 2, channels: 3, data: new Uint8Array() }), RangeError);
  await assertRejects(() => encodePng({ width: 1, height: 1, channels: 6 as 1, data }), RangeError);
  const good = await fixture(1);
  await assertRejects(() => decodePng(new Uint8Array(3)), FormatError, "not a PNG");
  await assertRejects(() => decodePng(good.slice(0, 60)), FormatError, "truncated");
  const damaged = good.slice();
  damaged[20] ^= 1;
  await assertRejects(() => decodePng(damaged), FormatError, "check sum");
});

Deno.test("decodePng() answers any damage with a FormatError or a picture", async () => {
  const original = await fixture(3), random = new Random(5);
  let refused = 0;
  for (let round = 0; round < 300; round++) {
    let bytes = original.slice();
    if (round % 3 === 0) bytes = bytes.slice(0, random.below(bytes.length));
    else bytes[random.below(bytes.length)] ^= 1 + random.below(255);
    try {
      const picture = await decodePng(bytes);
      assertEquals(picture.data.length, picture.width * picture.height * picture.channels);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused++;
    }
  }
  assert(refused > 250, `${refused} refused`);
});
