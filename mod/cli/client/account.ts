/** `register`, `login`, `whoami`, `logout`, `passwd`, `invite` and `account delete`. */
import type { Command } from "commander";
import { addressText } from "../../base/address.ts";
import { ERRORS } from "../../base/errors.ts";
import { tryParseUserAddress } from "../../base/user_address.ts";
import type { Client } from "../../client/mod.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { withAnyClient, withClient } from "./open.ts";
import { oneLine, timeText } from "./output.ts";
import { askPassword, passwordRequest } from "./password.ts";
import { CancelledError } from "./prompter.ts";

/** Adds the commands. */
export function addAccount(client: Command, terminal: Terminal): void {
  client.command("register").argument("<user>", "a-z 0-9 . _ - (1 to 64)")
    .description("make an account on the server and log this device in")
    .option("--invitation <code>", "instead of the server's access token")
    .option("--device-name <name>", "what this device is called (default: this machine's name)")
    .addHelpText(
      "after",
      example(
        terminal,
        "--server 127.0.0.1:7000 --auth-token-file data/secrets/auth-token register alice",
        "--server chat.example.org --ca ca.pem register bob --invitation CODE",
      ),
    )
    .action((user: string, options: RegisterOptions, command: Command) =>
      runCommand(terminal, command, (context) => register(context, { user, ...options }))
    );
  client.command("login").argument("<user>")
    .description("log this device in to an account; its groups stay when it was logged in before")
    .option("--device-name <name>", "what this device is called (default: this machine's name)")
    .option("--allow-p256", "for an account made by a client that has only the weaker OPAQUE suite P-256")
    .addHelpText("after", example(terminal, "--server 127.0.0.1:7000 --ca data/tls/ca.pem login alice"))
    .action((user: string, options: LoginOptions, command: Command) =>
      runCommand(terminal, command, (context) => login(context, { user, ...options }))
    );
  client.command("whoami").description("show the account and the device of this state folder")
    .addHelpText("after", example(terminal, "whoami --json"))
    .action((_options, command: Command) => runCommand(terminal, command, whoami));
  client.command("logout").description("end this device's session; its groups and messages stay")
    .addHelpText("after", example(terminal, "logout"))
    .action((_options, command: Command) => runCommand(terminal, command, logout));
  client.command("passwd").description(
    "change the account's password; ends the sessions of its other devices",
  )
    .option(
      "--new-password-file <file>",
      "file with the new password; or QPQ_NEW_PASSWORD; else it is asked for",
    )
    .addHelpText("after", example(terminal, "passwd"))
    .action((options: PasswdOptions, command: Command) =>
      runCommand(terminal, command, (context) => changePassword(context, options))
    );
  client.command("invite").description("make an invitation: whoever has it may register one account")
    .option("--hours <n>", "how long it is valid (default: what the server says)")
    .addHelpText("after", example(terminal, "invite --hours 24 --auth-token-file data/secrets/auth-token"))
    .action((options: InviteOptions, command: Command) =>
      runCommand(terminal, command, (context) => invite(context, options))
    );
  const account = client.command("account").description("account delete: the account itself, for ever");
  account.command("delete").description("delete the account on the server, for ever, and what is here of it")
    .option("--yes", "do not ask")
    .addHelpText("after", example(terminal, "account delete"))
    .action((options: DeleteOptions, command: Command) =>
      runCommand(terminal, command, (context) => deleteAccount(context, options))
    );
}

interface LoginOptions {
  readonly deviceName?: string;
  readonly allowP256?: boolean;
}
interface RegisterOptions extends LoginOptions {
  readonly invitation?: string;
}
interface PasswdOptions {
  readonly newPasswordFile?: string;
}
interface InviteOptions {
  readonly hours?: string;
}
interface DeleteOptions {
  readonly yes?: boolean;
}

/** The present password of this state's account: some requests need it anew. */
export async function ownPassword(context: Context, client: Client): Promise<string> {
  const file = context.flags.passwordFile;
  return await askPassword(passwordRequest(ownName(context, client), { file, kind: "present" }), context);
}

async function register(context: Context, request: RegisterOptions & { user: string }): Promise<void> {
  checkUserName(request.user);
  await withAnyClient(context, async (client) => {
    refuseSecondAccount(context, client);
    const file = context.flags.passwordFile;
    const password = await askPassword(passwordRequest(request.user, { file, kind: "new" }), context);
    const me = await client.register({
      userName: request.user,
      password,
      deviceName: request.deviceName ?? Deno.hostname(),
      ...(request.invitation === undefined ? {} : { invitation: request.invitation }),
    });
    context.output.done(
      { ...me, server: addressText(client.server) },
      `Registered ${me.address} and logged this device in; it keeps what it needs in ${context.stateFolder}`,
    );
  });
}

