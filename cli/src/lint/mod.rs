//! What a policy may say and hardly means to.

mod loose;
mod manifest;
mod reach;
mod secrets;

use weir_protos::FieldError;
use weir_protos::v1::Policy;

use crate::finding::{Finding, Severity};
use crate::source::Document;
use crate::yaml::Node;

/// From here on a policy needs server-side apply: the annotation of client-side apply ends at 256 KiB.
const LARGE: usize = 200 * 1024;

/// Warnings about a policy that has no errors.
pub fn all(document: &Document, text: &str) -> Vec<Finding> {
    let mut lint = Lint { root: &document.root, findings: Vec::new() };
    secrets::look(&document.root, &mut lint);
    if let Some(policy) = &document.policy {
        // It was decoded and compiled before, so this cannot fail.
        let _ = look(policy, text, &mut lint);
        if let Some(manifest) = &document.manifest {
            manifest::look(policy, manifest, &mut lint);
        }
    }
    lint.findings
}

fn look(policy: &Policy, text: &str, lint: &mut Lint<'_>) -> Result<(), FieldError> {
    if policy.name.is_empty() {
        let remedy =
            "is missing; state then lies under `default`, as that of every policy without a name";
        lint.warn("no-name", "policy.name", remedy);
    }
    if text.len() > LARGE {
        let remedy = format!(
            "takes {} KiB; from 200 KiB on `kubectl apply` needs --server-side",
            text.len() / 1024
        );
        lint.warn("large", "policy", remedy);
    }
    reach::look(policy, lint)?;
    loose::look(policy, lint)
}

/// Gathers warnings.
struct Lint<'d> {
    root: &'d Node,
    findings: Vec<Finding>,
}

impl Lint<'_> {
    /// `path` is that of the field, `remedy` goes on after it.
    fn warn(&mut self, code: &'static str, path: &str, remedy: impl Into<String>) {
        self.findings.push(Finding::warning(code, path, remedy, self.root));
    }

    /// About a place outside of the policy.
    fn warn_at(&mut self, code: &'static str, node: &Node, remedy: impl Into<String>) {
        self.findings.push(Finding {
            severity: Severity::Warning,
            code,
            path: String::new(),
            value: String::new(),
            remedy: remedy.into(),
            span: node.span.clone(),
            other: None,
            is_secret: false,
        });
    }
}
