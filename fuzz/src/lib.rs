//! Each parser of weir as a plain function over bytes. None may panic, whatever the bytes, and what
//! it reads it must be able to write again. Under cargo-fuzz these are fuzz targets; on a stable
//! toolchain the tests run each over its corpus with mutations.

use weir_engine::breaker::{self, Breaker};
use weir_engine::color::{self, Painter};
use weir_engine::core::baggage::Baggage;
use weir_engine::core::effects::HeaderEdit;
use weir_engine::core::headers::{HeaderMap, is_safe_value};
use weir_engine::core::ports::{Attributes, SharedStore};
use weir_engine::core::regex::Regex;
use weir_engine::core::reply::trace_id;
use weir_engine::core::request::{Request, normal_authority};
use weir_engine::core::restore;
use weir_engine::core::source::Source;
use weir_engine::core::template::Template;
use weir_engine::core::uuid;
use weir_engine::limit::{Limiter, Worker, mesh, slots};
use weir_engine::sim::Process;
use weir_engine::trace::context::{Carried, SpanContext, SpanId, TraceId};
use weir_engine::trace::formats::ot::{self, Ot};
use weir_engine::trace::formats::tracestate::{Own, TraceState};
use weir_engine::trace::formats::{b3, datadog, grpc_timeout, jaeger, request_id, w3c, xray};
use weir_engine::trace::{self, Tracer};
use weir_protos::{Section, decode_json};

