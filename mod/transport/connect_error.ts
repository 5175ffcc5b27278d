/** Why a connection to a server could not be made, in words for a person and in a word for a program. */

/**
 * - `unreachable`: nobody answers there, the name is not known, or the server refused without a look
 * - `certificate`: somebody answers whose certificate is not the expected one
 * - `protocol`: somebody answers who does not speak this protocol
 * - `failed`: anything else, an abort by the caller among it
 */
export type ConnectProblem = "unreachable" | "certificate" | "protocol" | "failed";

/** A certificate that TLS refused on this side: whose dates, CA, use or signature it took exception to. */
export interface RefusedCertificate {
  /** Leaf first, as it was shown: proven by nobody. */
  readonly chainDer: readonly Uint8Array[];
  /** The alert that was sent (RFC 8446 §6.2); null when the certificate was refused after TLS. */
  readonly alert: number | null;
}

/** connect() failed; the message says what and where. */
export class ConnectError extends Error {
  override name = "ConnectError";
  readonly problem: ConnectProblem;

  /** With problem `certificate`, as far as the engine can show it. */
  readonly refused: RefusedCertificate | null;

  constructor(
    problem: ConnectProblem,
    message: string,
    options: { cause?: unknown; refused?: RefusedCertificate | null } = {},
  ) {
    super(message, options);
    this.problem = problem;
    this.refused = options.refused ?? null;
  }
}
