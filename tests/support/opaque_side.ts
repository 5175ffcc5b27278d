/** Both sides of an OPAQUE suite in one process: a pool, and the client library's side. */
import { OpaquePool } from "../../mod/auth/opaque.ts";
import type { Bytes } from "../../mod/base/bytes.ts";
import { p256 } from "../../mod/client/opaque_p256.ts";

/** A registration in the suite P-256: the record and its export key. */
export async function registerP256(
  pool: OpaquePool,
  input: { suiteId: number; setup: Uint8Array; userName: string; password: string; realmId: string },
): Promise<{ record: Bytes; exportKey: Bytes }> {
  const { suiteId, setup, userName, password, realmId } = input;
  const client = await p256.startRecord(password);
  const response = await pool.registrationResponse({ suiteId, setup, userName, request: client.request });
  const { registrationRecord, exportKey } = await client.finish(response, realmId);
  await pool.checkRecord({ suiteId, setup, record: registrationRecord });
  return { record: registrationRecord, exportKey };
}
