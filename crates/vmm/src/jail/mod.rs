//! The jail of the vmm process: walls that it builds around itself before it runs guest code.
//!
//! ```text
//!   KVM is open, nothing of the guest is here
//!        |  enter:  namespaces, a root with what was granted alone, no privileges
//!   image and mounts are opened, by the paths that they have on the host
//!        |  lock:   Landlock, then the system-call filter
//!   guest code runs
//! ```
//!
//! All of it is inherited by forks, so a spawn from a template pays nothing for it. A wall that can not be built is an
//! error, unless the spec waives it; only Landlock is best effort, since many hosts lack it. Which walls stand is
//! in the statistics.

mod filter;
mod grants;
mod landlock;
mod privileges;
mod root;
mod table;

use std::io;

use lg_control::{SandboxSpec, Wall};

use grants::Grants;
pub use grants::resolved;
pub use table::{Allowed, Check, Part, TABLE, Test};

/// A wall that can not be built.
#[derive(Debug, thiserror::Error)]
#[error("the wall `{wall}` cannot be built: cannot {doing}; {}", advice(*.wall))]
pub struct JailError {
    wall: Wall,
    /// What was tried.
    doing: String,
    #[source]
    source: io::Error,
}

impl JailError {
    fn new(wall: Wall, doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { wall, doing: doing.into(), source: source.into() }
    }
}

/// What to do where a wall can not be built.
fn advice(wall: Wall) -> String {
    let allow = match wall {
        Wall::Namespaces => {
            "let this user make user namespaces (sysctl user.max_user_namespaces above 0, and where they exist \
             kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; in a container \
             its seccomp profile)"
        }
        Wall::Privileges => "run as a user who may give up privileges",
        Wall::Landlock | Wall::Seccomp => {
            "use a kernel with it (CONFIG_SECCOMP_FILTER, CONFIG_SECURITY_LANDLOCK)"
        }
    };
    format!("{allow}, or do without it: --without-wall {wall}")
}

/// A jail that is being built around this process.
pub struct Jail {
    grants: Grants,
    waived: Vec<Wall>,
    standing: Vec<Wall>,
}

impl Jail {
    /// Puts this process, which has one thread, into namespaces and a root of its own, and takes its privileges away.
    ///
    /// From here on only what the spec grants can be opened, by the paths of the host; `spec` must be [`resolved`].
    ///
    /// # Errors
    /// The first wall that can not be built and is not waived. The process is of no use then but to say so.
    pub fn enter(spec: &SandboxSpec) -> Result<Jail, JailError> {
        let grants = Grants::of(spec).map_err(|(path, error)| {
            JailError::new(Wall::Namespaces, format!("look at {}", path.display()), error)
        })?;
        let mut jail = Jail { grants, waived: spec.without_walls.clone(), standing: Vec::new() };
        if jail.wants(Wall::Namespaces) {
            root::enter(&jail.grants)?;
            jail.standing.push(Wall::Namespaces);
        }
        if jail.wants(Wall::Privileges) {
            privileges::drop_all()?;
            jail.standing.push(Wall::Privileges);
        }
        Ok(jail)
    }

    /// Closes the jail: what is open stays open, and no system call goes through but those that a running sandbox needs.
    /// Returns the walls that stand.
    ///
    /// # Errors
    /// See [`Jail::enter`].
    pub fn lock(mut self) -> Result<Vec<Wall>, JailError> {
        if self.wants(Wall::Landlock) && landlock::restrict(&self.grants)? {
            self.standing.push(Wall::Landlock);
        }
        if self.wants(Wall::Seccomp) {
            let parts: &[Part] =
                if self.grants.any_writable() { &[Part::All, Part::WritableMounts] } else { &[Part::All] };
            filter::install(parts)?;
            self.standing.push(Wall::Seccomp);
        }
        Ok(self.standing)
    }

    fn wants(&self, wall: Wall) -> bool {
        !self.waived.contains(&wall)
    }
}
