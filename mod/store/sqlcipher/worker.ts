/** Entry point of the worker that owns the database, or works beside it. */
/// <reference lib="deno.worker" />
import { serveStore } from "./serve_store.ts";

serveStore(self as unknown as DedicatedWorkerGlobalScope);
