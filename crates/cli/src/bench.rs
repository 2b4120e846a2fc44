//! `luminaguard bench`.

use std::io::Write;

use anyhow::{Context, Result};
use lg_bench::{
    Backend, BareVm, Bench, CHAOS_RUNTIME, ChaosConfig, ClaimConfig, CompareConfig, Criteria, Extras,
    FaultKind, Figures, FiguresConfig, Finding, ForkConfig, Interrupted, KvmProbe, KvmSample, LivesConfig,
    OverloadConfig, PeerProgram, PeersConfig, ProgramsConfig, ScaleConfig, Scarce, Scenario, Sides,
    SpawnConfig,
};
use lg_runtime::{Launcher, TemplateSpec};

use crate::bench_args::{
    BenchVerb, ChaosOptions, CompareOptions, FiguresOptions, Output, OverloadOptions, PeersOptions,
    ProgramName, ProgramsOptions, ScaleOptions, ScarceName, SpawnOptions, TemplateName,
};
use crate::complain;

/// The exit status of a run that was interrupted: that of a program which SIGINT ended.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(verb: BenchVerb) -> Result<u8> {
    let result = match verb {
        BenchVerb::Scale(options) => scale(options),
        BenchVerb::Spawn(options) => spawn(&options),
        BenchVerb::Fork(options) => measure(&options.output, |bench| {
            ForkConfig { bench, count: options.count, state_bytes: options.state }.run()
        }),
        BenchVerb::Claim(options) => measure(&options.output, |bench| {
            ClaimConfig { bench, count: options.count, ready: options.ready }.run()
        }),
        BenchVerb::Lives(options) => measure(&options.output, |bench| {
            LivesConfig { bench, seconds: options.seconds, concurrency: options.concurrency }.run()
        }),
        BenchVerb::Chaos(options) => chaos(options),
        BenchVerb::Compare(options) => compare(options),
        BenchVerb::Figures(options) => figures(&options),
        BenchVerb::Programs(options) => programs(&options),
        BenchVerb::Peers(options) => peers(&options),
        BenchVerb::Overload(options) => overload(&options),
    };
    match result {
        Err(error) if error.is::<Interrupted>() => {
            complain(&error.to_string());
            Ok(INTERRUPTED)
        }
        result => result,
    }
}

fn new_bench() -> Result<Bench> {
    let hardware = lg_kvm::probe().context("cannot make a virtual machine")?;
    let bare_vm = BareVm::new(kind_name(hardware.kind), move || Ok(lg_kvm::bare_life(hardware)?));
    Ok(Bench { launcher: Launcher::current_exe(), bare_vm })
}

fn spawn(options: &SpawnOptions) -> Result<u8> {
    let template = match options.template {
        TemplateName::Python => TemplateSpec::python(),
        TemplateName::Base => TemplateSpec::base(),
    };
    measure(&options.output, |bench| {
        let SpawnOptions { count, concurrency, burst, .. } = *options;
        SpawnConfig { bench, template, count, concurrency, burst }.run()
    })
}

fn chaos(options: ChaosOptions) -> Result<u8> {
    measure(&options.output, |bench| {
        ChaosConfig {
            bench,
            seconds: options.seconds,
            seed: options.seed,
            concurrency: options.concurrency,
            faults: options.faults.unwrap_or_else(|| FaultKind::ALL.into()),
            other_runtime: vec!["/proc/self/exe".into(), CHAOS_RUNTIME.into()],
        }
        .run()
    })
}

/// Is a runtime that `bench chaos` kills.
pub(crate) fn chaos_runtime() -> Result<u8> {
    lg_bench::serve_chaos_runtime(&Launcher::current_exe()).map(|()| 0)
}

