/**
 * The client library: an account on a quicproquo server, its groups, and messages that only their members can
 * read.
 *
 * ```ts
 * import { Client } from "./mod.ts";
 *
 * await using client = await Client.open({
 *   server: "chat.example.org:7000",
 *   state: "./state",
 *   identity: { fingerprint: "4f…" },
 *   accessToken: "…",
 * });
 * await client.register({ userName: "alice", password: "correct horse battery staple" });
 * await client.send("bob", "Hello!"); // "bob@b.example" when bob is on another server
 * for await (const event of client.receive({ follow: true })) {
 *   if (event.kind === "text") console.log(`${event.group} ${event.from}: ${event.text}`);
 * }
 * ```
 *
 * examples/ holds programs that run: two users who talk, a bot that answers, a file that is sent and fetched.
 *
 * Everything that must survive is in the state folder before anything leaves it, so that a crash at any
 * moment neither loses a message nor sends one twice. A folder is used by one client at a time. Errors:
 * QpqError (the server said no; {@link adviceFor} says what to do), ServerIdentityError, ConnectError,
 * ConnectionLostError, CallTimeoutError, AccountKeyChangedError, MlsError, StateError.
 */
export { QpqError } from "../base/errors.ts";
export { ConnectError } from "../transport/connect_error.ts";
export { AccountKeyError } from "./account_keys.ts";
export { CallTimeoutError, ConnectionLostError } from "./connection.ts";
export { type FileReference, printableText } from "./content.ts";
export { FileCryptoError } from "./file_crypto.ts";
export { parseServerAddress, type ServerAddress, ServerIdentityError } from "./identity.ts";
export type { Credentials, Whoami } from "./messenger_accounts.ts";
export { AccountKeyChangedError, type Verification } from "./messenger_contacts.ts";
export type { AccountEvent, ClientEvent, FileEvent, GroupEvent, TextEvent } from "./messenger_events.ts";
export type { GroupMember, GroupSummary, MembersChanged } from "./messenger_groups.ts";
export type { ReceiveOptions } from "./messenger_receiver.ts";
export type { FileSource, KnownFile, Progress, Sent } from "./messenger_send.ts";
export { MlsError } from "./mls_error.ts";
export type { KeyStretching } from "./opaque_ristretto255.ts";
export type { DeliveryFailure } from "./outbox.ts";
export type { DeliveryFailedReason } from "./state_records.ts";
export type { DeviceInfo } from "./session.ts";
export { adviceFor } from "./session_advice.ts";
export { StateError } from "./state_error.ts";
export type { AccountId, DeviceId, GroupId } from "../base/ids.ts";
export { Client, type ClientOptions, type Pong } from "./messenger.ts";
