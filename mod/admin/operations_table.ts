/** All operations: what a running server answers on its control socket. */
import { backupCreate, backupList, backupPrune, backupVerify, restored } from "./backup_operations.ts";
import { storeConvert } from "./convert.ts";
import { deviceList, deviceRevoke } from "./devices.ts";
import { doctor } from "./doctor.ts";
import {
  federationBlock,
  federationPeers,
  federationRetry,
  federationStatus,
  federationUnblock,
} from "./federation.ts";
import type { Operation } from "./operations.ts";
import { drain, health, logLevel, reload, resumeExpiry, topLimits } from "./operations_server.ts";
import { status } from "./operations_status.ts";
import { queuePurge, queueStats } from "./queues.ts";
import { rotateAuthToken } from "./rotate_auth_token.ts";
import { rotateDbKey } from "./rotate_db_key.ts";
import { rotateFederation } from "./rotate_federation.ts";
import { rotateOpaque } from "./rotate_opaque.ts";
import { rotateStatus } from "./rotate_status.ts";
import { rotateTls } from "./rotate_tls.ts";
import { userDelete, userDisable, userEnable, userInvite, userList, userReset, userShow } from "./users.ts";

/** One row an operation. */
export const OPERATIONS: readonly Operation[] = [
  status,
  health,
  doctor,
  backupCreate,
  backupList,
  backupVerify,
  backupPrune,
  restored,
  reload,
  drain,
  logLevel,
  resumeExpiry,
  topLimits,
  rotateStatus,
  rotateAuthToken,
  rotateTls,
  rotateFederation,
  rotateDbKey,
  rotateOpaque,
  userList,
  userShow,
  userDisable,
  userEnable,
  userDelete,
  userInvite,
  userReset,
  deviceList,
  deviceRevoke,
  queueStats,
  queuePurge,
  federationStatus,
  federationPeers,
  federationRetry,
  federationBlock,
  federationUnblock,
  storeConvert,
];
