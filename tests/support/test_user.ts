/** Users of the client library against a test server: one state folder a device, gone with the test. */
import { Client, type ClientEvent, type ClientOptions, type TextEvent } from "../../mod/client/mod.ts";
import { LEAST_STRETCHING } from "./test_client.ts";
import type { TestServer } from "./test_server.ts";

/** Every test user's password. */
export const PASSWORD = "correct horse battery staple";

/** Where a server is and what admits to it. */
export type ReachableServer = Pick<TestServer, "hostname" | "port" | "caPem" | "accessToken">;

/** Opens a client on a state folder, for accounts that are stretched as little as {@link LEAST_STRETCHING}. */
export function openClient(
  server: ReachableServer,
  state: string,
  options: Partial<ClientOptions> = {},
): Promise<Client> {
  return Client.open({
    server: { hostname: server.hostname, port: server.port },
    state,
    identity: { ca: server.caPem },
    accessToken: server.accessToken,
    keyStretching: LEAST_STRETCHING,
    ...options,
  });
}

/** Everything that waits, processed and shown. */
export function drain(client: Client): Promise<ClientEvent[]> {
  return Array.fromAsync(client.receive());
}

/** The texts that wait, as "from: text". */
export async function texts(client: Client): Promise<string[]> {
  const events = await drain(client);
  return events.filter((event): event is TextEvent => event.kind === "text")
    .map((event) => `${event.from}: ${event.text}`);
}
