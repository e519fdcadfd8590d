/**
 * What setting up shares: running programs, and installing packages where that is possible.
 *
 * @module
 */

/** Failure that is answered with a message and no stack. */
export class SetupError extends Error {}

/** How {@linkcode run} treats a program. */
export interface RunOptions {
  /** Keep its output instead of showing it. */
  quiet?: boolean;
  /** Text on its standard input. */
  stdin?: string;
}

/** Runs a program; `text` is its output if it was quiet. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<{ ok: boolean; text: string }> {
  try {
    const child = new Deno.Command(command, {
      args: [...args],
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: options.quiet ? "piped" : "inherit",
      stderr: options.quiet ? "piped" : "inherit",
      env: { DEBIAN_FRONTEND: "noninteractive" },
    }).spawn();
    const write = async () => {
      if (options.stdin === undefined) return;
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(options.stdin));
      await writer.close();
    };
    if (!options.quiet) return { ok: (await Promise.all([child.status, write()]))[0].success, text: "" };
    // Read while it is written to: a pipe holds 64 KiB.
    const [{ success, stdout, stderr }] = await Promise.all([child.output(), write()]);
    return { ok: success, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { ok: false, text: `${command}: not found` };
    throw error;
  }
}

/** Installs Debian packages as root, or says what to do. */
export async function install(packages: readonly string[]): Promise<void> {
  const names = packages.join(" ");
  const apt = await run("apt-get", ["--version"], { quiet: true });
  if (!apt.ok) {
    throw new SetupError(
      `missing: ${names} (names of the Debian packages). Install them with this system's package manager and run this again.`,
    );
  }
  if (Deno.uid() !== 0) {
    throw new SetupError(`missing: ${names}. Install them with:\n\n  sudo apt-get install -y ${names}\n`);
  }
  console.log(`installing ${names}`);
  const update = await run("apt-get", ["update", "-qq"], { quiet: true });
  const done = await run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], { quiet: true });
  if (!done.ok) throw new SetupError(`apt-get could not install ${names}:\n${update.ok ? "" : update.text}${done.text}`);
}
