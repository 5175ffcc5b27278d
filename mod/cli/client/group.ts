/** `group create|add|remove|readd|list|members|leave|forget|recreate`. */
import type { Command } from "commander";
import { MLS_SUITE_X25519, MLS_SUITE_XWING, MLS_SUITES } from "../../base/mls_suites.ts";
import type { Client, GroupSummary, MembersChanged } from "../../client/mod.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { type Context, example, runCommand } from "./context.ts";
import { refresh, withClient, withUpkeep } from "./open.ts";
import { oneLine, table } from "./output.ts";

const SUITES = { x25519: MLS_SUITE_X25519, xwing: MLS_SUITE_XWING } as const;

/** Adds the commands. */
export function addGroup(client: Command, terminal: Terminal): void {
  const group = client.command("group").description(
    "group create|add|remove|list|members and more: groups and who is in them",
  );
  const add = (name: string, text: string, sample: string) =>
    group.command(name).description(text).addHelpText("after", example(terminal, sample));
  add("create", "make a group", "group create family bob carol")
    .argument("<name>").argument("[users...]", "who is in it from the beginning")
    .option("--suite <name>", "x25519, or xwing: post-quantum hybrid, experimental", "x25519")
    .action((name: string, users: string[], options: { suite: string }, command: Command) =>
      runCommand(terminal, command, (context) => create(context, { name, users, suite: options.suite }))
    );
  add("add", "add users; they see what is sent from now on", "group add family dave erin@b.example")
    .argument("<group>").argument("<users...>")
    .action((name: string, users: string[], _options, command: Command) =>
      runCommand(terminal, command, (context) => addUsers(context, { name, users }))
    );
  add("remove", "remove a user; they cannot read what is sent from now on", "group remove family dave")
    .argument("<group>").argument("<user>")
    .action((name: string, user: string, _options, command: Command) =>
      runCommand(
        terminal,
        command,
        (context) => change(context, removeUser(name, user)),
      )
    );
  add("readd", "take a user in anew, who missed a part of the group's history", "group readd family bob")
    .argument("<group>").argument("<user>")
    .action((name: string, user: string, _options, command: Command) =>
      runCommand(
        terminal,
        command,
        (context) => change(context, readdUser(name, user)),
      )
    );
  add("list", "list the groups and conversations of this device", "group list")
    .action((_options, command: Command) => runCommand(terminal, command, list));
  add("members", "list the members of a group", "group members family")
    .argument("<group>")
    .action((name: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => members(context, name))
    );
  add("leave", "leave a group", "group leave family")
    .argument("<group>")
    .action((name: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => leave(context, name))
    );
  add("forget", "drop a group that this device is not in any more", "group forget family")
    .argument("<group>")
    .action((name: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => forget(context, name))
    );
  add("recreate", "make a stalled group anew, with the same members", "group recreate family")
    .argument("<group>")
    .action((name: string, _options, command: Command) =>
      runCommand(
        terminal,
        command,
        (context) => change(context, recreate(name)),
      )
    );
}

async function create(
  context: Context,
  { name, users, suite }: { name: string; users: readonly string[]; suite: string },
): Promise<void> {
  if (!(suite === "x25519" || suite === "xwing")) {
    throw new UsageError(`--suite is x25519 or xwing: ${suite}`);
  }
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      const changed = await client.createGroup(name, { users, suite: SUITES[suite] });
      const who = changed.added.filter((user) => user !== client.whoami()?.userName);
      const text = who.length > 0
        ? `Made the group ${name} with ${who.join(", ")}`
        : `Made the group ${name}; nobody else is in it yet`;
      tellChange(context, changed, text);
    }));
}

async function addUsers(
  context: Context,
  { name, users }: { name: string; users: readonly string[] },
): Promise<void> {
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      for (const user of users) {
        const changed = await client.addMember(name, user);
        tellChange(
          context,
          changed,
          changed.added.length > 0 ? `Added ${user} to ${name}` : `${user} is in ${name}`,
        );
      }
    }));
}

