/**
 * Everything that must hold before a commit: `deno task ok`. Runs each step, prints its time and, if it failed, what it
 * said.
 * `--without-tests` leaves out the last step.
 *
 * @module
 */
const entries: Record<string, string> = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url))).exports;
const deno = Deno.execPath();

const steps: [name: string, ...command: string[]][] = [
  ["format", deno, "fmt", "--check"],
  ["lint", deno, "lint"],
  ["types", deno, "check", "."],
  ["documentation lint", deno, "doc", "--lint", ...Object.values(entries)],
  ["source manifest", deno, "run", "-A", "tools/manifest.ts", "--check"],
  ["publishable", deno, "publish", "--dry-run", "--allow-dirty"],
  ["native build", deno, "task", "build", "--gloo"],
  ["sanitizers", deno, "task", "sanitize"],
];
if (!Deno.args.includes("--without-tests")) steps.push(["tests and documentation examples", deno, "task", "test"]);

const decoder = new TextDecoder();
let failures = 0;
for (const [name, command, ...args] of steps) {
  const start = performance.now();
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd: new URL("..", import.meta.url),
    stdout: "piped",
    stderr: "piped",
  }).output();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${success ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
  if (!success) {
    failures++;
    console.log(decoder.decode(stdout) + decoder.decode(stderr));
  }
}
Deno.exit(failures === 0 ? 0 : 1);
