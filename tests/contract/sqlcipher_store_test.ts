/** The store contract on SQLCipher. */
import { openStore } from "../../mod/store/open.ts";
import { storeContract } from "./store_contract.ts";

const keys = ["5f".repeat(32)];

storeContract("sqlcipher", (dataDir) => openStore({ backend: "sqlcipher", dataDir, keys }));
