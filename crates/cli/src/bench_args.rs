//! The command line of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use lg_bench::FaultKind;

use lg_bench::Arrival;
use lg_runtime::units::{parse_duration, parse_size};

/// What exit statuses of a measurement mean, for `--help`.
const EXIT_STATUS_HELP: &str = "\
Exit status: 0 if every life went well and nothing was left behind, 1 if not, 125 if the run could not be done, 130 if it was
interrupted.";

/// The same of `bench chaos`.
const CHAOS_EXIT_STATUS_HELP: &str = "\
Exit status: 0 if all went as it must; 1 if a life that no fault hit failed, an answer was wrong, something acknowledged was lost, \
a life hung, a fault did not go as it must, or something was left behind; 125 if the run could not be done; 130 if it was \
interrupted, with what was found until then.";

#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Run many agents at once, each in a micro-VM of its own, and measure their lives
    ///
    /// An agent is a Python interpreter that does ten operations, each with an answer that is checked. It is forked from
    /// a warm template.
    Scale(ScaleOptions),
    /// Measure how long a sandbox takes: forked from a warm template, asked, answered, destroyed
    ///
    /// Beside it, in the same run, a process and a bare VM: what the machine itself takes. Then many requests at
    /// once, and the memory of a fork.
    Spawn(SpawnOptions),
    /// Measure the live fork of an agent that holds state
    Fork(ForkOptions),
    /// Measure claims from a pool of ready sandboxes
    Claim(ClaimOptions),
    /// Measure how many complete lives a second this machine sustains
    Lives(LivesOptions),
    /// Mistreat the host of agents at work, by a schedule that a seed says, and see what comes of it
    ///
    /// Agents live in sandboxes of a warm pool. They evaluate with kept state and write and read files, every answer is checked,
    /// and at the end of each life everything that was acknowledged is read back. Meanwhile faults come. A life that none
    /// of them hits must do all its work; one that is hit may end with the error that names the reason, and with no other.
    Chaos(ChaosOptions),
    /// Compare two results, or two binaries of this program run in turns
    ///
    /// Each figure that both sides have is tested for a difference (Mann-Whitney U), with its size and an interval.
    Compare(CompareOptions),
    /// Measure single programs in a sandbox against the same natively
    Figures(FiguresOptions),
    /// Measure what programs do inside one sandbox: shells, interpreters, compilers, databases
    Programs(ProgramsOptions),
    /// Measure one program as a process, in LuminaGuard, and in the other sandboxes that are installed
    ///
    /// They take turns: bubblewrap (bwrap), crun, runc, and gVisor (runsc). What is not installed is skipped, and the
    /// Debian package that has it is named.
    Peers(PeersOptions),
    /// Ask for more sandboxes than there is room for, and see that each is given or refused for a reason
    ///
    /// One resource after the other is made scarce. All that was admitted must complete, all else must be refused with an error
    /// that names what was short, nothing may be left, and a fresh sandbox must answer when the pressure has ended.
    Overload(OverloadOptions),
}

/// What all measurements of warm sandboxes have.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write all samples and figures to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The built-in templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TemplateName {
    /// A Python interpreter; a life evaluates 6*7
    Python,
    /// Nothing running; a life runs `true`
    Base,
}

/// The options of `bench spawn`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS_HELP)]
pub(crate) struct SpawnOptions {
    /// How many lives
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    pub(crate) count: usize,

    /// What is forked
    #[arg(long, value_name = "NAME", default_value = "python")]
    pub(crate) template: TemplateName,

    /// How many lives at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) concurrency: usize,

    /// How many requests at the same moment, in a section of its own; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) burst: usize,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench fork`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS_HELP)]
pub(crate) struct ForkOptions {
    /// How many forks
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub(crate) count: usize,

    /// How much memory the agent has filled
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "20M")]
    pub(crate) state: u64,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench claim`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS_HELP)]
pub(crate) struct ClaimOptions {
    /// How many claims
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    pub(crate) count: usize,

    /// How many sandboxes are kept ready
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) ready: usize,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench lives`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS_HELP)]
pub(crate) struct LivesOptions {
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) seconds: u64,

    /// How many lives at a time [default: two for each core]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench chaos`.
