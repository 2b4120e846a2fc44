//! `/proc/net`, `/sys` and the control group, as far as they are the same on any machine.

use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;

use libc::*;

use crate::sys::{c, eventually, fstat, sys};
use crate::{Check, Report};

pub const CHECKS: &[Check] = &[
    ("proc_net_tcp", tcp),
    ("proc_net_udp", udp),
    ("proc_net_unix", unix_sockets),
    ("proc_net_devices", devices),
    ("sys_cpu", cpu),
    ("sys_net", loopback),
    ("sys_cgroup", cgroup),
];

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

fn inode(socket: &impl AsRawFd) -> String {
    fstat(socket.as_raw_fd() as usize).unwrap().st_ino.to_string()
}

/// The columns of the row about a socket; ports, numbers and addresses in the kernel's memory are left out.
fn row(path: &str, socket: &impl AsRawFd, ports: &[u16]) -> Option<String> {
    let inode = inode(socket);
    let text = text(path);
    let row = text.lines().find(|line| line.split_whitespace().nth(9) == Some(&inode))?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let mut shown = [&words[1..4], &words[7..9]].concat().join(" ");
    for (number, port) in ports.iter().enumerate() {
        shown = shown.replace(&format!("{port:04X}"), &format!("port {number}"));
    }
    Some(shown)
}

fn tcp(r: &mut Report) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    r.see("listening", row("/proc/net/tcp", &listener, &[port]));
    r.see("not in the other table", row("/proc/net/tcp6", &listener, &[port]));
    r.see("header", text("/proc/net/tcp").lines().next().map(str::to_owned));
    r.see("header of tcp6", text("/proc/net/tcp6").lines().next().map(str::to_owned));
    r.see("widths", text("/proc/net/tcp").lines().all(|line| line.len() == 149));
    let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, from) = listener.accept().unwrap();
    let ports = [port, from.port()];
    r.see("client", row("/proc/net/tcp", &client, &ports));
    r.see("server", row("/proc/self/net/tcp", &server, &ports));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // The other side acknowledges that after a moment.
    let seen = || row("/proc/net/tcp", &client, &ports).is_some_and(|row| row.contains(" 05 "));
    r.ensure("half closed", eventually(seen));
    r.see("one direction shut", {
        (row("/proc/net/tcp", &client, &ports), row("/proc/net/tcp", &server, &ports))
    });
    let v6 = std::net::TcpListener::bind("[::1]:0").unwrap();
    let port = v6.local_addr().unwrap().port();
    r.see("IPv6", row("/proc/net/tcp6", &v6, &[port]));
    let any = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = any.local_addr().unwrap().port();
    r.see("any", row("/proc/net/tcp6", &any, &[port]));
    let mapped = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, from) = any.accept().unwrap();
    let ports = [port, from.port()];
    r.see("IPv4 to IPv6", {
        (row("/proc/net/tcp", &mapped, &ports), row("/proc/net/tcp6", &accepted, &ports))
    });
    let idle = sys!(SYS_socket, AF_INET, SOCK_STREAM, 0).unwrap();
    let number = fstat(idle).unwrap().st_ino.to_string();
    r.see("idle", text("/proc/net/tcp").contains(&number));
}

fn udp(r: &mut Report) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    r.see("bound", row("/proc/net/udp", &socket, &[port]));
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    other.connect(("127.0.0.1", port)).unwrap();
    let ports = [port, other.local_addr().unwrap().port()];
    r.see("connected", row("/proc/net/udp", &other, &ports));
    r.see("header", text("/proc/net/udp").lines().next().map(str::to_owned));
    r.see("header of udp6", text("/proc/net/udp6").lines().next().map(str::to_owned));
    let v6 = std::net::UdpSocket::bind("[::1]:0").unwrap();
    let port = v6.local_addr().unwrap().port();
    r.see("IPv6", row("/proc/net/udp6", &v6, &[port]));
}

fn unix_sockets(r: &mut Report) {
    let row = |socket: &dyn AsRawFd| {
        let inode = fstat(socket.as_raw_fd() as usize).unwrap().st_ino.to_string();
        let text = text("/proc/net/unix");
        let row = text.lines().find(|line| line.split_whitespace().nth(6) == Some(&inode))?;
        let words: Vec<&str> = row.split_whitespace().collect();
        Some([&words[3..6], &words[7..]].concat().join(" "))
    };
    let listener = unix::UnixListener::bind("name").unwrap();
    r.see("listening", row(&listener));
    let (a, b) = unix::UnixStream::pair().unwrap();
    r.see("a pair", (row(&a), row(&b)));
    let abstract_name = format!("checks-{}", std::process::id());
    let address = unix::SocketAddr::from_abstract_name(&abstract_name).unwrap();
    let hidden = unix::UnixDatagram::bind_addr(&address).unwrap();
    r.see("abstract", row(&hidden).map(|row| row.replace(&abstract_name, "NAME")));
    let nameless = unix::UnixDatagram::unbound().unwrap();
    r.see("nameless", row(&nameless));
    r.see("header", text("/proc/net/unix").lines().next().map(str::to_owned));
}

