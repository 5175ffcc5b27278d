/** The federation identity of a running server: read at the start, and again when a rotation has put a new one in place. */
import { join } from "node:path";
import { engineProblem, readFederationIdentity } from "../admin/rotate_federation.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Settings } from "../config/options.ts";
import { FederationIdentity, Identities } from "../federation/identity.ts";
import type { Metrics } from "../observe/metrics.ts";
import { FileWatch } from "./certificates_watch.ts";

const log = logger("federation");

/** The identity in force, and what keeps it so. */
export interface WatchedIdentities extends Disposable {
  readonly identities: Identities;
}

/** Reads and watches `tls/federation/current`. Throws when there is no identity that `engine` can use. */
export async function watchFederationIdentity(
  dataDir: string,
  { clock, metrics, engine }: {
    clock: Clock;
    metrics: Metrics;
    engine: Settings["federation"]["engine"];
  },
): Promise<WatchedIdentities> {
  const read = async () => {
    const pems = await readFederationIdentity(dataDir);
    if (!pems) {
      throw new Error(
        "federation.domain is set, and there is no federation certificate: run `qpq-server rotate federation`",
      );
    }
    const misfit = engineProblem(pems.certificatePem, engine);
    if (misfit !== null) {
      throw new Error(
        `The federation certificate cannot be used: ${misfit}, and run \`qpq-server rotate federation\``,
      );
    }
    return await FederationIdentity.read(pems, clock.now());
  };
  const tell = (identity: FederationIdentity) =>
    metrics.federationCertificateExpirySeconds.set(Math.floor(identity.info.notAfter / 1000));
  const identities = new Identities(await read(), clock);
  tell(identities.current);
  const watch = new FileWatch([join(dataDir, "tls", "federation", "current")], {
    clock,
    onChanged: async () => {
      try {
        const next = await read();
        if (samePems(next, identities.current)) return;
        identities.replace(next);
        tell(next);
        log.info("the federation certificate was replaced");
      } catch (error) {
        log.error("the new federation certificate cannot be used, the old one stays: {reason}", {
          reason: messageOf(error),
        });
      }
    },
  });
  return { identities, [Symbol.dispose]: () => watch[Symbol.dispose]() };
}

function samePems({ pems: a }: FederationIdentity, { pems: b }: FederationIdentity): boolean {
  return a.certificatePem === b.certificatePem && a.privateKeyPem === b.privateKeyPem &&
    a.caPem === b.caPem && a.crlPem === b.crlPem;
}
