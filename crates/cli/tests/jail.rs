//! The jail around a vmm, as the host sees it: of sandboxes, templates and forks. Each test says loudly that it is skipped where
//! there is no /dev/kvm, or where this user may not look.

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use common::{launcher, with_kvm};
use lg_runtime::{Access, Sandbox, SandboxSpec, Template, TemplateSpec, Wall, WarmUp};

/// Leaves the test where there is no KVM, or where this user may not look at processes that are not dumpable.
fn with_kvm_as_root(test: impl Future<Output = ()>) {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root may look at the processes of sandboxes");
        return;
    }
    with_kvm(test);
}

async fn template(
    change: impl FnOnce(SandboxSpec) -> SandboxSpec,
) -> Result<Template, lg_runtime::TemplateError> {
    let mut spec = TemplateSpec::new("jailed", WarmUp::Nothing);
    spec.sandbox = change(spec.sandbox);
    Template::build(&spec, &launcher()).await
}

fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
}

fn namespace(pid: &str, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

/// The mounts of a process: where, and with which options.
fn mounts(pid: u32) -> Vec<(String, BTreeSet<String>)> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mount = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields[4].to_owned(), fields[5].split(',').map(str::to_owned).collect())
    };
    mounts.lines().map(mount).collect()
}

fn names(dir: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn assert_jailed(pid: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    for kind in ["user", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core: Vec<_> = limits.lines().filter(|line| line.starts_with("Max core file size")).collect();
    assert_eq!(core[0].split_ascii_whitespace().filter(|word| *word == "0").count(), 2, "{core:?}");
}

#[test]
fn a_template_and_its_forks_are_jailed_alike() {
    with_kvm_as_root(async {
        let template = template(|spec| spec).await.unwrap();
        let mut fork = template.spawn().await.unwrap();
        let mut live = fork.fork(1).await.unwrap().remove(0);
        for sandbox in [&fork, &live] {
            let walls = sandbox.stats().await.unwrap().walls;
            for wall in [Wall::Namespaces, Wall::Privileges, Wall::Seccomp] {
                assert!(walls.contains(&wall), "{wall}");
            }
            if !walls.contains(&Wall::Landlock) {
                eprintln!("NOTE: this host has no Landlock: that wall does not stand");
            }
        }
        for pid in [template.vmm_pid(), fork.vmm_pid(), live.vmm_pid()] {
            assert_jailed(pid);
        }
        fork.kill().await.unwrap();
        live.kill().await.unwrap();
        template.end().await.unwrap();
    });
}

#[test]
fn the_root_of_a_vmm_holds_what_was_granted_and_nothing_else() {
    with_kvm_as_root(async {
        let dir = tempfile::tempdir().unwrap();
        for name in ["read", "write", "hidden"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let template = template(|spec| {
            spec.mount(dir.path().join("read"), "/mnt/read", Access::ReadOnly).mount(
                dir.path().join("write"),
                "/mnt/write",
                Access::ReadWrite,
            )
        })
        .await
        .unwrap();
        let mut fork = template.spawn().await.unwrap();
        let pid = fork.vmm_pid();
        let root = format!("/proc/{pid}/root");
        let first = dir.path().components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned();
        let allowed: BTreeSet<String> =
            ["usr", "opt", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32", &first]
                .map(String::from)
                .into();
        let found = names(&root);
        assert!(found.is_subset(&allowed), "{found:?}");
        assert!(found.contains("usr") && found.contains(&first));
        assert!(!names(&format!("{root}/etc")).contains("shadow"));
        assert_eq!(
            names(&format!("{root}{}", dir.path().display())),
            ["read", "write"].map(String::from).into()
        );
        for (place, options) in mounts(pid) {
            for option in ["nosuid", "nodev", "noexec"] {
                assert!(options.contains(option), "{place} {options:?}");
            }
            let is_writable = place == dir.path().join("write").to_str().unwrap();
            assert_eq!(options.contains("rw"), is_writable, "{place} {options:?}");
        }
        fork.kill().await.unwrap();
        template.end().await.unwrap();
    });
}

#[test]
fn a_wall_is_left_out_only_where_that_is_asked_for() {
    with_kvm_as_root(async {
        let template = template(|spec| spec.without_wall(Wall::Seccomp)).await.unwrap();
        let mut fork = template.spawn().await.unwrap();
        assert_eq!(status(fork.vmm_pid(), "Seccomp"), "0");
        assert_ne!(namespace(&fork.vmm_pid().to_string(), "user"), namespace("self", "user"));
        let walls = fork.stats().await.unwrap().walls;
        assert!(walls.contains(&Wall::Namespaces) && !walls.contains(&Wall::Seccomp), "{walls:?}");
        fork.kill().await.unwrap();
        template.end().await.unwrap();
    });
}

#[test]
fn a_vmm_holds_no_directory_outside_its_root() {
    with_kvm_as_root(async {
        let template = template(|spec| spec).await.unwrap();
        let mut fork: Sandbox = template.spawn().await.unwrap();
        fork.files().list("/usr/bin").await.unwrap();
        let pid = fork.vmm_pid();
        let inside: BTreeSet<String> = mounts_by_id(pid);
        for fd in names(&format!("/proc/{pid}/fd")) {
            // It may be closed meanwhile.
            let Ok(facts) = std::fs::metadata(format!("/proc/{pid}/fd/{fd}")) else { continue };
            if facts.is_dir() {
                let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
                let mount =
                    info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap().trim().to_owned();
                assert!(inside.contains(&mount), "descriptor {fd}: {info}");
            }
        }
        fork.kill().await.unwrap();
        template.end().await.unwrap();
    });
}

fn mounts_by_id(pid: u32) -> BTreeSet<String> {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    mounts.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}