/** Before a password is typed. */
function checkUserName(user: string): void {
  if (tryParseUserAddress(user)) return;
  throw new UsageError(`${oneLine(user)} is no user name\n  ${ERRORS.userNameInvalid.text}`);
}

function refuseSecondAccount({ stateFolder }: Context, client: Client): void {
  const me = client.whoami();
  if (me) {
    throw new Error(
      `${stateFolder} belongs to ${me.userName}: for another account, give another --state FOLDER`,
    );
  }
}

async function login(context: Context, request: LoginOptions & { user: string }): Promise<void> {
  checkUserName(request.user);
  await withAnyClient(context, async (client) => {
    const file = context.flags.passwordFile;
    const password = await askPassword(passwordRequest(request.user, { file, kind: "present" }), context);
    const isNew = client.whoami() === null;
    const me = await client.login({
      userName: request.user,
      password,
      deviceName: request.deviceName ?? Deno.hostname(),
      allowP256: request.allowP256 === true,
    });
    const text = isNew
      ? `Logged in as ${me.userName} on a new device; your other devices add it to your groups when they next receive`
      : `Logged in as ${me.userName}`;
    context.output.done({ ...me, server: addressText(client.server) }, text);
  });
}

async function whoami(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    const me = client.whoami();
    if (!me) throw nobody(context);
    const server = addressText(client.server);
    const lines = [
      `${me.address}${me.loggedIn ? "" : " (logged out)"}`,
      `  server   ${server}`,
      `  device   ${me.deviceName} ${me.deviceId}`,
      `  account  ${me.accountId}`,
      `  state    ${context.stateFolder}`,
    ];
    context.output.data({ ...me, server, state: context.stateFolder }, lines.join("\n"));
  });
}

async function logout(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    const userName = ownName(context, client);
    await client.logout();
    context.output.done(
      { userName, loggedIn: false },
      `Logged ${userName} out; login brings everything back`,
    );
  });
}

async function changePassword(context: Context, options: PasswdOptions): Promise<void> {
  await withClient(context, async (client) => {
    const userName = ownName(context, client);
    const password = await ownPassword(context, client);
    const newPassword = await askPassword({
      noun: "password",
      question: `New password for ${userName}`,
      file: options.newPasswordFile,
      fileFlag: "--new-password-file",
      variable: "QPQ_NEW_PASSWORD",
      kind: "new",
    }, context);
    await client.changePassword({ password, newPassword });
    context.output.done({ userName }, "The password is changed; other devices have to log in again");
  });
}

async function invite(context: Context, { hours }: InviteOptions): Promise<void> {
  const ttlMs = hours === undefined ? undefined : Number(hours) * 3_600_000;
  if (ttlMs !== undefined && !(ttlMs > 0)) throw new UsageError(`--hours takes a number above 0: ${hours}`);
  await withClient(context, async (client) => {
    const { invitation, expiresAt } = await client.createInvitation(ttlMs === undefined ? {} : { ttlMs });
    context.output.data({ invitation, expiresAt: new Date(expiresAt).toISOString() }, invitation);
    if (!context.output.json) {
      context.output.talk(
        `For one registration until ${timeText(expiresAt)}: register USER --invitation CODE`,
      );
    }
  });
}

async function deleteAccount(context: Context, { yes }: DeleteOptions): Promise<void> {
  await withClient(context, async (client) => {
    const userName = ownName(context, client);
    if (!yes) await confirmDeletion(context, userName);
    await client.deleteAccount({ password: await ownPassword(context, client) });
    context.output.done(
      { userName, deleted: true },
      `The account ${userName} is deleted; nobody can ever register that name again`,
    );
  });
}

async function confirmDeletion({ prompter, output }: Context, userName: string): Promise<void> {
  if (!prompter.canAsk) {
    throw new UsageError("Cannot ask whether you are sure without a terminal: give --yes");
  }
  output.talk(`This deletes the account ${userName} with all its devices, for ever. The name stays taken.`);
  const typed = await prompter.line(`Type ${userName} to go on: `);
  if (typed.trim() !== userName) throw new CancelledError();
}

function ownName(context: Context, client: Client): string {
  const me = client.whoami();
  if (!me) throw nobody(context);
  return me.userName;
}

function nobody({ stateFolder, program }: Context): Error {
  return new Error(
    `Nobody is logged in with ${stateFolder}\n  Log in: ${program} login USER`,
  );
}
