/** Accounts and devices as an operator names them: by user name, by id, or by the beginning of a device's id. */
import { ID_BYTES } from "../base/ids.ts";
import { tryNormaliseUserName } from "../base/user_name.ts";
import type { AccountSummary, DeviceSummary } from "../store/admin_store.ts";
import type { Account, Store } from "../store/store.ts";
import type { AccountId } from "../base/ids.ts";
import { AdminError } from "./operations.ts";

/** Fewer digits of an id say too little about what was meant. */
const PREFIX_DIGITS_MIN = 4;
/** As many of the devices that fit are named. */
const SHOWN_MAX = 5;
/** Accounts in one page of a list. */
const PAGE = 500;

/** The account with this name or id. Throws AdminError. */
export async function findUser(store: Store, typed: string): Promise<Account> {
  const name = tryNormaliseUserName(typed.trim());
  const byName = name === undefined ? null : await store.findAccountByName(name);
  if (byName) return byName;
  const isId = new RegExp(`^[0-9a-f]{${2 * ID_BYTES}}$`).test(name ?? "");
  const byId = isId ? await store.findAccount(name as AccountId) : null;
  if (byId) return byId;
  throw new AdminError(`There is no user ${typed}: \`qpq-server user list\` shows all`);
}

/** The device whose id begins with `typed`. Throws AdminError when there is none, or several. */
export async function findDevice(store: Store, typed: string): Promise<DeviceSummary> {
  const prefix = typed.trim().toLowerCase();
  if (!/^[0-9a-f]+$/.test(prefix) || prefix.length > 2 * ID_BYTES) {
    throw new AdminError(`${typed} is no device id (hex digits): \`qpq-server device list USER\` shows them`);
  }
  if (prefix.length < PREFIX_DIGITS_MIN) {
    throw new AdminError(`Give at least ${PREFIX_DIGITS_MIN} digits of the device id: ${typed}`);
  }
  const found = await store.findDevices({ prefix, limit: SHOWN_MAX + 1 });
  const [device, ...others] = found;
  if (!device) {
    throw new AdminError(
      `There is no device ${typed}: \`qpq-server device list USER\` shows a user's devices`,
    );
  }
  if (others.length === 0) return device;
  const shown = found.slice(0, SHOWN_MAX).map(({ deviceId, userName }) => `${deviceId} (${userName})`);
  const more = found.length > SHOWN_MAX ? " and others" : "";
  throw new AdminError(`Several devices begin with ${typed}: ${shown.join(", ")}${more}; give more digits`);
}

/** Every account in order of the names, a page at a time. */
export async function* allAccounts(store: Store): AsyncGenerator<AccountSummary> {
  for (let afterName = "";;) {
    const page = await store.listAccounts({ afterName, limit: PAGE });
    yield* page;
    const last = page.at(-1);
    if (!last || page.length < PAGE) return;
    afterName = last.userName;
  }
}