/// Measures, shows the tables, writes the file.
fn measure<F: Finding>(output: &Output, run: impl FnOnce(Bench) -> Result<F>) -> Result<u8> {
    if let Some(path) = &output.json {
        lg_bench::check_json_path(path)?;
    }
    let finding = run(new_bench()?)?;
    writeln!(std::io::stdout().lock(), "{}", crate::printable_lines(&finding.tables()))?;
    if let Some(path) = &output.json {
        lg_bench::write_json(path, &finding)?;
    }
    let complaints = finding.complaints();
    complaints.iter().for_each(|complaint| complain(complaint));
    if finding.is_interrupted() {
        return Err(Interrupted.into());
    }
    Ok(u8::from(!complaints.is_empty()))
}

/// What `--full` adds.
const FULL_AGENTS: [usize; 2] = [500, 1000];
const REPETITIONS: usize = 5;
const FULL_REPETITIONS: usize = 10;
const PEER_ROUNDS: usize = 30;

fn scale(options: ScaleOptions) -> Result<u8> {
    if let Some(path) = &options.output.json {
        lg_bench::check_json_path(path)?;
    }
    let outcome = scale_config(&options)?.run()?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", outcome.table)?;
    for file in &outcome.files {
        writeln!(stdout, "{}", file.display())?;
    }
    writeln!(stdout, "\n{}", outcome.criteria_table())?;
    if let Some(path) = &options.output.json {
        lg_bench::write_json(path, &outcome.scaling)?;
    }
    if outcome.scaling.interrupted {
        complain("interrupted: the files hold what was measured until then");
        return Ok(INTERRUPTED);
    }
    outcome.complaints().iter().for_each(|complaint| complain(complaint));
    Ok(u8::from(!outcome.is_clean() || options.check && !outcome.criteria_hold()))
}

fn scale_config(options: &ScaleOptions) -> Result<ScaleConfig> {
    let (backend, kvm) = match (options.native, options.cold) {
        (true, _) => (Backend::Native, None),
        (false, true) => (Backend::Cold(Launcher::current_exe()), Some(bare_vm as KvmProbe)),
        (false, false) => (Backend::Warm(Launcher::current_exe()), Some(bare_vm as KvmProbe)),
    };
    let mut scenario = Scenario::find(&options.scenario)?;
    if let Some(count) = options.operations {
        scenario = scenario.with_operations(count)?;
    }
    scenario.think = options.think_time.unwrap_or(scenario.think);
    let criteria = match &options.criteria {
        None => Criteria::shipped()?,
        Some(path) => {
            let read = || Criteria::parse(&std::fs::read_to_string(path)?);
            read().with_context(|| format!("the criteria {}", path.display()))?
        }
    };
    let more = options.full.then_some(FULL_AGENTS);
    let extras = options.full.then(full_extras).transpose()?;
    let repetitions = if options.full { FULL_REPETITIONS } else { REPETITIONS };
    Ok(ScaleConfig {
        agents: options.agents.iter().copied().chain(more.into_iter().flatten()).collect(),
        repetitions: options.repetitions.unwrap_or(repetitions),
        out: options.out.clone(),
        backend,
        scenario,
        arrival: options.arrival,
        seed: options.seed,
        criteria,
        memory_bytes: options.memory,
        deadline: options.deadline,
        kvm,
        extras,
    })
}

fn full_extras() -> Result<Extras> {
    let luminaguard = std::env::current_exe()?;
    let bench = new_bench()?;
    let overload =
        OverloadConfig { bare_vm: bench.bare_vm.clone(), luminaguard: luminaguard.clone(), only: Vec::new() };
    let peers = PeersConfig { bench, luminaguard, program: PeerProgram::True, rounds: PEER_ROUNDS };
    Ok(Extras { peers, overload })
}

fn figures(options: &FiguresOptions) -> Result<u8> {
    if let Some(path) = &options.output.json {
        lg_bench::check_json_path(path)?;
    }
    let config =
        FiguresConfig { luminaguard: std::env::current_exe()?, rounds: options.rounds, kvm: bare_vm };
    let figures = config.run()?;
    tell(&figures, &options.output)?;
    Ok(u8::from(options.check && !figures.targets_hold()))
}

