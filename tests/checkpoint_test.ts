import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  Compose,
  defaultGenerator,
  distributed,
  FormatError,
  Generator,
  nn,
  ones,
  optim,
  rand,
  Random,
  RandomCrop,
  saveSafetensors,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { type Rank, withWorld } from "./world/mod.ts";
import { STEPS } from "./world/resume.ts";

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "dinograd_checkpoint_" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const files = (folder: string) => [...Deno.readDirSync(folder)].map((it) => it.name).sort();
const { saveCheckpoint, loadCheckpoint, listCheckpoints } = distributed;

Deno.test("saveCheckpoint() and loadCheckpoint() give back what they were given", () =>
  withFolder(async (folder) => {
    const make = () => {
      const model = new nn.Sequential(new nn.Conv2d(2, 3, 3), new nn.BatchNorm2d(3));
      return { model, optimizer: new optim.Adam(model.parameters()) };
    };
    const { model, optimizer } = make(), scheduler = new optim.ReduceLROnPlateau(optimizer);
    model.call(ones([2, 2, 4, 4])).square().sum().backward();
    optimizer.step();
    assertEquals(await loadCheckpoint(`${folder}/nothing`, { model }), null);
    assertEquals(await loadCheckpoint(folder), null);
    assertEquals(listCheckpoints(`${folder}/nothing`), []);
    const values = {
      numbers: [1, -0, NaN, Infinity, -Infinity, 0.1, 2 ** 53],
      big: 12345678901234567890n,
      nothing: [undefined, null],
      text: { "$": "tensor", name: "not one" },
      x: tensor([[1, 2], [3, 4]], { dtype: "bfloat16" }),
      deep: { list: [tensor([true, false])] },
    };
    const path = await saveCheckpoint(new URL(`file://${folder}/deep/er`), { model, optimizer, scheduler, step: 7, ...values });
    assertEquals(path, `${folder}/deep/er/checkpoint-0000000007.safetensors`);
    assertEquals(listCheckpoints(`${folder}/deep/er`), [{ step: 7, path }]);
    const random = rand([3]).tolist(), other = make(), plateau = new optim.ReduceLROnPlateau(other.optimizer);
    plateau.step(1);
    for (const from of [path, `${folder}/deep/er`]) {
      const loaded = (await loadCheckpoint<typeof values>(from, { ...other, scheduler: plateau }))!;
      assertEquals(rand([3]).tolist(), random);
      const { x, deep, ...rest } = loaded, { x: _x, deep: _deep, ...plain } = values;
      assertEquals(rest, { ...plain, step: 7 });
      assert(Object.is(rest.numbers[1], -0));
      assertEquals([x.tolist(), x.dtype, deep.list[0].tolist()], [[[1, 2], [3, 4]], "bfloat16", [true, false]]);
    }
    const tensors = (it: nn.Module) => Object.entries(it.stateDict()).map(([name, t]) => [name, t.tolist()]);
    assertEquals(tensors(other.model), tensors(model));
    assertEquals(plateau.stateDict(), scheduler.stateDict());
    const [p] = other.model.parameters(), [q] = model.parameters();
    assertEquals((other.optimizer.state.get(p)!.exp_avg as Tensor).tolist(), (optimizer.state.get(q)!.exp_avg as Tensor).tolist());
    // Without random state.
    const before = defaultGenerator.getState();
    await loadCheckpoint(path, {}, { random: false });
    assertEquals(defaultGenerator.getState(), before);
  }));

Deno.test("saveCheckpoint() keeps the last ones and tidies up", () =>
  withFolder(async (folder) => {
    const save = (step: number, keep?: number, sharded = false) => saveCheckpoint(folder, { step, x: ones([step]) }, { keep, sharded });
    await Deno.writeTextFile(`${folder}/.checkpoint-0000000001.safetensors.77-12345678.tmp`, "cut off");
    await Deno.writeTextFile(`${folder}/checkpoint-0000000001.12345678.0-of-2.safetensors`, "a part without index");
    await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
    const steps = () => listCheckpoints(folder).map((it) => it.step);
    for (const step of [1, 2, 3, 4]) await save(step);
    assertEquals(steps(), [2, 3, 4]);
    assertEquals(files(folder).length, 4);
    await save(5, 2);
    assertEquals(steps(), [4, 5]);
    // A run that went back replaces what came after.
    await save(4, 5);
    assertEquals(steps(), [4]);
    await save(4, 5, true);
    await save(5, 5, true);
    await save(5, 5, true);
    assertEquals(steps(), [4, 5]);
    assertEquals(files(folder).filter((it) => it.endsWith("0-of-1.safetensors")).length, 2);
    assertEquals((await loadCheckpoint<{ x: Tensor }>(folder))!.x.tolist(), [1, 1, 1, 1, 1]);
    await save(6, 1);
    assertEquals(files(folder), ["checkpoint-0000000006.safetensors", "notes.txt"]);
  }));

