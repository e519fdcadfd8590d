/** Command lines of the example. */
import { parseArgs } from "@std/cli";

/** An option with a number. */
export interface NumberOption {
  /** What it does. */
  help: string;
  /** Value when it is not given. */
  default: number;
  /** Smallest value. */
  least: number;
  /** Only whole numbers. */
  whole?: boolean;
}

/** Ends the program: exit status 2 and a line that says what was wrong. */
export function refuse(message: string): never {
  console.error(`${message}\nSee --help.`);
  Deno.exit(2);
}

/** Reads `--name value` options; `--help` prints them and ends the program. */
export function readOptions<N extends string, S extends string>(
  usage: string,
  numbers: Record<N, NumberOption>,
  texts: Record<S, { help: string; default: string }>,
  maxArguments = 0,
): { numbers: Record<N, number>; texts: Record<S, string>; rest: string[] } {
  const names = [...Object.keys(numbers), ...Object.keys(texts)];
  const args = parseArgs(Deno.args, {
    string: [...names, "_"],
    boolean: ["help"],
    alias: { h: "help" },
    unknown: (arg: string, key?: string) => {
      if (key !== undefined) refuse(`unknown option ${arg}`);
      return true;
    },
  });
  if (args.help) {
    const all = { ...numbers, ...texts } as Record<string, { help: string; default: number | string }>;
    const lines = names.map((name) =>
      `  --${name.padEnd(12)} ${all[name].help}${all[name].default === "" ? "" : ` (${all[name].default})`}`
    );
    console.log(`${usage}\n\n${lines.join("\n")}\n  --help         this text`);
    Deno.exit(0);
  }
  if (args._.length > maxArguments) refuse(`unexpected argument ${args._[maxArguments]}`);
  const parsed = {} as Record<N, number>;
  for (const [name, option] of Object.entries(numbers) as [N, NumberOption][]) {
    const text = args[name], value = text === undefined ? option.default : Number(text);
    if (!(value >= option.least) || !Number.isFinite(value) || text === "" || (option.whole !== false && !Number.isInteger(value))) {
      refuse(`--${name} takes a ${option.whole === false ? "" : "whole "}number >= ${option.least}, got ${JSON.stringify(text)}`);
    }
    parsed[name] = value;
  }
  const given = {} as Record<S, string>;
  for (const [name, option] of Object.entries(texts) as [S, { default: string }][]) given[name] = String(args[name] ?? option.default);
  return { numbers: parsed, texts: given, rest: args._.map(String) };
}
