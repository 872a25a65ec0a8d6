//! Generates the messages, and the table that the JSON reader walks, from the same descriptors, so
//! the two cannot disagree. `protox` stands in for protoc: no tool of the system is needed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::{env, error::Error, fs, path::Path};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=weir");
    let mut files = protox::compile(["weir/v1/policy.proto"], ["."])?;
    let table = Tables::collect(&files).render()?;
    keep_sections_undecoded(&mut files);
    prost_build::Config::new().btree_map(["."]).compile_fds(files)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("tables.rs"), table)?;
    Ok(())
}

/// The sections of a policy become bytes of the same wire form: a module decodes the one that it runs,
/// and holds no code for the others.
fn keep_sections_undecoded(files: &mut FileDescriptorSet) {
    let messages = files.file.iter_mut().flat_map(|file| &mut file.message_type);
    for policy in messages.filter(|message| message.name() == "Policy") {
        for field in policy.field.iter_mut().filter(|field| field.number() >= FIRST_SECTION) {
            field.set_type(Type::Bytes);
            field.type_name = None;
            // This one means something where it is empty: all defaults, and not nothing at all.
            field.proto3_optional = Some(field.name() == "trace_context");
        }
    }
}

/// The filter sections of `Policy` are numbered from here up.
const FIRST_SECTION: i32 = 10;

#[derive(Default)]
struct Tables {
    messages: Vec<(String, DescriptorProto)>,
    enums: Vec<(String, EnumDescriptorProto)>,
    entries: HashMap<String, DescriptorProto>,
}

impl Tables {
    fn collect(files: &FileDescriptorSet) -> Tables {
        let mut tables = Tables::default();
        for file in &files.file {
            if file.package() != "weir.v1" {
                continue;
            }
            let scope = format!(".{}", file.package());
            for message in &file.message_type {
                tables.add(&scope, message);
            }
        }
        // The table starts with the policy itself.
        tables.messages.sort_by_key(|(name, _)| name != ".weir.v1.Policy");
        tables
    }

    fn add(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for item in &message.enum_type {
            self.enums.push((format!("{name}.{}", item.name()), item.clone()));
        }
        for nested in &message.nested_type {
            if nested.options.as_ref().is_some_and(|options| options.map_entry()) {
                self.entries.insert(format!("{name}.{}", nested.name()), nested.clone());
            } else {
                self.add(&name, nested);
            }
        }
        self.messages.push((name, message.clone()));
    }

    fn render(&self) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        writeln!(out, "pub(crate) static MESSAGES: &[Message] = &[")?;
        for (name, message) in &self.messages {
            writeln!(
                out,
                "    Message {{ name: {:?}, fields: &[",
                name.trim_start_matches(".weir.v1.")
            )?;
            for field in &message.field {
                writeln!(out, "        {},", self.field(field)?)?;
            }
            writeln!(out, "    ] }},")?;
        }
        writeln!(out, "];\npub(crate) static ENUMS: &[&[(&str, i32)]] = &[")?;
        for (_, item) in &self.enums {
            let named = item.value.iter().filter(|value| value.number() != 0);
            let values: Vec<String> =
                named.map(|value| format!("({:?}, {})", value.name(), value.number())).collect();
            writeln!(out, "    &[{}],", values.join(", "))?;
        }
        writeln!(out, "];")?;
        Ok(out)
    }

    fn field(&self, field: &FieldDescriptorProto) -> Result<String, Box<dyn Error>> {
        let entry = self.entries.get(field.type_name());
        let (shape, kind) = match (entry, field.label()) {
            (Some(entry), _) => ("Map", self.kind(entry.field.get(1).ok_or("map without value")?)?),
            (None, Label::Repeated) => ("Repeated", self.kind(field)?),
            (None, _) => ("Single", self.kind(field)?),
        };
        let group = match field.oneof_index {
            Some(_) if field.proto3_optional() => 0,
            Some(index) => index + 1,
            None => 0,
        };
        Ok(format!(
            "Field {{ name: {:?}, json: {:?}, number: {}, shape: Shape::{shape}, kind: {kind}, oneof: {group} }}",
            field.name(),
            field.json_name(),
            field.number(),
        ))
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Result<String, Box<dyn Error>> {
        let place = |list: Vec<&String>| {
            list.iter()
                .position(|name| *name == field.type_name())
                .ok_or_else(|| format!("{}: unknown type {}", field.name(), field.type_name()))
        };
        Ok(match field.r#type() {
            Type::Bool => "Kind::Bool".into(),
            Type::Uint32 => "Kind::Uint32".into(),
            Type::Uint64 => "Kind::Uint64".into(),
            Type::Double => "Kind::Double".into(),
            Type::String => "Kind::String".into(),
            Type::Message if field.type_name() == ".google.protobuf.Duration" => {
                "Kind::Duration".into()
            }
            Type::Message => {
                format!(
                    "Kind::Message({})",
                    place(self.messages.iter().map(|(name, _)| name).collect())?
                )
            }
            Type::Enum => {
                format!("Kind::Enum({})", place(self.enums.iter().map(|(name, _)| name).collect())?)
            }
            other => {
                return Err(format!("{}: the JSON reader has no {other:?}", field.name()).into());
            }
        })
    }
}