Deno.test("loadCheckpoint() says what is wrong with a file, and changes nothing", () =>
  withFolder(async (folder) => {
    const model = new nn.Linear(4, 4), step = 1;
    const path = await saveCheckpoint(folder, { model, step, epoch: 3 });
    const bytes = await Deno.readFile(path), index = await saveCheckpoint(`${folder}/sharded`, { model, step }, { sharded: true });
    const damaged = async (file: string, change: (bytes: Uint8Array) => Uint8Array | void, text: string) => {
      const good = await Deno.readFile(file), copy = good.slice(), changed = change(copy) ?? copy;
      await Deno.writeFile(file, changed);
      const target = new nn.Linear(4, 4), before = target.weight.tolist();
      await assertRejects(() => loadCheckpoint(file === path ? path : index, { model: target }), FormatError, text);
      assertEquals(target.weight.tolist(), before);
      await Deno.writeFile(file, good);
    };
    await damaged(path, (it) => it.subarray(0, bytes.length - 8), "the tensors end at byte");
    await damaged(path, (it) => it.subarray(0, 4), "");
    await damaged(path, (it) => void (it[it.length - 3] ^= 1), "is damaged: its sum is");
    const at = new TextDecoder("latin1").decode(bytes).indexOf('\\"epoch\\":3') + 10;
    assert(at > 10);
    await damaged(path, (it) => void (it[at] = "4".charCodeAt(0)), "the file is damaged");
    await damaged(index, (it) => void (it[it.length - 5] ^= 1), "the file is damaged");
    await damaged(index, () => new TextEncoder().encode("hello\n{}"), "not a checkpoint");
    const shard = `${folder}/sharded/${files(`${folder}/sharded`).find((it) => it.includes("of-1"))}`;
    await damaged(shard, (it) => void (it[it.length - 3] ^= 1), "is damaged: its sum is");
    await Deno.remove(shard);
    await assertRejects(() => loadCheckpoint(index), FormatError, "0-of-1.safetensors is missing");
    await saveSafetensors(`${folder}/other.safetensors`, { x: zeros([1]) });
    await assertRejects(
      () => loadCheckpoint(`${folder}/other.safetensors`),
      FormatError,
      "not a checkpoint, a safetensors file of something else",
    );
    await assertRejects(() => loadCheckpoint(`${folder}/missing.safetensors`), Deno.errors.NotFound);
    await assertRejects(
      () => loadCheckpoint(path, { optimizer: new optim.SGD(model.parameters(), { lr: 1 }) }),
      FormatError,
      'has no "optimizer", it has model, step, epoch',
    );
    await assertRejects(() => loadCheckpoint(path, { model: 3 as never }), TypeError, "model must have stateDict()");
    await assertRejects(() => loadCheckpoint(path, { model: new nn.Linear(4, 5) }), ShapeError, "weight");
    await assertRejects(() => saveCheckpoint(folder, { step: 1.5 }), RangeError, "step, a whole number");
    await assertRejects(() => saveCheckpoint(folder, {} as never), RangeError, "got undefined");
    await assertRejects(() => saveCheckpoint(folder, { step }, { keep: 0 }), RangeError, "keep must be a whole number >= 1");
    await assertRejects(() => saveCheckpoint(folder, { step, "random state": 1 }), RangeError, "another name");
    await assertRejects(() => saveCheckpoint(folder, { step, fn: { deep: [() => 1] } }), TypeError, "fn/deep/0 is of type function");
    await assertRejects(() => saveCheckpoint(folder, { step, map: new Map() }), TypeError, "map is of type Map");
    await assertRejects(() => saveCheckpoint(`${path}/inside`, { step }), Error);
  }));

Deno.test("random transforms and generators go on where they were saved", () => {
  const random = new Random(5),
    crop = new RandomCrop(2, { seed: 1 }),
    both = new Compose([crop]),
    x = rand([5, 1, 4, 4], { generator: new Generator(2) });
  random.bits();
  both.call(x);
  const at = random.getState(), state = JSON.parse(JSON.stringify(both.stateDict()));
  const next = [random.bits(), both.call(x).tolist()];
  both.loadStateDict(state);
  assertEquals([new Random(0).setState(at).bits(), both.call(x).tolist()], next);
  const other = new Compose([new Compose([new RandomCrop(2, { seed: 9 })])]);
  other.loadStateDict({ 0: state });
  assertThrows(() => other.loadStateDict({}), RangeError, "at [0]");
  assertThrows(() => random.setState([1, 2, 3]), RangeError, "four whole numbers");
});

/** Runs the training of `world/resume.ts` until it is done; `kills` says after which event of each start all processes are killed. */
async function run(size: number, scenario: string, folder: string, kills: readonly string[]): Promise<Map<string, unknown>[]> {
  const losses = Array.from({ length: size }, () => new Map<string, unknown>());
  Deno.env.set("RESUME_FOLDER", folder);
  for (let start = 0; start <= kills.length; start++) {
    await withWorld(size, scenario, async (ranks: Rank[]) => {
      await ranks[start % size].line(start < kills.length ? kills[start] : "done");
      if (start < kills.length) ranks.forEach((it) => it.kill("SIGKILL"));
      for (const [i, rank] of ranks.entries()) {
        const { code, errors } = await rank.end();
        if (start === kills.length) assertEquals(code, 0, errors);
        for (const { event, loss, best } of rank.lines) if (loss !== undefined || best !== undefined) losses[i].set(event, loss ?? best);
      }
    });
  }
  return losses;
}

for (const scenario of ["resume", "resumeSharded"]) {
  Deno.test(`a training that is killed three times goes on bit for bit: ${scenario}`, () =>
    withFolder(async (folder) => {
      const expected = await run(2, scenario, `${folder}/whole`, []);
      assertEquals(expected[0].size, STEPS + 1);
      // While the first is saved, in mid-epoch, and after a save.
      assertEquals(await run(2, scenario, `${folder}/killed`, ["step 2", "step 9", "saved 18"]), expected);
      assertEquals(listCheckpoints(`${folder}/killed`).map((it) => it.step), [STEPS - 2, STEPS]);
    }));
}
