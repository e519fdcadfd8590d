/**
 * Runs in each rank before the script: the rank ends with the process that started it, however that one ends.
 *
 * @module
 */

/** Asks the kernel to kill this process when its parent is gone; also a process that is stopped or waits in native code. */
function endWithParent(): void {
  const parent = Deno.env.get("DINOGRAD_LAUNCHER_PID");
  if (parent === undefined) return;
  const libc = Deno.dlopen("libc.so.6", { prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" } });
  const PR_SET_PDEATHSIG = 1, SIGKILL = 9n;
  libc.symbols.prctl(PR_SET_PDEATHSIG, SIGKILL, 0n, 0n, 0n);
  libc.close();
  // The parent was gone before the kernel was asked.
  if (`${Deno.ppid}` !== parent) Deno.exit(1);
}

try {
  endWithParent();
} catch {
  // Without the permissions, or on a system without prctl, the script runs all the same.
}
