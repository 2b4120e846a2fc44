//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lg_control::{Access, Image, Mount, SandboxSpec, User, Wall};
use lg_runtime::units::{parse_duration, parse_size, parse_user};

use crate::bench_args::BenchVerb;

/// What exit statuses mean, for `--help`.
pub(crate) const EXIT_STATUS_HELP: &str = "\
Exit status:
  0-255  the program's own
  128+n  signal n ended the program
  124    the deadline (--timeout) ended it
  125    LuminaGuard failed: wrong options, no KVM, a mount or limit that cannot be had
  126    the program cannot be executed
  127    the program was not found";

/// Runs programs in disposable micro-VMs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a program in a micro-VM of its own
    ///
    /// The program sees the host's own /usr, /bin, /lib and /opt, read only, beneath an overlay in memory; it sees
    /// no other file of the host, no network, and no variable of the host's environment. Standard input, output and
    /// error pass through.
    Run(RunOptions),
    /// Evaluate Python in a sandbox, line by line, with forks to go back to
    ///
    /// Names stay from line to line. A line is evaluated when it is complete; a block ends with an empty line, or where a line
    /// is not indented any more. Ctrl-C interrupts what runs, Ctrl-D ends the session. Input that is no terminal
    /// is read in the same way, without prompts.
    Repl(ReplOptions),
    /// Show and try templates: warm sandboxes that others are forked from
    #[command(subcommand)]
    Template(TemplateVerb),
    /// Say whether this machine can run sandboxes, and what to do if not
    Doctor(DoctorOptions),
    /// Measure
    #[command(subcommand)]
    Bench(BenchVerb),
    /// The process around one VM; started by LuminaGuard itself, with a control socket as standard input
    #[command(hide = true)]
    Vmm,
    /// A runtime that `bench chaos` kills
    #[command(name = lg_bench::CHAOS_RUNTIME, hide = true)]
    ChaosRuntime,
    /// Measures inside a sandbox
    #[command(name = lg_bench::GUEST_PROBE, hide = true)]
    GuestProbe(GuestProbe),
    /// The process of one row of `bench overload`
    #[command(name = lg_bench::OVERLOAD_ROW, hide = true)]
    OverloadRow {
        /// What it is to do, in JSON
        task: String,
    },
}

/// What a sandbox is to be. What is left out is as the template says, or the default.
#[derive(Debug, Args)]
pub(crate) struct SandboxOptions {
    /// Memory of the sandbox: programs, page cache and files together [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,

    /// End the sandbox after this time, with exit status 124
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Set a variable of the program's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(parse_env))]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// The working directory in the sandbox [default: /]
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,

    /// Show a directory or file of the host in the sandbox; read only unless :rw is added
    #[arg(long, value_name = "SRC:DST[:ro|rw]", value_parser = OsStringValueParser::new().try_map(parse_mount))]
    pub(crate) mount: Vec<Mount>,

    /// The host name in the sandbox [default: luminaguard]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,

    /// The most processes and threads at one time [default: 512]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_processes: Option<u32>,

    /// The user inside the sandbox, by number [default: 0:0]
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_user)]
    pub(crate) user: Option<User>,

    /// Start without a wall of the jail around the VM's process: `namespaces`, `privileges`, `landlock` or `seccomp`
    ///
    /// For a host that forbids one, when the program is trusted. `luminaguard doctor` says which walls can stand, and
    /// `--stats` which do.
    #[arg(long, value_name = "WALL")]
    pub(crate) without_wall: Vec<Wall>,
}

impl SandboxOptions {
    /// The spec with what these options change.
    pub(crate) fn apply(self, mut spec: SandboxSpec) -> SandboxSpec {
        let Self { memory, timeout, env, workdir, mount, hostname, max_processes, user, without_wall } = self;
        spec.memory_bytes = memory.unwrap_or(spec.memory_bytes);
        spec.timeout = timeout.or(spec.timeout);
        spec.workdir = workdir.unwrap_or(spec.workdir);
        spec.mounts.extend(mount);
        spec.hostname = hostname.unwrap_or(spec.hostname);
        spec.max_processes = max_processes.unwrap_or(spec.max_processes);
        spec.user = user.unwrap_or(spec.user);
        let spec = without_wall.into_iter().fold(spec, SandboxSpec::without_wall);
        env.into_iter().fold(spec, |spec, (name, value)| spec.env(name, value))
    }
}

