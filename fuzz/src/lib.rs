//! Each parser of weir as a plain function over bytes. None may panic, whatever the bytes, and what
//! it reads it must be able to write again. Under cargo-fuzz these are fuzz targets; on a stable
//! toolchain the tests run each over its corpus with mutations.

use weir_engine::breaker::{self, Breaker};
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::ports::{Attributes, SharedStore};
use weir_engine::core::regex::Regex;
use weir_engine::core::reply::trace_id;
use weir_engine::core::request::{Request, normal_authority};
use weir_engine::core::restore;
use weir_engine::core::source::Source;
use weir_engine::core::template::Template;
use weir_engine::limit::{Limiter, Worker, slots};
use weir_engine::sim::Process;
use weir_protos::{Section, decode_json};

/// A policy as Envoy hands it over: refused with a message, or compiled.
pub fn policy(data: &[u8]) {
    for section in [Section::RateLimit, Section::CircuitBreaker, Section::All] {
        match decode_json(data, section) {
            Ok(policy) => {
                let refused = [
                    Limiter::compile(&policy, "fuzz", 1).err(),
                    Breaker::compile(&policy, "fuzz").err(),
                ];
                for error in refused.into_iter().flatten() {
                    assert!(error.path.starts_with("policy") && !error.remedy.is_empty());
                }
            }
            Err(error) => assert!(error.path.starts_with("policy") && !error.remedy.is_empty()),
        }
    }
}

/// proxy-wasm's serialized header map.
pub fn header_map(data: &[u8]) {
    let map = HeaderMap::from_wire(data.to_vec());
    let pairs: Vec<_> = map.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let again = HeaderMap::from_pairs(&pairs);
    assert!(again.iter().eq(map.iter()));
}

/// Everything that is read out of headers: one `name: value` a line, in any bytes.
pub fn headers(data: &[u8]) {
    let pairs: Vec<(&[u8], &[u8])> = data
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let place =
                line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
            let (name, value) = line.split_at(place);
            (name, value.strip_prefix(b":").unwrap_or(value))
        })
        .collect();
    let map = HeaderMap::from_pairs(&pairs);
    let mut request = Request::new(&map);
    let _ = (request.is_mirrored(), request.grpc_method(), trace_id(&request));
    assert!(!normal_authority(data).iter().any(u8::is_ascii_uppercase));
    let template = Template::parse("/users/{id}/{rest**}").ok();
    let mut sources = vec![
        Source::Header((*b"x").into()),
        Source::Cookie((*b"id").into()),
        Source::Query((*b"q").into()),
        Source::Baggage((*b"user").into()),
        Source::Path,
        Source::PathSegments(2),
        Source::Authority,
        Source::GrpcService,
        Source::SourceAddress { v4_prefix: 24, v6_prefix: 64 },
    ];
    sources.extend(template.map(|template| Source::PathTemplate(template, 1)));
    let mut attributes = Same(data.to_vec());
    for source in &sources {
        let _ = source.read(&mut request, &mut attributes);
    }
}

/// Every attribute has the same value: the bytes in hand.
struct Same(Vec<u8>);

