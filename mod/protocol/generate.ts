/**
 * Generates the code for the .proto files with buf and protoc-gen-es (`deno task generate`): qpq_pb.ts and
 * federation_pb.ts beside their schemas and mod/client/content_pb.ts beside content.proto, or all in the folder given as argument, which is how
 * a test sees that the committed files are fresh.
 * Not a part of the program. The tools are pinned by generate.lock, apart from the program's own lock.
 */
import { fileURLToPath } from "node:url";

const BUF = "npm:@bufbuild/buf@1.74.0/buf";
const PLUGIN = "npm:@bufbuild/protoc-gen-es@2.17.0/protoc-gen-es";

/** Runs buf over `folder` and writes `*_pb.ts` to `out`. */
async function generate(folder: string, out: string): Promise<void> {
  const lock = fileURLToPath(new URL("./generate.lock", import.meta.url));
  const deno = [Deno.execPath(), "run", "--quiet", "--allow-all", "--no-config", `--lock=${lock}`];
  const template = {
    version: "v2",
    plugins: [{ local: [...deno, PLUGIN], out, opt: ["target=ts", "import_extension=ts"] }],
  };
  const [program, ...args] = [...deno, BUF, "generate", folder, "--template", JSON.stringify(template)];
  const { code } = await new Deno.Command(program!, { args }).spawn().status;
  if (code !== 0) throw new Error(`Cannot generate code from ${folder}: buf ended with ${code}`);
}

for (const relative of [".", "../client/"]) {
  const folder = fileURLToPath(new URL(relative, import.meta.url));
  await generate(folder, Deno.args[0] ?? folder);
}
