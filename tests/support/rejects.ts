/** Assertions about expected failures. */
import assert from "node:assert/strict";
import { type ErrorCode, QpqError } from "../../mod/base/errors.ts";

/** Passes when `promise` rejects with the QpqError `code`. */
export async function rejectsWith(promise: Promise<unknown>, code: ErrorCode): Promise<QpqError> {
  const error = await promise.then(() => undefined, (reason) => reason);
  assert.ok(error instanceof QpqError, `Expected ${code}: ${error}`);
  assert.equal(error.code, code, error.message);
  return error;
}