/// A policy as Envoy hands it over: refused with a message, or compiled.
pub fn policy(data: &[u8]) {
    for section in [
        Section::RateLimit,
        Section::CircuitBreaker,
        Section::TraceContext,
        Section::TrafficColor,
        Section::All,
    ] {
        match decode_json(data, section) {
            Ok(policy) => {
                let refused = [
                    Limiter::compile(&policy, "fuzz", 1).err(),
                    Breaker::compile(&policy, "fuzz").err(),
                    Tracer::compile(&policy, "fuzz").err(),
                    Painter::compile(&policy, "fuzz").err(),
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

/// What an engine of limits answers, whoever it is.
pub fn engine_answer(data: &[u8]) {
    let reset = mesh::answer(data).and_then(|answer| answer.reset);
    if let Some(mesh::Reset { least, most }) = reset {
        // A day, rounded.
        assert!(least <= most && most <= 86_402_000_000_000);
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

/// A set of records in shared data, one record, or a note in filter state, that a stranger wrote.
pub fn restore(data: &[u8]) {
    let check = |record: Option<restore::Record>| {
        let Some(record) = record else { return };
        let mut again = Vec::new();
        record.write(&mut again);
        assert!(again.len() <= restore::MAX_RECORD);
        assert_eq!(restore::Record::read(&again), Some(record));
    };
    check(restore::Record::read(data));
    if let Some(note) = restore::Note::read(data) {
        assert_eq!(restore::Note::read(&note.write()), Some(note));
    }
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
         "match":{"any":[{"query":{"q":{"number":{"ge":1}}}},{"baggage":{"user":{"regex":"a.*"}}}]}},
        {"id":"c","max_tokens":9,"fill_interval":"1s","key":[{"header":"x","on_missing":"EMPTY"}],
         "overrides":[{"exact":["a",""],"max_tokens":3},{"prefix":"b","unlimited":true},{"prefix":"bc","max_tokens":2}],
         "cost":{"request_header":"x","response_header":"x","max_debt":5},"priority":{"header":"x","reserve_percent":30}},
        {"id":"d","max_tokens":9,"calendar":"DAY","utc_offset":"-03:30","cost":{"response_header":"x"},"key":[{"method":true}]},
        {"id":"e","max_concurrent":1,"exclude_upgrades":true},
        {"id":"f","max_concurrent":3,"key":[{"path":{"whole":true}}]}]}}"#;
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
    for _ in 0..2 {
        if let Some(mut plan) = limiter.on_request(&mut worker, &map, &mut ports).response {
            let _ = plan.respond(&mut worker, &map, &mut ports);
            // One stream ends, the other one goes on while strangers write.
            plan.end(&mut worker, &mut ports);
        }
        let flying = limiter.on_request(&mut worker, &map, &mut ports).response;
        for key in process.store.keys() {
            let _ = process.store.set(&key, data, 0);
        }
        worker.tick(&mut ports);
        limiter.tick(&mut ports);
        if let Some(mut plan) = flying {
            let _ = plan.respond(&mut worker, &map, &mut ports);
            plan.end(&mut worker, &mut ports);
        }
    }
}

/// What a proxy would send on after it read that; without an id there is nothing to send.
fn context(carried: &Carried) -> Option<SpanContext> {
    Some(SpanContext {
        trace_id: carried.trace_id?,
        span_id: carried.span_id.or(SpanId::new(1))?,
        sampled: carried.sampled.unwrap_or(false),
        is_random: carried.is_random,
        is_debug: carried.is_debug,
    })
}

/// What a parser must read out of what its writer made of a context. Only W3C's form says whether
/// an id is random, and only some can say that a person asked.
fn carried(context: &SpanContext, knows_random: bool, knows_debug: bool) -> Option<Carried> {
    Some(Carried {
        trace_id: Some(context.trace_id),
        span_id: Some(context.span_id),
        sampled: Some(context.sampled),
        is_random: context.is_random && knows_random,
        is_debug: context.is_debug && knows_debug,
    })
}

fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    data.split(|byte| *byte == b'\n')
}

/// One line of `traceparent`.
pub fn traceparent(data: &[u8]) {
    if let Some(read) = w3c::parse(data) {
        let Some(context) = context(&read) else { unreachable!("it has both ids") };
        let line = w3c::write(&context);
        assert_eq!(w3c::parse(line.as_bytes()), Some(read));
        assert!(!data.contains(&b',') && line.len() == 55);
    }
}

/// The lines of `tracestate`, or the value of our own member.
pub fn tracestate(data: &[u8]) {
    if let Some(state) = TraceState::parse(lines(data)) {
        for own in [Own::Keep, Own::Set("ot", "th:c"), Own::Remove("ot")] {
            let line = state.write(own);
            assert!(line.len() <= 512);
            let Some(again) = TraceState::parse([line.as_bytes()].into_iter()) else {
                panic!("{line:?} cannot be read")
            };
            assert_eq!(again.write(Own::Keep), line);
            match own {
                Own::Keep => {}
                Own::Set(key, value) => {
                    assert_eq!(again.get(key.as_bytes()), Some(value.as_bytes()));
                }
                Own::Remove(key) => assert_eq!(again.get(key.as_bytes()), None),
            }
        }
        own_member(state.get(ot::KEY.as_bytes()).unwrap_or_default());
    }
    own_member(data);
}

fn own_member(value: &[u8]) {
    let ot = Ot::parse(value);
    if let Some(written) = ot.write() {
        assert!(written.len() <= 256);
        let again = Ot::parse(written.as_bytes());
        assert_eq!((again.threshold, again.randomness), (ot.threshold, ot.randomness));
        assert_eq!(again.write().as_ref(), Some(&written));
        let state = TraceState::default().write(Own::Set(ot::KEY, &written));
        assert_eq!(state, format!("ot={written}"));
    }
}

/// `b3` in one header, and one line for each of several: ids, sampled, flags. An empty line is a
/// header that is not there.
pub fn b3(data: &[u8]) {
    let mut fields = lines(data).map(|line| (!line.is_empty()).then_some(line));
    let mut field = || fields.next().flatten();
    let multi = b3::Multi { trace_id: field(), span_id: field(), sampled: field(), flags: field() };
    for read in [b3::parse_single(data), multi.parse()].into_iter().flatten() {
        assert!(read.trace_id.is_some() == read.span_id.is_some());
        assert!(!read.is_debug || read.sampled == Some(true));
        let Some(context) = context(&read) else { continue };
        let expected = carried(&context, false, true);
        assert_eq!(b3::parse_single(b3::write_single(&context).as_bytes()), expected);
        let headers = b3::write_multi(&context);
        let multi = b3::Multi {
            trace_id: header(&headers, "x-b3-traceid"),
            span_id: header(&headers, "x-b3-spanid"),
            sampled: header(&headers, "x-b3-sampled"),
            flags: header(&headers, "x-b3-flags"),
        };
        assert_eq!(multi.parse(), expected);
    }
}

fn header<'h>(headers: &'h [(&str, String)], name: &str) -> Option<&'h [u8]> {
    headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_bytes())
}

