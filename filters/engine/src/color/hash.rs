//! stand-in
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
pub fn bucket(salt: &str, key: &[u8]) -> u16 {
    let all = [salt.as_bytes(), &[0], key].concat();
    let mut h = fnv1a32(&all);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    u16::try_from((u64::from(h).wrapping_mul(10_000)) >> 32).unwrap_or(0)
}
pub fn bucket_mod100(key: &[u8]) -> u16 {
    u16::try_from(fnv1a32(key) % 100).unwrap_or(0).wrapping_mul(100)
}
