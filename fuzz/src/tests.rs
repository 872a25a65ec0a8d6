//! The corpus of each target, and mutations of it, on any toolchain.

use std::path::Path;

/// Mutations of each file. Enough to turn every byte of the small ones.
const MUTATIONS: u32 = 3000;

fn corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds.sort();
    seeds.push(Vec::new());
    let mut random = Random(0x5eed);
    for seed in &seeds {
        run(seed);
        for _ in 0..MUTATIONS {
            let mut mutated = seed.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut mutated, &seeds, &mut random);
            }
            run(&mutated);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    const WORTH_TRYING: [u8; 12] =
        [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'/', b',', b'=', b'\n'];
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] = (random.next() >> 24) as u8,
        1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 => bytes.insert(at, WORTH_TRYING[random.below(WORTH_TRYING.len())]),
        3 => bytes.truncate(at),
        4 => {
            let end = (at + random.below(9)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let end = (from + random.below(40)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
    }
}

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }
}

#[test]
fn corpus_of_policy() {
    corpus("policy", super::policy);
}

#[test]
fn corpus_of_header_map() {
    corpus("header_map", super::header_map);
}

#[test]
fn corpus_of_headers() {
    corpus("headers", super::headers);
}

#[test]
fn corpus_of_patterns() {
    corpus("patterns", super::patterns);
}

#[test]
fn corpus_of_slots() {
    corpus("slots", super::slots);
}

#[test]
fn corpus_of_decision() {
    corpus("decision", super::decision);
}

#[test]
fn corpus_of_breaker_slots() {
    corpus("breaker_slots", super::breaker_slots);
}

#[test]
fn corpus_of_breaker_decision() {
    corpus("breaker_decision", super::breaker_decision);
}

#[test]
fn corpus_of_restore() {
    corpus("restore", super::restore);
}

#[test]
fn corpus_of_traceparent() {
    corpus("traceparent", super::traceparent);
}

#[test]
fn corpus_of_tracestate() {
    corpus("tracestate", super::tracestate);
}

#[test]
fn corpus_of_b3() {
    corpus("b3", super::b3);
}

#[test]
fn corpus_of_vendor_contexts() {
    corpus("vendor_contexts", super::vendor_contexts);
}

#[test]
fn corpus_of_baggage() {
    corpus("baggage", super::baggage);
}

#[test]
fn corpus_of_grpc_timeout() {
    corpus("grpc_timeout", super::grpc_timeout);
}

#[test]
fn corpus_of_trace_decision() {
    corpus("trace_decision", super::trace_decision);
}

/// Every target has its file for cargo-fuzz.
#[test]
fn corpus_and_targets_belong_together() {
    let names = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("corpus"), names("fuzz_targets"));
}

#[test]
fn corpus_of_color_decision() {
    corpus("color_decision", super::color_decision);
}

#[test]
fn corpus_of_engine_answer() {
    corpus("engine_answer", super::engine_answer);
}
