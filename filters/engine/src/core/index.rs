//! Finds the rules that may match a request without looking at the others, so that a decision costs
//! the same with ten rules and with ten thousand.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::matcher::Matcher;
use super::request::Request;

/// A place in a request, and what stands there, as a hash. Different places may share a hash: the
/// match itself is always tested as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Anchor {
    hash: u64,
    kind: Kind,
    /// Of the path prefix or the header name: what differs in length needs no hashing.
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Path,
    PathPrefix,
    Authority,
    Header { name_hash: u64 },
}

/// Path prefixes are indexed by their first bytes up to here.
const MAX_PREFIX: usize = 128;

impl Anchor {
    pub fn path(path: &[u8]) -> Anchor {
        Anchor { hash: fnv(PATH_SEED, path), kind: Kind::Path, length: 0 }
    }

    pub fn path_prefix(prefix: &[u8]) -> Anchor {
        let prefix = prefix.get(..MAX_PREFIX).unwrap_or(prefix);
        Anchor { hash: fnv(PREFIX_SEED, prefix), kind: Kind::PathPrefix, length: prefix.len() }
    }

    pub fn authority(host: &[u8]) -> Anchor {
        Anchor { hash: fnv(AUTHORITY_SEED, host), kind: Kind::Authority, length: 0 }
    }

    pub fn header(name: &[u8], value: &[u8]) -> Anchor {
        let name_hash = fnv(HEADER_SEED, name);
        Anchor { hash: fnv(name_hash, value), kind: Kind::Header { name_hash }, length: name.len() }
    }
}

// One start value per kind, so that a path and a host of the same text stay apart.
const PATH_SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PREFIX_SEED: u64 = PATH_SEED + 1;
const AUTHORITY_SEED: u64 = PATH_SEED + 2;
const HEADER_SEED: u64 = PATH_SEED + 3;

/// FNV-1a. The table holds what the policy says and is only read with what a client sends, so
/// nobody can fill a bucket of it; a keyed hash would cost more and protect nothing.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        // The upper bits of FNV are the better mixed ones, and hash maps look at both ends.
        self.0 ^ self.0.rotate_left(32)
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = fnv(self.0, bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Rules by number, in the order of the policy.
#[derive(Default)]
pub struct Index {
    rules: HashMap<u64, Vec<u32>, BuildHasherDefault<Identity>>,
    /// Lengths at which some path prefix ends, as bits.
    prefix_lengths: [u64; MAX_PREFIX / 64 + 1],
    has_path: bool,
    has_authority: bool,
    /// Lengths of the header names that some rule is found by, as bits; most lines fail here.
    header_lengths: u64,
    /// Hashes of those names.
    header_names: HashMap<u64, (), BuildHasherDefault<Identity>>,
    /// Rules that no anchor finds: always looked at.
    rest: Vec<u32>,
}

impl Index {
    /// Each rule goes where it has the fewest neighbours.
    pub fn build<'m>(matchers: impl Iterator<Item = &'m Matcher>) -> Index {
        let ways: Vec<Vec<Vec<Anchor>>> = matchers.map(Matcher::anchors).collect();
        let mut neighbours: HashMap<Anchor, u32> = HashMap::new();
        for anchor in ways.iter().flatten().flatten() {
            let count = neighbours.entry(*anchor).or_default();
            *count = count.saturating_add(1);
        }
        let crowd = |way: &Vec<Anchor>| {
            way.iter().filter_map(|anchor| neighbours.get(anchor)).max().copied()
        };
        let mut index = Index::default();
        for (rule, ways) in (0_u32..).zip(&ways) {
            // `/` as a prefix finds everything, which is no help.
            let useful = ways.iter().filter(|way| {
                way.iter().all(|anchor| anchor.kind != Kind::PathPrefix || anchor.length > 1)
            });
            match useful.min_by_key(|way| crowd(way)) {
                Some(way) => way.iter().for_each(|anchor| index.insert(*anchor, rule)),
                None => index.rest.push(rule),
            }
        }
        index
    }

    fn insert(&mut self, anchor: Anchor, rule: u32) {
        match anchor.kind {
            Kind::Path => self.has_path = true,
            Kind::Authority => self.has_authority = true,
            Kind::PathPrefix => {
                if let Some(word) = self.prefix_lengths.get_mut(anchor.length / 64) {
                    *word |= 1 << (anchor.length % 64);
                }
            }
            Kind::Header { name_hash } => {
                self.header_lengths |= 1 << (anchor.length % 64);
                self.header_names.insert(name_hash, ());
            }
        }
        self.rules.entry(anchor.hash).or_default().push(rule);
    }

    /// The rules that every request has to be tested against.
    pub fn unindexed(&self) -> &[u32] {
        &self.rest
    }

    /// The rules that may match, in order, into `found`.
    pub fn candidates(&self, request: &Request<'_>, found: &mut Vec<u32>) {
        found.clear();
        found.extend_from_slice(&self.rest);
        let alone = found.len();
        let mut look = |hash: u64| {
            if let Some(rules) = self.rules.get(&hash) {
                found.extend_from_slice(rules);
            }
        };
        if self.has_path {
            look(fnv(PATH_SEED, request.path));
        }
        if self.has_authority {
            look(fnv(AUTHORITY_SEED, &request.authority()));
        }
        if self.prefix_lengths.iter().any(|word| *word != 0) {
            let mut hash = PREFIX_SEED;
            for (length, byte) in (1_usize..=MAX_PREFIX).zip(request.path) {
                hash = fnv(hash, std::slice::from_ref(byte));
                let word = self.prefix_lengths.get(length / 64).copied().unwrap_or(0);
                if word & (1 << (length % 64)) != 0 {
                    look(hash);
                }
            }
        }
        if !self.header_names.is_empty() {
            for (name, value) in request.headers.iter() {
                if self.header_lengths & (1 << (name.len() % 64)) == 0 {
                    continue;
                }
                let name_hash = fnv(HEADER_SEED, name);
                if self.header_names.contains_key(&name_hash) {
                    look(fnv(name_hash, value));
                }
            }
        }
        if found.len() > alone {
            found.sort_unstable();
            found.dedup();
        }
    }
}
