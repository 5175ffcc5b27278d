/** Every method's handler. The types see that none is missing. */
import { accountHandlers } from "./accounts.ts";
import { blobHandlers, getBlob, putBlob } from "./blobs.ts";
import { connectionHandlers } from "./connection.ts";
import { deliveryHandlers, subscribe } from "./delivery.ts";
import { deviceHandlers } from "./devices.ts";
import { keyPackageHandlers } from "./key_packages.ts";
import type { Handlers, OwnStreamHandler, OwnStreamMethod } from "./types.ts";

/** Methods on shared streams. */
export const HANDLERS: Handlers = {
  ...connectionHandlers,
  ...accountHandlers,
  ...deviceHandlers,
  ...keyPackageHandlers,
  ...deliveryHandlers,
  ...blobHandlers,
};

/** Methods with a stream of their own. */
export const OWN_STREAM_HANDLERS: Readonly<Record<OwnStreamMethod, OwnStreamHandler<never>>> = {
  subscribe,
  putBlob,
  getBlob,
};
