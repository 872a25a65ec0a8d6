//! `weir simulate` on a log of a million lines: how long it takes on one core.
//!
//! `cargo bench -p weir-cli` writes a log in Istio's default format (an hour of 280 requests a second
//! from 10 000 clients) and replays it through a limit for each client, one for all, and a breaker.

use std::io::{BufWriter, Write as _};
use std::time::Instant;

use weir_cli::{Cli, Verdict};

const LINES: u32 = 1_000_000;

const POLICY: &str = "\
name: bench
rate_limit:
  rules:
  - {id: all, match: {path: {prefix: /orders}}, max_tokens: 1000, tokens_per_fill: 250, fill_interval: 1s}
  - {id: per-client, key: [{source_address: {}}], max_tokens: 20, tokens_per_fill: 1, fill_interval: 60s}
circuit_breaker:
  rules:
  - {id: orders, match: {direction: ANY, path: {prefix: /orders}}, key: [{method: true}]}
";

fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (policy, log) = (folder.join("policy.yaml"), folder.join("access.log"));
    std::fs::write(&policy, POLICY)?;
    let mut file = BufWriter::new(std::fs::File::create(&log)?);
    for n in 0..LINES {
        let at = u64::from(n) * 36 / 10;
        let (minute, second, ms) = (at / 60_000, at / 1000 % 60, at % 1000);
        let client = n.wrapping_mul(2_654_435_761) >> 8;
        let (high, low) = (client / 256 % 40, client % 256);
        let status = if n % 50 == 0 { 503 } else { 200 };
        let path = if n % 3 == 0 { "/items" } else { "/orders" };
        writeln!(
            file,
            "[2026-11-24T12:{minute:02}:{second:02}.{ms:03}Z] \"GET {path}/{n} HTTP/1.1\" {status} - via_upstream - \
             \"-\" 0 120 15 12 \"10.1.{high}.{low}\" \"curl/8\" \"id-{n}\" \"shop.example\" \"10.2.0.1:80\" \
             inbound|80|| 127.0.0.6:5000 10.2.0.1:80 10.1.{high}.{low}:4000 outbound_.80_._.shop default"
        )?;
    }
    file.flush()?;
    let started = Instant::now();
    let paths = [&policy, &log].map(|path| path.as_os_str().to_owned());
    let [policy, log] = paths;
    let args = ["weir".into(), "simulate".into(), policy, "--log".into(), log];
    let mut out = Vec::new();
    let verdict = weir_cli::run(&Cli::read(args)?, &mut out)?;
    let took = started.elapsed();
    std::fs::remove_dir_all(&folder)?;
    assert_eq!(verdict, Verdict::Good);
    println!("{}", String::from_utf8_lossy(&out));
    println!("{LINES} lines in {:.2} s on one core", took.as_secs_f64());
    Ok(())
}