/** A command that changes members: what it asks for, and what it says then. */
interface MemberChange {
  readonly work: (client: Client) => Promise<MembersChanged>;
  readonly text: (changed: MembersChanged, client: Client) => string;
}

async function change(context: Context, { work, text }: MemberChange): Promise<void> {
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      const changed = await work(client);
      tellChange(context, changed, text(changed, client));
    }));
}

function removeUser(name: string, user: string): MemberChange {
  return {
    work: (client) => client.removeMember(name, user),
    text: ({ removed }) => removed.length > 0 ? `Removed ${user} from ${name}` : `${user} was not in ${name}`,
  };
}

function readdUser(name: string, user: string): MemberChange {
  return {
    work: (client) => client.readdMember(name, user),
    text: ({ added }) =>
      added.length > 0 ? `Took ${user} into ${name} anew` : `${user} has no device to take in`,
  };
}

function recreate(name: string): MemberChange {
  return {
    work: (client) => client.recreateGroup(name),
    text: ({ groupId, added }, client) => {
      const made = client.groups().find((group) => group.id === groupId)?.name ?? name;
      const who = added.length > 0 ? added.join(", ") : "nobody else";
      return `Made ${made} with ${who}; ${name} is left as it is`;
    },
  };
}

function tellChange({ output }: Context, changed: MembersChanged, text: string): void {
  const { groupId, added, removed, refusedDevices, unreached } = changed;
  output.done({ groupId, added, removed, refusedDevices, unreached }, text);
  if (refusedDevices.length > 0) {
    output.talk(
      `Not added, as their account has not signed them or their KeyPackage is not valid: ${
        refusedDevices.join(", ")
      }`,
    );
  }
  if (unreached.length > 0) {
    output.talk(`These devices are full or gone and were not told: ${unreached.join(", ")}`);
  }
}

async function list(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    await refresh(client, context);
    const groups = client.groups();
    const rows = groups.map((group) => [
      oneLine(group.name),
      group.direct ? "conversation" : "group",
      statusText(group),
      group.members.map(oneLine).join(", "),
    ]);
    const objects = groups.map((group) => ({ ...group, suite: MLS_SUITES[group.suite].name }));
    const text = rows.length === 0 ? "" : table(["name", "kind", "status", "members"], rows);
    context.output.data({ groups: objects }, text);
    if (rows.length === 0) {
      if (!context.output.json) {
        context.output.talk(`No groups yet: ${context.program} group create NAME USER…`);
      }
    }
  });
}

function statusText({ status, suite, waiting }: GroupSummary): string {
  const parts: string[] = [status];
  if (suite === MLS_SUITE_XWING) parts.push("xwing");
  if (waiting > 0) parts.push(`${waiting} waiting for a change of its members`);
  return parts.join(", ");
}

async function members(context: Context, name: string): Promise<void> {
  await withClient(context, async (client) => {
    await refresh(client, context);
    const found = client.members(name);
    const rows = found.map((one) => [one.userName + (one.own ? " (you)" : ""), one.devices.join(" ")]);
    context.output.data({ group: name, members: found }, table(["user", "devices"], rows));
  });
}

async function leave(context: Context, name: string): Promise<void> {
  await withClient(context, (client) =>
    withUpkeep(client, async () => {
      const alone = client.members(name).every((member) => member.own);
      await client.leaveGroup(name);
      const text = alone
        ? `Left ${name}; nobody else was in it`
        : `Asked to leave ${name}: it takes effect when another member's client next sends or receives`;
      context.output.done({ group: name, left: true }, text);
    }));
}

async function forget(context: Context, name: string): Promise<void> {
  await withClient(context, async (client) => {
    await client.forgetGroup(name);
    context.output.done({ group: name, forgotten: true }, `Forgot ${name}`);
  });
}
