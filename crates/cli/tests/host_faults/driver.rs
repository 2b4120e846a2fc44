//! What a runtime does while a call of it or of its vmms fails. It must get over that: what failed is done again, and
//! must succeed then.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lg_runtime::admission::{Admission, AdmissionConfig};
use lg_runtime::pool::{Ask, SandboxPool, SandboxPoolConfig};
use lg_runtime::{
    Census, Cgroup, CgroupError, CgroupLimits, ExitStatus, Launcher, Leftovers, Sandbox, Template,
    TemplateSpec,
};

use super::common::{launcher, told};

/// How long what has ended may still be seen.
const MOMENT: Duration = Duration::from_secs(5);
/// How long a claim may wait.
const CLAIM_LIMIT: Duration = Duration::from_secs(20);

type Said = Result<String, Box<dyn Error>>;

/// Does what the name says, twice if the first attempt fails, and prints what came of it. Exit status: 0 done, 3 the
/// second attempt failed as well, 4 something is left.
pub fn drive(name: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let before = Census::take();
        // Between two calls of getppid(2) calls are counted, and one of them fails.
        let _ = std::os::unix::process::parent_id();
        let mut said = attempt(name).await;
        if let Err(error) = &said {
            eprintln!("error: {}", told(&**error));
        }
        let _ = std::os::unix::process::parent_id();
        if said.is_err() {
            said = attempt(name).await;
        }
        // Control groups are counted by name: others make some, too.
        let left = Leftovers { cgroups: None, ..before.settle(MOMENT).await };
        match said {
            Ok(text) => print!("{text}"),
            Err(error) => {
                eprintln!("a second error: {}", told(&*error));
                return ExitCode::from(3);
            }
        }
        let groups = own_cgroups(Path::new("/sys/fs/cgroup"));
        if left.is_nothing() && groups.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("left behind: {left:?} {groups:?}");
        ExitCode::from(4)
    })
}

async fn attempt(name: &str) -> Said {
    match name {
        "template" => template(launcher()).await,
        "cgroup" => cgroup().await,
        "fork" => fork().await,
        "pool" => pool().await,
        other => Err(format!("there is no {other}").into()),
    }
}

/// A template, two forks, a program and a file in each.
async fn template(launcher: Launcher) -> Said {
    let template = Template::build(&TemplateSpec::base(), &launcher).await?;
    let mut said = String::new();
    for number in 1..=2 {
        let fork = template.spawn().await?;
        fork.files().write("/tmp/number", number.to_string().as_bytes()).await?;
        said +=
            &shell(&fork, "set -e; cat /tmp/number; echo; ls /usr > /tmp/list; wc -l < /tmp/list").await?;
        said += &String::from_utf8(fork.files().read("/tmp/list").await?)?;
    }
    template.end().await?;
    Ok(said)
}

/// The same in a control group, where the host has some.
async fn cgroup() -> Said {
    match Cgroup::create(&CgroupLimits { processes: Some(64), ..CgroupLimits::default() }) {
        Ok(group) => template(launcher().cgroup(group.into())).await,
        Err(CgroupError::NoController { .. }) => template(launcher()).await,
        Err(error) => Err(error.into()),
    }
}

/// Control groups that this process has made and that are there.
fn own_cgroups(directory: &Path) -> Vec<PathBuf> {
    let own = format!("luminaguard-{}-", std::process::id());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = directories.flat_map(|entry| {
        let is_own = entry.file_name().to_string_lossy().starts_with(&own);
        if is_own { vec![entry.path()] } else { own_cgroups(&entry.path()) }
    });
    found.collect()
}

/// A sandbox that is forked from the middle of its life.
async fn fork() -> Said {
    let mut root = Template::build(&TemplateSpec::python(), &launcher()).await?.spawn().await?;
    evaluate(&mut root, "x = 40\nx").await?;
    let mut said = String::new();
    for (number, mut fork) in root.fork(2).await?.into_iter().enumerate() {
        said += &evaluate(&mut fork, &format!("x += {number}\nx")).await?;
        said += &shell(&fork, "echo $((6 * 7))").await?;
    }
    said += &evaluate(&mut root, "x").await?;
    root.kill().await?;
    Ok(said)
}

/// Claims from a pool.
async fn pool() -> Said {
    let template = Template::build(&TemplateSpec::python(), &launcher()).await?;
    let admission =
        Some(Admission::new(AdmissionConfig { max_alive: Some(4), ..AdmissionConfig::default() }));
    let mut config = SandboxPoolConfig { admission, ..SandboxPoolConfig::default() };
    config.pool.floor = 2;
    let pool = SandboxPool::new(template.into(), config);
    let mut said = String::new();
    for number in 0..3 {
        let mut sandbox = pool.claim(&Ask::default(), CLAIM_LIMIT).await?;
        said += &evaluate(&mut sandbox, &format!("{number} + 1")).await?;
        sandbox.end().await?;
    }
    pool.shutdown().await;
    Ok(said)
}

async fn shell(sandbox: &Sandbox, script: &str) -> Said {
    let output = sandbox.program(["sh", "-c", script]).output().await?;
    if output.status != ExitStatus::Exited(0) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the program ended with {}: {errors}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

async fn evaluate(sandbox: &mut Sandbox, source: &str) -> Said {
    let cell = sandbox.context().ok_or("there is no interpreter")?.evaluate(source).await?;
    match cell.text() {
        Some(text) => Ok(format!("{text}\n")),
        None => Err(format!("{source}: {cell:?}").into()),
    }
}