/// Jaeger's, X-Ray's and a request id as they are; Datadog's one line a header. What any of them
/// reads, each must be able to write.
pub fn vendor_contexts(data: &[u8]) {
    let mut fields = lines(data);
    let datadog = datadog::Headers {
        trace_id: fields.next(),
        parent_id: fields.next(),
        priority: fields.next(),
        tags: fields.next(),
    };
    let parsed = request_id::parse(data);
    if let Some(id) = parsed {
        let made = uuid::uuid(id.get());
        assert!(request_id::parse(made.as_bytes()).is_some());
    }
    let of_uuid = parsed.map(|id| Carried { trace_id: Some(id), ..Carried::default() });
    // Something to write even when nothing could be read: the bytes go along as the fields and tags
    // of others.
    let some = Carried { trace_id: TraceId::new(1 << 64), ..Carried::default() };
    let all = [jaeger::parse(data), xray::parse(data), datadog.parse(), of_uuid, Some(some)];
    for read in all.into_iter().flatten() {
        let Some(context) = context(&read) else { unreachable!("it has a trace id") };
        assert_eq!(
            jaeger::parse(jaeger::write(&context).as_bytes()),
            carried(&context, false, true)
        );
        let expected = carried(&context, false, false);
        let line = xray::write(&context, Some(data));
        assert!(line.len() <= 512 && line.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(xray::parse(line.as_bytes()), expected);
        let headers = datadog::write(&context, Some(data));
        let datadog = datadog::Headers {
            trace_id: header(&headers, "x-datadog-trace-id"),
            parent_id: header(&headers, "x-datadog-parent-id"),
            priority: header(&headers, "x-datadog-sampling-priority"),
            tags: header(&headers, "x-datadog-tags"),
        };
        assert!(datadog.tags.is_none_or(|tags| tags.len() <= 512));
        assert_eq!(datadog.parse(), expected);
    }
}

/// The lines of `baggage`.
pub fn baggage(data: &[u8]) {
    let same = |baggage: &Baggage<'_>| {
        let line = baggage.write();
        let again = Baggage::parse([line.as_bytes()].into_iter());
        assert!(!again.is_changed() && again.members().eq(baggage.members()), "{line:?}");
        line
    };
    let mut baggage = Baggage::parse(lines(data));
    same(&baggage);
    baggage.set("user", data);
    baggage.limit(64, 8192);
    assert!(same(&baggage).len() <= 8192 && baggage.members().len() <= 64);
    baggage.retain(|key| key == b"user");
    assert!(baggage.members().len() <= 1);
    same(&baggage);
}

/// `grpc-timeout`, and whole milliseconds.
pub fn grpc_timeout(data: &[u8]) {
    let whole = grpc_timeout::milliseconds(data);
    for time in [grpc_timeout::parse(data), whole].into_iter().flatten() {
        let written = grpc_timeout::write(time);
        let Some(read) = grpc_timeout::parse(written.as_bytes()) else {
            panic!("{written:?} cannot be read")
        };
        assert!(read <= time && written.len() <= 9);
        assert_eq!(grpc_timeout::parse(grpc_timeout::write(read).as_bytes()), Some(read));
    }
}

/// A trace's whole way through an inbound and an outbound listener, over the same kinds of bytes.
pub fn trace_decision(data: &[u8]) {
    const POLICY: &[u8] = br#"{"name":"f",
        "restore":{"keys":[{"header":"x-request-id"},{"header":"x","scope":"SESSION","baggage":["a"]},{"trace_id":true}],"mint":true,"max_records":1024},
        "trace_context":{
        "propagation":{"extract":["W3C","B3_SINGLE","B3_MULTI","JAEGER","XRAY","DATADOG","REQUEST_ID"],
            "inject":["W3C","B3_SINGLE","B3_MULTI","JAEGER","XRAY","DATADOG"]},
        "baggage":{"set":[{"key":"user","value":{"header":"x"}}]},
        "sampling":{"scoring":{"weights":[{"match":{"headers":{"x":{"present":true}}},"weight":0.5}],
            "statuses":[{"http_statuses":["500-599"],"weight":0.5}]}},
        "deadline":{"default":"1s","hop_margin":"0.01s"},
        "response":{"trace_id_header":"x-trace-id","error_context":true,"envelope":true},
        "spans":{"cluster":"c","service_name":"s","max_batch":1,"attributes":{"x":{"header":"x"}}}}}"#;
    let Ok(policy) = decode_json(POLICY, Section::TraceContext) else {
        unreachable!("the policy is valid")
    };
    let Ok(tracer) = Tracer::compile(&policy, "fuzz") else { unreachable!("the policy is valid") };
    let (mut process, mut worker) = (Process::start(), trace::Worker::default());
    let mut ports = process.ports(1);
    for path in [
        "response.code",
        "response.flags",
        "response.code_details",
        "response.grpc_status",
        "upstream.request_attempt_count",
        "request.time",
        "weir.rate_limit",
    ] {
        ports.set_attribute(path, data);
    }
    tracer.prepare(&mut worker, &mut ports);
    let map = HeaderMap::from_wire(data.to_vec());
    for direction in [1_u64, 2, 0, 2] {
        ports.set_attribute("xds.listener_direction", &direction.to_le_bytes());
        let decision = tracer.on_request(&mut worker, &map, &mut ports);
        let mut written = decision.effects.headers;
        if let Some(call) = decision.call {
            let effects = call.on_response(&map, &mut ports);
            written.extend(effects.headers);
            call.on_log(&mut worker, &mut ports);
        }
        for edit in written {
            if let HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value) = edit {
                assert!(is_safe_value(value.as_bytes()), "{name}: {value:?}");
            }
        }
        worker.tick(&mut ports);
        tracer.tick(&mut ports);
        if direction == 0 {
            for key in process.store.keys() {
                let _ = process.store.set(&key, data, 0);
            }
        }
    }
}

