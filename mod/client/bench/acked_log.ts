/**
 * Which messages a server has acknowledged, in a file that outlives this process and the server: the proof of what
 * must not be lost.
 *
 *   line 1       JSON: format, server, run, payload, and the recipients with what resumes their sessions
 *   other lines  message id (hex), a space, and the number of its recipient in line 1, or `all`
 *
 * The file holds private keys of bench accounts and is readable by its owner only. Lines are buffered and written
 * twice a second, so that logging costs the load little: what is missing at the end was acknowledged and is not
 * checked, what is there was acknowledged.
 */
import { base64url, fromBase64url, fromHex, hex } from "../../base/bytes.ts";
import type { DeviceId, SessionId } from "../../base/ids.ts";
import type { ServerAddress, ServerTrust } from "../identity.ts";
import type { BenchDevice } from "./bench_accounts.ts";
import type { BenchServer } from "./bench_server.ts";
import { messageIdText } from "./enqueue_template.ts";

const FORMAT = "qpq-bench-acked-1";
const FLUSH_MS = 500;
const BUFFER_CHARACTERS_MAX = 1 << 20;
const encoder = new TextEncoder();

/** What a log says of its messages. */
export interface AckedMessages {
  readonly server: ServerAddress;
  readonly trust: ServerTrust | null;
  readonly run: Uint8Array;
  readonly recipients: readonly BenchDevice[];
  /** Numbers of the messages that went to one recipient, by recipient. */
  readonly numbers: readonly (readonly number[])[];
  /** Numbers of the messages that went to all. */
  readonly numbersOfAll: readonly number[];
}

/** Writes a log. */
export class AckedLog implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #run: Uint8Array;
  #recipients: readonly BenchDevice[] = [];
  #text = "";

  /** Makes the file, which must not exist: it may be the only proof of another run. */
  constructor(path: string, run: Uint8Array) {
    this.#file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
    this.#run = run;
    this.#timer = setInterval(() => this.flush(), FLUSH_MS);
  }

  /** Whose queues the log speaks of. */
  get recipients(): readonly BenchDevice[] {
    return this.#recipients;
  }

  /** Writes the first line. */
  begin(server: BenchServer, recipients: readonly BenchDevice[]): void {
    this.#recipients = recipients;
    this.#text = JSON.stringify({
      format: FORMAT,
      server: server.address,
      trust: server.trust && trustToJson(server.trust),
      run: hex(this.#run),
      recipients: recipients.map(deviceToJson),
    }) + "\n";
    this.flush();
  }

  /** Message `number` was acknowledged for one recipient, or for all of them. */
  add(number: number, recipient: number | "all"): void {
    this.#text += `${messageIdText(this.#run, number)} ${recipient}\n`;
    if (this.#text.length > BUFFER_CHARACTERS_MAX) this.flush();
  }

  /** Writes what was added. */
  flush(): void {
    const bytes = encoder.encode(this.#text);
    this.#text = "";
    for (let written = 0; written < bytes.length;) written += this.#file.writeSync(bytes.subarray(written));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.flush();
    this.#file.close();
  }
}

/** Reads a log. A last line that was cut off is left out; throws SyntaxError for anything else that is no log. */
export async function readAckedLog(path: string): Promise<AckedMessages> {
  using file = await Deno.open(path);
  const lines = wholeLines(file.readable.pipeThrough(new TextDecoderStream()));
  const first = await lines.next();
  const header = headerOf(first.done ? "" : first.value);
  const numbers = header.recipients.map((): number[] => []);
  const numbersOfAll: number[] = [];
  const run = hex(header.run);
  for await (const line of lines) {
    const [, number, recipient] = /^[0-9a-f]{20}([0-9a-f]{12}) (all|\d+)$/.exec(line) ?? [];
    const list = recipient === "all" ? numbersOfAll : numbers[Number(recipient)];
    if (!list || !line.startsWith(run)) {
      throw new SyntaxError(`This is no line of an acked log: ${line.slice(0, 60)}`);
    }
    list.push(parseInt(number!, 16));
  }
  return { ...header, numbers, numbersOfAll };
}

async function* wholeLines(texts: AsyncIterable<string>): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const text of texts) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

function headerOf(line: string): Omit<AckedMessages, "numbers" | "numbersOfAll"> {
  let json: ReturnType<typeof JSON.parse> = null;
  try {
    json = JSON.parse(line);
  } catch {
    // Told below, like any other first line.
  }
  if (json?.format !== FORMAT) throw new SyntaxError(`The file is no acked log (${FORMAT})`);
  return {
    server: json.server,
    trust: json.trust && trustFromJson(json.trust),
    run: fromHex(json.run),
    recipients: json.recipients.map(deviceFromJson),
  };
}

function trustToJson({ caPem, fingerprint, pins }: ServerTrust) {
  return { caPem, fingerprint: fingerprint && hex(fingerprint), pins: pins.map(hex) };
}

function trustFromJson(json: ReturnType<typeof trustToJson>): ServerTrust {
  const { caPem, fingerprint, pins } = json;
  return { caPem, fingerprint: fingerprint === null ? null : fromHex(fingerprint), pins: pins.map(fromHex) };
}

function deviceToJson({ userName, password, sessionId, device }: BenchDevice) {
  const { publicKey, privateKey } = device.key;
  const key = { publicKey: base64url(publicKey), privateKey: base64url(privateKey) };
  return { userName, password, sessionId: sessionId as string, deviceId: device.deviceId as string, ...key };
}

function deviceFromJson(json: ReturnType<typeof deviceToJson>): BenchDevice {
  const key = { publicKey: fromBase64url(json.publicKey), privateKey: fromBase64url(json.privateKey) };
  const device = { deviceId: json.deviceId as DeviceId, key, name: "bench" };
  const { userName, password } = json;
  return { userName, password, sessionId: json.sessionId as SessionId, device };
}
