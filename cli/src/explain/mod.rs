//! `weir explain`: one request through a policy, and why it fares as it does.

mod rules;
mod show;
mod state;
mod trip;

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use weir_engine::core::headers::header_name;
use weir_engine::core::request::split_once;

use crate::direction::Direction;
use crate::source::File;
use crate::{Format, Verdict, clock, source};
use state::State;

/// Runs one request through a policy: which rules match, what they say, what goes on and what comes back.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// A policy, or a manifest with one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Method and path, such as "GET /orders?id=1"
    #[arg(short, long, value_name = "REQUEST", value_parser = request_line)]
    request: (String, String),
    /// A request header, of any bytes; `host` is the authority
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = OsStringValueParser::new().try_map(header))]
    headers: Vec<(String, Vec<u8>)>,
    /// The listener that it comes in through
    #[arg(long, value_enum, default_value = "inbound")]
    direction: Direction,
    /// The client's address, as Envoy decided it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    source: IpAddr,
    /// An Envoy attribute by its dotted path, such as xds.route_name=orders; a claim is
    /// metadata.filter_metadata.envoy%2Efilters%2Ehttp%2Ejwt_authn.PAYLOAD.CLAIM
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = assignment)]
    attributes: Vec<(String, String)>,
    /// When: a time of RFC 3339. Default: now
    #[arg(long, value_name = "TIME", value_parser = clock::parse)]
    at: Option<u64>,
    /// What a rule's state is for this request: tokens left of a limit, or closed, open, half-open of a
    /// breaker, or tripped of a guard
    #[arg(long = "state", value_name = "RULE=STATE", value_parser = State::parse)]
    states: Vec<State>,
    /// What the upstream answers
    #[arg(long, value_name = "STATUS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..600))]
    upstream: u16,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir explain shop.yaml --request \"GET /orders\" -H 'x-user: ann' --state per-user=0
  GET localhost/orders, inbound, at 2026-11-24T12:00:00Z

  rate_limit: limited rule=per-user
    orders    matches; 200 of 200 tokens; admitted, given back
    per-user  matches; key header x-user=\"ann\"; 0 of 20 tokens, next in 100 ms; limited

  client gets 429 from rate_limit
    retry-after: 1
    ...

Exit codes: 0 done, 1 the policy has errors, 2 a file cannot be read or an argument is wrong.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let file = File::read(&args.file)?;
    let Some(document) = source::one(&file, args.format, out)? else { return Ok(Verdict::Bad) };
    let policy = document.policy.as_ref().context("the policy was not decoded")?;
    let explanation = trip::run(args, policy, document.sections())?;
    match args.format {
        Format::Text => write!(out, "{}", show::text(&explanation))?,
        Format::Json => writeln!(out, "{:#}", show::json(&explanation))?,
    }
    Ok(Verdict::Good)
}

pub fn request_line(text: &str) -> Result<(String, String), String> {
    let mut words = text.split_ascii_whitespace();
    let (method, path) = match (words.next(), words.next(), words.next()) {
        (Some(path), None, None) => ("GET", path),
        (Some(method), Some(path), None) => (method, path),
        _ => return Err("must be a method and a path, such as \"GET /orders\"".into()),
    };
    if !path.starts_with('/') && path != "*" {
        return Err(format!("{path:?} must start with `/`"));
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Err(format!("{method:?} must be a method in upper case, such as GET"));
    }
    Ok((method.into(), path.into()))
}

fn header(text: OsString) -> Result<(String, Vec<u8>), String> {
    let bytes = text.into_encoded_bytes();
    let (name, value) =
        split_once(&bytes, b':').ok_or("must be a name and a value, such as 'x-user: ann'")?;
    let name = String::from_utf8_lossy(name);
    let name =
        header_name(&name).ok_or_else(|| format!("{name:?} must be the name of a header"))?;
    Ok((name, value.trim_ascii().to_vec()))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("must be a name and a value with `=` between")?;
    Ok((name.into(), value.into()))
}
