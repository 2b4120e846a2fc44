//! What a sandbox must not see or reach of its host: devices, kernel files, secrets, processes, the network.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::*;

use crate::sys::{self, c, sys};
use crate::{Attack, Verdict, must_fail, told};

const FILES: &[&str] = &[
    "/dev/kvm",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
    "/dev/nvme0n1",
    "/dev/fuse",
    "/dev/net/tun",
    "/dev/loop-control",
    "/dev/vhost-net",
    "/dev/cpu/0/msr",
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/kallsyms",
    "/proc/1/environ",
    "/proc/1/mem",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/machine-id.host",
    "/root/.ssh/id_ed25519",
    "/root/.bash_history",
    "/root/.cargo/credentials.toml",
    "/home",
    "/boot",
    "/var/run/docker.sock",
    "/run/systemd/private",
    "/var/lib/dpkg/status",
    "/sys/kernel/debug",
    "/sys/firmware",
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/net/eth0",
    "/sys/block",
];

const WRITES: &[&str] = &[
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/devices/system/cpu/cpu0/online",
];

/// Device numbers: what a node of them would open.
const DEVICES: &[(&str, u32, u32, u32)] = &[
    ("memory", S_IFCHR, 1, 1),
    ("ports", S_IFCHR, 1, 4),
    ("KVM", S_IFCHR, 10, 232),
    ("FUSE", S_IFCHR, 10, 229),
    ("the first disk", S_IFBLK, 8, 0),
    ("a virtio disk", S_IFBLK, 254, 0),
    ("the console", S_IFCHR, 5, 1),
];

const ADDRESSES: &[&str] = &[
    "1.1.1.1:53",
    "8.8.8.8:443",
    "169.254.169.254:80",
    "10.0.0.1:22",
    "192.168.1.1:80",
    "172.17.0.1:2375",
    "255.255.255.255:9",
    "[2606:4700:4700::1111]:53",
    "[fe80::1]:22",
    "[ff02::1]:5353",
];

const FAMILIES: &[(&str, i32, i32, i32)] = &[
    ("a packet socket", AF_PACKET, SOCK_RAW, 0),
    ("a raw IP socket", AF_INET, SOCK_RAW, IPPROTO_TCP),
    ("a raw ICMP socket", AF_INET, SOCK_RAW, IPPROTO_ICMP),
    ("a raw IPv6 socket", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
    ("a socket to the hypervisor", AF_VSOCK, SOCK_STREAM, 0),
    ("a crypto socket", AF_ALG, SOCK_SEQPACKET, 0),
    ("a Bluetooth socket", AF_BLUETOOTH, SOCK_RAW, 0),
    ("an SCTP socket", AF_INET, SOCK_STREAM, IPPROTO_SCTP),
    ("an XDP socket", AF_XDP, SOCK_RAW, 0),
    ("a CAN socket", AF_CAN, SOCK_RAW, 1),
    ("a key-management socket", AF_KEY, SOCK_RAW, 2),
    ("a netfilter socket", AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER),
    ("an audit socket", AF_NETLINK, SOCK_RAW, NETLINK_AUDIT),
];

pub fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    for path in FILES {
        all.push(Attack::new(format!("read {path}"), move || reads_nothing(path)));
    }
    for path in WRITES {
        all.push(Attack::new(format!("write {path}"), move || writes_nothing(path)));
    }
    for &(name, kind, major, minor) in DEVICES {
        all.push(Attack::new(format!("open a node of {name}"), move || {
            let path = c("/tmp/node");
            match sys!(SYS_mknod, path.as_ptr(), kind | 0o666, makedev(major, minor)) {
                Ok(_) => must_fail(sys::open("/tmp/node", O_RDWR | O_NONBLOCK)),
                refused => must_fail(refused),
            }
        }));
    }
    for address in ADDRESSES {
        all.push(Attack::new(format!("reach {address}"), move || reaches_nothing(address)));
    }
    for &(name, family, kind, protocol) in FAMILIES {
        all.push(Attack::new(format!("open {name}"), move || {
            must_fail(sys!(SYS_socket, family, kind, protocol))
        }));
    }
    all.extend([
        Attack::new("reach a server on the host's loopback", || {
            reaches_nothing(&format!("127.0.0.1:{}", told("LISTENER_PORT")))
        }),
        Attack::new("reach a server on the host's IPv6 loopback", || {
            reaches_nothing(&format!("[::1]:{}", told("LISTENER_PORT")))
        }),
        Attack::new("reach an abstract socket of the host", || {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(told("LISTENER_NAME"));
            refused(UnixStream::connect_addr(&address.map_err(|error| error.to_string())?))
        }),
        Attack::new("reach a socket of the host in a granted directory", || {
            refused(UnixStream::connect("/rw/socket"))
        }),
        Attack::new("see variables of the host", || {
            match std::env::vars().find(|(_, value)| value.contains("secret of the host")) {
                Some((name, _)) => Err(name),
                None => Ok("none is there".to_owned()),
            }
        }),
        Attack::new("see processes of the host", processes),
        Attack::new("see descriptors of the host", descriptors),
        Attack::new("see mounts of the host", || {
            let mounts =
                std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
            let outside = told("SECRET_PATH");
            let above = outside.rsplit_once('/').expect("an absolute path").0;
            if mounts.contains(above) { Err(mounts) } else { Ok("the sandbox's own alone".to_owned()) }
        }),
        Attack::new("see the host's name", || {
            let name =
                std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| error.to_string())?;
            if name.trim() == "luminaguard" { Ok(name.trim().to_owned()) } else { Err(name) }
        }),
    ]);
    all
}

