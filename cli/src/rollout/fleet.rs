//! The folders of a rollout, and the Envoys that read them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use super::folder::{Content, Folder};
use crate::live::{Admin, Reading};
use crate::url::Url;

pub struct Member {
    path: PathBuf,
    folder: Result<Folder, String>,
    /// Why it could not be written.
    failed: Option<String>,
    pub admin: Option<Admin>,
    /// By at least one of its files.
    pub is_written: bool,
}

pub struct Fleet {
    /// Those that are watched come first.
    pub members: Vec<Member>,
}

impl Fleet {
    pub fn gather(folders: &[String], admins: &[Url], content: &Content) -> anyhow::Result<Fleet> {
        let mut members = Vec::new();
        for text in folders {
            let (path, admin) = match text.rsplit_once("=http") {
                Some((path, _)) => match Url::read(&text[path.len() + 1..]) {
                    Ok(url) => (path, Some(Admin::new(url))),
                    Err(error) => bail!("--ecds {text}: {error}"),
                },
                None => (text.as_str(), None),
            };
            let path = PathBuf::from(path);
            let folder = Folder::read(&path, content).map_err(|error| format!("{error:#}"));
            members.push(Member { path, folder, failed: None, admin, is_written: false });
        }
        match (&mut members[..], admins) {
            ([member], [admin]) => member.admin = Some(Admin::new(admin.clone())),
            _ => {
                let mut admins = admins.iter().cloned().map(Admin::new);
                admins.try_for_each(|admin| assign(&mut members, admin))?;
            }
        }
        members.sort_by_key(|member| member.admin.is_none());
        Ok(Fleet { members })
    }

    /// Envoys whose folder has the new policy.
    pub fn watched(&self) -> impl Iterator<Item = (&Member, &Admin)> {
        let written = self.members.iter().filter(|member| member.is_written);
        written.filter_map(|member| Some((member, member.admin.as_ref()?)))
    }

    pub fn to_do(&self) -> usize {
        self.members.iter().filter(|member| member.is_to_do()).count()
    }

    pub fn written(&self) -> usize {
        self.members.iter().filter(|member| member.is_written).count()
    }
}

impl Member {
    pub fn name(&self) -> String {
        match &self.admin {
            Some(admin) => format!("{} ({})", self.path.display(), admin.url),
            None => self.path.display().to_string(),
        }
    }

    pub fn is_to_do(&self) -> bool {
        !self.is_written
            && self.failed.is_none()
            && self.folder.as_ref().is_ok_and(|folder| !folder.is_same())
    }

    /// Has no effect on what cannot be written: that is a laggard then.
    pub fn put(&mut self) {
        let Ok(folder) = &self.folder else { return };
        match folder.put() {
            Ok(()) => self.is_written = true,
            Err(unput) => {
                self.is_written = unput.is_torn;
                self.failed = Some(unput.why);
            }
        }
    }

    pub fn take_back(&mut self) -> anyhow::Result<()> {
        if let Ok(folder) = &self.folder {
            folder.take_back()?;
        }
        self.is_written = false;
        Ok(())
    }

    /// What will be done, in words.
    pub fn plan(&self) -> String {
        let plan = match &self.folder {
            Err(error) => format!("cannot be done: {error}"),
            Ok(folder) if folder.is_same() => "has the policy already".to_owned(),
            Ok(folder) => {
                let each = folder.resources().map(|(name, version)| match version {
                    Some(version) => format!("{name}, now version {version}"),
                    None => format!("{name}, now without a version"),
                });
                each.collect::<Vec<_>>().join("; ")
            }
        };
        format!("{}: {plan}", self.name())
    }

    /// Whether Envoy runs this version (or, of none, what the files held before) in each filter of the folder.
    pub fn runs(&self, reading: &Reading, version: Option<&str>) -> bool {
        self.folder.as_ref().is_ok_and(|folder| {
            folder.resources().all(|(name, before)| {
                let found = reading.resources.iter().find(|resource| resource.name == name);
                found.is_some_and(|resource| resource.in_force.as_deref() == version.or(before))
            })
        })
    }

    /// Why this one does not have the version, if so.
    pub fn lags(&self, number: u32) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(why.clone());
        }
        let folder = match &self.folder {
            Ok(folder) if self.is_written || folder.is_same() => folder,
            Ok(_) => return Some("was not written".to_owned()),
            Err(error) => return Some(error.clone()),
        };
        let reading = match Reading::take(self.admin.as_ref()?) {
            Ok(reading) => reading,
            Err(error) => return Some(format!("{error:#}")),
        };
        // Files that held the policy before may call it by another version.
        if reading.numbers().contains(&number)
            && (!self.is_written || self.runs(&reading, Some(&number.to_string())))
        {
            return None;
        }
        let versions = folder.resources().map(|(name, _)| {
            let found = reading.resources.iter().find(|resource| resource.name == name);
            match found.map(|resource| resource.in_force.as_deref().unwrap_or("without a name")) {
                Some(version) => format!("{name} still runs version {version}"),
                None => format!("the Envoy reads no {name}"),
            }
        });
        Some(versions.collect::<Vec<_>>().join(", "))
    }
}

/// Envoy tells which files it watches.
fn assign(members: &mut [Member], admin: Admin) -> anyhow::Result<()> {
    let dump = admin.json("/config_dump")?;
    let mut watched = Vec::new();
    paths(&dump, &mut watched);
    let reads = |member: &&mut Member| {
        member.folder.as_ref().is_ok_and(|folder| folder.is_read_at(&watched))
    };
    match members.iter_mut().find(reads) {
        Some(member) => member.admin = Some(admin),
        None => {
            let watched: Vec<_> = watched.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "{} reads {}, which is in none of the folders; say DIR={} if it is mounted or synced",
                admin.url,
                if watched.is_empty() {
                    "no discovery file".to_owned()
                } else {
                    watched.join(", ")
                },
                admin.url
            );
        }
    }
    Ok(())
}

fn paths(value: &Value, found: &mut Vec<PathBuf>) {
    match value {
        Value::Object(fields) => {
            if let Some(path) =
                fields.get("path_config_source").and_then(|source| source["path"].as_str())
            {
                found.push(Path::new(path).to_owned());
            }
            fields.values().for_each(|value| paths(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| paths(value, found)),
        _ => {}
    }
}