#[derive(Debug, Args)]
#[command(after_help = CHAOS_EXIT_STATUS_HELP)]
pub(crate) struct ChaosOptions {
    /// For how long faults come
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) seconds: u64,

    /// What the schedule is made from: which fault comes when, and whom it hits
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// How many agents at once [default: two for each core]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,

    /// Which faults come [default: all]
    #[arg(long, value_name = "FAULT,FAULT,...", value_delimiter = ',', value_parser = fault())]
    pub(crate) faults: Option<Vec<FaultKind>>,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// Reads the name of a fault; what each does is in the help.
fn fault() -> impl TypedValueParser<Value = FaultKind> {
    let names = FaultKind::ALL.map(|fault| PossibleValue::new(fault.name()).help(fault.about()));
    PossibleValuesParser::new(names)
        .try_map(|name| FaultKind::ALL.into_iter().find(|fault| fault.name() == name).ok_or("no such fault"))
}

/// The options of `bench scale`.
#[derive(Debug, Args)]
#[command(after_help = "\
Scenarios: interpreter (Python cells, files, shell, computation, tool), shell, files, cpu, think (waits as for a model's
answers), tools, network (a server and a client in the sandbox); or a file of the same form.

Exit status: 0 if every agent completed and nothing was left behind, 1 if not, 125 if the run could not be done, 130 if it was
interrupted; the files then hold the repetitions until there.")]
pub(crate) struct ScaleOptions {
    /// How many agents at once; several numbers are measured in turns
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,5,10,25,50,100,200")]
    pub(crate) agents: Vec<usize>,

    /// How often each number is measured [default: 5, with --full 10]
    #[arg(long, value_name = "K")]
    pub(crate) repetitions: Option<usize>,

    /// The directory for the result files
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    pub(crate) out: PathBuf,

    /// What agents do: the name of a scenario, or the path of a .toml file
    #[arg(long, value_name = "NAME|FILE", default_value = "interpreter")]
    pub(crate) scenario: String,

    /// How many operations each agent does [default: as many as the scenario has]
    #[arg(long, value_name = "K")]
    pub(crate) operations: Option<usize>,

    /// How long an agent waits before each operation, on average [default: what the scenario says]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) think_time: Option<Duration>,

    /// When agents are asked for: burst (all at the same moment), poisson:RATE (so many a second on average, and times count
    /// from the planned moment), closed (N at a time, three lives each)
    #[arg(long, value_name = "ARRIVAL", default_value = "burst")]
    pub(crate) arrival: Arrival,

    /// What all random choices follow from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,

    /// What is promised, in place of the criteria that come with the program
    #[arg(long, value_name = "FILE")]
    pub(crate) criteria: Option<PathBuf>,

    /// Measure 500 and 1,000 agents too, more repetitions, and other ways to isolate a program
    #[arg(long)]
    pub(crate) full: bool,

    /// Memory of each sandbox
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "512M")]
    pub(crate) memory: u64,

    /// How long an agent may live [default: 60s, or a second for each of those at once if that is more; and its waits]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) deadline: Option<Duration>,

    /// Start a new VM with a new interpreter for each agent, instead of forking a warm template
    #[arg(long, conflicts_with = "native")]
    pub(crate) cold: bool,

    /// Run the agents as plain processes, without sandboxes, for comparison
    #[arg(long)]
    pub(crate) native: bool,

    /// Exit with status 1 when a criterion does not hold, too, and name it
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench compare`.
#[derive(Debug, Args)]
#[command(
    override_usage = "luminaguard bench compare [OPTIONS] A B\n       luminaguard bench compare [OPTIONS] --binary A --binary B [-- VERB [OPTIONS]]",
    after_help = "\
A and B are directories that `bench scale` wrote, of which the newest run counts, or files that `bench --json` of the same verb
wrote. With --binary, VERB is spawn, fork, claim, lives or scale, with its options [default: spawn --count 100 --burst 0].

Exit status: 0, or with --check 1 if anything became slower; 125 if a side cannot be read or run, 130 if it was interrupted."
)]
pub(crate) struct CompareOptions {
    /// The results to compare
    #[arg(
        value_name = "RESULT",
        num_args = 2,
        required_unless_present = "binary",
        conflicts_with = "binary"
    )]
    pub(crate) results: Vec<PathBuf>,

    /// Compare two binaries, each of which is run so often in turns; to be given twice
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Vec<PathBuf>,

    /// How often each binary is run
    #[arg(long, value_name = "R", default_value_t = 6)]
    pub(crate) rounds: usize,

    /// The share of the differences found that may be none
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub(crate) alpha: f64,

    /// The least difference of medians that counts, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    pub(crate) threshold: f64,

    /// Exit with status 1 when anything became slower
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) output: Output,

    /// What the binaries measure
    #[arg(last = true, value_name = "VERB", requires = "binary")]
    pub(crate) words: Vec<String>,
}

/// The options of `bench programs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Programs that are not installed are skipped, and named. Where runsc is installed, it runs them as well.\n\nExit status: 0, or with --check 1 if a target is missed; 125 if the run could not be done, 130 if it was interrupted."
)]
pub(crate) struct ProgramsOptions {
    /// How often each program is run
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Only programs whose name contains this
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,

