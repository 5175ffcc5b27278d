/** What every example is told: where the server is, what admits to it, and a folder to work in. */
import type { ClientOptions } from "../mod.ts";

/** Arguments of an example, in the order of its command line. */
export interface ExampleArguments {
  /** `HOST:PORT` */
  readonly server: string;
  /** SHA-256 of the server's certificate, printed when it starts. */
  readonly fingerprint: string;
  readonly accessToken: string;
  /** Gets a state folder for each device. */
  readonly folder: string;
  /** Gets every line that the example has to say. */
  readonly say: (line: string) => void;
}

/** The options of a client whose state is `name` in the example's folder. */
export function clientOptions(example: ExampleArguments, name: string): ClientOptions {
  const { server, fingerprint, accessToken, folder } = example;
  return { server, accessToken, identity: { fingerprint }, state: `${folder}/${name}` };
}

/** Runs an example with the arguments of the command line: SERVER FINGERPRINT TOKEN-FILE FOLDER. */
export async function runExample(example: (args: ExampleArguments) => Promise<void>): Promise<void> {
  const [server, fingerprint, tokenFile, folder] = Deno.args;
  if (!server || !fingerprint || !tokenFile || !folder) {
    throw new TypeError("Usage: deno run -A EXAMPLE.ts HOST:PORT FINGERPRINT TOKEN-FILE FOLDER");
  }
  const accessToken = (await Deno.readTextFile(tokenFile)).trim();
  const encoder = new TextEncoder();
  const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(`${line}\n`));
  await example({ server, fingerprint, accessToken, folder, say });
}
