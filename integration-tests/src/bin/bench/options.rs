//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

pub const HELP: &str = "\
cargo xtask bench [-- [--rounds <n>] [--requests <n>] [--only <words>]
                      [--against <file>] | --update]

Costs: the CPU time of one Envoy worker per request, over the same Envoy without a filter, and as a
ratio to a wasm module that does nothing. Every variant is an Envoy of its own that lives through all
rounds; the rounds are interleaved, so that whatever else the machine does hits all alike. The worker
has one core, h2load and the upstreams another. Each variant has to prove that it did its work.
  limit       local_ratelimit (plain, and with a descriptor per header), Lua, weir
  breaker     outlier detection, admission_control, weir
  suite       all four in one pass and one after the other, each alone, Envoy's own that come nearest
  trace       the OpenTelemetry tracer, Lua, weir: continues, mints, translates, carries baggage and a
              deadline, records, restores, exports spans

Labs: what clients get.
  incident    an upstream that fails, with a breaker and without
  deadlines   three services, the last of which is slow: with deadlines passed on and without
  restoring   four services that forward only an id: whole traces, with restoring and without
  collectors  latency while the collector of spans is well, slow, failing, gone
  sampling    spans of rare errors that are kept, by a score and by a fixed rate
  color       decisions on a color a second inside the module, with 10 rules and with 10 000
  edits       from an edit, or a new module, to its effect, idle and under load; starts with each module
  growth      the cost with more rules, live keys, workers and hops
  pace        latency and throughput with one worker and two, memory

  calls       what a request asks of the host, counted: exact

Prints tables, and writes target/weir/bench.json. All of it takes about a quarter of an hour.

Options:
  --rounds <n>     rounds that count, after one that warms up (default 5)
  --requests <n>   requests per variant and round (default 20000; where there is an upstream, a
                   quarter of it)
  --only <words>   only what has one of these words in its name, comma-separated: names are those of
                   the list above, and those of variants, such as `trace: weir, mints`. Of costs, no
                   filter and the module that does nothing are always there
  --against <file> measure another build of weir_rate_limit.wasm as well, in the same rounds;
                   may be given several times
  --update         only write docs/performance/host-calls.md anew, with the counts of the built
                   modules; with --only edits or --only growth: measure, and write
                   docs/performance/edits.md or growth.md and its plot

Examples: cargo xtask bench -- --rounds 9 --only limit
          cargo xtask bench -- --only 'trace: weir,deadlines'";

pub struct Options {
    pub rounds: usize,
    pub requests: u64,
    pub only: Vec<String>,
    pub against: Vec<PathBuf>,
    /// Write the pages of the documentation that hold the figures.
    pub update: bool,
}

impl Options {
    /// Whether that was asked for.
    pub fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word))
    }
}

pub enum Action {
    Help,
    Update,
    Run(Options),
}

pub fn read() -> Result<Action, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut options = Options {
        rounds: 5,
        requests: 20_000,
        only: Vec::new(),
        against: Vec::new(),
        update: false,
    };
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
            Long("update") => options.update = true,
            other => return Err(other.unexpected()),
        }
    }
    let is_of_counts = options.update && options.only.is_empty();
    Ok(if is_of_counts { Action::Update } else { Action::Run(options) })
}

fn positive(number: usize, option: &str) -> Result<usize, lexopt::Error> {
    if number == 0 { Err(format!("{option} must be at least 1").into()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose() {
        let only = |words: &[&str]| Options {
            rounds: 1,
            requests: 1,
            only: words.iter().map(|word| (*word).to_owned()).collect(),
            against: Vec::new(),
            update: false,
        };
        assert!(only(&[]).wants("trace: weir, mints"));
        assert!(only(&["trace"]).wants("trace: weir, mints"));
        assert!(only(&["lua", "mints"]).wants("trace: weir, mints"));
        assert!(!only(&["limit"]).wants("trace: weir, mints"));
    }
}
