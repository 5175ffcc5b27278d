/**
 * The database's schema as a list of migrations that is only ever appended to: migration N brings a store from
 * user_version N to N + 1. The result is committed as tests/fixtures/schema/sqlcipher.sql.
 *
 * Inside, accounts, devices and payloads go by integer keys; the ids of the outside are looked up once. What many
 * messages a second touch (queues, senders, store) are small rows apart from the wide ones. All times are Unix
 * milliseconds, days are whole UTC days since 1970. No foreign keys: the verbs delete what belongs together, and
 * the contract tests recount.
 */

/** SQLite application_id of our files: "qpq1". */
export const APPLICATION_ID = 0x71707131;

/** Append-only. */
export const MIGRATIONS: readonly string[] = [
  `
-- One row: identity of the store, the clock mark, and the numbers for gauges.
CREATE TABLE store (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  incarnation BLOB NOT NULL,
  realm_id TEXT NOT NULL,
  mark INTEGER,
  accounts INTEGER NOT NULL DEFAULT 0,
  devices INTEGER NOT NULL DEFAULT 0,
  queue_entries INTEGER NOT NULL DEFAULT 0,
  queue_bytes INTEGER NOT NULL DEFAULT 0,
  key_packages INTEGER NOT NULL DEFAULT 0,
  blobs INTEGER NOT NULL DEFAULT 0,
  blob_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE opaque_setups (
  setup_id INTEGER PRIMARY KEY,
  suite_id INTEGER NOT NULL,
  secret BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  retired_at INTEGER
) STRICT;

-- Rows stay for ever: a deleted account keeps its name reserved and loses all else (deleted_at).
CREATE TABLE accounts (
  id INTEGER PRIMARY KEY,
  account_id BLOB NOT NULL UNIQUE,
  user_name TEXT NOT NULL UNIQUE,
  suite_id INTEGER,
  setup_id INTEGER,
  record BLOB,
  wrapped_account_key BLOB,
  account_key BLOB,
  created_at INTEGER NOT NULL,
  enabled INTEGER NOT NULL DEFAULT 1,
  deleted_at INTEGER
) STRICT;

CREATE TABLE blocks (
  account INTEGER NOT NULL,
  blocked BLOB NOT NULL,
  PRIMARY KEY (account, blocked)
) STRICT, WITHOUT ROWID;

-- created_by 0: the operator.
CREATE TABLE invitations (
  sha256 BLOB NOT NULL PRIMARY KEY,
  created_by INTEGER NOT NULL,
  for_account INTEGER,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitations_by_creator ON invitations (created_by, expires_at);
CREATE INDEX invitations_by_expiry ON invitations (expires_at);
CREATE INDEX invitations_by_target ON invitations (for_account) WHERE for_account IS NOT NULL;

-- AUTOINCREMENT: the key of a forgotten device never names another one.
CREATE TABLE devices (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id BLOB NOT NULL UNIQUE,
  account INTEGER NOT NULL,
  device_key BLOB NOT NULL,
  name TEXT NOT NULL,
  account_signature BLOB,
  created_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,
  revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX devices_by_account ON devices (account);
CREATE INDEX devices_by_last_seen ON devices (last_seen_at);

CREATE TABLE sessions (
  session_id BLOB NOT NULL PRIMARY KEY,
  device INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL,
  ended INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_device ON sessions (device, ended);
CREATE INDEX sessions_by_last_seen ON sessions (last_seen_at) WHERE ended = 0;
CREATE INDEX sessions_by_creation ON sessions (created_at) WHERE ended = 0;

CREATE TABLE key_packages (
  id INTEGER PRIMARY KEY,
  device INTEGER NOT NULL,
  suite INTEGER NOT NULL,
  last_resort INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
CREATE INDEX key_packages_by_device ON key_packages (device, suite, last_resort, not_after);
CREATE INDEX key_packages_by_expiry ON key_packages (not_after);

-- Every KeyPackageRef ever uploaded, until its package would have expired anyway.
CREATE TABLE key_package_refs (
  ref BLOB NOT NULL PRIMARY KEY,
  not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_package_refs_by_expiry ON key_package_refs (not_after);

-- Supplies whose owner was told that they are low.
CREATE TABLE key_package_lows (
  device INTEGER NOT NULL,
  suite INTEGER NOT NULL,
  PRIMARY KEY (device, suite)
) STRICT, WITHOUT ROWID;

-- One for each device that is not revoked. sent_next numbers the device's own messages in message_ids.
CREATE TABLE queues (
  device INTEGER PRIMARY KEY,
  next_seq INTEGER NOT NULL DEFAULT 1,
  acked_through INTEGER NOT NULL DEFAULT 0,
  dropped_through INTEGER NOT NULL DEFAULT 0,
  dropped_count INTEGER NOT NULL DEFAULT 0,
  depth INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  sent_next INTEGER NOT NULL DEFAULT 1
) STRICT;

-- What each sending account holds in each queue.
CREATE TABLE senders (
  device INTEGER NOT NULL,
  account INTEGER NOT NULL,
  depth INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (device, account)
) STRICT, WITHOUT ROWID;

-- sender 0: a notice. shared: the payload has several entries and a row in payload_refs.
CREATE TABLE entries (
  device INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  payload INTEGER NOT NULL,
  size INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  sender INTEGER NOT NULL,
  shared INTEGER NOT NULL,
  PRIMARY KEY (device, seq)
) STRICT, WITHOUT ROWID;

-- recipients: (device, seq) of every entry as pairs of little-endian doubles, so that expiry finds the entries
-- without an index over them.
CREATE TABLE payloads (
  id INTEGER PRIMARY KEY,
  entry_id BLOB NOT NULL,
  sender INTEGER NOT NULL,
  sender_device BLOB,
  accepted_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  recipients BLOB NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
CREATE INDEX payloads_by_expiry ON payloads (expires_at);

-- Apart from the payload: changing its row would rewrite all its bytes.
CREATE TABLE payload_refs (
  payload INTEGER PRIMARY KEY,
  refs INTEGER NOT NULL
) STRICT;

-- Results of accepted messages for replay; statuses is one byte a recipient, number counts up for each device.
-- The id is the first column of its index: ids that begin with the time (as our client makes them) are appended
-- to its end, where random ones would write a page each.
CREATE TABLE message_ids (
  id INTEGER PRIMARY KEY,
  account INTEGER NOT NULL,
  device INTEGER NOT NULL,
  number INTEGER NOT NULL,
  message_id BLOB NOT NULL,
  request_sha256 BLOB NOT NULL,
  accepted_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  statuses BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_ids_by_id ON message_ids (message_id, account);
CREATE INDEX message_ids_by_time ON message_ids (accepted_at);

-- What an account has sent, and how many guards it began, on its latest day.
CREATE TABLE daily (
  account INTEGER PRIMARY KEY,
  day INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  guards INTEGER NOT NULL
) STRICT;
CREATE INDEX daily_by_day ON daily (day);

CREATE TABLE guards (
  group_id BLOB NOT NULL PRIMARY KEY,
  epoch INTEGER NOT NULL,
  token_sha256 BLOB NOT NULL,
  used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX guards_by_use ON guards (used_at);

CREATE TABLE blobs (
  hash BLOB NOT NULL PRIMARY KEY,
  bytes INTEGER NOT NULL,
  refs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blob_refs (
  hash BLOB NOT NULL,
  owner INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (hash, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_refs_by_owner ON blob_refs (owner);
CREATE INDEX blob_refs_by_expiry ON blob_refs (expires_at);

-- Bytes that an owner references.
CREATE TABLE blob_owners (
  owner INTEGER PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT;
`,
  `
-- How many accounts have their record under each setup: a gauge, so it must not be counted each time.
CREATE TABLE setup_accounts (
  setup_id INTEGER PRIMARY KEY,
  accounts INTEGER NOT NULL
) STRICT;
INSERT INTO setup_accounts (setup_id, accounts)
  SELECT setup_id, count(*) FROM accounts WHERE setup_id IS NOT NULL GROUP BY setup_id;
CREATE TRIGGER accounts_inserted AFTER INSERT ON accounts WHEN new.setup_id IS NOT NULL BEGIN
  INSERT INTO setup_accounts (setup_id, accounts) VALUES (new.setup_id, 1)
    ON CONFLICT (setup_id) DO UPDATE SET accounts = accounts + 1;
END;
CREATE TRIGGER accounts_moved AFTER UPDATE OF setup_id ON accounts WHEN old.setup_id IS NOT new.setup_id BEGIN
  UPDATE setup_accounts SET accounts = accounts - 1 WHERE setup_id = old.setup_id;
  INSERT INTO setup_accounts (setup_id, accounts) SELECT new.setup_id, 1 WHERE new.setup_id IS NOT NULL
    ON CONFLICT (setup_id) DO UPDATE SET accounts = accounts + 1;
END;
CREATE INDEX accounts_by_setup ON accounts (setup_id, user_name) WHERE setup_id IS NOT NULL;
`,
  `
-- Payloads that no entry refers to any more; see payloads.ts for when they are deleted.
CREATE TABLE released_payloads (
  payload INTEGER PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT;
`,
  `
-- Other servers, with the sums of their outboxes. sent_next numbers the messages that came from there. Wherever an
-- account's or a device's key stands for a sender, the negative key stands for a peer; payloads.sender_device then
-- holds the ids of device and account.
CREATE TABLE peers (
  id INTEGER PRIMARY KEY,
  domain TEXT NOT NULL UNIQUE,
  blocked_at INTEGER,
  depth INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  sent_next INTEGER NOT NULL DEFAULT 1
) STRICT;

-- AUTOINCREMENT: what was settled once never names another message.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  peer INTEGER NOT NULL,
  sender_account BLOB NOT NULL,
  sender_device BLOB NOT NULL,
  message_id BLOB NOT NULL,
  recipients INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  size INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_by_peer ON outbox (peer, id);

ALTER TABLE store ADD COLUMN outbox_entries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE store ADD COLUMN outbox_bytes INTEGER NOT NULL DEFAULT 0;

-- What came from peers is remembered longer.
DROP INDEX message_ids_by_time;
CREATE INDEX message_ids_by_time ON message_ids (accepted_at) WHERE account > 0;
CREATE INDEX remote_message_ids_by_time ON message_ids (accepted_at) WHERE account < 0;
CREATE INDEX remote_message_ids_by_key ON message_ids (id) WHERE account < 0;
`,
  `
-- Rows of queues, senders and daily that are written later, in the order of their changes; see deferred.ts. Entries
-- of payloads up to written_payload are in their table, or gone.
CREATE TABLE deferred_rows (
  id INTEGER PRIMARY KEY,
  rows BLOB NOT NULL
) STRICT;
ALTER TABLE store ADD COLUMN written_payload INTEGER NOT NULL DEFAULT 0;
UPDATE store SET written_payload = ifnull((SELECT max(id) FROM payloads), 0);
`,
];

/** Number of the newest migration. */
export const SCHEMA_VERSION = MIGRATIONS.length;
