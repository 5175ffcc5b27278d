/** The store contract on the file backend, encrypted and not, and with the journal compacted all the time. */
import { openFileStore } from "../../mod/store/file/mod.ts";
import { openStore } from "../../mod/store/open.ts";
import { storeContract } from "./store_contract.ts";

const keys = ["5f".repeat(32)];

storeContract("file", (dataDir) => openStore({ backend: "file", dataDir, keys }));
storeContract("unencrypted file", (dataDir) => openStore({ backend: "file", dataDir, keys: [""] }));
storeContract("ever compacting file", (dataDir) => openFileStore({ dataDir, keys }, { segmentBytes: 1 }));
