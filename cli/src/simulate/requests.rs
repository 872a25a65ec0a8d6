//! Where requests come from, in the order of time.

use anyhow::bail;
use weir_engine::core::ports::Nanos;

use super::load::Load;
use super::log::{self, Record};
use crate::yaml::{Node, Value};

/// Some day: a load has no time of its own.
const LOAD_STARTS: Nanos = 1_767_225_600_000_000_000;

pub enum Requests<'l> {
    Log {
        text: &'l [u8],
        /// When each request began, and where its line stands.
        lines: Vec<(Nanos, usize, usize)>,
        /// Lines that are none of an access log.
        unread: u64,
        first_unread: Option<usize>,
    },
    Load(Load),
}

impl<'l> Requests<'l> {
    /// Lines stand in the order in which requests ended; they are put in that of their beginnings.
    pub fn of_log(text: &'l [u8]) -> anyhow::Result<Requests<'l>> {
        let mut lines = Vec::with_capacity(text.len() / 256);
        let (mut at, mut unread, mut first_unread) = (0, 0, None);
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            match log::start(line) {
                Some(start) => lines.push((start, at, line.len())),
                None if line.trim_ascii().is_empty() => {}
                None => {
                    unread += 1;
                    first_unread.get_or_insert(number + 1);
                }
            }
            at += line.len() + 1;
        }
        if lines.is_empty() {
            bail!("has no line of an access log in Envoy's or Istio's default format, or in JSON");
        }
        lines.sort_by_key(|(start, _, _)| *start);
        Ok(Requests::Log { text, lines, unread, first_unread })
    }

    pub fn count(&self) -> u64 {
        match self {
            Requests::Log { lines, .. } => lines.len() as u64,
            Requests::Load(load) => load.count(),
        }
    }

    pub fn first(&self) -> Nanos {
        match self {
            Requests::Log { lines, .. } => lines.first().map_or(0, |(start, _, _)| *start),
            Requests::Load(_) => LOAD_STARTS,
        }
    }

    /// Lines that were passed over, and the first of them.
    pub fn unread(&self) -> (u64, Option<usize>) {
        match self {
            Requests::Log { unread, first_unread, .. } => (*unread, *first_unread),
            Requests::Load(_) => (0, None),
        }
    }

    /// The n-th request; none where its line is broken further on.
    pub fn get(&self, n: u64, wanted: &[String]) -> Option<Record<'_>> {
        match self {
            Requests::Log { text, lines, .. } => {
                let (_, at, length) = lines.get(usize::try_from(n).ok()?)?;
                let line = std::str::from_utf8(text.get(*at..at + length)?).ok()?;
                log::read(line, wanted)
            }
            Requests::Load(load) => Some(load.request(n, LOAD_STARTS)),
        }
    }
}

/// Names of request headers that a policy reads.
pub fn wanted(root: &Node) -> Vec<String> {
    let mut names: Vec<String> =
        ["cookie", "baggage", "traceparent", "tracestate", "content-type", "x-weir-color"]
            .map(str::to_string)
            .into();
    collect(root, &mut names);
    names.sort();
    names.dedup();
    names
}

fn collect(node: &Node, names: &mut Vec<String>) {
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| collect(&item.node, names)),
        Value::Map(entries) => {
            for entry in entries {
                let key = entry.key.as_str();
                match (&entry.node.value, key, entry.node.text()) {
                    (_, "header" | "color_header" | "colorHeader", Some(name)) => {
                        names.push(name.to_ascii_lowercase());
                    }
                    (Value::Map(headers), "headers", _) => {
                        names.extend(headers.iter().map(|entry| entry.key.to_ascii_lowercase()));
                    }
                    _ => {}
                }
                collect(&entry.node, names);
            }
        }
    }
}
