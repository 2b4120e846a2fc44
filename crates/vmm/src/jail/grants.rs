//! What of the host's files a sandbox is granted: [`Grants`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lg_control::{Access, Image, SandboxSpec};
use lg_kernel::fs::host::host_paths;

/// Absolute paths of the host that may be reached, parents before what is in them.
pub struct Grants(BTreeMap<PathBuf, Access>);

/// Returns the spec with the host's symbolic links in its paths followed. What is not there stays, for whoever opens it
/// to say so.
pub fn resolved(mut spec: SandboxSpec) -> SandboxSpec {
    let follow = |path: &mut PathBuf| {
        if let Ok(real) = path.canonicalize() {
            *path = real;
        }
    };
    if let Image::Dir(path) = &mut spec.image {
        follow(path);
    }
    spec.mounts.iter_mut().for_each(|mount| follow(&mut mount.source));
    spec
}

impl Grants {
    /// What the image and the mounts need.
    ///
    /// # Errors
    /// The first path that the host can not look at, with what it said.
    pub fn of(spec: &SandboxSpec) -> Result<Grants, (PathBuf, io::Error)> {
        let mut grants = Grants(BTreeMap::new());
        for mount in &spec.mounts {
            grants.add(mount.source.clone(), mount.access);
        }
        match &spec.image {
            Image::Host => host_paths()?.into_iter().for_each(|path| grants.add(path, Access::ReadOnly)),
            Image::Dir(path) => grants.add(path.clone(), Access::ReadOnly),
        }
        grants.leave_out_what_is_inside();
        Ok(grants)
    }

    fn add(&mut self, path: PathBuf, access: Access) {
        let granted = self.0.entry(path).or_insert(access);
        if access == Access::ReadWrite {
            *granted = access;
        }
    }

    /// Forgets what lies in something that is granted with the same rights, or with more.
    fn leave_out_what_is_inside(&mut self) {
        let all = self.0.clone();
        let covers = |outer: &Path, access: Access| {
            all.get(outer).is_some_and(|outer| *outer == access || *outer == Access::ReadWrite)
        };
        self.0.retain(|path, access| !path.ancestors().skip(1).any(|outer| covers(outer, *access)));
    }

    /// All of them, parents first.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Access)> {
        self.0.iter().map(|(path, access)| (path.as_path(), *access))
    }

    /// Says whether something may be written.
    pub fn any_writable(&self) -> bool {
        self.0.values().any(|access| *access == Access::ReadWrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(mounts: &[(&str, Access)]) -> Vec<(String, Access)> {
        let spec = SandboxSpec::new(["true"]).image(Image::Dir("/srv/image".into()));
        let spec = mounts.iter().fold(spec, |spec, (path, access)| spec.mount(path, "/mnt", *access));
        Grants::of(&spec).unwrap().iter().map(|(path, access)| (path.display().to_string(), access)).collect()
    }

    #[test]
    fn what_lies_inside_another_grant_adds_nothing_but_the_right_to_write() {
        use Access::{ReadOnly as Ro, ReadWrite as Rw};
        let own = |path: &str, access| (path.to_owned(), access);
        assert_eq!(grants(&[]), [own("/srv/image", Ro)]);
        assert_eq!(grants(&[("/srv/image/usr", Ro)]), [own("/srv/image", Ro)]);
        assert_eq!(grants(&[("/srv/image/x", Rw)]), [own("/srv/image", Ro), own("/srv/image/x", Rw)]);
        assert_eq!(grants(&[("/srv", Rw)]), [own("/srv", Rw)]);
        assert_eq!(grants(&[("/a", Ro), ("/a", Rw)]), [own("/a", Rw), own("/srv/image", Ro)]);
        assert_eq!(grants(&[("/srv/image2", Ro)]), [own("/srv/image", Ro), own("/srv/image2", Ro)]);
    }

    #[test]
    fn the_host_image_grants_programs_and_no_secrets() {
        let spec = SandboxSpec::new(["true"]);
        let grants = Grants::of(&spec).unwrap();
        let paths: Vec<_> = grants.iter().map(|(path, _)| path).collect();
        assert!(paths.contains(&Path::new("/usr")) && paths.contains(&Path::new("/etc/passwd")));
        for secret in ["/", "/etc", "/etc/shadow", "/root", "/home", "/proc", "/dev"] {
            assert!(!paths.contains(&Path::new(secret)), "{secret}");
        }
        assert!(!grants.any_writable());
    }
}
