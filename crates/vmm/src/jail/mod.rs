//! The jail of the vmm process: walls that it builds around itself before it runs guest code.
//!
//! ```text
//!   KVM is open, nothing of the guest is here
//!        |  begin:  namespaces; a vmm that is served goes on as another process
//!        |  enter:  a root with what was granted alone, no privileges
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
mod pids;
mod privileges;
mod root;
mod table;

use std::io;
use std::os::fd::OwnedFd;

use lg_control::{SandboxSpec, Wall};

use grants::Grants;
pub use grants::resolved;
pub use table::{ABSENT, Allowed, Check, Part, TABLE, Test};

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

/// What the process in the jail is.
#[derive(Debug)]
pub enum Role {
    /// It holds a sandbox for whoever called it, and is never forked.
    Alone,
    /// It serves a control socket, and may be forked. With a lifeline it is in a namespace of process numbers.
    Served(Option<OwnedFd>),
}

/// A jail that is being built around this process.
pub struct Jail {
    grants: Grants,
    is_served: bool,
    waived: Vec<Wall>,
    standing: Vec<Wall>,
}

impl Jail {
    /// Puts this process, which has one thread, into namespaces of its own; `spec` must be [`resolved`].
    ///
    /// Where there is a lifeline (see [`serve_stdin`](crate::serve_stdin)) that of process numbers is among them. Then it is
    /// another process that goes on, a fork with everything that this one has, and this one does not return.
    ///
    /// # Errors
    /// The first wall that can not be built and is not waived. The process is of no use then but to say so.
    pub fn begin(spec: &SandboxSpec, role: Role) -> Result<Jail, JailError> {
        let grants = Grants::of(spec).map_err(|(path, error)| {
            JailError::new(Wall::Namespaces, format!("look at {}", path.display()), error)
        })?;
        let is_served = !matches!(role, Role::Alone);
        let jail = Jail { grants, is_served, waived: spec.without_walls.clone(), standing: Vec::new() };
        if jail.wants(Wall::Namespaces) {
            root::enter_namespaces(&role)?;
            if let Role::Served(Some(lifeline)) = role {
                pids::enter(lifeline).map_err(|error| {
                    JailError::new(Wall::Namespaces, "start a namespace of process numbers", error)
                })?;
            }
        }
        Ok(jail)
    }

    /// Gives the process a root of its own and takes its privileges away.
    ///
    /// From here on only what the spec grants can be opened, by the paths of the host.
    ///
    /// # Errors
    /// See [`Jail::begin`].
    pub fn enter(mut self) -> Result<Jail, JailError> {
        if self.wants(Wall::Namespaces) {
            root::enter(&self.grants)?;
            self.standing.push(Wall::Namespaces);
        }
        if self.wants(Wall::Privileges) {
            privileges::drop_all()?;
            self.standing.push(Wall::Privileges);
        }
        Ok(self)
    }

    /// Closes the jail: what is open stays open, and no system call goes through but those that a running sandbox needs.
    /// Returns the walls that stand.
    ///
    /// # Errors
    /// See [`Jail::begin`].
    pub fn lock(mut self) -> Result<Vec<Wall>, JailError> {
        if self.wants(Wall::Landlock) && landlock::restrict(&self.grants)? {
            self.standing.push(Wall::Landlock);
        }
        if self.wants(Wall::Seccomp) {
            let served = self.is_served.then_some(Part::Served);
            let writable = self.grants.any_writable().then_some(Part::WritableMounts);
            let parts: Vec<Part> = [Some(Part::All), served, writable].into_iter().flatten().collect();
            filter::install(&parts)?;
            self.standing.push(Wall::Seccomp);
        }
        Ok(self.standing)
    }

    fn wants(&self, wall: Wall) -> bool {
        !self.waived.contains(&wall)
    }
}
