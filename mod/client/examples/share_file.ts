/**
 * A file is encrypted, sent to a group, fetched and compared. Run it with
 *
 *   deno run -A mod/client/examples/share_file.ts localhost:7000 FINGERPRINT data/secrets/auth-token ./example
 */
import { Client } from "../mod.ts";
import { clientOptions, type ExampleArguments, runExample } from "./example_server.ts";

/** Kim sends a file to a group with Lou, who saves it. */
export async function shareFile(example: ExampleArguments): Promise<void> {
  await using kim = await Client.open(clientOptions(example, "kim"));
  await using lou = await Client.open(clientOptions(example, "lou"));
  await kim.register({ userName: "kim", password: "a long password of kim" });
  await lou.register({ userName: "lou", password: "a long password of lou" });
  await kim.createGroup("pictures", { users: ["lou"] });

  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const onProgress = (done: number, total: number) => {
    if (done === total) example.say(`kim has sent ${total} bytes`);
  };
  await kim.sendFile("pictures", { bytes, name: "sunset.jpg", mediaType: "image/jpeg", onProgress });

  for await (const event of lou.receive()) {
    if (event.kind !== "file") continue;
    const path = await lou.getFile(event.fileId, example.folder);
    const isSame = (await Deno.readFile(path)).every((byte, index) => byte === bytes[index]);
    example.say(`lou has saved ${event.file.name} of ${event.from}: ${isSame ? "the same" : "damaged"}`);
  }
}

if (import.meta.main) await runExample(shareFile);
