/** Errors of the client's library, with what a person at a command line can do about each. */
import { ERRORS, messageOf, QpqError } from "../../base/errors.ts";
import { adviceFor } from "../../client/session_advice.ts";
import { UsageError } from "../terminal.ts";
import type { Context } from "./context.ts";

/** The same error with its remedy in the message. */
export function explained(error: unknown, context: Context): Error {
  if (error instanceof UsageError) return error;
  const message = messageOf(error);
  const remedy = remedyFor(error, context);
  return new Error(remedy === undefined ? message : `${message}\n  ${remedy}`, { cause: error });
}

function remedyFor(error: unknown, { terminal, flags }: Context): string | undefined {
  const client = terminal.invocation.client;
  if (error instanceof QpqError) {
    if (error.code === "loginRequired" || error.code === "sessionExpired") {
      return `Log in: ${client} login USER`;
    }
    if (error.code === "tokenRequired") {
      return "Give the server's access token (--auth-token-file FILE), or an invitation when you register";
    }
    if (error.code === "userNameInvalid") return ERRORS.userNameInvalid.text;
    return adviceFor(error);
  }
  const name = error instanceof Error ? error.name : "";
  if (name === "ConnectError" && (error as { problem?: unknown }).problem === "unreachable") {
    const where = flags.server ? ` ${flags.server}` : "";
    return `Check that the server runs at${
      where || " the remembered address"
    }, and that UDP reaches its port; ` +
      "another server: --server HOST:PORT";
  }
  if (name === "ConnectionLostError" || name === "CallTimeoutError") {
    return "Try again; what was sent is kept and goes out once";
  }
  return undefined;
}
