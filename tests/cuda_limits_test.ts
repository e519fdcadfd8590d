/** Calls of the CUDA library that fail, and elements beyond 2^31, on the emulated library in processes of their own. */
import { assertEquals } from "@std/assert";
import { cuda } from "../mod.ts";

Deno.env.set("DINOGRAD_EMULATED_CUDA", "1");
// As tests/device.ts sets it: all test files share one process, and the emulator reads it once.
Deno.env.set("DINOGRAD_EMULATED_DEVICES", "4");

const ignore = !cuda.isAvailable();

/** The lines that a program prints, in a process with other settings. */
async function program(code: string, env: Record<string, string> = {}): Promise<string[]> {
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    script,
    `import * as dg from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
    dg.setDefaultDevice("cuda");
    const show = (x: dg.Tensor) => console.log(Array.from(x.data(), Number).join(" "));
    const attempt = (fn: () => dg.Tensor) => {
      try {
        show(fn());
      } catch (error) {
        console.log(String(error));
      }
    };
    ${code}
    console.log(dg.memory.stats("cuda").tensors);`,
  );
  const config = new URL("../deno.json", import.meta.url).pathname;
  const args = ["run", "-A", "--no-check", "--config", config, script];
  const { code: status, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    env: { DINOGRAD_EMULATED_CUDA: "1", ...env },
  }).output();
  await Deno.remove(script);
  assertEquals(status, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim().split("\n");
}

const products = `
  const x = dg.ones([2, 3]);
  const y = dg.ones([3, 2]);
  for (let i = 0; i < 3; i++) dg.scope(() => attempt(() => x.matmul(y)));
  x.dispose();
  y.dispose();`;

Deno.test({
  name: "a product that cuBLAS cannot do is an error of the operation and the device, and the next one works",
  ignore,
  fn: async () => {
    const failed = "DeviceError: matmul: cublasGemmEx on cuda:0: the function failed to launch on the GPU";
    assertEquals(await program(products, { DINOGRAD_EMULATED_FAILS: "cublasGemm:2" }), ["3 3 3 3", failed, "3 3 3 3", "0"]);
  },
});

Deno.test({
  name: "cuBLAS that finds no memory for itself is an OutOfMemoryError, and the next call tries again",
  ignore,
  fn: async () => {
    const failed = "OutOfMemoryError: matmul: cublasCreate on cuda:0: the resource allocation failed";
    assertEquals(await program(products, { DINOGRAD_EMULATED_FAILS: "cublasCreate" }), [failed, "3 3 3 3", "3 3 3 3", "0"]);
  },
});

Deno.test({
  name: "a product inside a convolution that cuBLAS cannot do names the convolution",
  ignore,
  fn: async () => {
    const code = `
      const x = dg.ones([1, 8, 2, 2]);
      const w = dg.ones([8, 8, 1, 1]);
      for (let i = 0; i < 2; i++) dg.scope(() => attempt(() => dg.nn.functional.conv2d(x, w).sum()));
      x.dispose();
      w.dispose();`;
    const failed = "DeviceError: conv_forward: cublasGemmEx on cuda:0: the function failed to launch on the GPU";
    assertEquals(await program(code, { DINOGRAD_EMULATED_FAILS: "cublasGemm" }), [failed, "256", "0"]);
  },
});

Deno.test({
  name: "a launch that the device refuses is an error of the operation and the device, nothing is lost and later calls work",
  ignore,
  fn: async () => {
    const code = `
      const x = dg.ones([4]);
      const at = dg.tensor([0, 1, 1], { dtype: "int64" });
      for (let i = 0; i < 3; i++) dg.scope(() => attempt(() => x.gather(0, at)));
      x.dispose();
      at.dispose();`;
    const failed = "DeviceError: gather on cuda:0: invalid configuration argument";
    assertEquals(await program(code, { DINOGRAD_EMULATED_FAILS: "gather:2" }), ["1 1 1", failed, "1 1 1", "0"]);
  },
});

Deno.test({
  name: "elements more than 2^31 apart: fill, arithmetic, copies, reading, writing through indices",
  ignore,
  fn: async () => {
    const code = `
      const far = 2 ** 31, base = dg.empty([far + 16], { dtype: "uint8" });
      const index = (...at: number[]) => dg.tensor(at, { dtype: "int64" });
      dg.scope(() => {
        const apart = base.reshape([2 ** 28 + 2, 8]).slice(0, 0, 2 ** 28 + 2, 2 ** 28);
        console.log(apart.shape.join(), apart.strides.join());
        apart.fill_(3);
        apart.copy_(apart.add(dg.arange(16).reshape([2, 8]).to("uint8")));
        show(apart);
        apart.mul_(2);
        show(apart.clone());
        show(apart.to("cpu"));
        show(apart.to("int32").sum(0));
        show(apart.T.add(1));
        show(apart.select(1, 7).cumsum(0));
        console.log(base.select(0, far + 5).item());
        show(base.gather(0, index(far + 1, 3)));
        show(base.indexSelect(0, index(far + 2, 0, far + 7)));
        base.scatter_(0, index(far + 3, 4), 99);
        base.indexPut_([index(far + 4, 5)], 98);
        show(apart);
        base.narrow(0, far - 8, 16).copy_(dg.arange(16).to("uint8"));
        show(base.narrow(0, far - 2, 4));
      });
      base.dispose();`;
    assertEquals(await program(code), [
      "2,8 2147483648,1",
      "3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
      "6 8 10 12 14 16 18 20 22 24 26 28 30 32 34 36",
      "6 8 10 12 14 16 18 20 22 24 26 28 30 32 34 36",
      "28 32 36 40 44 48 52 56",
      "7 23 9 25 11 27 13 29 15 31 17 33 19 35 21 37",
      "20 56",
      "32",
      "24 12",
      "26 6 36",
      "6 8 10 12 99 98 18 20 22 24 26 99 98 32 34 36",
      "6 7 8 9",
      "0",
    ]);
  },
});

Deno.test({
  name: "one kernel over more than 2^31 elements",
  ignore,
  fn: async () => {
    const code = `
      const far = 2 ** 31, base = dg.empty([far + 16], { dtype: "uint8" }).fill_(7);
      dg.scope(() => {
        for (const at of [0, far - 1, far, far + 15]) console.log(base.select(0, at).item());
      });
      base.dispose();`;
    assertEquals(await program(code), ["7", "7", "7", "7", "0"]);
  },
});
