/** What operators do to a store, on the file backend. */
import { adminStoreContract } from "./admin_store_contract.ts";

adminStoreContract("file");
