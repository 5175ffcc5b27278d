/** Errors of the client's library, with what a person at a command line can do about each. */
import { ERRORS, messageOf } from "../../base/errors.ts";
import {
  AccountKeyChangedError,
  adviceFor,
  CallTimeoutError,
  ConnectError,
  ConnectionLostError,
  QpqError,
} from "../../client/mod.ts";
import { UsageError } from "../terminal.ts";
import type { Context } from "./context.ts";

/** The same error with its remedy in the message. */
export function explained(error: unknown, context: Context): Error {
  if (error instanceof UsageError) return error;
  const message = messageOf(error);
  const remedy = remedyFor(error, context);
  return new Error(remedy === undefined ? message : `${message}\n  ${remedy}`, { cause: error });
}

function remedyFor(error: unknown, { program, flags }: Context): string | undefined {
  if (error instanceof QpqError) return remedyForRefusal(error, program);
  if (error instanceof AccountKeyChangedError) return `${program} verify ${error.userName}`;
  if (error instanceof ConnectError && error.problem === "unreachable") {
    const where = flags.server ?? "the remembered address";
    return `Check that the server runs at ${where} and that UDP reaches its port; another server: --server HOST:PORT`;
  }
  if (error instanceof ConnectionLostError || error instanceof CallTimeoutError) {
    return "Try again in a moment";
  }
  if (error instanceof Deno.errors.AlreadyExists) return "Write to another place: --out PATH";
  return undefined;
}

function remedyForRefusal(error: QpqError, program: string): string | undefined {
  switch (error.code) {
    case "loginRequired":
    case "sessionExpired":
      return `Log in: ${program} login USER`;
    case "tokenRequired":
      return "Give the server's access token (--auth-token-file FILE), or an invitation when you register";
    case "deviceRevoked":
    case "deviceConflict":
    case "alreadyLoggedIn":
      return "Use a state folder of its own for each account and device: --state FOLDER";
    case "invitationsOff":
      return "Where only holders of the access token may invite, give it (--auth-token-file FILE); else ask the operator";
    case "userNameInvalid":
      return ERRORS.userNameInvalid.text;
    default:
      return adviceFor(error);
  }
}
