//! Makes the JSON Schema of a policy from the descriptors of `protos/weir/v1`, comments included.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../protos/weir");
    let files = protox::compile(["weir/v1/policy.proto"], ["../protos"])?;
    let mut schema = Schema::default();
    for file in files.file.iter().filter(|file| file.package() == "weir.v1") {
        schema.read(file);
    }
    let text = format!("{:#}\n", schema.render()?);
    fs::write(Path::new(&env::var("OUT_DIR")?).join("policy.schema.json"), text)?;
    Ok(())
}

#[derive(Default)]
struct Schema {
    /// By full name, in the order of the files.
    messages: Vec<(String, DescriptorProto)>,
    enums: HashMap<String, EnumDescriptorProto>,
    /// What stands above a message, field or value, by full name.
    comments: HashMap<String, String>,
}

/// Numbers of `DescriptorProto` fields in the path of a comment.
const MESSAGE: i32 = 4;
const FIELD: i32 = 2;
const NESTED: i32 = 3;
const NESTED_ENUM: i32 = 4;
const VALUE: i32 = 2;

impl Schema {
    fn read(&mut self, file: &FileDescriptorProto) {
        let info = file.source_code_info.clone().unwrap_or_default();
        let comments: HashMap<Vec<i32>, String> = info
            .location
            .into_iter()
            .filter_map(|location| Some((location.path, location.leading_comments?)))
            .collect();
        for (place, message) in (0..).zip(&file.message_type) {
            self.add(&format!(".{}", file.package()), message, &[MESSAGE, place], &comments);
        }
    }

    fn add(
        &mut self,
        scope: &str,
        message: &DescriptorProto,
        path: &[i32],
        comments: &HashMap<Vec<i32>, String>,
    ) {
        let name = format!("{scope}.{}", message.name());
        let mut note = |of: String, path: &[i32]| {
            if let Some(text) = comments.get(path) {
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                self.comments.insert(of, lines.join(" ").trim().to_string());
            }
        };
        note(name.clone(), path);
        for (place, field) in (0..).zip(&message.field) {
            note(format!("{name}.{}", field.name()), &[path, &[FIELD, place]].concat());
        }
        for (place, item) in (0..).zip(&message.enum_type) {
            let of = format!("{name}.{}", item.name());
            for (number, value) in (0..).zip(&item.value) {
                let path = [path, &[NESTED_ENUM, place, VALUE, number]].concat();
                note(format!("{of}.{}", value.name()), &path);
            }
            self.enums.insert(of, item.clone());
        }
        self.messages.push((name.clone(), message.clone()));
        for (place, nested) in (0..).zip(&message.nested_type) {
            self.add(&name, nested, &[path, &[NESTED, place]].concat(), comments);
        }
    }

