//! Findings for people, with the lines they are about, and for programs.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::finding::{Finding, Severity};
use crate::yaml::Span;

/// A finding with the lines that it is about.
pub fn text(finding: &Finding, file: &str, source: &str) -> String {
    let shown = if finding.is_secret { masked(source, &finding.span) } else { source.to_string() };
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let primary = AnnotationKind::Primary.span(first_line(&shown, &finding.span));
    let other = finding
        .other
        .as_ref()
        .map(|(span, label)| AnnotationKind::Context.span(first_line(&shown, span)).label(*label));
    let snippet = Snippet::source(shown.as_str()).path(file).annotation(primary).annotations(other);
    let title = level.primary_title(finding.text()).id(finding.code);
    let report = [title.element(snippet)];
    Renderer::plain().decor_style(DecorStyle::Ascii).render(&report)
}

fn json(finding: &Finding, source: &str) -> Value {
    let span = first_line(source, &finding.span);
    let ((line, column), (_, end_column)) = (place(source, span.start), place(source, span.end));
    json!({
        "severity": finding.severity.word(),
        "code": finding.code,
        "line": line,
        "column": column,
        "end_column": end_column,
        "path": finding.path,
        "value": finding.value,
        "message": finding.remedy,
    })
}

/// All findings about a file.
pub fn file(findings: &[Finding], name: &str, source: &str) -> Value {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    json!({
        "file": name,
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "findings": findings.iter().map(|finding| json(finding, source)).collect::<Vec<_>>(),
    })
}

/// Line and column of a byte, both from 1; columns count characters.
pub fn place(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte).unwrap_or(source);
    let line = before.rfind('\n').map_or(before, |end| before.get(end + 1..).unwrap_or_default());
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// A list or map over many lines is pointed at by its first one.
fn first_line(source: &str, span: &Span) -> Span {
    let text = source.get(span.clone()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim_end();
    let end = span.start + line.len();
    span.start.min(source.len())..end.min(source.len())
}

fn masked(source: &str, span: &Span) -> String {
    let hide = |text: &str| text.replace(|c: char| !c.is_whitespace(), "*");
    let part = |range: Span| source.get(range).unwrap_or_default();
    [part(0..span.start), &hide(part(span.clone())), part(span.end..source.len())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_in_characters() {
        assert_eq!(place("ab\nüx", 0), (1, 1));
        assert_eq!(place("ab\nüx", 2), (1, 3));
        assert_eq!(place("ab\nüx", 5), (2, 2));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(masked("a: geheim\nb: c\n", &(3..9)), "a: ******\nb: c\n");
    }
}
