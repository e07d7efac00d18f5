//! SHA-256 (FIPS 180-4) and base64 (RFC 4648) for the policy of the page. Part of the build script: a crate for this would
//! bring six others. t/dashboard.t compares the hashes with those of another implementation.

/// The hash of a text.
pub fn digest(text: &[u8]) -> [u8; 32] {
    let mut padded = text.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - text.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let bits = (text.len() as u64 * 8).to_be_bytes();
    let end = padded.len() - bits.len();
    padded[end..].copy_from_slice(&bits);

    let mut state: [u32; 8] = std::array::from_fn(|i| fraction(PRIMES[i], 2));
    let rounds: [u32; 64] = std::array::from_fn(|i| fraction(PRIMES[i], 3));
    for chunk in padded.chunks_exact(64) {
        compress(&mut state, &rounds, chunk);
    }
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

/// The first 64 primes, of whose roots the constants are made.
const PRIMES: [u128; 64] = [
    2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223,
    227, 229, 233, 239, 241, 251, 257, 263, 269, 271, 277, 281, 283, 293, 307, 311,
];

/// The first 32 bits of the fraction of a root, 2 for the square root and 3 for the cube root: the largest number whose
/// power is not above the prime, both scaled, less its whole part.
fn fraction(prime: u128, root: u32) -> u32 {
    let wanted = prime << (32 * root);
    let mut found: u128 = 0;
    for bit in (0..37).rev() {
        let candidate = found | 1 << bit;
        if candidate.pow(root) <= wanted {
            found = candidate;
        }
    }
    found as u32
}

/// One step, over 64 bytes.
fn compress(state: &mut [u32; 8], rounds: &[u32; 64], chunk: &[u8]) {
    let mut w = [0_u32; 64];
    for (word, bytes) in w.iter_mut().zip(chunk.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for i in 16..64 {
        let (a, b) = (w[i - 15], w[i - 2]);
        let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
        let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
        w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (k, w) in rounds.iter().zip(w) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = e & f ^ !e & g;
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(*k).wrapping_add(w);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = a & b ^ a & c ^ b & c;
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}

/// A text in base64.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, i| word << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}
