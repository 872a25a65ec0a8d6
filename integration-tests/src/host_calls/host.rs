//! The host's side: state that answers calls as Envoy's would, for one VM.

use std::collections::BTreeMap;

/// Calls by kind.
pub type Counts = BTreeMap<&'static str, u64>;

pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Not calls of the module's but into it: its callbacks, and its allocator for the data of an answer.
pub const CALLBACKS: &str = "callbacks";
pub const ALLOCATIONS: &str = "with data";

/// Envoy's statuses, as far as they are needed.
pub const OK: u32 = 0;
pub const NOT_FOUND: u32 = 1;
pub const CAS_MISMATCH: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;

/// What one VM sees of the world.
#[derive(Default)]
pub struct Host {
    pub counts: Counts,
    pub configuration: Vec<u8>,
    pub request: Pairs,
    pub response: Pairs,
    /// By path, parts joined with a NUL.
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub shared: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    pub cas: u32,
    /// Definitions in order; the id is the place.
    pub metrics: Vec<(String, i64)>,
    pub local_reply: Option<u32>,
    /// Nanoseconds of both clocks.
    pub now: u64,
    pub random: u64,
    pub log: Vec<String>,
}

impl Host {
    pub fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    pub fn pairs(&mut self, map: u64) -> &mut Pairs {
        if map == 0 { &mut self.request } else { &mut self.response }
    }

    pub fn set_shared(&mut self, key: Vec<u8>, value: Vec<u8>, cas: u32) -> u32 {
        // As Envoy does it: no version, or a missing key, and the value is written blindly.
        if let Some((_, current)) = self.shared.get(&key)
            && cas != 0
            && *current != cas
        {
            return CAS_MISMATCH;
        }
        self.cas += 1;
        self.shared.insert(key, (value, self.cas));
        OK
    }

    /// The same numbers in every run.
    pub fn random_bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size)
            .map(|_| {
                // xorshift64*
                self.random ^= self.random >> 12;
                self.random ^= self.random << 25;
                self.random ^= self.random >> 27;
                (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
            })
            .collect()
    }
}

/// Headers as proxy-wasm serializes them.
pub fn serialize(pairs: &Pairs) -> Vec<u8> {
    let size = |n: usize| u32::try_from(n).expect("a header map is small").to_le_bytes();
    let mut out = size(pairs.len()).to_vec();
    for (name, value) in pairs {
        out.extend(size(name.len()));
        out.extend(size(value.len()));
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(part);
        out.push(0);
    }
    out
}

/// The inverse, for the headers of a local reply.
pub fn deserialize(bytes: &[u8]) -> Pairs {
    let size = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
        four.map_or(0, u32::from_le_bytes) as usize
    };
    let count = size(0);
    let mut at = 4 + count * 8;
    let mut part = |length: usize| {
        let text = bytes.get(at..at + length).unwrap_or_default().to_vec();
        at += length + 1;
        text
    };
    (0..count).map(|n| (part(size(4 + n * 8)), part(size(8 + n * 8)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_maps_survive_the_wire() {
        let pairs: Pairs = vec![(b":path".to_vec(), b"/a".to_vec()), (b"x".to_vec(), Vec::new())];
        assert_eq!(deserialize(&serialize(&pairs)), pairs);
        assert_eq!(deserialize(&[]), Pairs::new());
    }

    #[test]
    fn a_stale_version_is_refused_and_none_is_not() {
        let mut host = Host::default();
        assert_eq!(host.set_shared(b"k".to_vec(), b"1".to_vec(), 7), OK);
        assert_eq!(host.set_shared(b"k".to_vec(), b"2".to_vec(), 7), CAS_MISMATCH);
        assert_eq!(host.set_shared(b"k".to_vec(), b"2".to_vec(), 1), OK);
        assert_eq!(host.set_shared(b"k".to_vec(), b"3".to_vec(), 0), OK);
        assert_eq!(host.shared[&b"k"[..]], (b"3".to_vec(), 3));
    }
}