fn devices(r: &mut Report) {
    let dev = text("/proc/net/dev");
    r.see("header", dev.lines().take(2).map(str::to_owned).collect::<Vec<_>>());
    let lo = dev.lines().find(|line| line.trim_start().starts_with("lo:"));
    r.see("columns of lo", lo.map(|line| line.split_whitespace().count()));
    r.see("route", text("/proc/net/route").lines().next().map(str::to_owned));
    let addresses = text("/proc/net/if_inet6");
    r.see("loopback", addresses.lines().find(|line| line.ends_with("lo")).map(str::to_owned));
    let names = |path: &str| -> Vec<String> {
        text(path).lines().filter_map(|line| line.split(':').next().map(str::to_owned)).collect()
    };
    r.see("sockstat", (names("/proc/net/sockstat"), names("/proc/net/sockstat6")));
    let link = std::fs::read_link("/proc/net").unwrap();
    r.see("net is a link", link.display().to_string());
}

fn cpu(r: &mut Report) {
    let at = |name: &str| text(&format!("/sys/devices/system/cpu/cpu0/topology/{name}"));
    r.see("topology", ["core_id", "physical_package_id", "die_id"].map(at));
    r.see("node", std::path::Path::new("/sys/devices/system/cpu/cpu0/topology").is_dir());
    let first = |path: &str| text(path).starts_with('0');
    r.see("online", first("/sys/devices/system/cpu/online"));
    r.see("possible", first("/sys/devices/system/cpu/possible"));
    r.see("nodes", text("/sys/devices/system/node/online"));
    r.see("distance", text("/sys/devices/system/node/node0/distance"));
    let meminfo = text("/sys/devices/system/node/node0/meminfo");
    let total =
        |text: &str, name: &str| text.lines().any(|line| line.contains(name) && line.ends_with(" kB"));
    r.see("memory of the node", (total(&meminfo, "Node 0 MemTotal:"), total(&meminfo, "Node 0 MemFree:")));
    // SAFETY: sysconf takes any number.
    r.ensure("processors", unsafe { sysconf(_SC_NPROCESSORS_CONF) } >= 1);
}

fn loopback(r: &mut Report) {
    for name in ["mtu", "address", "ifindex", "flags", "type", "operstate", "addr_len", "tx_queue_len"] {
        r.see(name, text(&format!("/sys/class/net/lo/{name}")));
    }
    r.see("no speed", std::fs::read_to_string("/sys/class/net/lo/speed").is_err());
    r.see("write", sys!(SYS_open, c("/sys/class/net/lo/type").as_ptr(), O_RDONLY).is_ok());
}

/// What a machine has there differs, so that only the sandbox's own promise is checked.
fn cgroup(r: &mut Report) {
    let is_sandbox = text("/proc/version").contains("luminaguard");
    let holds = |promise: bool| !is_sandbox || promise;
    let number = |name: &str| text(&format!("/sys/fs/cgroup/{name}")).trim().parse::<u64>();
    let mounts = text("/proc/self/mountinfo");
    r.ensure("is mounted", holds(mounts.contains(" / /sys/fs/cgroup rw") && mounts.contains("- cgroup2 ")));
    r.ensure("own group", holds(text("/proc/self/cgroup") == "0::/\n"));
    let total = text("/proc/meminfo")
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()));
    r.ensure("memory.max", holds(number("memory.max").ok().map(|bytes| bytes / 1024) == total));
    let current = number("memory.current").unwrap_or(0);
    r.ensure("memory.current", holds(current > 0 && number("memory.max").is_ok_and(|max| current <= max)));
    r.ensure("cpu.max", holds(text("/sys/fs/cgroup/cpu.max") == "max 100000\n"));
    r.ensure(
        "pids",
        holds(number("pids.current").is_ok_and(|count| count >= 1) && number("pids.max").is_ok()),
    );
    let procs = text("/sys/fs/cgroup/cgroup.procs");
    r.ensure("lists this process", holds(procs.lines().any(|line| line == std::process::id().to_string())));
    r.ensure("can not be divided", holds(sys!(SYS_mkdir, c("/sys/fs/cgroup/new").as_ptr(), 0o755).is_err()));
}
