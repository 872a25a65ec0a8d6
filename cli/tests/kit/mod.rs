//! Runs the command as `main` does, on files of its own.

#![allow(dead_code)] // Each test binary uses its part.

pub mod agent;
pub mod registry;
pub mod tokens;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use weir_cli::{Cli, Verdict};

/// What a command says, and its verdict.
pub fn weir(args: &[&str]) -> (Verdict, String) {
    let mut out = Vec::new();
    let cli = Cli::read(std::iter::once("weir").chain(args.iter().copied()));
    let verdict = cli.and_then(|cli| weir_cli::run(&cli, &mut out)).unwrap_or_else(|error| {
        out = format!("{error:#}").into_bytes();
        Verdict::Unable
    });
    (verdict, String::from_utf8(out).unwrap())
}

/// A folder that goes with the value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-cli-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a file, and gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One case of a table: a file, and the answer.
pub struct Case {
    pub name: String,
    pub text: String,
    pub says: String,
}

/// Reads a table of cases, lets `answer` answer each, and compares. WEIR_BLESS=1 writes the answers
/// into the table.
pub fn golden(table: &str, answer: impl Fn(&Case) -> String) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(table);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut parts = text.split("\n=== ");
    let head = parts.next().unwrap().to_string();
    let mut cases: Vec<Case> = parts
        .map(|part| {
            let (name, rest) = part.split_once('\n').unwrap();
            let (text, says) = rest.split_once("--- says\n").unwrap_or_else(|| {
                (rest.split_once("--- says").expect("each case has an answer").0, "")
            });
            Case { name: name.into(), text: text.into(), says: says.trim_end().into() }
        })
        .collect();
    let mut wrong = Vec::new();
    for case in &mut cases {
        let says = answer(case);
        let says = says.trim_end();
        if says != case.says {
            wrong.push(format!("{}:\nsays\n{says}\nnot\n{}", case.name, case.says));
            case.says = says.into();
        }
    }
    if std::env::var_os("WEIR_BLESS").is_some() {
        let each =
            cases.iter().map(|c| format!("\n=== {}\n{}--- says\n{}", c.name, c.text, c.says));
        std::fs::write(&path, format!("{head}{}\n", each.collect::<String>())).unwrap();
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
    cases
}
