/** A rank that `hosts.ts` starts: `host_rank.ts MODULE FUNCTION ARGUMENTS`, the arguments as JSON. Its last line is what the function returned. */
const [module, name, args] = Deno.args;
const result = await (await import(module))[name](Number(Deno.env.get("RANK")), ...JSON.parse(args));
console.log(JSON.stringify(result));
