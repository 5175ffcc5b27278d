/** `file send`, `file get` and `file list`. */
import type { Command } from "commander";
import { basename } from "node:path";
import { messageOf } from "../../base/errors.ts";
import type { Client, KnownFile } from "../../client/mod.ts";
import type { Terminal } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { named, tellSent } from "./message.ts";
import { refresh, withClient, withUpkeep } from "./open.ts";
import { oneLine, sizeText, table, timeText } from "./output.ts";
import { ProgressBar } from "./progress.ts";

/** Adds the commands. */
export function addFile(client: Command, terminal: Terminal): void {
  const file = client.command("file").description("file send|get|list: files, encrypted on this device");
  file.command("send").argument("<to>", "group, or user").argument("<path>")
    .description("send a file")
    .option("--name <name>", "what it is called there (default: its own name)")
    .addHelpText("after", example(terminal, "file send bob photo.jpg"))
    .action((to: string, path: string, options: { name?: string }, command: Command) =>
      runCommand(terminal, command, (context) => sendFile(context, { to, path, ...options }))
    );
  file.command("get").argument("<id>", "from recv or file list; its first digits are enough")
    .description("fetch a file that was received (or sent)")
    .option("--out <path>", "file or folder to write to (default: its own name, here); replaces nothing")
    .addHelpText("after", example(terminal, "file get 3f2a91c0b7de --out photos/"))
    .action((id: string, options: { out?: string }, command: Command) =>
      runCommand(terminal, command, (context) => getFile(context, { id, out: options.out ?? "." }))
    );
  file.command("list").description("list the files that were received or sent")
    .addHelpText("after", example(terminal, "file list"))
    .action((_options, command: Command) => runCommand(terminal, command, listFiles));
}

async function sendFile(
  context: Context,
  request: { to: string; path: string; name?: string },
): Promise<void> {
  const { to, path, name } = request;
  await checkFile(path);
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      const sent = await sendWithProgress(context, {
        client,
        to,
        path,
        ...(name === undefined ? {} : { name }),
      });
      tellSent(context, { to, sent, more: { fileId: sent.fileId } });
      if (!context.output.json) {
        context.output.talk(`Sent ${oneLine(path)} to ${oneLine(to)} (file ${sent.fileId})`);
      }
    }));
}

/** Sends a file and shows how far it is. */
export async function sendWithProgress(
  { terminal }: Context,
  request: { client: Client; to: string; path: string; name?: string },
): ReturnType<Client["sendFile"]> {
  const { client, to, path, name } = request;
  using bar = new ProgressBar(terminal, { label: name ?? basename(path) });
  const source = {
    path,
    ...(name === undefined ? {} : { name }),
    onProgress: (done: number, total: number) => bar.update(done, total),
  };
  return await named(to, client.sendFile(to, source));
}

/** Says what is wrong with a path before anything is asked of the server. */
export async function checkFile(path: string): Promise<void> {
  try {
    const { isFile } = await Deno.stat(path);
    if (!isFile) throw new TypeError("it is not a file");
    (await Deno.open(path, { read: true })).close();
  } catch (error) {
    throw new Error(`Cannot send ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function getFile(context: Context, { id, out }: { id: string; out: string }): Promise<void> {
  await withClient(context, async (client) => {
    if (!client.files().some((file) => file.fileId.startsWith(id))) await refresh(client, context);
    const file = fileOf(client.files(), id);
    const path = await getWithProgress(context, { client, file, out });
    const { name, size } = file.file;
    context.output.data({ path, fileId: file.fileId, name, size }, path);
  });
}

/** Fetches a file and shows how far it is. Returns where it is. */
export async function getWithProgress(
  { terminal }: Context,
  request: { client: Client; file: KnownFile; out: string },
): Promise<string> {
  const { client, file, out } = request;
  using bar = new ProgressBar(terminal, { label: file.file.name });
  return await client.getFile(file.fileId, out, { onProgress: (done, total) => bar.update(done, total) });
}

/** The file with this id. */
export function fileOf(files: readonly KnownFile[], id: string): KnownFile {
  const found = files.filter((file) => file.fileId.startsWith(id.toLowerCase()));
  if (found.length === 1 && id !== "") return found[0]!;
  if (found.length === 0) throw new Error(`There is no file ${id} here; file list shows them`);
  throw new Error(`Several files begin with ${id}; give more of its id`);
}

async function listFiles(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    await refresh(client, context);
    const groups = new Map(client.groups().map((group) => [group.id, group.name]));
    const files = client.files();
    const rows = files.map(({ fileId, group, from, at, file }) => [
      fileId,
      timeText(at),
      oneLine(groups.get(group) ?? group.slice(0, 8)),
      oneLine(from),
      sizeText(file.size),
      oneLine(file.name),
    ]);
    const objects = files.map(({ fileId, group, from, at, file }) => ({
      fileId,
      group: groups.get(group) ?? null,
      groupId: group,
      from,
      at: new Date(at).toISOString(),
      name: file.name,
      size: file.size,
      mediaType: file.mediaType,
    }));
    const text = rows.length === 0 ? "" : table(["id", "when", "group", "from", "size", "name"], rows);
    context.output.data({ files: objects }, text);
    if (rows.length === 0 && !context.output.json) context.output.talk("No files yet");
  });
}
