/** Who else may read a file that should be the server's alone, by its path and permission bits. */

/** Group or others may read or write. */
const WEAK_BITS = 0o077;
/**
 * Where systemd puts what `LoadCredential=` names, in a folder that only the service may enter. The service gets its
 * access by an ACL, whose mask is shown as the group's bits (0440): only others' bits mean anything there.
 */
const CREDENTIALS = /^\/run\/credentials\/[^/]+\/[^/]+$/;
const OTHERS_BITS = 0o007;

/** Have others than the owner access to it? */
export function isOpenToOthers(path: string, mode: number): boolean {
  return (mode & (isCredential(path) ? OTHERS_BITS : WEAK_BITS)) !== 0;
}

/** A file that systemd hands over: root's, whoever reads it. */
export function isCredential(path: string): boolean {
  return CREDENTIALS.test(path);
}