    fn render(&self) -> Result<Value, Box<dyn Error>> {
        let mut definitions = Map::new();
        let mut all: Vec<_> =
            self.messages.iter().filter(|(_, message)| !is_entry(message)).collect();
        all.sort_by_key(|(name, _)| name.clone());
        for (name, message) in all {
            if !message.field.is_empty() {
                definitions.insert(short(name), self.message(name, message)?);
            }
        }
        Ok(json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "A policy of weir",
            "allOf": [{ "$ref": "#/definitions/Policy" }],
            "definitions": definitions,
        }))
    }

    fn message(&self, name: &str, message: &DescriptorProto) -> Result<Value, Box<dyn Error>> {
        let (mut properties, mut camel) = (Map::new(), Map::new());
        for field in &message.field {
            let schema = self.field(name, message, field)?;
            if field.json_name() != field.name() {
                // Read as well, but editors are to propose one spelling.
                let same = format!("#/definitions/{}/properties/{}", short(name), field.name());
                camel.insert(format!("^{}$", field.json_name()), json!({ "$ref": same }));
            }
            properties.insert(field.name().to_string(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": properties,
        });
        let all = schema.as_object_mut().ok_or("an object")?;
        if let Some(text) = self.comments.get(name) {
            all.insert("description".into(), text.clone().into());
        }
        if !camel.is_empty() {
            all.insert("patternProperties".into(), camel.into());
        }
        // Of the fields of a oneof there is exactly one, in either spelling.
        let is_one =
            |field: &&FieldDescriptorProto| field.oneof_index.is_some() && !field.proto3_optional();
        let ways = message.field.iter().filter(is_one).flat_map(|field| {
            let (name, json_name) = (field.name(), field.json_name());
            [name].into_iter().chain((json_name != name).then_some(json_name))
        });
        let ways: Vec<Value> = ways.map(|name| json!({ "required": [name] })).collect();
        if !ways.is_empty() {
            all.insert("oneOf".into(), ways.into());
        }
        Ok(schema)
    }

    fn field(
        &self,
        name: &str,
        message: &DescriptorProto,
        field: &FieldDescriptorProto,
    ) -> Result<Value, Box<dyn Error>> {
        let entry = message.nested_type.iter().find(|nested| {
            is_entry(nested) && field.type_name() == format!("{name}.{}", nested.name())
        });
        let mut schema = match (entry, field.label()) {
            (Some(entry), _) => {
                let value = entry.field.get(1).ok_or("a map has values")?;
                json!({ "type": "object", "additionalProperties": self.kind(value)? })
            }
            (None, Label::Repeated) => json!({ "type": "array", "items": self.kind(field)? }),
            (None, _) => self.kind(field)?,
        };
        let mut text =
            self.comments.get(&format!("{name}.{}", field.name())).cloned().unwrap_or_default();
        if let Some(item) = self.enums.get(field.type_name()) {
            // The comment of the value that stands for none says what is taken then.
            let none = item.value.iter().find(|value| value.number() == 0);
            let of = none.map(|value| format!("{}.{}", field.type_name(), value.name()));
            let default = of.and_then(|of| self.comments.get(&of));
            if let Some(default) = default.filter(|_| !text.contains("Default")) {
                let is_name = default.chars().nth(1).is_some_and(|c| !c.is_lowercase());
                text.push_str(if is_name { " Default " } else { " Default: " });
                text.push_str(default);
            }
            for value in item.value.iter().filter(|value| value.number() != 0) {
                let of = format!("{}.{}", field.type_name(), value.name());
                if let Some(comment) = self.comments.get(&of) {
                    text.push_str(&format!(" {}: {comment}", value.name()));
                }
            }
        }
        if let (Some(all), false) = (schema.as_object_mut(), text.is_empty()) {
            all.insert("description".into(), text.trim().into());
        }
        Ok(schema)
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Result<Value, Box<dyn Error>> {
        let whole = |most: Option<u64>| {
            let mut number = json!({ "type": "integer", "minimum": 0 });
            if let (Some(all), Some(most)) = (number.as_object_mut(), most) {
                all.insert("maximum".into(), most.into());
            }
            // Many tools write large numbers as text.
            json!({ "oneOf": [number, { "type": "string", "pattern": "^[0-9]+$" }] })
        };
        Ok(match field.r#type() {
            Type::Bool => json!({ "type": "boolean" }),
            Type::Uint32 => whole(Some(u32::MAX.into())),
            Type::Uint64 => whole(None),
            Type::Double => json!({ "type": "number" }),
            Type::String => json!({ "type": "string" }),
            Type::Message if field.type_name() == ".google.protobuf.Duration" => {
                json!({ "type": "string", "pattern": "^[0-9]{1,12}(\\.[0-9]{1,9})?s$" })
            }
            Type::Message => {
                json!({ "allOf": [{ "$ref": format!("#/definitions/{}", short(field.type_name())) }] })
            }
            Type::Enum => {
                let item = self.enums.get(field.type_name()).ok_or("an enum that was read")?;
                let values = item.value.iter().filter(|value| value.number() != 0);
                json!({ "enum": values.map(|value| value.name()).collect::<Vec<_>>() })
            }
            other => return Err(format!("{}: no schema for {other:?}", field.name()).into()),
        })
    }
}

fn is_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn short(name: &str) -> String {
    name.trim_start_matches(".weir.v1.").to_string()
}
