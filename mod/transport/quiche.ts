/** The transport on quiche: what the rest of the program uses of it. For federation only, see quiche_native.ts. */
export { connect } from "./quiche_connect.ts";
export { listen } from "./quiche_listener.ts";
