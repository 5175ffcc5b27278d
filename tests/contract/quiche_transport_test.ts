/** The transport contract on quiche. */
import { connect, listen } from "../../mod/transport/quiche.ts";
import { transportContract } from "./transport_contract.ts";

transportContract("quiche", { listen, connect, validatesAddresses: true });
