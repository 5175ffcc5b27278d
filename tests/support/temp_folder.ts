/** A folder that is gone at the end of its scope. */

/** `await using folder = await tempFolder()` */
export interface TempFolder extends AsyncDisposable {
  readonly path: string;
}

/** Makes an empty folder under the system's temporary one. */
export async function tempFolder(): Promise<TempFolder> {
  const path = await Deno.makeTempDir({ prefix: "qpq-test-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
