/**
 * THE option table: one row is everything about an option. A key `limits.ttl_max` is `ttl_max` in the table
 * `[limits]` of qpq-server.toml, QPQ_LIMITS_TTL_MAX in the environment, `--limits-ttl-max` on the command line and
 * `settings.limits.ttlMaxMs` in the program. Whatever can grow has its maximum here. Reading is in load.ts,
 * documentation in describe.ts.
 */
import type { NetAddress } from "../base/address.ts";
import { parseFilter } from "../base/log.ts";
import { peerEntryText, tryParsePeerEntry } from "../base/peer_entry.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import { LIMITS_PROFILES, type LimitsProfile, profileValue } from "./limits_profiles.ts";
import { parseSchedule } from "./schedule.ts";
import {
  readAddress,
  readBoolean,
  readBytes,
  readDuration,
  readEnum,
  type Reader,
  readInteger,
  readIpAddress,
  readList,
  readSecretLines,
  readString,
  Refusal,
  showAddress,
  showBytes,
  showDuration,
} from "./values.ts";

/** What kind of value an option has. */
export type OptionType =
  | "string"
  | "boolean"
  | "integer"
  | "duration"
  | "bytes"
  | "address"
  | "path"
  | "list"
  | "enum"
  | "secret";

/** `live`: a reload applies it; `restart`: it waits for the next start. */
export type Apply = "live" | "restart";

/** Where the value of a secret came from: `rotate` may only rewrite what it manages. */
export interface Secret {
  /** The first is wanted, the others are still accepted. Never empty. */
  readonly lines: readonly string[];
  readonly from: "environment" | "flag" | "configuration" | "file" | "managed";
  /** The file, for `file` and `managed`. */
  readonly path: string | null;
}

/** One option. */
export interface OptionRow<Type extends OptionType = OptionType, T = unknown> {
  readonly type: Type;
  readonly read: Reader<unknown>;
  readonly default: T;
  /** The default in words, or as it would be written. */
  readonly defaultText: string;
  readonly apply: Apply;
  /** A further environment variable that is asked when the option's own is not set. */
  readonly alsoEnvironment?: string;
  /** What may be written, where the type does not say it all. */
  readonly valuesText?: string;
  /** Not in qpq-server.toml. */
  readonly notInFile?: boolean;
  readonly text: string;
}