fn reads_nothing(path: &str) -> Verdict {
    if let Ok(entries) = std::fs::read_dir(path) {
        let count = entries.count();
        return if count == 0 {
            Ok("an empty directory".to_owned())
        } else {
            Err(format!("{count} entries"))
        };
    }
    let fd = sys::open(path, O_RDONLY | O_NONBLOCK);
    let Ok(fd) = fd else { return must_fail(fd) };
    match sys::read(fd, 4096) {
        // A file may be there as long as nothing is in it.
        Ok(text) if text.is_empty() => Ok("empty".to_owned()),
        Ok(text) => Err(text),
        Err(errno) => Ok(format!("{errno:?}")),
    }
}

fn writes_nothing(path: &str) -> Verdict {
    let fd = sys::open(path, O_WRONLY);
    let Ok(fd) = fd else { return must_fail(fd) };
    must_fail(sys::write(fd, b"1"))
}

fn refused<T>(answer: std::io::Result<T>) -> Verdict {
    match answer {
        Ok(_) => Err("connected".to_owned()),
        Err(error) => Ok(error.kind().to_string()),
    }
}

fn reaches_nothing(address: &str) -> Verdict {
    let address: SocketAddr = address.parse().expect("an address");
    let how = refused(TcpStream::connect_timeout(&address, Duration::from_secs(2)))?;
    if how.contains("timed out") {
        return Err("the attempt was not refused at once".to_owned());
    }
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(|error| error.to_string())?;
    // To its own loopback it may send: nobody is there.
    match socket.send_to(b"x", address) {
        Ok(_) if !address.ip().is_loopback() => Err("a datagram went out".to_owned()),
        _ => Ok(how),
    }
}

fn processes() -> Verdict {
    let own = sys::pid();
    if let Some(pid) = (1..70_000).find(|&pid| pid != own && sys::kill(pid, 0).is_ok()) {
        return Err(format!("process {pid}"));
    }
    let entries = std::fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let numbers =
        entries.flatten().filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
    if numbers == 1 { Ok("this one alone".to_owned()) } else { Err(format!("{numbers} processes")) }
}

fn descriptors() -> Verdict {
    match (3..1024).find(|&fd| sys!(SYS_fcntl, fd, F_GETFD).is_ok()) {
        Some(fd) => Err(format!("descriptor {fd}")),
        None => Ok("standard streams alone".to_owned()),
    }
}
