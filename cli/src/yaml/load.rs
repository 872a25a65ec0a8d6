//! From text to trees.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks, Tag};

use super::{Entry, Item, Node, Scalar, Span, Value};

/// A policy nests less, and what walks a tree does so on the stack.
const MAX_DEPTH: usize = 64;

/// Aliases may copy so much in all: a few lines of them can name billions of nodes.
const MAX_COPIES: usize = 100_000;

/// What is wrong with a text, before anybody knows what it should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub code: &'static str,
    pub span: Span,
    pub text: String,
    /// Another place that has to do with it, and what stands there.
    pub other: Option<(Span, &'static str)>,
}

impl Trouble {
    fn new(code: &'static str, span: Span, text: impl Into<String>) -> Trouble {
        Trouble { code, span, text: text.into(), other: None }
    }
}

/// The documents of a text. With trouble there may be fewer of them.
pub fn load(text: &str) -> (Vec<Node>, Vec<Trouble>) {
    let mut loader = Loader {
        places: Places::new(text),
        documents: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        copies: 0,
        troubles: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let (event, marks) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = loader.places.byte(error.marker().index());
                let end = text.get(at..).and_then(|rest| rest.chars().next());
                let span = at..at + end.map_or(0, char::len_utf8);
                let text = format!("this is not YAML: {}", error.info());
                loader.troubles.push(Trouble::new("syntax", span, text));
                return (Vec::new(), loader.troubles);
            }
        };
        if loader.take(event, marks).is_none() {
            return (Vec::new(), loader.troubles);
        }
    }
    (loader.documents, loader.troubles)
}

struct Loader {
    places: Places,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copies: usize,
    troubles: Vec<Trouble>,
}

/// A list or map whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Span)>,
}

impl Loader {
    /// `None` where going on makes no sense.
    fn take(&mut self, event: Event<'_>, marks: Marks) -> Option<()> {
        let span = self.places.span(&marks);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), &span);
                self.put(Node { span, value: Value::Scalar(value) }, anchor, Some(&text));
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag, &span);
                self.open(Node { span, value: Value::List(Vec::new()) }, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag, &span);
                self.open(Node { span, value: Value::Map(Vec::new()) }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { mut node, anchor, .. } = self.open.pop()?;
                node.span.end = span.end.max(node.span.start);
                self.put(node, anchor, None);
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                // Inside of itself an anchor has no node yet.
                let Some(node) = known else {
                    let text = "the anchor of this alias is not complete here";
                    self.troubles.push(Trouble::new("syntax", span, text));
                    return None;
                };
                self.copies += size(node);
                if self.copies > MAX_COPIES {
                    let text = "aliases copy more than 100000 values in all; write them out";
                    self.troubles.push(Trouble::new("syntax", span, text));
                    return None;
                }
                let node = node.clone();
                let key = node.text().map(str::to_string);
                self.put(Node { span, ..node }, 0, key.as_deref());
            }
            _ => {}
        }
        Some(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.refuse_key(&node.span);
        if self.open.len() >= MAX_DEPTH {
            let text = "the file is nested more than 64 levels deep";
            self.troubles.push(Trouble::new("syntax", first_char(&node.span), text));
            return None;
        }
        self.open.push(Open { node, anchor, key: None });
        Some(())
    }

    /// A list or map where a key should be.
    fn refuse_key(&mut self, span: &Span) {
        if let Some(Open { node: Node { value: Value::Map(_), .. }, key: None, .. }) =
            self.open.last()
        {
            let text = "a list or map stands where a field name should be";
            self.troubles.push(Trouble::new("syntax", first_char(span), text));
        }
    }

    /// A finished node goes where it belongs. `text` is that of a scalar.
    fn put(&mut self, node: Node, anchor: usize, text: Option<&str>) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return;
        };
        match &mut open.node.value {
            Value::List(items) => items.push(Item { place: items.len(), node }),
            Value::Map(entries) => match open.key.take() {
                None => {
                    let key = text.unwrap_or_default().to_string();
                    if key == "<<" {
                        let text = "`<<` is a merge key, which not every reader knows; write the fields out";
                        self.troubles.push(Trouble::new("ambiguous", node.span.clone(), text));
                    }
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        self.troubles.push(Trouble {
                            other: Some((first.key_span.clone(), "first given here")),
                            ..Trouble::new(
                                "duplicate-key",
                                node.span.clone(),
                                format!("`{key}` is given twice; keep one"),
                            )
                        });
                    }
                    open.key = Some((key, node.span));
                }
                Some((key, key_span)) => entries.push(Entry { key, key_span, node }),
            },
            Value::Scalar(_) => {}
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Scalar {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if let Some(tag) = tag.filter(|_| !is_text) {
            self.foreign_tag(tag, span);
        }
        if style != ScalarStyle::Plain || is_text {
            return Scalar::Text(text.to_string());
        }
        match Scalar::plain(text) {
            Ok(scalar) => scalar,
            Err(ways) => {
                let text_of = format!("`{text}` {ways}; put it in quotes: \"{text}\"");
                let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
                let or = if number { ", or write the number in plain decimal digits" } else { "" };
                self.troubles.push(Trouble::new(
                    "ambiguous",
                    span.clone(),
                    format!("{text_of}{or}"),
                ));
                Scalar::Text(text.to_string())
            }
        }
    }

    fn refuse_tag(&mut self, tag: Option<Cow<'_, Tag>>, span: &Span) {
        if let Some(tag) = tag {
            self.foreign_tag(&tag, span);
        }
    }

    fn foreign_tag(&mut self, tag: &Tag, span: &Span) {
        let text = format!("`{tag}` is a tag, and a policy needs none; remove it");
        self.troubles.push(Trouble::new("syntax", first_char(span), text));
    }
}

