/**
 * The native binding of @matrixai/quic (quiche 0.18), loaded when it is first wanted, and its configuration. Old
 * quiche lacks later fixes against denial of service: it is for known peers, never for the public port.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { utf8 } from "../base/bytes.ts";
import { messageOf } from "../base/errors.ts";
import type { ServerCertificate } from "./transport.ts";

/** The binding. */
export type Quiche = typeof import("@matrixai/quic/native/quiche.js")["default"];
/** A connection of the binding. */
export type NativeConnection = ReturnType<Quiche["Connection"]["connect"]>;
/** A configuration of the binding. */
export type NativeConfig = ReturnType<Quiche["Config"]["withBoringSslCtx"]>;

const SIGNATURES = "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:" +
  "rsa_pkcs1_sha256:ed25519";
/** What of a stream and of a connection may be under way without having been read: bounds of memory. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024;
/** Fits every path that QUIC can use, without a search for more. */
export const PACKET_BYTES = 1350;

let loaded: Promise<Quiche> | undefined;

/** Loads the binding; rejects with an Error that says what is missing. */
export function loadQuiche(): Promise<Quiche> {
  return loaded ??= load();
}

async function load(): Promise<Quiche> {
  try {
    return (await import("@matrixai/quic/native/quiche.js")).default;
  } catch (cause) {
    const { os, arch } = Deno.build;
    throw new Error(
      `Engine quiche needs the native binding of npm:@matrixai/quic for ${os} ${arch}, which cannot be loaded ` +
        `(${messageOf(cause)}); install it (there is none for Linux on ARM or with musl), or use engine deno`,
      { cause },
    );
  }
}

/** How a side of a connection is set up. */
export interface QuicheSettings {
  readonly alpn: string;
  readonly idleTimeoutMs: number;
  /** Bidirectional streams that the peer may have open. */
  readonly streamsMax: number;
  /** The peer has to show a certificate of these CAs; null: any, whoever calls judges it; undefined: none is asked for. */
  readonly peerCaPem: string | null | undefined;
  readonly certificate?: ServerCertificate;
}

/** Makes a configuration. Throws when the certificate and its key cannot be used. */
export function makeConfig(quiche: Quiche, settings: QuicheSettings): NativeConfig {
  const { certificate, peerCaPem, idleTimeoutMs } = settings;
  if (certificate) checkPair(certificate);
  const config = quiche.Config.withBoringSslCtx(
    peerCaPem !== undefined,
    peerCaPem === null,
    peerCaPem ? utf8(peerCaPem) : null,
    certificate ? [utf8(certificate.privateKeyPem)] : null,
    certificate ? [utf8(certificate.certificatePem)] : null,
    SIGNATURES,
  );
  config.setApplicationProtos([settings.alpn]);
  config.setMaxIdleTimeout(idleTimeoutMs);
  config.setMaxRecvUdpPayloadSize(65_527);
  config.setMaxSendUdpPayloadSize(PACKET_BYTES);
  config.setInitialMaxData(CONNECTION_WINDOW_BYTES);
  config.setMaxConnectionWindow(CONNECTION_WINDOW_BYTES);
  config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW_BYTES);
  config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW_BYTES);
  config.setMaxStreamWindow(STREAM_WINDOW_BYTES);
  config.setInitialMaxStreamsBidi(settings.streamsMax);
  config.setInitialMaxStreamsUni(0);
  config.setDisableActiveMigration(true);
  config.enablePacing(false);
  return config;
}

/** BoringSSL would take a key that is not the certificate's, and fail at the first handshake. */
function checkPair({ certificatePem, privateKeyPem }: ServerCertificate): void {
  if (!new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem))) {
    throw new TypeError("The private key is not the certificate's");
  }
}
