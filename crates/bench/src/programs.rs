//! What programs do inside one sandbox, against the same natively: `luminaguard bench programs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::environment::Environment;
use crate::figures::{Figures, time_inside};
use crate::finding::Skipped;
use crate::floors::KvmProbe;
use crate::interrupt::{Stop, measure_to_stop};
use crate::peers::{command_of, find_program, run_command};
use crate::progress::Progress;

/// A program to measure, as `programs.toml` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    name: String,
    /// Programs that must be there.
    #[serde(default)]
    needs: Vec<String>,
    /// It needs the Rust tool chain, which lies where only its user sees it.
    #[serde(default)]
    toolchain: bool,
    #[serde(default)]
    setup: String,
    body: String,
    #[serde(default)]
    teardown: String,
    #[serde(default = "one")]
    count: u32,
    #[serde(default = "one")]
    operations: u32,
    target_ms: Option<f64>,
    target_ratio: Option<f64>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct Programs {
    program: Vec<Program>,
}

/// Returns the programs that come with this program.
fn built_in() -> Vec<Program> {
    let programs: Programs = toml::from_str(include_str!("programs.toml")).expect("a test reads the file");
    programs.program
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct ProgramsConfig {
    /// The binary whose `run` is measured.
    pub luminaguard: PathBuf,
    /// How often each program is measured, in turns.
    pub rounds: usize,
    /// Which ones: those whose name contains this.
    pub only: Option<String>,
    /// Tells the kind of KVM.
    pub kvm: KvmProbe,
}

/// Where a program runs.
struct Place {
    name: &'static str,
    /// What stands before the words of the command.
    prefix: Vec<OsString>,
    samples: Vec<f64>,
}

impl ProgramsConfig {
    /// Measures the programs. Shows progress on standard error.
    ///
    /// # Errors
    /// When no program has that name, or there is no KVM. A program that is not installed is skipped, with the reason.
    pub fn run(&self) -> Result<Figures> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let config = self.clone();
        measure_to_stop(move |stop| config.measure(stop))
    }

    fn measure(&self, stop: &Stop) -> Result<Figures> {
        let wanted = |program: &Program| self.only.as_ref().is_none_or(|only| program.name.contains(only));
        let programs: Vec<Program> = built_in().into_iter().filter(wanted).collect();
        if programs.is_empty() {
            let names: Vec<String> = built_in().into_iter().map(|program| program.name).collect();
            bail!("no program has that name; there are: {}", names.join("; "));
        }
        let kvm = (self.kvm)().context("cannot make a virtual machine")?;
        let mut figures = Figures::begin(Environment::look("sandbox", Some(kvm.kind)));
        let progress = Progress::new(programs.len());
        for program in programs {
            if stop.is_requested() {
                break;
            }
            progress.begin(&program.name);
            if let Err(error) = self.measure_one(&program, &mut figures, stop)
                && !stop.is_requested()
            {
                let reason = format!("{error:#}");
                figures.skipped.push(Skipped { name: program.name.clone(), reason });
            }
            progress.done(&format!("{}: done", program.name));
        }
        figures.interrupted = stop.is_requested();
        Ok(figures)
    }

    fn measure_one(&self, program: &Program, figures: &mut Figures, stop: &Stop) -> Result<()> {
        let bash = find("bash")?;
        for name in &program.needs {
            find(name)?;
        }
        let toolchain = if program.toolchain { Some(sysroot()?) } else { None };
        let script = program.script(toolchain.as_deref())?;
        let words: Vec<OsString> = vec![bash.into(), "-c".into(), script.into()];
        let mount = toolchain.as_ref().map(|sysroot| format!("{0}:{0}:ro", sysroot.display()));
        let options: Vec<&str> = mount.iter().flat_map(|mount| ["--mount", mount]).collect();
        let mut places = vec![
            Place { name: "native", prefix: Vec::new(), samples: Vec::new() },
            Place {
                name: "sandbox",
                prefix: run_command(&self.luminaguard, &options, &[]),
                samples: Vec::new(),
            },
        ];
        if let Some(runsc) = find_program("runsc") {
            let words =
                [runsc.as_os_str(), "--network=none".as_ref(), "--ignore-cgroups".as_ref(), "do".as_ref()];
            let prefix = words.into_iter().map(Into::into).collect();
            places.push(Place { name: "runsc", prefix, samples: Vec::new() });
        }
        let per_operation = f64::from(program.count) * f64::from(program.operations) * 1e3;
        let mut ratios = Vec::new();
        // The first round fills caches.
        for round in 0..=self.rounds {
            let mut times = Vec::new();
            for place in &mut places {
                if stop.is_requested() {
                    return Ok(());
                }
                let command: Vec<OsString> = place.prefix.iter().chain(&words).cloned().collect();
                match time_inside(&mut command_of(&command), 1e-6) {
                    Ok(seconds) => times.push(seconds * 1e6 / per_operation),
                    Err(_) if place.name == "runsc" => {}
                    Err(error) => return Err(error.context(format!("{} failed", place.name))),
                }
                if round > 0
                    && let Some(ms) = times.last()
                {
                    place.samples.push(*ms);
                }
            }
            if round > 0 {
                ratios.push(times[1] / times[0]);
            }
        }
        for place in places {
            let target = program.target_ms.filter(|_| place.name == "sandbox");
            let name = format!("{}, {}", program.name, place.name);
            figures.add(&name, program.body.trim(), "ms", place.samples, target);
        }
        let name = format!("{}, sandbox / native", program.name);
        figures.add(&name, "the two above, in pairs", "ratio", ratios, program.target_ratio);
        Ok(())
    }
}

