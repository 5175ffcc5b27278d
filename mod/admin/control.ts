/**
 * The control socket: HTTP over a Unix socket in the data folder, mode 0600. Whoever can open the file is the
 * operator; there is no other check. The command `rotate tls` is `POST /rotate/tls` with a JSON object; the answer
 * is lines of JSON: any number of `{"progress": 0.5}`, then one `{"result": …}` or `{"error": {"message": …}}`.
 * Where the folder's path is too long for a socket, it lies in a folder of its own under /tmp.
 */
import { dirname, join } from "node:path";
import { concat, hex, randomBytes, sha256, utf8, utf8Text } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import { GUARD_HEADERS, refuseForeign } from "../base/http_guard.ts";
import { logger } from "../base/log.ts";

const log = logger("control");

/** Name of the socket in the data folder. */
export const CONTROL_SOCKET = "control.sock";
/** Largest body of a command. */
const BODY_BYTES_MAX = 1 << 20;
/** A socket's path may have 107 bytes on Linux, 103 on macOS. */
const PATH_BYTES_MAX = 103;
/** Where a socket lies whose path would be longer. */
const SHORT_FOLDER = "/tmp";

/** JSON as it goes over the socket. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A JSON object: input and result of a command. Times are Unix ms, durations end in `Ms`. */
export type JsonObject = { readonly [key: string]: Json };

/** What a command is given to tell its progress, 0 to 1. */
export type Progress = (share: number) => void;

/** One command: its input as it came (it checks it), its result. Throws with a message for the operator. */
export type ControlHandler = (input: JsonObject, progress: Progress) => Promise<Json>;

/** No server listens on the socket: it is stopped, or was killed and left the file behind. */
export class NotRunningError extends Error {
  override name = "NotRunningError";
}

/** The running server refused or failed. The message is the server's. */
export class ControlError extends Error {
  override name = "ControlError";
}

/** A listening control socket. */
export interface ControlServer extends AsyncDisposable {
  readonly path: string;
}

/** Where the socket of a data folder, which exists, lies; `elsewhere`: in a folder of its own. */
async function socketOf(dataDir: string): Promise<{ path: string; elsewhere: boolean }> {
  const path = join(dataDir, CONTROL_SOCKET);
  if (utf8(path).length <= PATH_BYTES_MAX || Deno.build.os === "windows") return { path, elsewhere: false };
  const name = hex(await sha256(utf8(await Deno.realPath(dataDir)))).slice(0, 16);
  return { path: join(SHORT_FOLDER, `qpq-${name}`, CONTROL_SOCKET), elsewhere: true };
}

/**
 * Listens on the socket of `dataDir`. A stale file of a server that was killed is replaced: call it only while
 * holding the folder's lock.
 */
export async function startControlServer(
  dataDir: string,
  handlers: Readonly<Record<string, ControlHandler>>,
): Promise<ControlServer> {
  const { path, elsewhere } = await socketOf(dataDir);
  if (elsewhere) {
    await makeShortFolder(dirname(path));
    log.warn("the data folder's path is too long for a socket: the control socket is {path}", { path });
  }
  await removeIfThere(path);
  // Made where nobody else can enter, given its mode, then moved into place: it is never open to others.
  const nursery = join(dirname(path), `.c${hex(randomBytes(3))}`);
  await Deno.mkdir(nursery, { mode: 0o700 });
  const made = join(nursery, "s");
  const server = Deno.serve(
    { transport: "unix", path: made, onListen: () => {}, onError: internalError },
    (request) => answer(request, handlers),
  );
  await Deno.chmod(made, 0o600);
  await Deno.rename(made, path);
  await Deno.remove(nursery);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await server.shutdown();
      await removeIfThere(path);
      if (elsewhere) await Deno.remove(dirname(path));
    },
  };
}

async function makeShortFolder(path: string): Promise<void> {
  await Deno.mkdir(path, { mode: 0o700 }).catch((error) => {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  });
  await refuseForeignFolder(path, Deno.uid());
}

/** /tmp is everybody's: a folder that somebody else made there must not get an operator's commands. */
async function refuseForeignFolder(path: string, owner: number | null): Promise<void> {
  const { isDirectory, uid, mode } = await Deno.lstat(path);
  if (isDirectory && (uid === owner || uid === 0) && ((mode ?? 0) & 0o077) === 0) return;
  throw new Error(`${path} is not the server's own folder: remove it`);
}