/// The options of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "luminaguard run [OPTIONS] -- COMMAND [ARGS]...", after_help = EXIT_STATUS_HELP)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,

    /// The root file system: `host`, or `dir:PATH` for a directory of the host [default: host]
    #[arg(long, value_name = "IMAGE", value_parser = OsStringValueParser::new().try_map(parse_image), conflicts_with = "template")]
    pub(crate) image: Option<Image>,

    /// Run the program in a fork of a template: `base`, `python`, or a file as in ./mine.toml
    ///
    /// With `python`, what follows `--` are the arguments of python3, and the code of -c is evaluated by the warm
    /// interpreter. This shows what templates do, and is slower than without: the template has to be made for this one
    /// program. It pays where one template serves many sandboxes, as with the library.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) template: Option<OsString>,

    /// Give the program a terminal of its own, of the size and kind of this one, which shows it
    ///
    /// Standard input must be a terminal. All keys are for the program: Ctrl-C and Ctrl-Z are for what runs in its
    /// foreground, and shells have job control. Without this option the program has this very terminal as its standard
    /// streams where they are one: it can use it, but there is no job control, and Ctrl-Z stops the whole sandbox.
    /// Either way a terminal gets what the program writes unchanged, escape sequences too, as with ssh: pass the output of
    /// a program that you do not trust through `cat -v`, or into a file.
    #[arg(short = 't', long, conflicts_with = "strace")]
    pub(crate) tty: bool,

    /// Write each system call to standard error
    #[arg(long, conflicts_with = "template")]
    pub(crate) strace: bool,

    /// Say afterwards, on standard error, what it cost: exits, system calls, memory, times
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) stats: Option<StatsFormat>,

    /// Write the statistics to this file instead
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_file: Option<PathBuf>,

    /// The program, looked up in the PATH of the sandbox, and its arguments
    #[arg(required_unless_present = "template", trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// The options of `repl`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0; 1 if the input is no terminal and something raised an exception; 124 if the deadline ended
the sandbox, 137 if another limit did; 130 if interrupted between two lines of such an input;
125 if LuminaGuard failed.")]
pub(crate) struct ReplOptions {
    /// The template: `python`, `base`, or a file as in ./mine.toml
    #[arg(long, value_name = "NAME|FILE", default_value = "python")]
    pub(crate) template: OsString,

    /// Interrupt what is evaluated after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) cell_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateVerb {
    /// List the built-in templates
    List,
    /// Show a template as TOML, with all that it leaves out
    Show(TemplateName),
    /// Make a template and a fork of it, and say how long that took and how much memory they share
    Build(TemplateName),
}

