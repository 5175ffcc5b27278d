/**
 * A headless Chromium of its own, driven over its debugging protocol: pages, what they ask for and complain about,
 * screenshots. Ends with its scope; its profile is a temporary folder.
 */
import { BackgroundProcess } from "./background_process.ts";
import { tempFolder } from "./temp_folder.ts";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--remote-debugging-port=0",
];

/** How a page is shown. */
export interface PageOptions {
  readonly width: number;
  readonly height: number;
  readonly colourScheme: "light" | "dark";
  readonly javaScript?: "on" | "off";
}

type Json = Record<string, unknown>;
type Listener = (params: Json) => void;

/** Commands and events of one debugging connection. */
class DevTools {
  readonly #socket: WebSocket;
  readonly #pending = new Map<number, PromiseWithResolvers<Json>>();
  readonly #listeners = new Map<string, Listener[]>();
  #nextId = 1;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => {
      for (const { reject } of this.#pending.values()) {
        reject(new Error("Chromium has closed the connection"));
      }
    };
  }

  static async open(address: string): Promise<DevTools> {
    const socket = new WebSocket(address);
    const opened = Promise.withResolvers<void>();
    socket.onopen = () => opened.resolve();
    socket.onerror = () => opened.reject(new Error(`Cannot reach Chromium at ${address}`));
    await opened.promise;
    return new DevTools(socket);
  }

  send(method: string, params: Json = {}, sessionId?: string): Promise<Json> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<Json>();
    this.#pending.set(id, answer);
    this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    return answer.promise;
  }

  on(event: string, listener: Listener): void {
    this.#listeners.set(event, [...this.#listeners.get(event) ?? [], listener]);
  }

  #receive(message: { id?: number; method?: string; params?: Json; result?: Json; error?: Json }): void {
    if (message.id === undefined) {
      for (const listener of this.#listeners.get(message.method!) ?? []) listener(message.params ?? {});
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error) pending?.reject(new Error(`Chromium: ${JSON.stringify(message.error)}`));
    else pending?.resolve(message.result ?? {});
  }

  async close(): Promise<void> {
    const closed = Promise.withResolvers<void>();
    this.#socket.onclose = () => closed.resolve();
    this.#socket.close();
    await closed.promise;
  }
}

/** One page; `requests` and `complaints` are all since it was opened. */
export class Page {
  /** Addresses asked for. */
  readonly requests: string[] = [];
  /** Console errors and warnings, exceptions, violations of the page's policy, failed requests. */
  readonly complaints: string[] = [];
  readonly #tools: DevTools;
  readonly #session: string;

  constructor(tools: DevTools, session: string) {
    this.#tools = tools;
    this.#session = session;
    tools.on(
      "Network.requestWillBeSent",
      ({ request }) => this.requests.push((request as { url: string }).url),
    );
    tools.on("Network.loadingFailed", (params) => this.complaints.push(JSON.stringify(params)));
    tools.on("Runtime.exceptionThrown", (params) => this.complaints.push(JSON.stringify(params)));
    tools.on("Runtime.consoleAPICalled", (params) => this.complaints.push(JSON.stringify(params)));
    tools.on("Log.entryAdded", (params) => this.complaints.push(JSON.stringify(params["entry"])));
  }

  send(method: string, params: Json = {}): Promise<Json> {
    return this.#tools.send(method, params, this.#session);
  }

  /** Turns on what is listened to, and sets how the page is shown. */
  async prepare({ width, height, colourScheme, javaScript = "on" }: PageOptions): Promise<void> {
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await this.send(`${domain}.enable`);
    const screen = { width, height, deviceScaleFactor: 1, mobile: width < 500 };
    await this.send("Emulation.setDeviceMetricsOverride", screen);
    const features = [{ name: "prefers-color-scheme", value: colourScheme }];
    await this.send("Emulation.setEmulatedMedia", { features });
    await this.send("Emulation.setScriptExecutionDisabled", { value: javaScript === "off" });
  }

  /** Opens `url` and waits until it is loaded. */
  async open(url: string): Promise<void> {
    const loaded = Promise.withResolvers<void>();
    this.#tools.on("Page.loadEventFired", () => loaded.resolve());
    await this.send("Page.navigate", { url });
    await loaded.promise;
  }

  /** Value of an expression; a promise is waited for. Throws what the page throws. */
  async evaluate<Result>(expression: string): Promise<Result> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(`In the page: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: Result }).value;
  }

  /** Resolves when `condition` (an expression) holds; it is looked at whenever something in the document changes. */
  async until(condition: string): Promise<void> {
    await this.evaluate(`new Promise((resolve) => {
      const look = () => { if (${condition}) { observer.disconnect(); resolve(); } };
      const observer = new MutationObserver(look);
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      look();
    })`);
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Uint8Array<ArrayBuffer>> {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: true });
    return Uint8Array.fromBase64(data as string);
  }
}

/** A running browser. */
export class Chromium implements AsyncDisposable {
  readonly #address: string;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(address: string, cleanup: AsyncDisposableStack) {
    this.#address = address;
    this.#cleanup = cleanup;
  }

  /** Starts it. Throws with what to install when it is not there. */
  static async start(): Promise<Chromium> {
    await using cleanup = new AsyncDisposableStack();
    const profile = cleanup.use(await tempFolder());
    const process = cleanup.use(BackgroundProcess.start({
      program: "chromium",
      args: [...FLAGS, `--user-data-dir=${profile.path}`, "about:blank"],
      debianPackage: "chromium",
    }));
    const [, address] = await process.match(/^DevTools listening on (ws:.+)$/);
    return new Chromium(address!, cleanup.move());
  }

  /** Opens an empty page and hands it to `use`. */
  async withPage<Result>(options: PageOptions, use: (page: Page) => Promise<Result>): Promise<Result> {
    const tools = await DevTools.open(this.#address);
    try {
      const { targetId } = await tools.send("Target.createTarget", { url: "about:blank" });
      const { sessionId } = await tools.send("Target.attachToTarget", { targetId, flatten: true });
      const page = new Page(tools, sessionId as string);
      await page.prepare(options);
      const result = await use(page);
      await tools.send("Target.closeTarget", { targetId });
      return result;
    } finally {
      await tools.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}
