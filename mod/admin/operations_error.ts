/** The failure of an administrative operation. */

/** It was refused or failed, and nothing was changed beyond what the message says. The message says what to do. */
export class AdminError extends Error {
  override name = "AdminError";
}

/** Something else is under way that excludes it: nothing was begun, and it may be tried again later. */
export class AdminBusyError extends AdminError {
  override name = "AdminBusyError";
}
