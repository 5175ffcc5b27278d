/** Is it a point of P-256? (SEC 1 §2.3.4, compressed form.) For public values only: it is not constant time. */

/** Bytes of a compressed point. */
export const P256_POINT_BYTES = 33;

const P = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn;

/** Whether these are the 33 bytes of a point; the point at infinity is none. The curve has no smaller subgroup. */
export function isP256Point(bytes: Uint8Array): boolean {
  if (bytes.length !== P256_POINT_BYTES || (bytes[0] !== 2 && bytes[0] !== 3)) return false;
  const x = BigInt(`0x${bytes.subarray(1).toHex()}`);
  if (x >= P) return false;
  const ySquared = (x * x * x - 3n * x + B) % P;
  // Euler's criterion. No point has y = 0, as the curve's order is odd.
  return power((ySquared + P) % P, (P - 1n) / 2n) === 1n;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let left = exponent, square = base; left > 0n; left >>= 1n, square = square * square % P) {
    if (left & 1n) result = result * square % P;
  }
  return result;
}