/// A color's whole way: decided, carried, recorded, answered, logged; then all over again with the
/// bytes in all of shared data.
pub fn color_decision(data: &[u8]) {
    const POLICY: &[u8] = br#"{"name":"f","zone":"EDGE",
        "restore":{"keys":[{"header":"x-request-id"},{"header":"x-trade-session-id","scope":"SESSION"},{"trace_id":true}],"mint":true,"max_records":1024},
        "traffic_color":{"colors":["base","gray","blue"],
        "trusted":[{"headers":{"x":{"exact":"s"}}}],
        "carry":{"in":["HEADER","BAGGAGE"]},
        "session":{"principal":{"header":"x"}},
        "lanes":{"lanes":[{"match":{"path":{"prefix":"/a"}},"colors":["base"]}]},
        "response":{"echo_header":"x-color","vary":true},
        "rules":[
        {"id":"a","match":{"cookies":{"c":{"regex":"a.*"}}},"color":"blue"},
        {"id":"b","shares":[{"color":"gray","weight":5000}],"key":[{"cookie":"id"},{"query":"q"}],
         "on_missing_key":"STICKY_COOKIE","guard":{"error_delta_points":5,"slow_share_delta_points":5,"min_requests":20}},
        {"id":"c","match":{"headers":{"x":{"number":{"ge":7}}}},"shares":[{"color":"gray","weight":1}],
         "key":[{"header":"x"}],"auto":{"max_weight":1500,"qps_floor":1,"qps_full":2}}]}}"#;
    let Ok(policy) = decode_json(POLICY, Section::TrafficColor) else {
        unreachable!("the policy is valid")
    };
    let Ok(painter) = Painter::compile(&policy, "fuzz") else {
        unreachable!("the policy is valid")
    };
    let (mut process, mut worker) = (Process::start(), color::Worker::default());
    let mut ports = process.ports(1);
    for path in ["response.code", "response.flags", "response.grpc_status", restore::NOTE] {
        ports.set_attribute(path, data);
    }
    painter.prepare(&mut worker, &mut ports);
    let map = HeaderMap::from_wire(data.to_vec());
    for direction in [1_u64, 2, 0, 1, 2] {
        ports.set_attribute("xds.listener_direction", &direction.to_le_bytes());
        let decision = painter.on_request(&mut worker, &map, &mut ports);
        let mut written = decision.effects.headers;
        if let Some(call) = decision.call {
            written.extend(call.on_response(&map, &mut ports).headers);
            call.on_log(&mut ports);
        }
        for edit in written {
            if let HeaderEdit::Set(name, value) | HeaderEdit::Add(name, value) = edit {
                assert!(is_safe_value(value.as_bytes()), "{name}: {value:?}");
                let is_known = ["base", "gray", "blue"].contains(&value.as_str());
                assert!(name != "x-weir-color" || is_known, "{value:?}");
            }
        }
        worker.tick(&mut ports);
        painter.tick(&mut ports);
        if direction == 0 {
            for key in process.store.keys() {
                let _ = process.store.set(&key, data, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
