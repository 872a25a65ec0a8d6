//! The messages of OTLP, as far as they are sent: `opentelemetry/proto/{collector/trace,trace,common,
//! resource}/v1`. A test reads them back by the published schema.

use super::span::{Kind, Name, Span as Plain, Value};

pub const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
pub const METHOD: &str = "Export";

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InstrumentationScope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    pub dropped_attributes_count: u32,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    #[prost(oneof = "AnyOf", tags = "1, 2, 3")]
    pub value: Option<AnyOf>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AnyOf {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
}

const SPAN_KIND_SERVER: i32 = 2;
const SPAN_KIND_CLIENT: i32 = 3;
const STATUS_CODE_ERROR: i32 = 2;

/// The trace flags of the W3C.
const SAMPLED: u32 = 0x01;
const RANDOM: u32 = 0x02;
/// It is known whether the parent is in another process, and it is: its context came in a request.
const HAS_REMOTE_PARENT: u32 = 0x0300;

impl From<Plain> for Span {
    fn from(span: Plain) -> Span {
        let Plain { context, parent, .. } = span;
        let mut flags = 0;
        for (is_set, bits) in [
            (context.sampled, SAMPLED),
            (context.is_random, RANDOM),
            (parent.is_some(), HAS_REMOTE_PARENT),
        ] {
            flags |= if is_set { bits } else { 0 };
        }
        let pairs = span.attributes.into_iter().map(|(name, value)| pair(&name, value));
        Span {
            trace_id: context.trace_id.get().to_be_bytes().into(),
            span_id: context.span_id.get().to_be_bytes().into(),
            trace_state: span.tracestate,
            parent_span_id: parent.map(|id| id.get().to_be_bytes().into()).unwrap_or_default(),
            name: span.name,
            kind: match span.kind {
                Kind::Server => SPAN_KIND_SERVER,
                Kind::Client => SPAN_KIND_CLIENT,
            },
            start_time_unix_nano: span.start,
            end_time_unix_nano: span.end,
            attributes: pairs.collect(),
            dropped_attributes_count: span.dropped_attributes,
            status: span.is_error.then_some(Status { code: STATUS_CODE_ERROR }),
            flags,
        }
    }
}

pub fn pair(name: &Name, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyOf::Text(text),
        Value::Int(number) => AnyOf::Int(number),
        Value::Bool(is) => AnyOf::Bool(is),
    };
    KeyValue { key: name.to_string(), value: Some(AnyValue { value: Some(value) }) }
}

/// An export of spans of one resource.
pub fn export(resource: Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope =
        InstrumentationScope { name: "weir".into(), version: env!("CARGO_PKG_VERSION").into() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }],
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Published;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use prost::Message as _;

    use super::*;
    use crate::trace::context::{SpanContext, SpanId, TraceId};

    #[test]
    fn others_read_what_was_meant() {
        let context = SpanContext {
            trace_id: TraceId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10).unwrap(),
            span_id: SpanId::new(0x1112_1314_1516_1718).unwrap(),
            sampled: true,
            is_random: true,
            is_debug: false,
        };
        let mut span = Plain::new(context, SpanId::new(7), Kind::Client, 1000, 2000);
        span.set_tracestate(b"ot=th:8");
        span.name = "GET".into();
        span.is_error = true;
        span.add("text", "word");
        span.add("number", -5);
        span.add("truth", true);
        span.dropped_attributes = 3;
        let resource = Resource { attributes: vec![pair(&"service.name".into(), "shop".into())] };
        let bytes = export(resource, vec![span.into()]).encode_to_vec();

        let read = Published::decode(&bytes[..]).unwrap();
        // Nothing of it went under a number that the schema does not have.
        assert_eq!(read.encoded_len(), bytes.len());
        let spans = &read.resource_spans[0];
        let resource = &spans.resource.as_ref().unwrap().attributes[0];
        assert_eq!(resource.key, "service.name");
        let scope = spans.scope_spans[0].scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), ("weir", "0.1.0"));
        let span = &spans.scope_spans[0].spans[0];
        assert_eq!(span.trace_id, (1..=16).collect::<Vec<u8>>());
        assert_eq!(span.span_id, (17..=24).collect::<Vec<u8>>());
        assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!((span.trace_state.as_str(), span.name.as_str()), ("ot=th:8", "GET"));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1000, 2000));
        assert_eq!((span.kind(), span.flags), (SpanKind::Client, 0x303));
        assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!(span.dropped_attributes_count, 3);
        let values: Vec<_> = span
            .attributes
            .iter()
            .map(|pair| (pair.key.as_str(), pair.value.clone().unwrap().value.unwrap()))
            .collect();
        let expected = [
            ("text", Any::StringValue("word".into())),
            ("number", Any::IntValue(-5)),
            ("truth", Any::BoolValue(true)),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_root_has_no_parent_and_a_success_no_status() {
        let context = SpanContext {
            trace_id: TraceId::new(1).unwrap(),
            span_id: SpanId::new(1).unwrap(),
            sampled: false,
            is_random: false,
            is_debug: false,
        };
        let span = Span::from(Plain::new(context, None, Kind::Server, 1, 2));
        assert!(span.parent_span_id.is_empty() && span.status.is_none());
        assert_eq!((span.flags, span.kind), (0, SpanKind::Server as i32));
    }
}
