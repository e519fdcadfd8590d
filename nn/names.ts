/**
 * Names of parameters, buffers and modules: camelCase properties in TypeScript, snake_case keys as PyTorch writes them.
 *
 * @module
 */

/**
 * The state-dict name of a property: `runningMean` becomes `running_mean`, `weightIhL0` becomes `weight_ih_l0`. A name with an underscore or
 * a leading capital (`Mixed_5b`) stays as it is.
 */
export function snakeCase(name: string): string {
  let key = known.get(name);
  if (key === undefined) known.set(name, key = convert(name));
  return key;
}

/** Names met so far: walks over the modules of a network ask for the same few again and again. */
const known: Map<string, string> = new Map();

function convert(name: string): string {
  if (name.includes("_") || /^[A-Z]/.test(name)) return name;
  return name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").replace(/([A-Z])([A-Z][a-z])/g, "$1_$2").toLowerCase();
}
