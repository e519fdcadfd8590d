/** A port for tests that have to name one before they use it. */

/** A free port below those that the system hands out, which a program beside the tests might get in the meantime. */
export function freePort(): number {
  for (;;) {
    const port = 16_384 + crypto.getRandomValues(new Uint16Array(1))[0] % 16_384;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
