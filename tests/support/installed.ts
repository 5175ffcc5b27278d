/** Programs of the system that some tests need. */
import { delimiter, join } from "node:path";

/**
 * For `ignore` of a test: is one of these programs missing on a machine where nobody promised them? Under CI, whose
 * script installs them, nothing is ignored: there a missing program is a failure.
 */
export function lacks(...programs: readonly string[]): boolean {
  if (Deno.env.get("CI") === "true") return false;
  return programs.some((program) => !isInstalled(program));
}

function isInstalled(program: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(delimiter).some((folder) => {
    try {
      return Deno.statSync(join(folder, program)).isFile;
    } catch {
      return false;
    }
  });
}
