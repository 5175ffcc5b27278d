/** What operators do to a store, on the sqlcipher backend. */
import { adminStoreContract } from "./admin_store_contract.ts";

adminStoreContract("sqlcipher");
