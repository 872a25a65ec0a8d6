//! The `weir` command, run within this process.

use crate::wait::{DEADLINE, wait_until};
use std::ffi::OsString;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use weir_cli::{Cli, Verdict};

/// Runs it to its end: the verdict, or why it could not be done, and what it said.
pub fn weir<A: Into<OsString> + Clone>(
    args: impl IntoIterator<Item = A>,
) -> (Result<Verdict, String>, String) {
    let mut out = Vec::new();
    let verdict = Cli::read(args).and_then(|cli| weir_cli::run(&cli, &mut out));
    let said = String::from_utf8_lossy(&out).into_owned();
    (verdict.map_err(|error| format!("{error:#}")), said)
}

/// What the command says, while it runs.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    pub fn text(&self) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    pub fn await_text(&self, text: &str) {
        wait_until(&format!("{text:?} in {}", self.text()), DEADLINE, || {
            self.text().contains(text)
        });
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
