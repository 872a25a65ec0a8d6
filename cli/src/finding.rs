//! What is wrong, or odd, in a file.

use weir_protos::FieldError;

use crate::yaml::{Found, Node, Span, Trouble};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Names the kind of finding: stable, for programs.
    pub code: &'static str,
    /// The field, from the root of the policy; empty where none is meant.
    pub path: String,
    /// The value as written; empty where there is none to show.
    pub value: String,
    /// What is wrong and what would be right.
    pub remedy: String,
    pub span: Span,
    /// Another place that has to do with it, and what stands there.
    pub other: Option<(Span, &'static str)>,
    /// Whether what stands at `span` must not be shown.
    pub is_secret: bool,
}

impl Finding {
    /// One line: the path, the value, what would be right.
    pub fn text(&self) -> String {
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        let value = if self.value.is_empty() { String::new() } else { format!("{} ", self.value) };
        format!("{path}{value}{}", self.remedy)
    }

    /// An error that the engine gave, at its place in the file.
    pub fn of_field(code: &'static str, error: FieldError, root: &Node) -> (Finding, Found) {
        let found = root.locate(&error.path);
        // About the field itself, not about what it says.
        let is_about_key = ["unknown field", "is given twice", "excludes", "is not built"];
        let is_about_key = error.value.is_empty()
            && is_about_key.iter().any(|start| error.remedy.starts_with(start));
        let key = found.key.clone().filter(|_| is_about_key || !found.is_scalar || !found.is_whole);
        let finding = Finding {
            severity: Severity::Error,
            code,
            path: found.path.clone(),
            value: error.value,
            remedy: error.remedy,
            span: key.unwrap_or_else(|| found.value.clone()),
            other: None,
            is_secret: false,
        };
        (finding, found)
    }

    pub fn of_trouble(trouble: Trouble) -> Finding {
        Finding {
            severity: Severity::Error,
            code: trouble.code,
            path: String::new(),
            value: String::new(),
            remedy: trouble.text,
            span: trouble.span,
            other: trouble.other,
            is_secret: false,
        }
    }

    pub fn warning(
        code: &'static str,
        path: &str,
        remedy: impl Into<String>,
        root: &Node,
    ) -> Finding {
        let found = root.locate(path);
        Finding {
            severity: Severity::Warning,
            code,
            path: path.to_string(),
            value: String::new(),
            remedy: remedy.into(),
            span: found.key.filter(|_| !found.is_scalar || !found.is_whole).unwrap_or(found.value),
            other: None,
            is_secret: false,
        }
    }
}
