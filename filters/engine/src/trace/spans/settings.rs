//! Where spans go, checked.

use std::ops::RangeInclusive;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::{Spans, spans};

use super::otlp::{Resource, pair};
use super::semantics::is_ours;
use super::span::{Kind, Name, Span, cut};
use crate::core::answer::checked_headers;
use crate::core::checks::duration;
use crate::core::headers::is_safe_value;
use crate::core::key::value_source;
use crate::core::ports::{Attributes, Nanos};
use crate::core::request::Request;
use crate::core::source::Source;

const MS: Nanos = 1_000_000;
const S: Nanos = 1_000 * MS;

const DEFAULT_PATH: &str = "/v1/traces";

/// A collector that is well answers in milliseconds. One call is in flight at a time, so a longer
/// wait for a dead one would cost more spans.
const DEFAULT_TIMEOUT: Nanos = 5 * S;

/// At 1000 requests a second, two seconds; some 2 MB.
const DEFAULT_MAX_QUEUE: u32 = 2048;
const DEFAULT_MAX_BATCH: u32 = 256;

/// Soon enough for a person who has just sent a request.
const DEFAULT_INTERVAL: Nanos = S;

const MAX_RESOURCE: usize = 32;
const MAX_ATTRIBUTES: usize = 16;
const MAX_NAME: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

#[derive(Debug)]
pub struct ExportSettings {
    pub(super) cluster: String,
    pub(super) protocol: Protocol,
    /// `None`: the direction of the listener decides.
    pub kind: Option<Kind>,
    pub(super) path: String,
    pub(super) timeout: Nanos,
    pub(super) headers: Vec<(String, String)>,
    pub(super) resource: Resource,
    attributes: Vec<(Name, Source)>,
    pub(super) max_queue: usize,
    pub(super) max_batch: usize,
    pub(super) interval: Nanos,
}

impl ExportSettings {
    #[cold]
    pub fn compile(
        source: &Spans,
        color_header: &[u8],
        path: &str,
    ) -> Result<ExportSettings, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let time = |field: &str, value| duration(value, 100 * MS..=60 * S, &at(field));
        let protocol = match source.protocol() {
            spans::Protocol::Http => Protocol::Http,
            spans::Protocol::Grpc | spans::Protocol::Unspecified => Protocol::Grpc,
        };
        let mut headers = checked_headers(&source.headers, &at("headers"))?;
        if protocol == Protocol::Http {
            headers.push(("content-type".into(), "application/x-protobuf".into()));
        }
        let (max_queue, max_batch) = sizes(source, path)?;
        Ok(ExportSettings {
            cluster: text(
                &source.cluster,
                &at("cluster"),
                "outbound|4317||otel-collector.example",
            )?,
            protocol,
            kind: match source.kind() {
                spans::Kind::Server => Some(Kind::Server),
                spans::Kind::Client => Some(Kind::Client),
                spans::Kind::Unspecified => None,
            },
            path: url_path(&source.path, protocol, &at("path"))?,
            timeout: time("timeout", source.timeout.as_ref())?.unwrap_or(DEFAULT_TIMEOUT),
            headers,
            resource: resource(source, path)?,
            attributes: attributes(source, color_header, &at("attributes"))?,
            max_queue,
            max_batch,
            interval: time("interval", source.interval.as_ref())?.unwrap_or(DEFAULT_INTERVAL),
        })
    }

    /// Reads the attributes of the policy from a request, into its span.
    pub fn add_attributes<'r>(
        &'r self,
        span: &mut Span,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) {
        for (name, source) in &self.attributes {
            if let Some(value) = source.read(request, attributes) {
                span.add(name.clone(), &*value);
            }
        }
    }
}

