/**
 * One OPAQUE worker: answers the jobs of opaque.ts one at a time, each in its suite. It holds no state between jobs.
 * P-256 is loaded by its first job: most servers never need it.
 */
import { SUITE_P256 } from "../base/opaque_suite.ts";
import type { OpaqueJob, ServerSuite } from "./opaque_job.ts";
import { openRistretto255 } from "./opaque_ristretto255.ts";

/** Overwrites this worker's copies of secrets; what the library made of them is text, which nothing can overwrite. */
function wipe(job: OpaqueJob): void {
  if ("setup" in job) job.setup.fill(0);
  if ("state" in job) job.state.fill(0);
}

/** Enough of a worker's global scope; the compiler is set up for the main thread. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<OpaqueJob>) => void) | null;
  postMessage(message: unknown): void;
}

/** Serves jobs until the pool ends this worker; the first message out says that it is ready. */
async function serve(scope: WorkerScope): Promise<void> {
  const ristretto255 = await openRistretto255();
  let p256: ServerSuite | null = null;
  scope.onmessage = async ({ data: job }) => {
    if (job.suiteId === SUITE_P256) p256 ??= (await import("./opaque_p256.ts")).openP256();
    const suite = job.suiteId === SUITE_P256 ? p256! : ristretto255;
    scope.postMessage(await suite.answer(job));
    wipe(job);
  };
  scope.postMessage("ready");
}

// Deno has this class only in workers; in the main thread this file is imported for its types and by tests.
if ("WorkerGlobalScope" in globalThis) await serve(globalThis as unknown as WorkerScope);
