/** The transport contract on Deno's own QUIC. */
import { connect, listen } from "../../mod/transport/deno_quic.ts";
import { transportContract } from "./transport_contract.ts";

transportContract("deno", { listen, connect });
