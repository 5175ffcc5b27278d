/**
 * The status page of a real server in a real browser. QPQ_TEST_SCREENSHOTS names a folder to keep the pictures in.
 */
import { lacks } from "../support/installed.ts";
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../mod/base/bytes.ts";
import { Chromium, type Page, type PageOptions } from "../support/chromium.ts";
import { newAccount } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const DESKTOP: PageOptions = { width: 1280, height: 900, colourScheme: "light" };
const PHONE: PageOptions = { width: 375, height: 812, colourScheme: "dark" };

function statusUrl(server: TestServer): string {
  const { hostname, port } = server.server.metricsAddress!;
  return `http://${hostname}:${port}/`;
}

async function text(page: Page, id: string): Promise<string> {
  return await page.evaluate<string>(`document.getElementById(${JSON.stringify(id)}).textContent`);
}

/** Titles of the charts whose canvas shows the colour of a line. */
function chartsWithLines(page: Page): Promise<string[]> {
  return page.evaluate<string[]>(`[...document.querySelectorAll(".chart")].filter((chart) => {
    const canvas = chart.querySelector("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [...chart.querySelectorAll("figcaption i")].some((mark) => {
      const wanted = getComputedStyle(mark).backgroundColor.match(/\\d+/g).map(Number);
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 200 && wanted.every((value, c) => Math.abs(value - data[i + c]) < 24)) return true;
      }
      return false;
    });
  }).map((chart) => chart.querySelector("h2").textContent)`);
}

async function keep(name: string, png: Uint8Array<ArrayBuffer>): Promise<void> {
  assert.deepEqual([...png.subarray(1, 4)], [..."PNG"].map((char) => char.charCodeAt(0)));
  const folder = Deno.env.get("QPQ_TEST_SCREENSHOTS");
  if (folder) await Deno.writeFile(join(folder, `status-${name}.png`), png);
}

Deno.test("the status page draws a running server, live, with nothing from elsewhere", {
  ignore: lacks("chromium"),
}, async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  const send = (count: number) =>
    Promise.all(
      Array.from({ length: count }, () => alice.enqueue([bob.deviceId], { payload: randomBytes(1000) })),
    );
  await send(20);
  await using chromium = await Chromium.start();
  await chromium.withPage(DESKTOP, async (page) => {
    const url = statusUrl(server);
    await page.open(url);
    assert.equal(await text(page, "status"), "Ready");
    await page.until(`document.getElementById("queue").textContent === "20"`);
    await send(3);
    await page.until(`document.getElementById("queue").textContent === "23"`);
    await page.until(`document.querySelectorAll(".plot.empty").length === 1`);
    assert.match(await text(page, "messagesMore"), /· 23 since the start$/);
    assert.equal(await text(page, "connections"), "2");
    assert.equal(await text(page, "accounts"), "2");
    assert.match(await text(page, "certificate"), /^\d+ d/);
    assert.match(await text(page, "methods"), /enqueue.*ms/);
    const all =
      "Throughput,Delivery queue,Time to accept a message,Logins,Connections,Refusals and errors,CPU,Memory," +
      "Certificate";
    assert.equal(String(await chartsWithLines(page)), all, "and Backup has no data");
    await keep("light", await page.screenshot());
    assert.deepEqual(page.complaints, []);
    assert.deepEqual(page.requests.filter((request) => !request.startsWith(url)), []);
    assert.ok(page.requests.some((request) => request.includes("status.json?range=1h&since=1")), "live");
  });
});

Deno.test(
  "the status page fits a phone and follows the reader's colours",
  { ignore: lacks("chromium") },
  async () => {
    await using server = await startTestServer();
    await using chromium = await Chromium.start();
    const background = (page: Page) => page.evaluate(`getComputedStyle(document.body).backgroundColor`);
    const [dark, wide] = await chromium.withPage(PHONE, async (page) => {
      await page.open(`${statusUrl(server)}?range=24h`);
      await page.until("document.body.dataset.drawn");
      await keep("phone-dark", await page.screenshot());
      assert.equal(await page.evaluate(`document.querySelector("[aria-current]").textContent`), "24 hours");
      assert.match(await text(page, "attention"), /no backup has been made/);
      assert.deepEqual(page.complaints, []);
      return [await background(page), await page.evaluate("document.documentElement.scrollWidth")];
    });
    assert.equal(wide, 375, "nothing is wider than the screen");
    const light = await chromium.withPage({ ...PHONE, colourScheme: "light" }, async (page) => {
      await page.open(statusUrl(server));
      return await background(page);
    });
    assert.notEqual(dark, light);
  },
);

Deno.test("the status page says everything without JavaScript", { ignore: lacks("chromium") }, async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  await alice.enqueue([alice.deviceId], { payload: randomBytes(10) });
  await using chromium = await Chromium.start();
  await chromium.withPage({ ...DESKTOP, javaScript: "off" }, async (page) => {
    await page.open(statusUrl(server));
    const { root } = await page.send("DOM.getDocument", { depth: -1 });
    const { outerHTML } = await page.send("DOM.getOuterHTML", {
      nodeId: (root as { nodeId: number }).nodeId,
    });
    assert.match(String(outerHTML), /id="status"[^>]*>Ready</);
    assert.match(String(outerHTML), /id="uptime">\d+ /);
    assert.deepEqual(page.complaints, []);
  });
});

Deno.test(
  "the status page says when the server no longer answers",
  { ignore: lacks("chromium") },
  async () => {
    await using server = await startTestServer();
    await using chromium = await Chromium.start();
    await chromium.withPage(DESKTOP, async (page) => {
      await page.open(statusUrl(server));
      await page.until("document.body.dataset.drawn");
      await server.stop();
      await page.until(`!document.getElementById("stale").hidden`);
      assert.match(await text(page, "stale"), /no answer/);
    });
  },
);