fn first_char(span: &Span) -> Span {
    span.start..span.start + 1
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(|item| size(&item.node)).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
    }
}

/// From the parser's count of characters to bytes.
struct Places {
    /// Empty where all is ASCII.
    bytes: Vec<usize>,
    length: usize,
}

impl Places {
    fn new(text: &str) -> Places {
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(byte, _)| byte).collect(),
        };
        Places { bytes, length: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        if self.bytes.is_empty() {
            return index.min(self.length);
        }
        self.bytes.get(index).copied().unwrap_or(self.length)
    }

    fn span(&self, marks: &Marks) -> Span {
        let start = self.byte(marks.start.index());
        start..self.byte(marks.end.index()).max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn troubles(text: &str) -> Vec<(&'static str, String)> {
        let cut = |trouble: Trouble| (trouble.code, text.get(trouble.span).unwrap().to_string());
        load(text).1.into_iter().map(cut).collect()
    }

    #[test]
    fn troubles_say_where() {
        assert_eq!(troubles("a: 1\nb: 2\na: 3\n"), [("duplicate-key", "a".into())]);
        assert_eq!(troubles("ä: [x, ü, yes]\n"), [("ambiguous", "yes".into())]);
        assert_eq!(troubles("mode: OFF # why\n"), [("ambiguous", "OFF".into())]);
        assert_eq!(troubles("a: &x {b: 1}\nc: {<<: *x}\n"), [("ambiguous", "<<".into())]);
        assert_eq!(troubles("a: !!int 1\n").len(), 1);
        assert_eq!(troubles("? [a]\n: b\n").len(), 1);
        assert_eq!(troubles("a: !!str yes\nb: 'no'\nc: \"off\"\n"), []);
        assert_eq!(troubles("a: [1\n")[0].0, "syntax");
        assert_eq!(troubles("a:\n\t- b\n")[0].0, "syntax");
    }

    #[test]
    fn depth_and_copies_are_bounded() {
        assert_eq!(troubles(&"[".repeat(100_000))[0].0, "syntax");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..20 {
            let before = format!("*a{}", n - 1);
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", ")));
        }
        let found = load(&bomb).1;
        assert!(found[0].text.contains("100000"), "{found:?}");
        assert_eq!(troubles("a: &a [*a]\n")[0].0, "syntax");
    }

    #[test]
    fn aliases_are_copies() {
        let (documents, troubles) = load("a: &x {b: 1}\nc: *x\n");
        assert_eq!(troubles, []);
        let b = documents[0].get("c").and_then(|c| c.get("b")).unwrap();
        assert!(matches!(b.value, Value::Scalar(Scalar::Unsigned(1))));
    }
}
