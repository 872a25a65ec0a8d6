//! Log records as JSON lines in Envoy's log. Nothing of a request goes into one.

use log::{Level, LevelFilter, Log, Metadata, Record};
use proxy_wasm::types::LogLevel;
use weir_protos::v1::telemetry;

use crate::abi;

struct Logger;

static LOGGER: Logger = Logger;

/// Installs the logger; the second time and later it only sets the level.
pub fn start(level: telemetry::LogLevel) {
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(match level {
        telemetry::LogLevel::Debug => LevelFilter::Debug,
        telemetry::LogLevel::Info => LevelFilter::Info,
        telemetry::LogLevel::Error => LevelFilter::Error,
        telemetry::LogLevel::Warn | telemetry::LogLevel::Unspecified => LevelFilter::Warn,
    });
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug | Level::Trace => LogLevel::Debug,
        };
        abi::log(level, &line(record.level(), record.target(), &record.args().to_string()));
    }

    fn flush(&self) {}
}

fn line(level: Level, filter: &str, message: &str) -> String {
    let mut line =
        format!(r#"{{"level":"{}","filter":"{filter}","message":""#, level.as_str().to_lowercase());
    for c in message.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c.is_control() => line.push(' '),
            c => line.push(c),
        }
    }
    line.push_str("\"}");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json() {
        let line = line(Level::Error, "weir_rate_limit", "policy.name: \"a\\b\nc\"");
        assert_eq!(
            line,
            r#"{"level":"error","filter":"weir_rate_limit","message":"policy.name: \"a\\b c\""}"#
        );
    }
}
