//! What a template is: [`TemplateSpec`].

use std::path::PathBuf;
use std::time::Duration;

use lg_control::SandboxSpec;

/// What a template is: an image with limits, what is done to warm it up, and when it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Its name.
    pub name: String,
    /// Image, mounts and limits; no command. The limits are those of the forks, which may have lower ones.
    pub sandbox: SandboxSpec,
    /// What makes it warm.
    pub warm_up: WarmUp,
    /// How long that may take.
    pub warm_up_limit: Duration,
}

/// What makes a template warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmUp {
    /// Nothing: no process runs in the forks until one is launched.
    Nothing,
    /// A Python interpreter is started, which has imported common modules; then it evaluates a cell, if there is one.
    /// Forks have it as their [`Context`](crate::Context).
    Python {
        /// Python source.
        cell: Option<String>,
    },
    /// A program is launched, and is part of the forks if it still runs when the template is ready.
    Program {
        /// The program and its arguments.
        command: Vec<String>,
        /// When the template is ready.
        ready: Ready,
    },
}

/// When a template whose warm-up is a program is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// The program has exited, with status 0. What it left running is part of the forks.
    Exits,
    /// The program has written a line to its standard output that contains this text.
    Line(String),
    /// This file is there.
    File(PathBuf),
}

impl TemplateSpec {
    /// The names of the built-in templates.
    pub const BUILT_IN: [&'static str; 2] = ["base", "python"];

    /// The built-in template `base`: the host's programs, and nothing running.
    pub fn base() -> Self {
        Self::new("base", WarmUp::Nothing)
    }

    /// The built-in template `python`: an interpreter that has imported common modules.
    pub fn python() -> Self {
        Self::new("python", WarmUp::Python { cell: None })
    }

    /// A template with the defaults of [`SandboxSpec::new`].
    pub fn new(name: impl Into<String>, warm_up: WarmUp) -> Self {
        Self {
            name: name.into(),
            sandbox: SandboxSpec::new(std::iter::empty::<&str>()),
            warm_up,
            warm_up_limit: Duration::from_secs(60),
        }
    }

    /// The built-in template of that name.
    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "base" => Some(Self::base()),
            "python" => Some(Self::python()),
            _ => None,
        }
    }
}
