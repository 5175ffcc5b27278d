/** All operations: what a running server answers on its control socket. */
import type { Operation } from "./operations.ts";
import { drain, health, logLevel, reload, resumeExpiry, topLimits } from "./operations_server.ts";
import { status } from "./operations_status.ts";
import { rotateAuthToken } from "./rotate_auth_token.ts";
import { rotateFederation } from "./rotate_federation.ts";
import { rotateStatus } from "./rotate_status.ts";
import { rotateTls } from "./rotate_tls.ts";

/** One row an operation. */
export const OPERATIONS: readonly Operation[] = [
  status,
  health,
  reload,
  drain,
  logLevel,
  resumeExpiry,
  topLimits,
  rotateStatus,
  rotateAuthToken,
  rotateTls,
  rotateFederation,
];