interface Extra {
  readonly text: string;
  readonly defaultText?: string;
  readonly alsoEnvironment?: string;
  readonly notInFile?: boolean;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;

function row<Type extends OptionType, T>(
  type: Type,
  apply: Apply,
  rest: { read: Reader<unknown>; default: T; shown: string; valuesText?: string },
  extra: Extra,
): OptionRow<Type, T> {
  const { shown, ...others } = rest;
  return { type, apply, ...others, ...extra, defaultText: extra.defaultText ?? shown };
}

const boolean = (apply: Apply, value: boolean, text: string): OptionRow<"boolean", boolean> =>
  row("boolean", apply, { read: readBoolean, default: value, shown: String(value) }, { text });

/** A default of null is decided at run time. */
const integer = <T extends number | null>(
  apply: Apply,
  value: NoInfer<T>,
  range: { min: number; max: number },
  extra: Extra,
) =>
  row<"integer", T>("integer", apply, {
    read: readInteger(range.min, range.max),
    default: value,
    shown: String(value),
    valuesText: `${range.min} to ${range.max}`,
  }, extra);

const count = (apply: Apply, value: number, max: number, text: string) =>
  integer<number>(apply, value, { min: 1, max }, { text });

const duration = (apply: Apply, value: number, range: { min: number; max: number }, text: string) =>
  row<"duration", number>("duration", apply, {
    read: readDuration(range.min, range.max),
    default: value,
    shown: showDuration(value),
    valuesText: `${showDuration(range.min)} to ${showDuration(range.max)}`,
  }, { text });

const bytes = (apply: Apply, value: number, range: { min: number; max: number }, text: string) =>
  row<"bytes", number>("bytes", apply, {
    read: readBytes(range.min, range.max),
    default: value,
    shown: showBytes(value),
    valuesText: `${showBytes(range.min)} to ${showBytes(range.max)}`,
  }, { text });

const address = (value: NetAddress, text: string) =>
  row<"address", NetAddress>("address", "restart", {
    read: readAddress,
    default: value,
    shown: showAddress(value),
  }, { text });

/** A default of null is a file that the server manages. */
const path = <T extends string | null>(apply: Apply, value: NoInfer<T>, extra: Extra) =>
  row<"path", T>("path", apply, { read: readString, default: value, shown: String(value) }, extra);

const choice = <const Values extends readonly string[]>(
  apply: Apply,
  values: Values,
  value: Values[number],
  text: string,
) =>
  row<"enum", Values[number]>("enum", apply, {
    read: readEnum(values),
    default: value,
    shown: value,
    valuesText: values.join(", "),
  }, { text });

const secret = (apply: Apply, extra: Extra) =>
  row<"secret", Secret | null>("secret", apply, { read: readSecretLines, default: null, shown: "" }, extra);

const readFilter: Reader<string> = (raw) => {
  const text = readString(raw);
  if (text instanceof Refusal) return text;
  const parsed = parseFilter(text);
  return parsed.ok ? text : new Refusal(`cannot be used: ${parsed.problems.join("; ")}`);
};

const readSchedule: Reader<string> = (raw) => {
  const text = readString(raw);
  if (text instanceof Refusal) return text;
  return parseSchedule(text) === undefined
    ? new Refusal(
      `must be off, an interval of 10m to 30d, or a time of day such as 03:30: ${text.slice(0, 80)}`,
    )
    : text;
};

const readRecipients: Reader<readonly string[]> = (raw) => {
  const words = readList(raw);
  if (words instanceof Refusal) return words;
  const wrong = words.find((word) => !/^age1[0-9a-z]{50,}$/.test(word));
  return wrong === undefined ? words : new Refusal(`must be age recipients (age1…): ${wrong.slice(0, 80)}`);
};

const readDomain: Reader<string> = (raw) => {
  const text = readString(raw);
  if (text instanceof Refusal) return text;
  return tryNormaliseDomain(text) ??
    new Refusal(`must be a domain such as example.org: ${text.slice(0, 80)}`);
};

/** In normal form, each domain once. */
const readPeers: Reader<readonly string[]> = (raw) => {
  const words = readList(raw);
  if (words instanceof Refusal) return words;
  const seen = new Set<string>();
  const entries: string[] = [];
  for (const word of words) {
    const entry = tryParsePeerEntry(word);
    if (!entry) return new Refusal(`must be domains, each with =host:port or not: ${word.slice(0, 80)}`);
    if (seen.has(entry.domain)) return new Refusal(`must name each domain once: ${entry.domain}`);
    seen.add(entry.domain);
    entries.push(peerEntryText(entry));
  }
  return entries;
};

const readSuites: Reader<readonly string[]> = (raw) => {
  const words = readList(raw);
  if (words instanceof Refusal) return words;
  const wrong = words.find((word) => word !== "ristretto255" && word !== "p256");
  if (wrong !== undefined) return new Refusal(`must be of ristretto255, p256: ${wrong.slice(0, 80)}`);
  return words.includes("ristretto255") ? words : new Refusal("must hold ristretto255");
};

const keep = (value: number, text: string) =>
  integer<number>("live", value, { min: 0, max: 100_000 }, { text });

/** All options by key. */
export const OPTIONS = {
  config: path<string>("restart", "qpq-server.toml", {
    notInFile: true,
    text:
      "The configuration file. Without this option the default is read if it is there; a file that is named must exist.",
  }),
  data_dir: path<string>("restart", "./data", {
    text:
      "Folder of everything that is kept: database, blobs, certificates, secrets, backups. One server at a time.",
  }),
  production: boolean(
    "restart",
    false,
    "Refuses to start without an access token and a database key, with secrets that others can read, or with an insecure mode; makes no secrets by itself (`qpq-server init` does).",
  ),

  listen: address(
    { hostname: "0.0.0.0", port: 7000 },
    "UDP address of the QUIC service. `[::]:7000` takes IPv6 and IPv4.",
  ),
  metrics_enabled: boolean("restart", false, "Serves /metrics, /healthz and /readyz over HTTP."),
  metrics_listen: address(
    { hostname: "0.0.0.0", port: 9090 },
    "TCP address of metrics and health. It has no login: keep it inside your network.",
  ),
  metrics_names: row<"list", readonly string[] | null>(
    "list",
    "restart",
    { read: readList, default: null, shown: "" },
    {
      defaultText: "none",
      text:
        "Names with a dot that HTTP requests may call the metrics listener by, beside `tls_names` and this machine's own. " +
        "Others are refused, so that no web site can lead an operator's browser here.",
    },
  ),
  tls_cert: path<string | null>("live", null, {
    defaultText: "tls/server.pem in the data folder, made and renewed by the server",
    text: "Certificate chain (PEM, leaf first). Give it together with tls_key.",
  }),
  tls_key: path<string | null>("live", null, {
    defaultText: "tls/server.key in the data folder, made and renewed by the server",
    text: "Private key of the certificate (PEM).",
  }),
  tls_names: row<"list", readonly string[] | null>(
    "list",
    "restart",
    { read: readList, default: null, shown: "" },
    {
      defaultText: "host name, localhost and every local address",
      text: "Names and addresses in the certificate that the server makes for itself.",
    },
  ),

  auth_token: secret("live", {
    defaultText: "secrets/auth-token in the data folder, made at the first start",
    text:
      "Access token that admits to registration. Several lines: the first is the token, the others are still accepted.",
  }),
  allow_no_auth_token: boolean(
    "restart",
    false,
    "Runs without an access token: anyone who reaches the port may register. Refused in production.",
  ),
  db_key: secret("restart", {
    defaultText: "secrets/db-key in the data folder, made at the first start",
    text:
      "Key of the database: 64 hex digits are the raw key, anything else is a passphrase. Several lines: the first is wanted, the others may still open the database.",
  }),
  allow_plaintext_store: boolean(
    "restart",
    false,
    "Runs without a database key: messages lie unencrypted on the disk. Refused in production.",
  ),
  allow_key_in_data_dir: boolean(
    "restart",
    false,
    "Lets production keep the database key inside the data folder, where a copy of the folder is a copy of everything.",
  ),
  store_backend: choice(
    "restart",
    ["sqlcipher", "file"],
    "sqlcipher",
    "`sqlcipher` is an encrypted database; `file` an encrypted journal without native code.",
  ),
  disk_reserve_bytes: bytes(
    "live",
    64 * MIB,
    { min: 0, max: TIB },
    "Free space of the data folder's disk below which nothing new is stored, so that what makes the store smaller goes on.",
  ),
  invitations: choice(
    "live",
    ["off", "token", "users"],
    "token",
    "Who may invite: nobody; accounts on a connection that showed the access token; every account.",
  ),

  log: row<"string", string>("string", "live", { read: readFilter, default: "info", shown: "info" }, {
    alsoEnvironment: "RUST_LOG",
    text: "Log filter: levels trace, debug, info, warn, error, off, as in `info,qpq::delivery=debug`.",
  }),
  log_format: choice(
    "restart",
    ["auto", "human", "json"],
    "auto",
    "How log lines look. `auto` is for people on a terminal outside production, otherwise one JSON object a line.",
  ),
  drain_timeout: duration(
    "live",
    10 * SECOND,
    { min: 0, max: HOUR },
    "How long a shutdown waits for requests that are being worked on.",
  ),
  opaque_workers: integer<number | null>("restart", null, { min: 1, max: 64 }, {
    defaultText: "number of processors less one, at most 2",
    text: "Threads for password logins (OPAQUE).",
  }),
  opaque_suites: row<"list", readonly string[]>(
    "list",
    "restart",
    { read: readSuites, default: ["ristretto255"], shown: "ristretto255", valuesText: "ristretto255, p256" },
    {
      text:
        "OPAQUE suites of password logins. `ristretto255` must be among them. `p256` is for clients that can have nothing else, and is off for good reasons: it is draft 07 of OPAQUE and not RFC 9807, it is not constant time, nobody has audited it, and a login costs 0.1 s of a processor (96 to 113 ms, against 1.4 ms). It has a short queue of its own beyond which logins are refused with `overloaded`. Accounts move to ristretto255 at their next login; without `p256` the server does not start while there are accounts that have not.",
    },
  ),
  udp_buffer_bytes: bytes(
    "restart",
    4 * MIB,
    { min: 64 * KIB, max: 256 * MIB },
    "Receive and send buffer asked of the operating system; needs net.core.rmem_max and wmem_max as large.",
  ),
  idle_timeout: duration(
    "restart",
    60 * SECOND,
    { min: 5 * SECOND, max: HOUR },
    "A connection that is silent for so long is dropped; clients keep it alive at a third of it.",
  ),
  device_idle_ttl: duration(
    "live",
    180 * DAY,
    { min: DAY, max: 3650 * DAY },
    "A device that was not seen for so long is removed with its queue and KeyPackages.",
  ),
  session_idle_ttl: duration(
    "live",
    30 * DAY,
    { min: HOUR, max: 3650 * DAY },
    "A login that was not used for so long ends.",
  ),
  session_ttl: duration(
    "live",
    365 * DAY,
    { min: HOUR, max: 3650 * DAY },
    "A login ends after this, used or not.",
  ),

  limits_profile: choice(
    "live",
    LIMITS_PROFILES,
    "default",
    "Defaults of the limits. `bench` raises those that a load generator on one machine runs into; an option that is set wins over it. Refused in production.",
  ),

  "backup.schedule": row<"string", string>("string", "live", {
    read: readSchedule,
    default: "off",
    shown: "off",
    valuesText: "off, an interval of 10m to 30d, or a time of day in UTC such as 03:30",
  }, {
    text:
      "When the running server makes backups. One that was missed while it was stopped is made up after its start.",
  }),
  "backup.jitter": duration(
    "live",
    5 * MINUTE,
    { min: 0, max: 12 * HOUR },
    "A scheduled backup begins at random up to this much later, so that many servers do not begin together.",
  ),
  "backup.dir": path<string | null>("live", null, {
    defaultText: "backups in the data folder",
    text:
      "Folder of the backups. On the disk of the data folder unchanged blobs cost nothing; a copy elsewhere is what survives the disk.",
  }),
  "backup.encrypt_to": row<"list", readonly string[] | null>(
    "list",
    "live",
    { read: readRecipients, default: null, shown: "" },
    {
      defaultText: "nobody: only the database is encrypted, under its key",
      text: "Backups are encrypted to these age recipients (`age1…`), beside the database's own key.",
    },
  ),
  "backup.keep_last": integer<number>("live", 7, { min: 1, max: 100_000 }, {
    text:
      "After a scheduled backup older ones are removed. The newest so many stay; so do those that the next options keep.",
  }),
  "backup.keep_daily": keep(7, "Of each of the last so many days that have a backup, the newest stays."),
  "backup.keep_weekly": keep(4, "Of each of the last so many weeks that have a backup, the newest stays."),
  "backup.keep_monthly": keep(6, "Of each of the last so many months that have a backup, the newest stays."),
  "backup.keep_within": duration(
    "live",
    DAY,
    { min: 0, max: 3650 * DAY },
    "Every backup that is younger stays.",
  ),

  "federation.domain": row<"string", string | null>(
    "string",
    "restart",
    { read: readDomain, default: null, shown: "" },
    {
      defaultText: "none: federation is off",
      text:
        "The domain of this server's users, as in `user@example.org`. With it the server exchanges messages with other servers; it needs a certificate for that name (`qpq-server rotate federation`).",
    },
  ),
  "federation.listen": address(
    { hostname: "0.0.0.0", port: 7001 },
    "UDP address for other servers.",
  ),
  "federation.engine": choice(
    "restart",
    ["deno", "quiche"],
    "deno",
    "How servers prove who they are: `deno` signs a challenge with the federation certificate; `quiche` authenticates both within TLS, and needs the native binding. Servers of either engine reach each other.",
  ),
  "federation.peers": row<"list", readonly string[] | null>("list", "live", {
    read: readPeers,
    default: null,
    shown: "",
    valuesText: "`domain`, or `domain=host:port`",
  }, {
    defaultText: "none",
    text:
      "Servers that messages are exchanged with. Without an address the SRV records of `_qpq-federation._udp.<domain>` say where the server is.",
  }),
  "federation.mode": choice(
    "live",
    ["allowlist", "open"],
    "allowlist",
    "`open` takes any domain as a peer that has SRV records and a certificate of the CA set; `allowlist` only those of federation.peers.",
  ),
  "federation.dns": row<"address", NetAddress | null>("address", "restart", {
    read: readIpAddress,
    default: null,
    shown: "",
  }, {
    defaultText: "those of the system",
    text: "Name server for the SRV records, by its IP address.",
  }),
  "federation.connections_max": count(
    "live",
    256,
    65_536,
    "Connections that other servers may have open here; 4 of each.",
  ),
  "federation.outbox_ttl": duration(
    "live",
    3 * DAY,
    { min: MINUTE, max: 30 * DAY },
    "How long messages for a server that cannot be reached are tried, before their sender is told that they failed.",
  ),
  "federation.outbox_depth_max": count(
    "live",
    100_000,
    10_000_000,
    "Messages that wait for one other server.",
  ),
  "federation.outbox_bytes_max": bytes(
    "live",
    256 * MIB,
    { min: 8 * MIB, max: TIB },
    "Bytes of messages that wait for one other server.",
  ),
  "federation.peer_messages_per_second": count(
    "live",
    1000,
    1_000_000,
    "Messages and other requests taken from one other server in a second; ten times as many at once.",
  ),
  "federation.peer_bytes_per_day": bytes(
    "live",
    20 * GIB,
    { min: 10 * MIB, max: 1024 * TIB },
    "Bytes of messages taken from all users of one other server in a day.",
  ),
  "federation.peer_claims_per_minute": count(
    "live",
    600,
    1_000_000,
    "KeyPackages that users of one other server claim in a minute; beyond, they get the last-resort ones.",
  ),
  "federation.peer_message_ids_max": count(
    "live",
    1_000_000,
    100_000_000,
    "Message ids that are remembered of one other server, so that a message sent again is delivered once.",
  ),
  "federation.blob_cache_bytes": bytes(
    "live",
    GIB,
    { min: MIB, max: 100 * TIB },
    "Copies kept of blobs of other servers.",
  ),
  "federation.blob_cache_ttl": duration(
    "live",
    DAY,
    { min: MINUTE, max: 30 * DAY },
    "How long such a copy is kept.",
  ),
  "federation.recipient_domains_max": count(
    "live",
    64,
    1024,
    "Other servers that one message may go to.",
  ),

  "limits.shared_addresses": boolean(
    "live",
    false,
    "All clients come from one address (a container's NAT, a proxy): the limits for each address are off.",
  ),
  "limits.connections_max": count("live", 20_000, 1_000_000, "Open connections."),
  "limits.connections_per_address": count(
    "live",
    200,
    1_000_000,
    "Open connections of an address (IPv6: a /64).",
  ),
  "limits.connection_rate": count("live", 120, 1_000_000, "New connections of an address in a minute."),
  "limits.handshakes_max": count("restart", 256, 65_536, "Handshakes in progress; more are refused unseen."),
  "limits.handshake_rate": count("restart", 500, 100_000, "Handshakes in a second, all addresses together."),
  "limits.login_deadline": duration(
    "live",
    60 * SECOND,
    { min: 5 * SECOND, max: HOUR },
    "A connection that is not logged in by then is closed.",
  ),
  "limits.hello_deadline": duration(
    "live",
    15 * SECOND,
    { min: SECOND, max: 5 * MINUTE },
    "A connection that has not said Hello by then is closed.",
  ),
  "limits.frame_deadline": duration(
    "live",
    2 * MINUTE,
    { min: SECOND, max: HOUR },
    "A request that is not whole so long after its first byte ends its connection; 2m is 35 kB/s for the largest.",
  ),
  "limits.upload_deadline": duration(
    "live",
    30 * SECOND,
    { min: SECOND, max: HOUR },
    "An upload that brings no byte for so long is ended.",
  ),
  "limits.malformed_rate": count(
    "live",
    100,
    1_000_000,
    "Requests of a connection in a second that are malformed or refused by a rate; beyond them, and five seconds' " +
      "worth at once, it is read more slowly.",
  ),
  "limits.streams_max": count("restart", 16, 1024, "Streams that a client may have open in one connection."),
  "limits.requests_in_flight_max": count("live", 1024, 65_536, "Requests of one connection being worked on."),
  "limits.send_queue_bytes_max": bytes(
    "live",
    8 * MIB,
    { min: 5 * MIB, max: GIB },
    "Bytes waiting to be sent in one connection; a client that does not read them is closed.",
  ),
  "limits.memory_bytes_max": bytes(
    "live",
    512 * MIB,
    { min: 64 * MIB, max: TIB },
    "Bytes of requests and replies held for all connections; beyond it requests are refused as overloaded.",
  ),
  "limits.waiters_max": count("live", 50_000, 10_000_000, "FetchWait requests parked at once."),
  "limits.rate_keys_max": count(
    "restart",
    100_000,
    10_000_000,
    "Addresses or accounts that each rate limit remembers.",
  ),

  "limits.request_rate": count("live", 2000, 1_000_000, "Requests of an account in a second."),
  "limits.request_burst": count("live", 4000, 10_000_000, "Requests that an account may send at once."),
  "limits.anonymous_request_rate": count(
    "live",
    20,
    1_000_000,
    "Requests of an address in a second that come without a login.",
  ),
  "limits.hello_rate": count("live", 120, 1_000_000, "Hello requests of an address in a minute."),
  "limits.registration_rate": count("live", 20, 1_000_000, "Registrations from an address in an hour."),
  "limits.login_rate": count(
    "live",
    10,
    1_000_000,
    "Password logins of an address and account in a minute; a right password does not count.",
  ),
  "limits.login_rate_account": count(
    "live",
    60,
    1_000_000,
    "Password logins of an account in a minute, whatever the address; beyond it they are slowed, never refused for good.",
  ),
  "limits.login_rate_address": count("live", 60, 1_000_000, "Password logins of an address in a minute."),
  "limits.resume_rate": count("live", 120, 1_000_000, "Resumed sessions of an address in a minute."),
  "limits.claim_rate": count(
    "live",
    20,
    1_000_000,
    "KeyPackage claims of one account against another in an hour; beyond it the last-resort package answers.",
  ),
  "limits.claim_budget_target": count(
    "live",
    200,
    10_000_000,
    "KeyPackage claims against an account in an hour.",
  ),
  "limits.claim_budget_claimer": count(
    "live",
    500,
    10_000_000,
    "KeyPackage claims by an account in an hour.",
  ),

  "limits.payload_bytes_max": bytes(
    "live",
    2 * MIB,
    { min: 64 * KIB, max: 4 * MIB },
    "One payload of a message.",
  ),
  "limits.recipients_max": count("live", 1024, 1024, "Recipients of one Enqueue, all parts together."),
  "limits.queue_depth_max": count("live", 100_000, 10_000_000, "Messages in the queue of a device."),
  "limits.queue_bytes_max": bytes(
    "live",
    256 * MIB,
    { min: 8 * MIB, max: TIB },
    "Payload bytes in the queue of a device.",
  ),
  "limits.queue_share_percent": count(
    "live",
    25,
    100,
    "Percent of a queue that one sender may fill; own devices are exempt.",
  ),
  "limits.ttl_default": duration(
    "live",
    30 * DAY,
    { min: MINUTE, max: 365 * DAY },
    "How long a message waits when its sender does not say.",
  ),
  "limits.ttl_max": duration(
    "live",
    30 * DAY,
    { min: MINUTE, max: 365 * DAY },
    "How long a message may wait; longer wishes are cut.",
  ),
  "limits.sender_bytes_per_day": bytes(
    "live",
    10 * GIB,
    { min: MIB, max: 1024 * TIB },
    "Payload bytes times recipients that an account may send in a UTC day.",
  ),
  "limits.idempotency_ttl": duration(
    "live",
    DAY,
    { min: MINUTE, max: 30 * DAY },
    "How long a message id makes a retry return the first result.",
  ),
  "limits.idempotency_count_max": count("live", 50_000, 10_000_000, "Message ids remembered for a device."),
  "limits.fetch_entries_max": count("live", 1000, 2000, "Messages in one reply or push batch."),
  "limits.wait_max": duration(
    "live",
    60 * SECOND,
    { min: SECOND, max: 10 * MINUTE },
    "How long a FetchWait parks.",
  ),
  "limits.guards_per_day": count(
    "live",
    1000,
    1_000_000,
    "Groups with a commit guard that an account may begin in a day.",
  ),
  "limits.guard_idle_ttl": duration(
    "live",
    180 * DAY,
    { min: DAY, max: 3650 * DAY },
    "A commit guard that was not used for so long is forgotten.",
  ),

  "limits.devices_max": count("live", 10, 100, "Devices of an account."),
  "limits.blocks_max": count("live", 10_000, 100_000, "Accounts that an account may block."),
  "limits.key_packages_max": count("live", 100, 1000, "KeyPackages of a device for each ciphersuite."),
  "limits.key_packages_low": integer<number>("live", 20, { min: 0, max: 1000 }, {
    text: "A device whose supply of KeyPackages falls below this is told.",
  }),
  "limits.invitation_ttl": duration(
    "live",
    7 * DAY,
    { min: MINUTE, max: 365 * DAY },
    "How long an invitation can be used.",
  ),
  "limits.invitations_open_max": count("live", 20, 10_000, "Unused invitations of an account."),

  "limits.blob_bytes_max": bytes("live", 100 * MIB, { min: MIB, max: 100 * GIB }, "One blob."),
  "limits.blob_quota_bytes": bytes("live", GIB, { min: MIB, max: 100 * TIB }, "Blobs of an account."),
  "limits.blob_uploads_max": count(
    "live",
    64,
    10_000,
    "Blobs being uploaded at once, all accounts together; one account has at most a quarter of them.",
  ),
} as const satisfies Record<string, OptionRow>;

/** Key of an option. */
export type OptionKey = keyof typeof OPTIONS;

type Camel<Key extends string> = Key extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : Key;
type NameOf<Key extends string, Type> = Type extends "duration" ? `${Camel<Key>}Ms` : Camel<Key>;
type ValueOf<Row> = Row extends OptionRow<infer _Type, infer T> ? T : never;

/** The `limits.` options, by name in camelCase; durations end in `Ms`. */
export type Limits = {
  readonly [
    Key in OptionKey as Key extends `limits.${infer Name}` ? NameOf<Name, typeof OPTIONS[Key]["type"]> : never
  ]: ValueOf<typeof OPTIONS[Key]>;
};

/** The `backup.` options, named alike. */
export type BackupSettings = {
  readonly [
    Key in OptionKey as Key extends `backup.${infer Name}` ? NameOf<Name, typeof OPTIONS[Key]["type"]> : never
  ]: ValueOf<typeof OPTIONS[Key]>;
};

/** The `federation.` options, named alike. */
export type FederationSettings = {
  readonly [
    Key in OptionKey as Key extends `federation.${infer Name}` ? NameOf<Name, typeof OPTIONS[Key]["type"]>
      : never
  ]: ValueOf<typeof OPTIONS[Key]>;
};

/** Everything that is configured, typed: names in camelCase, durations in milliseconds with `Ms` behind. */
export type Settings =
  & {
    readonly [
      Key in OptionKey as Key extends `${string}.${string}` ? never : NameOf<Key, typeof OPTIONS[Key]["type"]>
    ]: ValueOf<typeof OPTIONS[Key]>;
  }
  & { readonly limits: Limits; readonly backup: BackupSettings; readonly federation: FederationSettings };

/** All keys, in the order of the table. */
export const OPTION_KEYS = Object.keys(OPTIONS) as OptionKey[];

/** A row of the table. */
export function optionOf(key: OptionKey): OptionRow {
  return OPTIONS[key];
}

/** QPQ_LIMITS_TTL_MAX for `limits.ttl_max`. */
export function environmentName(key: string): string {
  return `QPQ_${key.replaceAll(".", "_").toUpperCase()}`;
}

/** `limits-ttl-max` for `limits.ttl_max`; written with two dashes before it. */
export function flagName(key: string): string {
  return key.replaceAll(/[._]/g, "-");
}

/** Name of the setting: `ttlMaxMs` for `limits.ttl_max`, in the group `limits`. */
export function settingName(key: OptionKey): string {
  const name = key.slice(key.indexOf(".") + 1).replaceAll(/_(\w)/g, (_, char: string) => char.toUpperCase());
  return optionOf(key).type === "duration" ? `${name}Ms` : name;
}

/** Settings from values by key; a key without a value gets that of the limits' profile, else its default. */
export function buildSettings(values: ReadonlyMap<OptionKey, unknown>): Settings {
  const settings: Record<string, unknown> = {};
  const groups: Record<string, Record<string, unknown>> = { limits: {}, backup: {}, federation: {} };
  const profile = (values.get("limits_profile") ?? OPTIONS.limits_profile.default) as LimitsProfile;
  for (const key of OPTION_KEYS) {
    const group = groups[key.split(".")[0]!] ?? settings;
    const otherwise = profileValue(profile, key) ?? optionOf(key).default;
    group[settingName(key)] = values.has(key) ? values.get(key) : otherwise;
  }
  return { ...settings, ...groups } as unknown as Settings;
}

/** The defaults; for tests and for parts that run without a configuration. */
export function defaultSettings(): Settings {
  return buildSettings(new Map());
}

/** The value of an option in finished settings. */
export function valueOf(settings: Settings, key: OptionKey): unknown {
  const groups: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
    limits: settings.limits,
    backup: settings.backup,
    federation: settings.federation,
  };
  return (groups[key.split(".")[0]!] ?? settings as Readonly<Record<string, unknown>>)[settingName(key)];
}