fn programs(options: &ProgramsOptions) -> Result<u8> {
    if let Some(path) = &options.output.json {
        lg_bench::check_json_path(path)?;
    }
    let (luminaguard, rounds, only) = (std::env::current_exe()?, options.rounds, options.only.clone());
    let figures = ProgramsConfig { luminaguard, rounds, only, kvm: bare_vm }.run()?;
    tell(&figures, &options.output)?;
    Ok(u8::from(options.check && figures.figures.iter().any(|figure| figure.passed == Some(false))))
}

/// Prints figures and writes them where they are wanted.
fn tell(figures: &Figures, output: &Output) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{}", figures.table())?;
    if let Some(path) = &output.json {
        lg_bench::write_json(path, figures)?;
    }
    if figures.interrupted {
        return Err(Interrupted.into());
    }
    Ok(())
}

fn peers(options: &PeersOptions) -> Result<u8> {
    let program = match options.program {
        ProgramName::True => PeerProgram::True,
        ProgramName::Python => PeerProgram::Python,
    };
    let (luminaguard, rounds) = (std::env::current_exe()?, options.rounds);
    measure(&options.output, |bench| PeersConfig { bench, luminaguard, program, rounds }.run())
}

fn overload(options: &OverloadOptions) -> Result<u8> {
    let scarce = |name: &ScarceName| match name {
        ScarceName::Counts => Scarce::Counts,
        ScarceName::Memory => Scarce::Memory,
        ScarceName::Descriptors => Scarce::Descriptors,
        ScarceName::Processes => Scarce::Processes,
        ScarceName::Disk => Scarce::Disk,
    };
    let (luminaguard, only) = (std::env::current_exe()?, options.only.iter().map(scarce).collect());
    measure(&options.output, |bench| OverloadConfig { bare_vm: bench.bare_vm, luminaguard, only }.run())
}

/// What binaries measure unless something else is asked for.
const COMPARED: [&str; 5] = ["spawn", "--count", "100", "--burst", "0"];

fn compare(options: CompareOptions) -> Result<u8> {
    if let Some(path) = &options.output.json {
        lg_bench::check_json_path(path)?;
    }
    let sides = if options.binary.is_empty() {
        let results = options.results.try_into().map_err(|_| anyhow::anyhow!("two results are compared"))?;
        Sides::Results(results)
    } else {
        let paths = options.binary.try_into().map_err(|_| anyhow::anyhow!("--binary must be given twice"))?;
        let default = || COMPARED.map(str::to_owned).into();
        let words = if options.words.is_empty() { default() } else { options.words };
        Sides::Binaries { paths, words, rounds: options.rounds }
    };
    let config = CompareConfig { sides, alpha: options.alpha, threshold: options.threshold / 100.0 };
    let finding = config.run()?;
    writeln!(std::io::stdout().lock(), "{}", crate::printable_lines(&finding.tables()))?;
    if let Some(path) = &options.output.json {
        lg_bench::write_json(path, &finding)?;
    }
    if finding.interrupted {
        return Err(Interrupted.into());
    }
    Ok(u8::from(options.check && finding.is_slower()))
}

/// Is the process of one row of `bench overload`.
pub(crate) fn overload_row(task: &str) -> Result<u8> {
    match lg_bench::overload_row(task) {
        Err(error) if error.is::<Interrupted>() => Ok(INTERRUPTED),
        result => result.map(|()| 0),
    }
}

/// Measures one bare virtual machine.
fn bare_vm() -> Result<KvmSample> {
    let survey = lg_kvm::survey()?;
    Ok(KvmSample {
        kind: kind_name(survey.hardware.kind).to_owned(),
        life_ms: (survey.create + survey.first_exit + survey.tear_down).as_secs_f64() * 1e3,
        round_trip_ns: survey.round_trip.as_secs_f64() * 1e9,
    })
}

/// The kind of KVM as the result files name it.
pub(crate) fn kind_name(kind: lg_kvm::Kind) -> &'static str {
    match kind {
        lg_kvm::Kind::Ordinary => "ordinary",
        lg_kvm::Kind::Pvm => "pvm",
    }
}
