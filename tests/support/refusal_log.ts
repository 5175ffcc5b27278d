/** What is logged of refusals between servers, to be compared with what is counted. Importing it takes the log. */
import assert from "node:assert/strict";
import { configureLogs } from "../../mod/base/log.ts";
import type { TestPeer } from "./peer_world.ts";

/** How the line of each reason begins. */
const LINES: Readonly<Record<string, RegExp>> = {
  unknown_domain: /^a server that is no peer was refused: /,
  blocked: /^a blocked peer was refused: /,
  wrong_name: /^a peer's certificate is for another domain: /,
  unknown_ca: /^a peer's certificate is not of the CA set: /,
  expired: /^a peer's certificate is not valid now: /,
  revoked: /^a peer's certificate is revoked: /,
  bad_signature: /^a peer's proof does not verify: /,
  wrong_responder: /^a peer's proof was made for another server: /,
  timeout: /^a server did not prove in time who it is: /,
  protocol: /^a server broke the protocol between servers: /,
  rate_limited: /^a server opens too many connections: /,
};

const lines: string[] = [];
configureLogs({ filter: "info", format: "json", write: (line) => void lines.push(line) });

/** Forgets what was logged before. */
export function clearRefusals(): void {
  lines.length = 0;
}

/** Messages of all lines so far. */
export function loggedMessages(): string[] {
  return lines.map((line) => JSON.parse(line).msg);
}

/** What a server has counted once it is `count` or more; it alone has refused, and each has its own line. */
export async function refusalsOf(peer: TestPeer, count = 0): Promise<Record<string, number>> {
  const counted = await peer.refusalsOnce(count);
  const logged: Record<string, number> = {};
  for (const { reason, msg } of lines.map((line) => JSON.parse(line))) {
    if (reason === undefined) continue;
    assert.match(msg, LINES[reason]!);
    logged[reason] = (logged[reason] ?? 0) + 1;
  }
  assert.deepEqual(logged, counted);
  return counted;
}
