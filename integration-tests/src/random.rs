//! Random bytes from a seed, so that a finding can be repeated.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// Bytes that the codec lets through in a value, rich in those that parsers look for.
    pub fn token(&mut self, longest: usize) -> Vec<u8> {
        const SPECIAL: &[u8] = b"=;,&?/%\"' :@[]{}-.\t\\+#*()0123456789abcdef";
        (0..self.below(longest))
            .map(|_| match self.below(4) {
                0 => 0x80 | self.number() as u8,
                1 => 0x21 + self.below(0x5e) as u8,
                _ => SPECIAL[self.below(SPECIAL.len())],
            })
            .collect()
    }
}