#[derive(Debug, Args)]
pub(crate) struct TemplateName {
    /// The name of a built-in template; or a file, which has a slash or the ending .toml
    #[arg(value_name = "NAME|FILE")]
    pub(crate) template: OsString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if `luminaguard run` works here, 1 if not, 125 if this could not be found out.
With --leftovers: 0 if nothing is left behind, 1 if something is.")]
pub(crate) struct DoctorOptions {
    /// Say instead what LuminaGuard left behind on this machine: processes, control groups, memory, files, mounts
    ///
    /// Each line is one thing that was made by LuminaGuard and that no living process owns. Other users' processes
    /// can be seen by root only. Nothing is changed.
    #[arg(long)]
    pub(crate) leftovers: bool,

    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GuestProbe {
    /// What to do
    pub(crate) what: ProbeKind,
    /// How often
    pub(crate) count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeKind {
    /// Make the system call getppid
    Getppid,
    /// Compute
    Spin,
}

fn parse_env(text: OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at @ 1..) => {
            Ok((OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
        }
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn parse_mount(text: OsString) -> Result<Mount, String> {
    let bytes = text.as_bytes();
    let (paths, access) = match bytes {
        [paths @ .., b':', b'r', b'o'] => (paths, Access::ReadOnly),
        [paths @ .., b':', b'r', b'w'] => (paths, Access::ReadWrite),
        paths => (paths, Access::ReadOnly),
    };
    let mut parts = paths.split(|&byte| byte == b':');
    let (source, target) = match (parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), None) => (source, target),
        (_, None, _) => return Err("write it as SRC:DST, SRC:DST:ro or SRC:DST:rw".to_owned()),
        _ => return Err("more than two paths, or an access other than ro and rw".to_owned()),
    };
    if source.is_empty() {
        return Err("the source (before the colon) is missing".to_owned());
    }
    if target.is_empty() {
        return Err("the target (behind the colon) is missing".to_owned());
    }
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let source = std::path::absolute(path(source)).map_err(|error| error.to_string())?;
    Ok(Mount { source, target: path(target), access })
}

fn parse_image(text: OsString) -> Result<Image, String> {
    match text.as_bytes() {
        b"host" => Ok(Image::Host),
        [b'd', b'i', b'r', b':', path @ ..] if !path.is_empty() => {
            let path = OsString::from_vec(path.to_vec());
            std::path::absolute(path).map(Image::Dir).map_err(|error| error.to_string())
        }
        _ => Err("write `host`, or `dir:PATH`".to_owned()),
    }
}

/// A usage error of clap in one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let line = lines.collect::<Vec<_>>().join(" ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn parse(words: &[&str]) -> Result<RunOptions, String> {
        let words = ["luminaguard", "run"].iter().chain(words);
        match Arguments::try_parse_from(words) {
            Ok(Arguments { verb: Verb::Run(options) }) => Ok(options),
            Ok(other) => panic!("not a run: {other:?}"),
            Err(error) => Err(one_line(&error)),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let options = parse(&["--memory", "64M", "--", "ls", "--memory", "1G", "--stats"]).unwrap();
        assert_eq!(options.sandbox.memory, Some(64 << 20));
        assert_eq!(options.command, ["ls", "--memory", "1G", "--stats"]);
        assert_eq!(options.stats, None);
        let options = parse(&["--stats", "ls", "-l", "--stats=json"]).unwrap();
        assert_eq!(options.stats, Some(StatsFormat::Text));
        assert_eq!(options.command, ["ls", "-l", "--stats=json"]);
        assert_eq!(parse(&["--", "-x"]).unwrap().command, ["-x"]);
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let spec = SandboxSpec::new(["true"]);
        assert_eq!(parse(&["true"]).unwrap().sandbox.apply(spec.clone()), spec);
        let options = "--memory 512M --workdir / --hostname luminaguard --max-processes 512 --user 0:0 true";
        let options = parse(&options.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(options.sandbox.apply(spec.clone()), spec);
    }

    #[test]
    fn what_a_template_says_itself_is_refused() {
        for option in ["--image=host", "--strace"] {
            let message = parse(&["--template", "base", option, "--", "true"]).unwrap_err();
            assert!(message.contains("cannot be used with") && message.contains("--template"), "{message}");
        }
        assert!(parse(&["--template", "python"]).unwrap().command.is_empty());
    }

    #[test]
    fn mounts_have_two_paths_and_an_access() {
        let mount =
            |text: &str| parse(&["--mount", text, "true"]).map(|mut options| options.sandbox.mount.remove(0));
        let read_only = mount("/a:/b").unwrap();
        assert_eq!(read_only, Mount { source: "/a".into(), target: "/b".into(), access: Access::ReadOnly });
        assert_eq!(mount("/a:/b:ro").unwrap(), read_only);
        assert_eq!(mount("/a:/b:rw").unwrap().access, Access::ReadWrite);
        let relative = mount("a:/b").unwrap();
        assert_eq!(relative.source, std::env::current_dir().unwrap().join("a"));
        let cases = [
            ("/a", "write it as SRC:DST"),
            (":/b", "source (before the colon) is missing"),
            ("/a:", "target (behind the colon) is missing"),
            ("/a:/b:rx", "an access other than ro and rw"),
            ("/a:/b:/c:ro", "more than two paths"),
        ];
        for (text, part) in cases {
            let message = mount(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn other_values_are_checked_too() {
        assert_eq!(
            parse(&["--user", "1000", "true"]).unwrap().sandbox.user,
            Some(User { uid: 1000, gid: 1000 })
        );
        assert_eq!(parse(&["--user", "1:2", "true"]).unwrap().sandbox.user, Some(User { uid: 1, gid: 2 }));
        assert_eq!(parse(&["--image", "dir:/srv", "true"]).unwrap().image, Some(Image::Dir("/srv".into())));
        assert_eq!(
            parse(&["--env", "A=b=c", "--env", "D=", "true"]).unwrap().sandbox.env,
            [("A".into(), "b=c".into()), ("D".into(), OsStr::new("").to_owned())]
        );
        let cases: [(&[&str], &str); 9] = [
            (&["--user", "root", "true"], "not a user or group number"),
            (&["--image", "alpine", "true"], "`dir:PATH`"),
            (&["--image", "dir:", "true"], "`dir:PATH`"),
            (&["--env", "A", "true"], "NAME=VALUE"),
            (&["--env", "=x", "true"], "NAME=VALUE"),
            (&["--memory", "lots", "true"], "not a size"),
            (&["--timeout", "soon", "true"], "not a duration"),
            (&["--memroy", "64M", "true"], "--memroy"),
            (&[], "<COMMAND>"),
        ];
        for (words, part) in cases {
            let message = parse(words).unwrap_err();
            assert!(message.contains(part), "{words:?}: {message}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn the_help_reads_as_before() {
        let help = |words: &[&str]| {
            let words = std::iter::once("luminaguard").chain(words.iter().copied()).chain(["--help"]);
            Arguments::try_parse_from(words).unwrap_err().to_string()
        };
        let verbs: [&[&str]; 16] = [
            &[],
            &["run"],
            &["repl"],
            &["template"],
            &["template", "build"],
            &["doctor"],
            &["bench", "scale"],
            &["bench", "spawn"],
            &["bench", "fork"],
            &["bench", "claim"],
            &["bench", "lives"],
            &["bench", "chaos"],
            &["bench", "figures"],
            &["bench", "programs"],
            &["bench", "peers"],
            &["bench", "overload"],
        ];
        insta::assert_snapshot!(verbs.map(help).join("\n----\n\n"));
    }
}
