/** Why a connection to a server could not be made, in words for a person and in a word for a program. */

/**
 * - `unreachable`: nobody answers there, the name is not known, or the server refused without a look
 * - `certificate`: somebody answers whose certificate is not the expected one
 * - `protocol`: somebody answers who does not speak this protocol
 * - `failed`: anything else, an abort by the caller among it
 */
export type ConnectProblem = "unreachable" | "certificate" | "protocol" | "failed";

/** connect() failed; the message says what and where. */
export class ConnectError extends Error {
  override name = "ConnectError";
  readonly problem: ConnectProblem;

  constructor(problem: ConnectProblem, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.problem = problem;
  }
}