    /// Exit with status 1 when a target is missed
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench figures`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0, or with --check 1 if a target is missed; 125 if the run could not be done, 130 if it was interrupted."
)]
pub(crate) struct FiguresOptions {
    /// How often each program is run
    #[arg(long, value_name = "K", default_value_t = 20)]
    pub(crate) rounds: usize,

    /// Exit with status 1 when a target is missed
    #[arg(long)]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench peers`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0, or 1 if LuminaGuard's own rows failed or left something behind; 125 if the run could not be done, \
    130 if it was interrupted."
)]
pub(crate) struct PeersOptions {
    /// How often the program is run in each
    #[arg(long, value_name = "K", default_value_t = 20)]
    pub(crate) rounds: usize,

    /// What is run
    #[arg(long, value_name = "NAME", default_value = "true")]
    pub(crate) program: ProgramName,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The options of `bench overload`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 if all that was admitted completed, all else was refused for a reason, all recovered and nothing \
    was left behind; 1 if not, 125 if the run could not be done, 130 if it was interrupted. What was found by then is \
    written all the same."
)]
pub(crate) struct OverloadOptions {
    /// What is made scarce, one or several of these [default: all]
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',')]
    pub(crate) only: Vec<ScarceName>,

    #[command(flatten)]
    pub(crate) output: Output,
}

/// The resources of `bench overload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScarceName {
    /// How many sandboxes may be there: 3 and 10 times as many ask
    Counts,
    /// Memory: a budget of admission, a control group, and guests that want more than their limit
    Memory,
    /// Open files of the process that has the sandboxes, with admission before them and without
    Descriptors,
    /// Processes of a control group, with admission before them and without
    Processes,
    /// The disk that guests and results are written to is full
    Disk,
}

/// The programs of `bench peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgramName {
    /// /bin/true
    True,
    /// python3 -c 'print(1)'
    Python,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Verb, one_line};

    #[test]
    fn a_resource_that_is_misspelt_is_an_error_that_names_the_nearest() {
        let parse = |only| Arguments::try_parse_from(["luminaguard", "bench", "overload", "--only", only]);
        let parsed = parse("memory,disk").unwrap();
        let Verb::Bench(BenchVerb::Overload(options)) = parsed.verb else { panic!("no overload") };
        assert_eq!(options.only, [ScarceName::Memory, ScarceName::Disk]);
        let message = one_line(&parse("memory,descripters").unwrap_err());
        assert!(message.contains("a similar value exists: 'descriptors'"), "{message}");
    }

    #[test]
    fn agent_counts_are_a_list() {
        let parsed =
            Arguments::try_parse_from(["luminaguard", "bench", "scale", "--agents", "1,2,50"]).unwrap();
        let Verb::Bench(BenchVerb::Scale(options)) = parsed.verb else { panic!("not a scale run") };
        assert_eq!(options.agents, [1, 2, 50]);
    }

    #[test]
    fn faults_are_a_list_of_names() {
        let parse = |faults| {
            let words = ["luminaguard", "bench", "chaos", "--faults", faults];
            let parsed = Arguments::try_parse_from(words).map_err(|error| one_line(&error))?;
            let Verb::Bench(BenchVerb::Chaos(options)) = parsed.verb else { panic!("not a chaos run") };
            Ok::<_, String>(options.faults.unwrap())
        };
        assert_eq!(parse("full-disk,kill-vmm").unwrap(), [FaultKind::FullDisk, FaultKind::KillVmm]);
        let message = parse("kill-vmm,kill-runtme").unwrap_err();
        assert!(
            message.contains("'kill-runtme'") && message.contains("similar value exists: 'kill-runtime'"),
            "{message}"
        );
        assert!(parse("").is_err());
    }
}