/** Sends a command to the running server. Rejects with NotRunningError or ControlError. */
export async function callControl(
  dataDir: string,
  command: { name: string; input?: JsonObject; onProgress?: Progress },
): Promise<Json> {
  const path = await findSocket(dataDir);
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  try {
    const response = await fetch(`http://control/${command.name.replaceAll(" ", "/")}`, {
      method: "POST",
      body: JSON.stringify(command.input ?? {}),
      client,
    }).catch((cause) => {
      throw new ControlError(`The server on ${path} did not answer: ${messageOf(cause)}`, { cause });
    });
    return await readAnswer(response, command.onProgress ?? (() => {}));
  } finally {
    client.close();
  }
}

/** The socket, once somebody listens on it. */
async function findSocket(dataDir: string): Promise<string> {
  try {
    const { path, elsewhere } = await socketOf(dataDir);
    if (elsewhere) await refuseForeignFolder(dirname(path), (await Deno.stat(dataDir)).uid);
    (await Deno.connect({ transport: "unix", path })).close();
    return path;
  } catch (cause) {
    if (cause instanceof Deno.errors.PermissionDenied) {
      throw new ControlError(
        `You may not use the control socket of ${dataDir}: run this as the user that runs the server, or as root`,
        { cause },
      );
    }
    throw new NotRunningError(`No server runs on the data folder ${dataDir}`, { cause });
  }
}

async function readAnswer(response: Response, onProgress: Progress): Promise<Json> {
  let rest = "";
  for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const message = JSON.parse(line);
      if ("error" in message) throw new ControlError(message.error.message);
      if ("result" in message) return message.result;
      onProgress(message.progress);
    }
  }
  throw new ControlError("The server ended before it answered");
}

async function answer(
  request: Request,
  handlers: Readonly<Record<string, ControlHandler>>,
): Promise<Response> {
  const refusal = refuseForeign(request, []);
  if (refusal) return errorResponse(refusal.status, refusal.text);
  const name = new URL(request.url).pathname.slice(1).replaceAll("/", " ");
  const handler = Object.hasOwn(handlers, name) ? handlers[name] : undefined;
  if (request.method !== "POST") return errorResponse(405, "Commands are sent with POST");
  if (!handler) return errorResponse(404, `This server does not know the command ${name}`);
  const input = await readInput(request);
  if (!input) return errorResponse(400, "The command's input is not a JSON object");
  return new Response(run(handler, { name, input }), {
    headers: { ...GUARD_HEADERS, "content-type": "application/x-ndjson" },
  });
}

async function readInput(request: Request): Promise<Record<string, Json> | null> {
  try {
    const input = JSON.parse(await readText(request));
    return typeof input === "object" && input !== null && !Array.isArray(input) ? input : null;
  } catch {
    return null;
  }
}

/** The body, however long it said to be. Throws beyond the bound. */
async function readText(request: Request): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of request.body ?? []) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) throw new RangeError(`A command has more than ${BODY_BYTES_MAX} bytes`);
    parts.push(part);
  }
  return utf8Text(concat(...parts));
}

function run(
  handler: ControlHandler,
  command: { name: string; input: JsonObject },
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let gone = false;
  return new ReadableStream({
    async start(controller) {
      const send = (message: Json) => {
        if (!gone) controller.enqueue(encoder.encode(JSON.stringify(message) + "\n"));
      };
      try {
        send({ result: await handler(command.input, (progress) => send({ progress })) });
      } catch (error) {
        log.warn("command {command} failed: {reason}", { command: command.name, reason: messageOf(error) });
        send({ error: { message: messageOf(error) } });
      }
      if (!gone) controller.close();
    },
    cancel() {
      gone = true; // the command goes on: an operator who left must not leave half a rotation
    },
  });
}

function errorResponse(status: number, message: string): Response {
  return new Response(JSON.stringify({ error: { message } }) + "\n", {
    status,
    headers: { ...GUARD_HEADERS, "content-type": "application/x-ndjson" },
  });
}

function internalError(error: unknown): Response {
  log.error("control socket: {reason}", { reason: messageOf(error) });
  return errorResponse(500, "The server failed to handle this command");
}

async function removeIfThere(path: string): Promise<void> {
  await Deno.remove(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}