#[cold]
fn sizes(source: &Spans, path: &str) -> Result<(usize, usize), FieldError> {
    let whole = |field: &str, value: Option<u32>, range: RangeInclusive<u32>| match value {
        Some(value) if !range.contains(&value) => {
            let remedy = format!("must be from {} to {}", range.start(), range.end());
            Err(FieldError::value(format!("{path}.{field}"), value, remedy))
        }
        _ => Ok(value),
    };
    let queue = whole("max_queue", source.max_queue, 16..=65_536)?.unwrap_or(DEFAULT_MAX_QUEUE);
    let batch = whole("max_batch", source.max_batch, 1..=4096)?;
    if let Some(batch) = batch.filter(|batch| *batch > queue) {
        let remedy = format!("must be at most max_queue, which is {queue}: no more spans wait");
        return Err(FieldError::value(format!("{path}.max_batch"), batch, remedy));
    }
    let batch = batch.unwrap_or(DEFAULT_MAX_BATCH.min(queue));
    Ok((queue as usize, batch as usize))
}

#[cold]
fn text(value: &str, path: &str, example: &str) -> Result<String, FieldError> {
    if value.is_empty() {
        return Err(FieldError::at(path, format!("is missing; give one such as {example:?}")));
    }
    if value.len() > MAX_NAME || !is_safe_value(value.as_bytes()) {
        let remedy = "must be at most 256 bytes without control characters";
        return Err(FieldError::value(path, format_args!("{value:?}"), remedy));
    }
    Ok(value.to_string())
}

#[cold]
fn url_path(given: &str, protocol: Protocol, path: &str) -> Result<String, FieldError> {
    if given.is_empty() {
        return Ok(DEFAULT_PATH.to_string());
    }
    if protocol == Protocol::Grpc {
        let remedy = "goes with protocol HTTP alone; remove it, or give protocol: HTTP";
        return Err(FieldError::value(path, format_args!("{given:?}"), remedy));
    }
    if given.len() > 1024 || !given.starts_with('/') || !given.bytes().all(|b| b.is_ascii_graphic())
    {
        let remedy =
            "must start with / and be at most 1024 printable characters, such as /v1/traces";
        return Err(FieldError::value(path, format_args!("{given:?}"), remedy));
    }
    Ok(given.to_string())
}

#[cold]
fn resource(source: &Spans, path: &str) -> Result<Resource, FieldError> {
    let name = text(&source.service_name, &format!("{path}.service_name"), "shop")?;
    let path = format!("{path}.resource");
    if source.resource.len() > MAX_RESOURCE {
        let remedy = "attributes: must be at most 32";
        return Err(FieldError::value(path, source.resource.len(), remedy));
    }
    let mut attributes = vec![pair(&"service.name".into(), name.as_str().into())];
    for (name, value) in &source.resource {
        let path = format!("{path}.{name}");
        let name = text(name, &path, "deployment.environment.name")?;
        if name == "service.name" {
            return Err(FieldError::at(path, "must be given as service_name"));
        }
        if *value != cut(value.as_bytes()) {
            let remedy = "must be at most 256 bytes";
            return Err(FieldError::value(path, format_args!("{} bytes:", value.len()), remedy));
        }
        attributes.push(pair(&Name::Given(name.into()), value.as_str().into()));
    }
    Ok(Resource { attributes })
}

#[cold]
fn attributes(
    source: &Spans,
    color_header: &[u8],
    path: &str,
) -> Result<Vec<(Name, Source)>, FieldError> {
    if source.attributes.len() > MAX_ATTRIBUTES {
        let remedy = "attributes: must be at most 16";
        return Err(FieldError::value(path, source.attributes.len(), remedy));
    }
    let each = source.attributes.iter().map(|(name, part)| {
        let path = format!("{path}.{name}");
        let name = text(name, &path, "app.tenant")?;
        if is_ours(&name) {
            let remedy = "is set by weir itself; choose another name";
            return Err(FieldError::at(path, remedy));
        }
        let name: Rc<str> = name.into();
        Ok((Name::Given(name), value_source(part, color_header, &path)?))
    });
    each.collect()
}
