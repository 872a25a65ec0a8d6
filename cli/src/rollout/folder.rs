//! The resource files of one discovery folder, with a policy and without.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::replace::replace;
use crate::live::{Reading, is_module};
use crate::proxy::{MODULES, Module};
use crate::source::Sections;
use crate::yaml;

pub struct Folder {
    files: Vec<File>,
}

struct File {
    path: PathBuf,
    /// Brought back byte for byte.
    before: Vec<u8>,
    version_before: Option<String>,
    after: String,
    /// Of the filters that get the policy.
    resources: Vec<String>,
    is_same: bool,
}

/// What goes into the files.
pub struct Content<'p> {
    pub policy: &'p str,
    pub number: u32,
    pub sections: Sections,
}

impl Folder {
    /// Reads all files that hold resources for the policy; `path` may be one of them.
    pub fn read(path: &Path, content: &Content) -> anyhow::Result<Folder> {
        let mut paths = Vec::new();
        if path.is_dir() {
            for entry in
                fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?
            {
                let path = entry?.path();
                let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
                let is_hidden =
                    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if ["json", "yaml", "yml"].contains(&end) && !is_hidden {
                    paths.push(path);
                }
            }
            paths.sort();
        } else {
            paths.push(path.to_owned());
        }
        let mut files = Vec::new();
        for path in paths {
            files.extend(File::read(&path, content)?);
        }
        if files.is_empty() {
            bail!("no resource file (.json, .yaml) of a filter that the policy has a section for");
        }
        Ok(Folder { files })
    }

    /// Whether the policy is there already.
    pub fn is_same(&self) -> bool {
        self.files.iter().all(|file| file.is_same)
    }

    /// All files or none: what was done before one failed is taken back.
    pub fn put(&self) -> Result<(), Unput> {
        for (place, file) in self.files.iter().enumerate() {
            let Err(error) = replace(&file.path, &file.before, file.after.as_bytes()) else {
                continue;
            };
            let why = format!("{error:#}");
            return Err(match take_back(&self.files[..place]) {
                Ok(()) => Unput { why, is_torn: false },
                Err(error) => Unput { why: format!("{why}; {error:#}"), is_torn: true },
            });
        }
        Ok(())
    }

    pub fn take_back(&self) -> anyhow::Result<()> {
        take_back(&self.files)
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Whether Envoy runs this version (or, of none, what the files held before) in each filter of the folder.
    pub fn runs(&self, reading: &Reading, version: Option<&str>) -> bool {
        self.resources().all(|(name, before)| {
            let found = reading.resources.iter().find(|resource| resource.name == name);
            found.is_some_and(|resource| resource.in_force.as_deref() == version.or(before))
        })
    }

    /// Names of resources, and under which version each was there before.
    pub fn resources(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.files.iter().flat_map(|file| {
            file.resources.iter().map(|name| (name.as_str(), file.version_before.as_deref()))
        })
    }
}

/// Why a folder does not have the policy.
pub struct Unput {
    pub why: String,
    /// Some files have it all the same.
    pub is_torn: bool,
}

/// Tries all: one that fails keeps no other from what it was.
fn take_back(files: &[File]) -> anyhow::Result<()> {
    let each = files.iter().map(|file| {
        // Of a folder that is torn, some files are as they were.
        if fs::read(&file.path).is_ok_and(|now| now == file.before) {
            return Ok(());
        }
        replace(&file.path, file.after.as_bytes(), &file.before)
    });
    let errors: Vec<String> = each.filter_map(|done| Some(format!("{:#}", done.err()?))).collect();
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("; ")) }
}

impl File {
    /// `None` for a file that holds nothing of ours.
    fn read(path: &Path, content: &Content) -> anyhow::Result<Option<File>> {
        let shown = path.display();
        let before = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let text = std::str::from_utf8(&before).with_context(|| format!("{shown} is not UTF-8"))?;
        let (documents, troubles) = yaml::load(text);
        if let Some(trouble) = troubles.first() {
            bail!("{shown}: {}", trouble.text);
        }
        let Some(mut file) = documents.first().map(yaml::Node::to_json) else { return Ok(None) };
        let mut resources = Vec::new();
        let mut is_same = true;
        let listed = file.get_mut("resources").and_then(Value::as_array_mut);
        for resource in listed.into_iter().flatten() {
            if !is_module(resource) || !is_for(resource, content.sections) {
                continue;
            }
            let name = resource["name"].as_str().unwrap_or_default().to_owned();
            let plugin = resource.pointer_mut("/typed_config/config");
            let Some(plugin) = plugin.and_then(Value::as_object_mut) else {
                bail!("{shown}: {name}: typed_config.config must be that of a Wasm filter");
            };
            let known = plugin.get("configuration").and_then(|known| known.get("value"));
            is_same &= known.is_some_and(|value| value == content.policy);
            let policy = json!({
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": content.policy,
            });
            plugin.insert("configuration".to_owned(), policy);
            resources.push(name);
        }
        if resources.is_empty() {
            return Ok(None);
        }
        if fs::symlink_metadata(path)?.is_symlink() {
            bail!(
                "{shown} is a symbolic link, and Envoy notices no change behind one: name the folder of its file"
            );
        }
        let version_before = file["version_info"].as_str().map(str::to_owned);
        if let Some(file) = file.as_object_mut() {
            file.insert("version_info".to_owned(), content.number.to_string().into());
        }
        let is_json = path.extension().is_some_and(|end| end == "json");
        let after = if is_json { format!("{file:#}\n") } else { yaml::write(&file) };
        Ok(Some(File { path: path.to_owned(), version_before, after, resources, is_same, before }))
    }
}

/// A module of one filter gets no policy without a section of its own: that would switch it off.
fn is_for(resource: &Value, sections: Sections) -> bool {
    let config = &resource["typed_config"]["config"];
    let code = &config["vm_config"]["code"]["local"]["filename"];
    let names = [&resource["name"], &config["root_id"], code]
        .map(|name| name.as_str().unwrap_or_default().replace('-', "_"));
    let is_of = |module: &Module| names.iter().any(|name| name.contains(module.section()));
    MODULES.into_iter().find(is_of).is_none_or(|module| sections.has(module))
}

#[cfg(test)]
mod tests;
