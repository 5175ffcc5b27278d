/** Registration, login, resume, password, account, invitations, blocks. */
import { normaliseUserName } from "../../base/user_name.ts";
import { QpqError } from "../../base/errors.ts";
import { callerOf } from "../context.ts";
import { boundedBytes, boundedList, idBytes, idField } from "../../protocol/fields.ts";
import { accountAcross, otherDomain } from "./across.ts";
import { deviceMessage } from "./devices.ts";
import type { Handlers } from "./types.ts";

/** Largest OPAQUE message of any suite. */
const OPAQUE_BYTES_MAX = 1024;
const INVITATION_CHARACTERS_MAX = 128;
const SUITES_MAX = 16;

/** Methods of accounts. */
export const accountHandlers: Pick<
  Handlers,
  | "registerStart"
  | "registerFinish"
  | "loginStart"
  | "loginFinish"
  | "resume"
  | "logout"
  | "changePasswordStart"
  | "changePasswordFinish"
  | "deleteAccount"
  | "getAccount"
  | "block"
  | "unblock"
  | "listBlocks"
  | "createInvitation"
> = {
  async registerStart({ server, connection }, request) {
    if (request.invitation.length > INVITATION_CHARACTERS_MAX) {
      throw new QpqError("malformedRequest", "The invitation is too long");
    }
    const { handle, response } = await server.authenticator.registerStart(connection.auth, {
      userName: request.userName,
      suiteId: request.suiteId,
      request: boundedBytes(request.registrationRequest, "registration_request", OPAQUE_BYTES_MAX),
      invitation: request.invitation,
    });
    return { handle, registrationResponse: response };
  },

  async registerFinish({ server, connection }, request) {
    const { accountId } = await server.authenticator.registerFinish(connection.auth, {
      handle: request.handle,
      record: request.registrationRecord,
      accountKey: request.accountKey,
      wrappedAccountKey: request.wrappedAccountKey,
    });
    return { accountId: idBytes(accountId) };
  },

  async loginStart({ server, connection }, request) {
    const userName = normaliseUserName(request.userName);
    const suiteIds = boundedList(request.suiteIds, "suite_ids", SUITES_MAX);
    const ke1 = boundedBytes(request.ke1, "ke1", OPAQUE_BYTES_MAX);
    // Before it is charged: who is refused because others are many has not tried anything.
    server.authenticator.requireLoginRoom({ suiteIds, ke1 });
    await server.limits.chargeLogin(connection, userName);
    return await server.authenticator.loginStart(connection.auth, { userName, suiteIds, ke1 });
  },

  async loginFinish({ server, connection }, request) {
    const login = await server.authenticator.loginFinish(connection.auth, {
      handle: request.handle,
      ke3: request.ke3,
      deviceId: idField(request.deviceId, "device_id"),
      deviceKey: request.deviceKey,
      deviceName: request.deviceName,
      deviceBinding: request.deviceBinding,
      signature: request.signature,
    });
    await connection.loggedIn();
    return { ...login, sessionId: idBytes(login.sessionId), accountId: idBytes(login.accountId) };
  },

  async resume({ server, connection }, request) {
    const resumed = await server.authenticator.resume(connection.auth, {
      sessionId: idField(request.sessionId, "session_id"),
      signature: request.signature,
    });
    await connection.loggedIn();
    return {
      accountId: idBytes(resumed.accountId),
      deviceId: idBytes(resumed.deviceId),
      deviceSigned: resumed.deviceSigned,
    };
  },

  async logout({ server, connection }) {
    await server.authenticator.logout(connection.auth);
    return {};
  },

  async changePasswordStart({ server, connection }, request) {
    const { handle, response } = await server.authenticator.changePasswordStart(connection.auth, {
      suiteId: request.suiteId,
      request: boundedBytes(request.registrationRequest, "registration_request", OPAQUE_BYTES_MAX),
    });
    return { handle, registrationResponse: response };
  },

  async changePasswordFinish({ server, connection }, request) {
    await server.authenticator.changePasswordFinish(connection.auth, {
      handle: request.handle,
      record: request.registrationRecord,
      wrappedAccountKey: request.wrappedAccountKey,
    });
    return {};
  },

  async deleteAccount({ server, connection }) {
    const { orphanedBlobs } = await server.authenticator.deleteAccount(connection.auth);
    await server.blobs.remove(orphanedBlobs);
    return {};
  },

  async getAccount(context, request) {
    const { server, connection } = context;
    const domain = otherDomain(server, request.domain);
    if (domain !== null) return await accountAcross(context, { domain, accountId: request.accountId });
    const account = await server.authenticator.getAccount(
      connection.auth,
      idField(request.accountId, "account_id"),
    );
    const own = callerOf(context).accountId === account.accountId;
    return {
      accountId: idBytes(account.accountId),
      userName: account.userName,
      accountKey: account.accountKey,
      devices: account.devices.map((device) => deviceMessage(device, { own })),
    };
  },

  async block(context, request) {
    const { accountId } = callerOf(context);
    const max = context.server.settings.limits.blocksMax;
    if (!await context.server.store.block(accountId, idField(request.accountId, "account_id"), max)) {
      throw new QpqError("rateLimited", `Cannot block more than ${max} accounts`);
    }
    return {};
  },

  async unblock(context, request) {
    await context.server.store.unblock(callerOf(context).accountId, idField(request.accountId, "account_id"));
    return {};
  },

  async listBlocks(context) {
    await context.turn.take();
    const blocked = await context.server.store.listBlocks(callerOf(context).accountId);
    return { accountIds: blocked.map(idBytes) };
  },

  async createInvitation({ server, connection }, request) {
    const { code, expiresAt } = await server.authenticator.createInvitation(
      connection.auth,
      request.ttlS * 1000,
    );
    return { invitation: code, expiresAtMs: BigInt(expiresAt) };
  },
};
