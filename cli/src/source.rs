//! A policy file: its text, the policies in it, and what is wrong with them.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use weir_engine::breaker::Breaker;
use weir_engine::color::Painter;
use weir_engine::limit::Limiter;
use weir_engine::trace::Tracer;
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section, decode};

use crate::finding::Finding;
use crate::proxy::Module;
use crate::yaml::{self, Node};
use crate::{Format, report};

/// Under this name the engine runs here. State and messages do not depend on it.
pub const PLUGIN: &str = "weir";

/// A reader wants the first errors, not all of a file that is no policy.
const MAX_ERRORS: usize = 20;

pub struct File {
    pub name: String,
    pub text: String,
}

impl File {
    /// `-` is the standard input.
    pub fn read(path: &Path) -> anyhow::Result<File> {
        let name = path.display().to_string();
        let bytes = if name == "-" {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
                .context("cannot read the standard input")?;
            bytes
        } else {
            std::fs::read(path).with_context(|| format!("cannot read {name}"))?
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let (line, column) = {
                let valid = error.utf8_error().valid_up_to();
                let text = error.as_bytes().get(..valid).unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                report::place(&text, text.len())
            };
            anyhow::anyhow!("{name}:{line}:{column}: is not UTF-8 text")
        })?;
        Ok(File { name, text })
    }
}

/// One policy of a file.
pub struct Document {
    /// Where the policy stands.
    pub root: Node,
    /// The manifest around it.
    pub manifest: Option<Node>,
    /// As decoded, where it was.
    pub policy: Option<Policy>,
}

/// Which modules a policy is for: those whose sections stand in it, be they empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    pub trace: bool,
    pub color: bool,
    pub limit: bool,
    pub breaker: bool,
}

impl Sections {
    pub fn has(self, module: Module) -> bool {
        match module {
            Module::Trace => self.trace,
            Module::Color => self.color,
            Module::Limit => self.limit,
            Module::Breaker => self.breaker,
        }
    }
}

impl Document {
    pub fn sections(&self) -> Sections {
        let has = |snake: &str, camel: &str| {
            self.root.get(snake).or_else(|| self.root.get(camel)).is_some()
        };
        Sections {
            trace: has("trace_context", "traceContext"),
            color: has("traffic_color", "trafficColor"),
            limit: has("rate_limit", "rateLimit"),
            breaker: has("circuit_breaker", "circuitBreaker"),
        }
    }
}

/// The policies of a text, and what is wrong with them. A document without errors has its policy.
pub fn read(text: &str) -> (Vec<Document>, Vec<Finding>) {
    let (documents, troubles) = yaml::load(text);
    let mut findings: Vec<Finding> = troubles.into_iter().map(Finding::of_trouble).collect();
    if !findings.is_empty() {
        return (Vec::new(), findings);
    }
    let mut policies = match roots(documents) {
        Ok(policies) => policies,
        Err(finding) => return (Vec::new(), vec![*finding]),
    };
    for document in &mut policies {
        let errors = errors(&document.root);
        if errors.is_empty() {
            document.policy = decode(&document.root, Section::All).ok();
        }
        findings.extend(errors);
    }
    (policies, findings)
}

/// The only policy of a file; without one, the reason has been written to `out`.
pub fn one(file: &File, format: Format, out: &mut impl Write) -> anyhow::Result<Option<Document>> {
    let (mut documents, mut findings) = read(&file.text);
    if findings.is_empty() && documents.len() > 1 {
        let text = "the file holds more than one policy; give a file with one";
        findings.push(Finding::of_trouble(yaml::Trouble {
            code: "document",
            span: 0..0,
            text: text.into(),
            other: None,
        }));
    }
    if findings.is_empty() {
        return Ok(documents.pop());
    }
    match format {
        Format::Text => {
            for finding in &findings {
                writeln!(out, "{}\n", report::text(finding, &file.name, &file.text))?;
            }
        }
        Format::Json => {
            let files = [report::file(&findings, &file.name, &file.text)];
            writeln!(out, "{:#}", json!({ "is_valid": false, "files": files }))?;
        }
    }
    Ok(None)
}

/// Where the policies stand: a document is one, or a manifest that holds one.
fn roots(documents: Vec<Node>) -> Result<Vec<Document>, Box<Finding>> {
    let trouble = |span: yaml::Span, text: &str| {
        Box::new(Finding::of_trouble(yaml::Trouble {
            code: "document",
            span,
            text: text.into(),
            other: None,
        }))
    };
    let all = documents.len();
    let mut policies = Vec::new();
    let mut stranger = None;
    for node in documents {
        if node.get("apiVersion").is_none() || node.get("kind").is_none() {
            if all > 1 {
                let text = "the file holds several documents; a file is one policy, or manifests";
                return Err(trouble(node.span, text));
            }
            policies.push(Document { root: node, manifest: None, policy: None });
            continue;
        }
        let spec = node.get("spec");
        let root = match node.get("kind").and_then(Node::text) {
            Some("WasmPlugin") => spec.and_then(|spec| spec.get("pluginConfig")),
            Some("TrafficExtension") => {
                spec.and_then(|spec| spec.get("wasm")).and_then(|wasm| wasm.get("pluginConfig"))
            }
            _ => {
                stranger = Some(node.span);
                continue;
            }
        };
        let Some(root) = root.cloned() else {
            let text = "the manifest has no `pluginConfig`, where the policy stands";
            return Err(trouble(node.span, text));
        };
        policies.push(Document { root, manifest: Some(node), policy: None });
    }
    match (policies.is_empty(), stranger) {
        (true, Some(span)) => {
            let text =
                "the file holds no policy: of manifests, WasmPlugin and TrafficExtension have one";
            Err(trouble(span, text))
        }
        (true, None) => Err(trouble(0..0, "the file is empty; a policy has at least a `name`")),
        _ => Ok(policies),
    }
}

/// All errors of decoding, or else those of compiling every section.
fn errors(root: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tree = root.clone();
    while let Err(error) = decode(&tree, Section::All) {
        let (finding, found) = Finding::of_field("field", error, &tree);
        // Without what is wrong, the next error shows.
        let goes_on = tree.remove(&found.parts);
        findings.push(finding);
        if !goes_on || findings.len() >= MAX_ERRORS {
            break;
        }
    }
    if !findings.is_empty() {
        return findings;
    }
    for (section, compile) in SECTIONS {
        for finding in compile_errors(root, section, compile) {
            // What all sections read is said once.
            if !findings.contains(&finding) && findings.len() < MAX_ERRORS {
                findings.push(finding);
            }
        }
    }
    findings
}

type Compile = fn(&Policy) -> Result<(), FieldError>;

const SECTIONS: [(Section, Compile); 4] = [
    (Section::TraceContext, |policy| Tracer::compile(policy, PLUGIN).map(drop)),
    (Section::TrafficColor, |policy| Painter::compile(policy, PLUGIN).map(drop)),
    (Section::RateLimit, |policy| Limiter::compile(policy, PLUGIN, 0).map(drop)),
    (Section::CircuitBreaker, |policy| Breaker::compile(policy, PLUGIN).map(drop)),
];

fn compile_errors(root: &Node, section: Section, compile: Compile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tree = root.clone();
    while findings.len() < MAX_ERRORS {
        let compiled = decode(&tree, section).and_then(|policy| compile(&policy));
        let Err(error) = compiled else { break };
        let (finding, found) = Finding::of_field("field", error, &tree);
        let goes_on = tree.remove_rule(&found.parts);
        findings.push(finding);
        if !goes_on {
            break;
        }
    }
    findings
}
