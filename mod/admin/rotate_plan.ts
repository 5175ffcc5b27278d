/** What every rotation answers: what was done or would be, and what is left for the operator. */
import type { JsonObject } from "./operations.ts";
import type { RotatedKey } from "./rotate_history.ts";

/** The answer of a rotation. */
export interface RotationAnswer {
  readonly key: RotatedKey;
  readonly dryRun: boolean;
  /** Something was changed, or would be. */
  readonly changes: boolean;
  /** What was done, or would be, in order; in words. */
  readonly steps: readonly string[];
  /** What the operator should know or do. */
  readonly notes: readonly string[];
  /** The key's version now; null when it did not change. */
  readonly version: number | null;
  /** Figures of this kind of rotation. */
  readonly more?: JsonObject;
}

/** It as JSON. */
export function rotationAnswer(answer: RotationAnswer): JsonObject {
  const { key, dryRun, changes, version, steps, notes, more } = answer;
  return { key, dryRun, changes, version, steps: [...steps], notes: [...notes], ...more };
}
