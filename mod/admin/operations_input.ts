/** Reading the input of an operation, which comes from a socket: every key is checked, and none may be unknown. */
import type { JsonObject } from "./control.ts";
import { AdminError } from "./operations_error.ts";

/** Reads an input key by key; then call {@link InputReader.end}. */
export class InputReader {
  readonly #input: JsonObject;
  readonly #read = new Set<string>();

  constructor(input: JsonObject) {
    this.#input = input;
  }

  /** True or false; false when it is not there. */
  flag(key: string): boolean {
    const value = this.#take(key);
    if (value === undefined || typeof value === "boolean") return value ?? false;
    throw new AdminError(`${key} must be true or false`);
  }

  /** Text; null when it is not there. */
  text(key: string): string | null {
    const value = this.#take(key);
    if (value === undefined || value === null) return null;
    if (typeof value === "string") return value;
    throw new AdminError(`${key} must be a text`);
  }

  /** Text that must be there. */
  requiredText(key: string): string {
    const value = this.text(key);
    if (value === null || value.trim() === "") throw new AdminError(`${key} is missing`);
    return value;
  }

  /** A list of texts; null when it is not there. */
  texts(key: string): string[] | null {
    const value = this.#take(key);
    if (value === undefined || value === null) return null;
    if (Array.isArray(value) && value.every((each) => typeof each === "string")) return value as string[];
    throw new AdminError(`${key} must be a list of texts`);
  }

  /** A whole number; `otherwise` when it is not there. */
  number(key: string, bounds: { min: number; max: number; otherwise: number }): number {
    const value = this.#take(key) ?? bounds.otherwise;
    if (typeof value === "number" && Number.isInteger(value) && value >= bounds.min && value <= bounds.max) {
      return value;
    }
    throw new AdminError(`${key} must be a whole number from ${bounds.min} to ${bounds.max}`);
  }

  /** Refuses keys that nobody has read: a misspelt one must not be taken for a default. */
  end(): void {
    const unknown = Object.keys(this.#input).filter((key) => !this.#read.has(key));
    if (unknown.length > 0) throw new AdminError(`This operation does not know ${unknown.join(", ")}`);
  }

  #take(key: string): JsonObject[string] | undefined {
    this.#read.add(key);
    return Object.hasOwn(this.#input, key) ? this.#input[key] : undefined;
  }
}
