import { assert, assertEquals, assertStringIncludes } from "@std/assert";

/** Serves the checkout on loopback, as a package host would. */
function serve(): { url: string; stop(): Promise<void> } {
  const root = new URL("../", import.meta.url);
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const path = new URL(request.url).pathname.slice(1);
    try {
      const file = await Deno.readFile(new URL(path, root));
      const type = path.endsWith(".ts")
        ? "application/typescript"
        : path.endsWith(".json")
        ? "application/json"
        : "application/octet-stream";
      return new Response(file, { headers: { "content-type": type } });
    } catch {
      return new Response("not found", { status: 404 });
    }
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, stop: () => server.shutdown() };
}

Deno.test("import by URL names the command that builds the library, and then trains", async () => {
  const host = serve();
  const folder = await Deno.makeTempDir({ prefix: "dinograd_remote_" });
  const run = async (command: string, args: string[]) => {
    const child = new Deno.Command(command, {
      args,
      cwd: folder,
      env: { DENO_DIR: `${folder}/deno`, XDG_CACHE_HOME: `${folder}/cache`, DINOGRAD_LIBRARY_DIR: "", NO_COLOR: "1" },
    });
    const { code, stdout, stderr } = await child.output();
    return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
  };
  try {
    await Deno.writeTextFile(
      `${folder}/train.ts`,
      `import { LibraryNotFoundError, manualSeed, nn, optim, tensor } from "${host.url}/mod.ts";
try {
  manualSeed(0); // one initialisation in ten is not done learning after 200 steps
  const x = tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), y = tensor([[0], [1], [1], [1]]);
  const model = new nn.Sequential(new nn.Linear(2, 8), new nn.ReLU(), new nn.Linear(8, 1));
  const optimizer = new optim.AdamW(model.parameters(), { lr: 0.05 });
  let last = 0;
  for (let step = 0; step < 200; step++) {
    optimizer.zeroGrad();
    const loss = nn.functional.mseLoss(model.call(x), y);
    loss.backward();
    optimizer.step();
    last = loss.item();
  }
  console.log("loss", last);
} catch (error) {
  if (!(error instanceof LibraryNotFoundError)) throw error;
  console.log(error.message);
}
`,
    );
    const first = await run(Deno.execPath(), ["run", "-A", "train.ts"]);
    assertEquals(first.code, 0, first.err);
    const command = /Build it with: deno (.*)/.exec(first.out);
    assert(command !== null, first.out);
    assertStringIncludes(command[1], `${host.url}/tools/setup.ts`);
    const build = await run(Deno.execPath(), command[1].trim().split(" "));
    assertEquals(build.code, 0, build.out + build.err);
    const second = await run(Deno.execPath(), ["run", "-A", "train.ts"]);
    const loss = Number(/^loss (.*)$/m.exec(second.out)?.[1]);
    assert(loss < 0.05, `${second.out}${second.err}`);
  } finally {
    await host.stop();
    await Deno.remove(folder, { recursive: true });
  }
});
