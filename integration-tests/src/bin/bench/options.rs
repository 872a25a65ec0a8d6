//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

pub const HELP: &str = "\
cargo xtask bench [-- [--rounds <n>] [--requests <n>] [--only <words>]
                      [--against <file>] | --update]

Measures the CPU time of one Envoy worker per request, over the same Envoy without a filter: Envoy's
own local_ratelimit (plain, and with a descriptor per header), Lua, a wasm module that does nothing,
and weir. Every variant is an Envoy of its own that lives through all rounds; the rounds are
interleaved, so that whatever else the machine does hits all alike. The worker has one core, h2load
another. Then it counts what a request asks of the host, which is exact.

Prints tables, and writes target/weir/bench.json. Takes about a minute.

Options:
  --rounds <n>     rounds that count, after one that warms up (default 5)
  --requests <n>   requests per variant and round (default 20000)
  --only <words>   only variants with one of these words in their names, comma-separated; no filter
                   and the module that does nothing are always there
  --against <file> measure another build of weir_rate_limit.wasm as well, in the same rounds;
                   may be given several times
  --update         only write docs/performance/host-calls.md anew, with the counts of the built
                   modules

Example: cargo xtask bench -- --rounds 9 --only weir,local";

pub struct Options {
    pub rounds: usize,
    pub requests: u64,
    pub only: Vec<String>,
    pub against: Vec<PathBuf>,
}

pub enum Action {
    Help,
    Update,
    Run(Options),
}

pub fn read() -> Result<Action, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut options =
        Options { rounds: 5, requests: 20_000, only: Vec::new(), against: Vec::new() };
    let mut update = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Action::Help),
            Long("rounds") => options.rounds = positive(parser.value()?.parse()?, "--rounds")?,
            Long("requests") => {
                options.requests = positive(parser.value()?.parse()?, "--requests")? as u64;
            }
            Long("only") => {
                let words = parser.value()?.string()?;
                options.only = words.split(',').map(|w| w.trim().to_lowercase()).collect();
            }
            Long("against") => {
                let file = PathBuf::from(parser.value()?);
                match file.canonicalize() {
                    Ok(file) => options.against.push(file),
                    Err(e) => return Err(format!("--against {}: {e}", file.display()).into()),
                }
            }
            Long("update") => update = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(if update { Action::Update } else { Action::Run(options) })
}

fn positive(number: usize, option: &str) -> Result<usize, lexopt::Error> {
    if number == 0 { Err(format!("{option} must be at least 1").into()) } else { Ok(number) }
}
