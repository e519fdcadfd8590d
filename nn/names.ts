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
  if (name.includes("_") || /^[A-Z]/.test(name)) return name;
  return name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").replace(/([A-Z])([A-Z][a-z])/g, "$1_$2").toLowerCase();
}
