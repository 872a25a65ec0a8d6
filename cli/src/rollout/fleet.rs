//! The folders of a rollout, and the Envoys that read them.

use std::path::PathBuf;

use super::envoy::Envoy;
use super::folder::{Content, Folder};
use crate::live::Reading;

pub struct Member {
    pub path: PathBuf,
    pub folder: Result<Folder, String>,
    /// Why it could not be written.
    failed: Option<String>,
    pub envoys: Vec<Envoy>,
    /// By at least one of its files.
    pub is_written: bool,
}

pub struct Fleet {
    /// Those that are watched come first.
    pub members: Vec<Member>,
    /// Envoys of which nobody knows what they read, since they are down.
    pub lost: Vec<String>,
}

impl Fleet {
    /// Envoys whose folder has the new policy.
    pub fn watched(&self) -> impl Iterator<Item = (&Folder, &Envoy)> {
        let written = self.members.iter().filter(|member| member.is_written);
        written.flat_map(Member::read_by)
    }

    pub fn watched_mut(&mut self) -> impl Iterator<Item = (&Folder, &mut Envoy)> {
        let written = self.members.iter_mut().filter(|member| member.is_written);
        written.flat_map(|Member { folder, envoys, .. }| {
            let folder = folder.as_ref().into_iter();
            folder
                .zip([envoys])
                .flat_map(|(folder, envoys)| envoys.iter_mut().map(move |envoy| (folder, envoy)))
        })
    }

    pub fn envoys(&self) -> impl Iterator<Item = &Envoy> {
        self.members.iter().flat_map(|member| &member.envoys)
    }

    pub fn to_do(&self) -> usize {
        self.members.iter().filter(|member| member.is_to_do()).count()
    }

    pub fn written(&self) -> usize {
        self.members.iter().filter(|member| member.is_written).count()
    }
}

impl Member {
    pub fn new(path: PathBuf, content: &Content) -> Member {
        let folder = Folder::read(&path, content).map_err(|error| format!("{error:#}"));
        Member { path, folder, failed: None, envoys: Vec::new(), is_written: false }
    }

    /// With its Envoy, where there is one.
    pub fn name(&self) -> String {
        match &self.envoys[..] {
            [envoy] => envoy.name.clone(),
            _ => self.path.display().to_string(),
        }
    }

    pub fn read_by(&self) -> impl Iterator<Item = (&Folder, &Envoy)> {
        let folder = self.folder.as_ref().into_iter();
        folder.flat_map(|folder| self.envoys.iter().map(move |envoy| (folder, envoy)))
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

    /// Who does not have the version, and why.
    pub fn lags(&self, number: u32) -> Vec<String> {
        let here = |why: &str| vec![format!("{}: {why}", self.name())];
        if let Some(why) = &self.failed {
            return here(why);
        }
        let folder = match &self.folder {
            Ok(folder) if self.is_written || folder.is_same() => folder,
            Ok(_) => return here("was not written"),
            Err(error) => return here(error),
        };
        let lags =
            |envoy: &Envoy| Some(format!("{}: {}", envoy.name, self.lag(folder, envoy, number)?));
        self.envoys.iter().filter_map(lags).collect()
    }

    fn lag(&self, folder: &Folder, envoy: &Envoy, number: u32) -> Option<String> {
        let reading = match Reading::take(&envoy.admin) {
            Ok(reading) => reading,
            Err(error) => return Some(format!("{error:#}")),
        };
        // Files that held the policy before may call it by another version.
        if reading.numbers().contains(&number)
            && (!self.is_written || folder.runs(&reading, Some(&number.to_string())))
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
