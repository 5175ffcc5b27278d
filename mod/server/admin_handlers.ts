/** The running server as administration sees it: LiveServer, and a handler on the control socket for each operation. */
import type { ControlHandler, JsonObject } from "../admin/control.ts";
import { type AdminContext, noStep, OperationRunner } from "../admin/operations.ts";
import type { LiveServer } from "../admin/operations_live.ts";
import { OPERATIONS } from "../admin/operations_table.ts";
import type { ServerContext } from "./context.ts";
import { deviceRevokedNotice } from "./notices.ts";

/** Handlers of all operations, by name. */
export function adminHandlers(
  context: ServerContext,
  options: { live: LiveServer; step?: AdminContext["step"] },
): Record<string, ControlHandler> {
  const admin: AdminContext = {
    via: "running",
    clock: context.clock,
    get settings() {
      return context.settings;
    },
    store: () => Promise.resolve(context.store),
    storeKey: () => Promise.resolve(options.live.storeKey.current),
    deviceRevokedNotice: (deviceId) => deviceRevokedNotice(context, deviceId),
    server: options.live,
    step: options.step ?? noStep,
  };
  const runner = new OperationRunner(admin);
  return Object.fromEntries(OPERATIONS.map((operation) => {
    const handler: ControlHandler = (input: JsonObject, progress) =>
      runner.run(operation, { input, progress });
    return [operation.name, handler];
  }));
}
