/** All operations by name: what a running server answers on its control socket. */
import type { Operation } from "./operations.ts";
import { status } from "./operations_status.ts";

/** One row an operation. */
export const OPERATIONS: readonly Operation[] = [
  status,
];