impl Attributes for Same {
    fn attribute(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// A path template and a path, or a pattern and a value: the first line and the rest.
pub fn patterns(data: &[u8]) {
    let (pattern, value) =
        data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    if let Ok(template) = Template::parse(pattern) {
        let prefix = template.literal_prefix();
        assert!(!template.is_match(value) || value.starts_with(&prefix));
    }
    if let Ok(regex) = Regex::new(pattern) {
        let _ = regex.is_match(value);
    }
}

/// A value of shared data that a stranger wrote.
pub fn slots(data: &[u8]) {
    if let Some(set) = slots::Set::read(data) {
        let mut again = Vec::new();
        set.write(&mut again);
        assert_eq!(again, data);
    }
}

/// The same for the breaker's sets.
pub fn breaker_slots(data: &[u8]) {
    let written = |bytes: &[u8]| {
        breaker::slots::Set::read(bytes).map(|set| {
            let mut again = Vec::new();
            set.write(&mut again);
            again
        })
    };
    // What a stranger wrote may say the same with other bytes; what we write we read as it is.
    if let Some(once) = written(data) {
        assert_eq!(written(&once).as_ref(), Some(&once));
    }
}

/// A set of records in shared data, or one record, that a stranger wrote.
pub fn restore(data: &[u8]) {
    let check = |record: Option<restore::Record>| {
        let Some(record) = record else { return };
        let mut again = Vec::new();
        record.write(&mut again);
        assert!(again.len() <= restore::MAX_RECORD);
        assert_eq!(restore::Record::read(&again), Some(record));
    };
    check(restore::Record::read(data));
    if let Some(set) = restore::Set::read(data) {
        let mut again = Vec::new();
        set.write(&mut again);
        assert_eq!(again, data);
        set.ways().iter().for_each(|way| check(way.record()));
    }
}

/// A breaker's decision over the same kinds of bytes, and the end of the call.
pub fn breaker_decision(data: &[u8]) {
    const POLICY: &[u8] = br#"{"name":"f","zone":"EDGE","circuit_breaker":{"rules":[
        {"id":"a","minimum_calls":1,"window":{"count":4},"key":[{"header":"x","on_missing":"EMPTY"}],
         "open_on_header":{"header":"retry-after"},"slow_call_duration":"1s","slow_call_rate_percent":50},
        {"id":"b","strategy":"ADAPTIVE","key":[{"cookie":"id"}]}]}}"#;
    let Ok(policy) = decode_json(POLICY, Section::CircuitBreaker) else {
        unreachable!("the policy is valid")
    };
    let Ok(mut breaker) = Breaker::compile(&policy, "fuzz") else {
        unreachable!("the policy is valid")
    };
    let (mut process, mut worker) = (Process::start(), breaker::Worker::default());
    let mut ports = process.ports(1);
    for path in ["response.code", "response.flags", "response.code_details", "response.grpc_status"]
    {
        ports.set_attribute(path, data);
    }
    breaker.prepare(&mut worker, &mut ports);
    let map = HeaderMap::from_wire(data.to_vec());
    for _ in 0..2 {
        if let Some(call) = breaker.on_request(&mut worker, &map, &mut ports).call {
            let _ = call.on_response(&mut worker, &map, &mut ports);
            call.on_log(&mut worker, &mut ports);
        }
        worker.tick(&mut ports);
        breaker.tick(&mut ports);
        for key in process.store.keys() {
            let _ = process.store.set(&key, data, 0);
        }
    }
}

/// A whole decision: the bytes are the headers, and what stands in shared data.
pub fn decision(data: &[u8]) {
    const POLICY: &[u8] = br#"{"name":"f","zone":"EDGE","rate_limit":{"rules":[
        {"id":"a","max_tokens":2,"fill_interval":"1s","key":[{"header":"x"},{"cookie":"id","on_missing":"EMPTY"}],
         "match":{"path":{"prefix":"/"},"headers":{"x":{"present":true}}}},
        {"id":"b","max_tokens":1,"fill_interval":"1s","key":[{"source_address":{}}],"on_match":"STOP",
         "match":{"any":[{"query":{"q":{"number":{"ge":1}}}},{"baggage":{"user":{"regex":"a.*"}}}]}}]}}"#;
    let Ok(policy) = decode_json(POLICY, Section::RateLimit) else {
        unreachable!("the policy is valid")
    };
    let Ok(mut limiter) = Limiter::compile(&policy, "fuzz", 1) else {
        unreachable!("the policy is valid")
    };
    let (mut process, mut worker) = (Process::start(), Worker::default());
    let mut ports = process.ports(1);
    ports.set_attribute("source.address", data);
    limiter.prepare(&mut worker, &mut ports);
    let map = HeaderMap::from_wire(data.to_vec());
    limiter.on_request(&mut worker, &map, &mut ports);
    for key in process.store.keys() {
        let _ = process.store.set(&key, data, 0);
    }
    limiter.on_request(&mut worker, &map, &mut ports);
    worker.tick(&mut ports);
    limiter.tick(&mut ports);
}

#[cfg(test)]
mod tests;
