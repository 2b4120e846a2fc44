//! What a fork has open.

use std::collections::BTreeMap;

use crate::captive::Captive;
use crate::{Attack, Scene, Verdict, process, told};

/// What a vmm has open, by the beginning of its name in /proc/PID/fd, and how many of each at most. docs/security.md lists
/// them.
const DOCUMENTED: &[(&str, usize)] = &[
    ("socket:[", 1),
    ("anon_inode:[signalfd]", 1),
    ("/dev/kvm", 1),
    ("anon_inode:kvm-vm", 1),
    ("anon_inode:kvm-vcpu", 1),
    ("/dev/null", 3),
    ("/proc/", 1),
];

/// All attacks of the group.
pub fn attacks() -> Vec<Attack> {
    let attack = |name: &str, make: fn(&Captive) -> Verdict| Attack::new(name, make);
    vec![
        attack("none-beyond-those-documented", only_documented),
        attack("none-beyond-those-documented-with-mounts", only_documented).on(Scene::Granted),
        attack("no-socket-of-another", no_socket_of_another),
    ]
}

fn only_documented(captive: &Captive) -> Verdict {
    let known: BTreeMap<u64, String> = captive.descriptors().into_iter().collect();
    let buffer = captive.put(&[0; 256]);
    let mut counts = BTreeMap::new();
    for fd in 0..4096 {
        if captive.call(libc::SYS_fstat, &[fd, buffer]) != Ok(0) {
            continue;
        }
        let what = known.get(&fd).ok_or_else(|| format!("descriptor {fd} is open and in no list"))?;
        // The runtime's own standard error, which traces go to.
        if fd == 2 || is_granted(what) {
            continue;
        }
        let (kind, most) = DOCUMENTED
            .iter()
            .find(|(kind, _)| what.starts_with(kind))
            .ok_or_else(|| format!("descriptor {fd} is {what}"))?;
        let count = counts.entry(kind).or_insert(0);
        *count += 1;
        if *count > *most {
            return Err(format!("there are more than {most} of {kind}"));
        }
    }
    Ok(format!("{} descriptors", known.len()))
}

/// Whether it is a file of the image `host` or of a mount, or a directory on the way to one.
fn is_granted(path: &str) -> bool {
    let root = told("ROOT");
    let granted = ["/usr", "/opt", "/etc", "/bin", "/sbin", "/lib"];
    granted.iter().any(|granted| path.starts_with(granted))
        || path.starts_with(&format!("{root}/ro"))
        || path.starts_with(&format!("{root}/rw"))
}

fn no_socket_of_another(captive: &Captive) -> Verdict {
    let sockets_of = |pid: u64| -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is there").flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links
            .map(|link| link.to_string_lossy().into_owned())
            .filter(|link| link.starts_with("socket:"))
            .collect()
    };
    let own: Vec<_> = captive.descriptors().into_iter().map(|(_, what)| what).collect();
    for other in ["TEMPLATE", "SIBLING"] {
        if let Some(socket) = sockets_of(process(other)).iter().find(|socket| own.contains(socket)) {
            return Err(format!("{socket} is {other}'s as well"));
        }
    }
    Ok("its own alone".to_owned())
}
