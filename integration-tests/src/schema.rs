//! The fields of the policy's schema, for tests that want a case for each.

use crate::paths;
use std::collections::BTreeSet;

/// `Message.field` of all fields in these files of `protos/weir/v1`, enums left out.
pub fn fields(files: &[&str]) -> BTreeSet<String> {
    let directory = paths::root().join("protos/weir/v1");
    let mut fields = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(directory.join(file));
        let text = text.unwrap_or_else(|e| panic!("{file} is part of the schema: {e}"));
        read_fields(&text, &mut fields);
    }
    fields
}

fn read_fields(text: &str, fields: &mut BTreeSet<String>) {
    // Open blocks, innermost last; a block that is no message (oneof, enum) has its keyword.
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind @ ("message" | "enum" | "oneof")), Some(name)) if line.ends_with('{') => {
                blocks.push((kind, name));
            }
            (Some("}"), _) => {
                blocks.pop();
            }
            (Some(first), _)
                if line.ends_with(';') && !blocks.is_empty() && !first.starts_with("//") =>
            {
                if blocks.last().is_some_and(|(kind, _)| *kind == "enum") {
                    continue;
                }
                let declaration = line.split('=').next().unwrap_or_default().trim();
                let name = declaration.rsplit(' ').next().unwrap_or_default();
                let path = blocks.iter().filter(|(kind, _)| *kind == "message");
                let path: Vec<_> = path.map(|(_, name)| *name).collect();
                fields.insert(format!("{}.{name}", path.join(".")));
            }
            _ => {}
        }
    }
}
