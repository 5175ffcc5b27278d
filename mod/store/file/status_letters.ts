/** What became of a message's recipients, as a remembered result keeps it: a letter for each. */
import type { Accepted, RecipientStatus, RemoteStatus } from "../store.ts";

/** Letters of the recipients' statuses in a remembered result. */
const STATUS_LETTERS: Record<RecipientStatus, string> = {
  ok: "o",
  unknownDevice: "u",
  queueFull: "f",
  blocked: "b",
};
const STATUS_OF = new Map(
  (Object.keys(STATUS_LETTERS) as RecipientStatus[]).map((status) => [STATUS_LETTERS[status], status]),
);

/** The same of remote messages, which follow the recipients. */
const REMOTE_LETTERS: Record<RemoteStatus, string> = { relaying: "R", queueFull: "F" };
const REMOTE_STATUS_OF = new Map<string, RemoteStatus>([["R", "relaying"], ["F", "queueFull"]]);

/** What became of a message. */
export type Statuses = Pick<Accepted, "recipients" | "remote">;

/** The statuses as a row keeps them. */
export function lettersOf({ recipients, remote }: Statuses): string {
  const letters = recipients.map((status) => STATUS_LETTERS[status]);
  return letters.join("") + remote.map((status) => REMOTE_LETTERS[status]).join("");
}

/** The statuses that a row keeps. */
export function statusesOf(letters: string): Statuses {
  return {
    recipients: [...letters].flatMap((letter) => STATUS_OF.get(letter) ?? []),
    remote: [...letters].flatMap((letter) => REMOTE_STATUS_OF.get(letter) ?? []),
  };
}
