/**
 * Packages that ts-mls imports by name without declaring them, or as optional peers. Whatever imports ts-mls imports
 * this as well: it gets them into the module graph, where Deno finds them.
 */
import "@hpke/hybridkem-x-wing";
import "@noble/ciphers/chacha.js";
import "@noble/hashes/sha2.js";