impl Program {
    /// A script that prints how many microseconds its body took.
    fn script(&self, toolchain: Option<&Path>) -> Result<String> {
        let path = match toolchain {
            Some(sysroot) => {
                let bin = sysroot.join("bin");
                let bin = bin.to_str().context("the path of the tool chain is not UTF-8")?;
                format!("export PATH='{bin}':$PATH CARGO_HOME=$PWD/.cargo")
            }
            None => String::new(),
        };
        let Program { setup, body, teardown, count, .. } = self;
        Ok(format!(
            "set -e\ncd \"$(mktemp -d)\"\ntrap 'cd /; rm -rf \"$OLDPWD\"' EXIT\n{path}\n{setup}\n\
             a=$EPOCHREALTIME\nfor ((i = 0; i < {count}; i++)); do\n{body}\ndone\nb=$EPOCHREALTIME\n\
             {teardown}\necho $((${{b/./}} - ${{a/./}}))\n"
        ))
    }
}

fn find(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("{name} is not installed"))
}

/// Where the Rust tool chain lies.
fn sysroot() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc does not run")?;
    ensure!(output.status.success(), "rustc --print sysroot failed ({})", output.status);
    Ok(String::from_utf8(output.stdout).context("the path of the tool chain is not UTF-8")?.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_programs_are_well_formed() {
        let programs = built_in();
        assert!(programs.len() >= 10);
        for program in &programs {
            assert!(program.target_ms.is_some() != program.target_ratio.is_some(), "{}", program.name);
            assert!(program.count > 0 && program.operations > 0, "{}", program.name);
        }
    }

    #[test]
    fn a_script_prints_what_its_body_took() {
        let program = Program {
            name: "sleep".to_owned(),
            needs: Vec::new(),
            toolchain: false,
            setup: "sleep 0.2".to_owned(),
            body: "sleep 0.05".to_owned(),
            teardown: "sleep 0.2".to_owned(),
            count: 2,
            operations: 1,
            target_ms: None,
            target_ratio: None,
        };
        let words = ["bash".into(), "-c".into(), OsString::from(program.script(None).unwrap())];
        let seconds = time_inside(&mut command_of(&words), 1e-6).unwrap();
        assert!((0.1..0.3).contains(&seconds), "{seconds}");
    }
}
