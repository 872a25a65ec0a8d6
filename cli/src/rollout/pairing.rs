//! Which Envoy reads which folder.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use super::envoy::Envoy;
use super::fleet::{Fleet, Member};
use super::folder::Content;
use crate::live::Admin;
use crate::url::Url;

/// Reads the folders, and asks the Envoys.
pub fn gather(folders: &[String], admins: &[Url], content: &Content) -> anyhow::Result<Fleet> {
    let mut members: Vec<Member> = Vec::new();
    for text in folders {
        let (path, url) = match text.rsplit_once("=http") {
            Some((path, _)) => match Url::read(&text[path.len() + 1..]) {
                Ok(url) => (path, Some(url)),
                Err(error) => bail!("--ecds {text}: {error}"),
            },
            None => (text.as_str(), None),
        };
        let path = PathBuf::from(path);
        let is_known = |member: &Member| {
            member.path == path
                || canonical(&path).is_some_and(|p| canonical(&member.path) == Some(p))
        };
        let place = members.iter().position(is_known).unwrap_or(members.len());
        if place == members.len() {
            members.push(Member::new(path, content));
        }
        let envoys = url.map(|url| Envoy::new(&members[place].path, url));
        members[place].envoys.extend(envoys);
    }
    let mut lost = Vec::new();
    for url in admins {
        let dump = match Admin::new(url.clone()).json("/config_dump") {
            Ok(dump) => dump,
            Err(error) => {
                // With one folder alone, there is no question which one it reads.
                match &mut members[..] {
                    [member] => member.envoys.push(Envoy::new(&member.path, url.clone())),
                    _ => lost.push(format!("{error:#}, so nobody knows what it reads")),
                }
                continue;
            }
        };
        let mut watched = Vec::new();
        paths(&dump, &mut watched);
        let member = pick(&mut members, &watched, url)?;
        member.envoys.push(Envoy::new(&member.path, url.clone()));
    }
    members.sort_by_key(|member| member.envoys.is_empty());
    Ok(Fleet { members, lost })
}

/// The folder with one of the files that an Envoy watches.
fn pick<'m>(
    members: &'m mut [Member],
    watched: &[PathBuf],
    url: &Url,
) -> anyhow::Result<&'m mut Member> {
    let theirs: Vec<PathBuf> = watched.iter().filter_map(|path| canonical(path)).collect();
    let reads = |member: &Member| match &member.folder {
        Ok(folder) => folder.paths().filter_map(canonical).any(|path| theirs.contains(&path)),
        // What cannot be read is a laggard, with its Envoy.
        Err(_) => canonical(&member.path)
            .is_some_and(|path| theirs.iter().any(|file| file.starts_with(&path))),
    };
    // An Envoy elsewhere, such as in a container, calls the folder by another name.
    let is_elsewhere = !watched.is_empty() && theirs.is_empty();
    let place = match members.iter().position(reads) {
        None if members.len() == 1 && is_elsewhere => Some(0),
        place => place,
    };
    match place.and_then(|place| members.get_mut(place)) {
        Some(member) => Ok(member),
        None => {
            let watched: Vec<_> = watched.iter().map(|path| path.display().to_string()).collect();
            let read = match watched.is_empty() {
                true => "no discovery file".to_owned(),
                false => watched.join(", "),
            };
            bail!(
                "{url} reads {read}, which is in none of the folders; say DIR={url} if it is mounted or synced"
            )
        }
    }
}

fn canonical(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
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
