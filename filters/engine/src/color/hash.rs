//! From a key to one of 10 000 buckets.

/// The buckets of the key space: a share is a range of them.
pub const BUCKETS: u16 = 10_000;

/// FNV-1a, 32 bits.
pub fn fnv1a32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The bucket of a key under a salt, the rule's id: rules have cohorts of their own. FNV alone leaves
/// the cohorts of two salts correlated (phi 0.03); MurmurHash3's finalizer mixes the bits well enough
/// that nothing is left of it.
pub fn bucket(salt: &str, key: &[u8]) -> u16 {
    let hash = u64::from(fmix32(fnv1a32(&[salt.as_bytes(), &[0], key])));
    u16::try_from(hash.wrapping_mul(u64::from(BUCKETS)) >> 32).unwrap_or(0)
}

/// The classic percentage of a key without a salt, as the first of its hundred buckets: who moves
/// from such a system keeps every user's color.
pub fn bucket_mod100(key: &[u8]) -> u16 {
    u16::try_from(fnv1a32(&[key]) % 100).unwrap_or(0).wrapping_mul(100)
}

/// MurmurHash3's 32-bit finalizer.
fn fmix32(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
    }

    #[test]
    fn the_published_vectors() {
        let text = include_str!("../../../../integration-tests/vectors/sticky-hash.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        for (text, hash) in vectors["known"].as_object().unwrap() {
            assert_eq!(format!("{:08x}", fnv1a32(&[text.as_bytes()])), *hash, "{text}");
        }
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let (salt, key) =
                (case["salt"].as_str().unwrap(), hex(case["key_hex"].as_str().unwrap()));
            assert_eq!(u64::from(bucket(salt, &key)), case["bucket"], "{case}");
            let percent = case["fnv1a32_mod100_of_key"].as_u64().unwrap();
            assert_eq!(u64::from(bucket_mod100(&key)), percent * 100, "{case}");
            assert_eq!(format!("{:08x}", fnv1a32(&[&key])), case["fnv1a32_of_key"], "{case}");
        }
    }

    #[test]
    fn five_percent_of_100_000_users_are_5_percent() {
        for salt in ["beta", "canary-2", "r"] {
            let gray =
                (0..100_000).filter(|user: &u32| bucket(salt, user.to_string().as_bytes()) < 500);
            let gray = gray.count();
            assert!((4700..=5300).contains(&gray), "{salt}: {gray}");
        }
    }

    /// Phi of two cohorts of 50 % over 10 000 users.
    #[test]
    fn the_cohorts_of_two_salts_have_nothing_in_common() {
        for (one, other) in [("rule-a", "rule-b"), ("beta", "gamma"), ("r1", "r2")] {
            let mut table = [[0_f64; 2]; 2];
            for user in 0..10_000_u32 {
                let user = format!("user-{user}");
                let side = |salt| usize::from(bucket(salt, user.as_bytes()) < 5000);
                table[side(one)][side(other)] += 1.0;
            }
            let [[a, b], [c, d]] = table;
            let phi = (a * d - b * c) / ((a + b) * (c + d) * (a + c) * (b + d)).sqrt();
            assert!(phi.abs() < 0.03, "{one} {other}: {phi}");
        }
    }

    /// Chi-square over 100 cells, 99 degrees of freedom: beyond 160 once in ten thousand.
    #[test]
    fn buckets_are_even() {
        let mut cells = [0_f64; 100];
        for user in 0..100_000_u32 {
            cells[usize::from(bucket("beta", format!("u{user}").as_bytes()) / 100)] += 1.0;
        }
        let chi: f64 = cells.iter().map(|seen| (seen - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 160.0, "{chi}");
    }
}
