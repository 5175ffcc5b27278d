/** When the last good backup was made. */
import { newestBackup } from "./backup_list.ts";
import { backupsDirOf } from "./backup_list.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, showAge, warn } from "./doctor_check.ts";

const DAY_MS = 86_400_000;
/** Without a schedule: a day may pass unseen, a week may not. */
const WARN_MS = 2 * DAY_MS;
const FAIL_MS = 7 * DAY_MS;

/** Age of the newest backup. */
export async function backupGroup({ admin, settings }: DoctorContext): Promise<DoctorCheck[]> {
  const name = "last backup";
  const folder = backupsDirOf(settings);
  const remedy = "qpq-server backup create, and set a schedule in the configuration";
  const newest = await newestBackup(folder);
  if (!newest?.manifest) return [warn(name, `there is none in ${folder}`, remedy)];
  const age = admin.clock.now() - newest.manifest.createdAt;
  const found = `${newest.id}, ${showAge(Math.max(age, 0))} old`;
  if (age < -DAY_MS) return [warn(name, `${newest.id} is from the future`, "Look at the clock")];
  if (age > FAIL_MS) return [fail(name, found, remedy)];
  return [age > WARN_MS ? warn(name, found, remedy) : ok(name, found)];
}
