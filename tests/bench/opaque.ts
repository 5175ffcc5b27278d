/**
 * The limit that a login sets: the server's half of OPAQUE (answering KE1, judging KE3) on one core, with nothing
 * around it. Prints one JSON line:
 *
 *   deno run … tests/bench/opaque.ts [--seconds S]
 */
import { parseArgs } from "node:util";
import * as opaque from "@serenity-kit/opaque";

const USER = "bench";
const PASSWORD = "a password that nobody has to guess";
const LEAST = { "argon2id-custom": { iterations: 1, memory: 8, parallelism: 1 } };
const identifiers = { server: "realm" };

const { values } = parseArgs({ options: { seconds: { type: "string", default: "2" } } });
await opaque.ready;
const serverSetup = opaque.server.createSetup();
const begun = opaque.client.startRegistration({ password: PASSWORD });
const { registrationResponse } = opaque.server.createRegistrationResponse({
  serverSetup,
  userIdentifier: USER,
  registrationRequest: begun.registrationRequest,
});
const { registrationRecord } = opaque.client.finishRegistration({
  password: PASSWORD,
  clientRegistrationState: begun.clientRegistrationState,
  registrationResponse,
  identifiers,
  keyStretching: LEAST,
});

let [logins, busyMs] = [0, 0];
/** Runs a step of the server, on the clock. */
function timed<Result>(step: () => Result): Result {
  const begin = performance.now();
  const result = step();
  busyMs += performance.now() - begin;
  return result;
}

for (; busyMs < Number(values.seconds) * 1000; logins++) {
  const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password: PASSWORD });
  const { serverLoginState, loginResponse } = timed(() =>
    opaque.server.startLogin({
      serverSetup,
      userIdentifier: USER,
      registrationRecord,
      startLoginRequest,
      identifiers,
    })
  );
  const { finishLoginRequest } = opaque.client.finishLogin({
    password: PASSWORD,
    clientLoginState,
    loginResponse,
    identifiers,
    keyStretching: LEAST,
  })!;
  timed(() => opaque.server.finishLogin({ serverLoginState, finishLoginRequest, identifiers }));
}
console.log(JSON.stringify({ perSecond: logins / busyMs * 1000 }));
