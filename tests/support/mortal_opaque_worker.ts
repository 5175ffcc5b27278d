/** The OPAQUE worker, but it dies of the user name "die". */
import "../../mod/auth/opaque_worker.ts";

const scope = globalThis as unknown as { onmessage: ((event: MessageEvent) => void) | null };
const answer = scope.onmessage;
scope.onmessage = (event) => {
  if (event.data.userName === "die") throw new Error("died of a job");
  answer?.(event);
};
