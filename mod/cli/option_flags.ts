/** Command-line flags for the option table: one for each option, written like its key. */
import { type Command, Option } from "commander";
import { flagName, OPTION_KEYS, optionOf } from "../config/options.ts";

/** Adds a flag for every option. */
export function addOptionFlags(command: Command): void {
  for (const key of OPTION_KEYS) {
    const { type, text, defaultText } = optionOf(key);
    const value = type === "boolean" ? "[value]" : `<${type}>`;
    command.addOption(new Option(`--${flagName(key)} ${value}`, `${text} (default: ${defaultText})`));
    if (type === "secret") {
      command.addOption(new Option(`--${flagName(key)}-file <path>`, `File that holds ${key}`));
    }
  }
}

/** The flags that were given, by flag name. */
export function optionFlags(given: Readonly<Record<string, unknown>>): Record<string, string | boolean> {
  const flags: Record<string, string | boolean> = {};
  for (const key of OPTION_KEYS) {
    const names = optionOf(key).type === "secret"
      ? [flagName(key), `${flagName(key)}-file`]
      : [flagName(key)];
    for (const name of names) {
      const value = given[attributeName(name)];
      if (typeof value === "string" || typeof value === "boolean") flags[name] = value;
    }
  }
  return flags;
}

/** How commander names a flag's value. */
function attributeName(flag: string): string {
  return flag.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
