/** `deno task audit`: a registry that does not answer is neither a finding nor an all-clear. */
import assert from "node:assert/strict";
import { audit, type Verdict, verdictOf } from "../../ops/shipping/audit.ts";

const ADVISORY = {
  id: 1,
  url: "https://advisories.example/1",
  title: "Something bad",
  severity: "high",
  vulnerable_versions: "<99",
  cwe: [],
  cvss: { score: 7, vectorString: null },
};

/** A registry on loopback that knows advisories and nothing else. */
function registry(answer: () => Response) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    await request.body?.cancel();
    return answer();
  });
  return { url: `http://127.0.0.1:${server.addr.port}/`, [Symbol.asyncDispose]: () => server.shutdown() };
}

const answers: readonly [string, () => Response, Verdict][] = [
  ["no advisory", () => Response.json({}), "none"],
  ["an advisory", () => Response.json({ "ts-mls": [ADVISORY] }), "found"],
  ["a page of a mirror", () => new Response("<html>"), "unknown"],
  ["not found", () => Response.json({ error: "not found" }, { status: 404 }), "unknown"],
  ["out of order", () => new Response("", { status: 503 }), "unknown"],
];

for (const [what, answer, verdict] of answers) {
  Deno.test(`audit() of a registry that answers with ${what}: ${verdict}`, async () => {
    await using local = registry(answer);
    const ended = await audit({ NPM_CONFIG_REGISTRY: local.url });
    assert.equal(verdictOf(ended), verdict, ended.out + ended.err);
  });
}

Deno.test("audit() without a registry: unknown, with the reason", async () => {
  const closed = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = closed.addr as Deno.NetAddr;
  closed.close();
  const ended = await audit({ NPM_CONFIG_REGISTRY: `http://127.0.0.1:${port}/` });
  assert.equal(verdictOf(ended), "unknown");
  assert.match(ended.err, /^error: .+/m);
});
