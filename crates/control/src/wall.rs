//! The walls around a vmm that can be built or waived one by one: [`Wall`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A part of the jail that a vmm builds around itself before it runs guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// Namespaces of its own (user, mount, network, IPC, host name, control groups), and a root directory that holds only
    /// what the sandbox was granted.
    Namespaces,
    /// No capabilities in any set, no new privileges, no core dumps, not traceable.
    Privileges,
    /// Landlock: files beneath the granted directories only, whatever else could be reached. Best effort: a host
    /// without it does not stop a sandbox from starting.
    Landlock,
    /// The system-call filter.
    Seccomp,
}

impl Wall {
    /// All walls, in the order in which they are built.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::Privileges, Self::Landlock, Self::Seccomp];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Privileges => "privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no wall of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no wall `{0}`: namespaces, privileges, landlock and seccomp are walls")]
pub struct UnknownWall(String);

impl FromStr for Wall {
    type Err = UnknownWall;

    fn from_str(name: &str) -> Result<Self, UnknownWall> {
        Self::ALL.into_iter().find(|wall| wall.name() == name).ok_or_else(|| UnknownWall(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_is_found_by_its_name_and_no_other() {
        for wall in Wall::ALL {
            assert_eq!(wall.to_string().parse(), Ok(wall));
        }
        assert!("Seccomp".parse::<Wall>().unwrap_err().to_string().contains("`Seccomp`"));
    }
}
