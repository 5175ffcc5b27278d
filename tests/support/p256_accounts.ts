/** Accounts of the weaker OPAQUE suite, as a client makes them that has nothing else. */
import { SUITE_P256 } from "../../mod/base/opaque_suite.ts";
import { login, type LoginResult, makeDevice, register } from "../../mod/client/session.ts";
import { connectTo, PASSWORD, type Reachable } from "./test_client.ts";

/** Flags of a server that has both suites. */
export const BOTH_SUITES = { "opaque-suites": "ristretto255,p256" };

/** Registers `userName` in P-256. */
export async function registerP256(server: Reachable, userName: string): Promise<void> {
  const link = await connectTo(server);
  try {
    await register(link, { userName, password: PASSWORD, suiteId: SUITE_P256 });
  } finally {
    await link.connection[Symbol.asyncDispose]();
  }
}

/** Logs a new device in, in P-256 if need be; the client library moves the account to ristretto255. */
export async function loginAllowingP256(server: Reachable, userName: string): Promise<LoginResult> {
  const link = await connectTo(server);
  try {
    const device = await makeDevice("any");
    return await login(link, { userName, password: PASSWORD, device, allowP256: true });
  } finally {
    await link.connection[Symbol.asyncDispose]();
  }
}
