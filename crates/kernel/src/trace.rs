//! The log of system calls (`--strace`).

use crate::Kernel;
use crate::syscall::{ArgKind, Row};
use crate::task::{Call, Tid};

/// Longest string argument that is shown, in bytes.
const MAX_STRING: usize = 80;

impl Kernel {
    /// Writes a line to the log if there is one.
    pub(crate) fn trace_line(&mut self, tid: Tid, line: &str) {
        if let Some(trace) = &mut self.trace {
            trace(&format!("[{tid}] {line}"));
        }
    }

    /// Writes a finished system call to the log.
    pub(crate) fn trace_call(&mut self, tid: Tid, row: Option<&Row>, call: &Call, result: Option<u64>) {
        if self.trace.is_none() {
            return;
        }
        let result = match result {
            None => "?".to_owned(),
            Some(value) if (value as i64) < 0 && (value as i64) >= -4095 => {
                format!("-1 {}", lg_abi::Errno::from_host(-(value as i64) as i32))
            }
            Some(value) if value > 0xffff_ffff => format!("{value:#x}"),
            Some(value) => value.to_string(),
        };
        let line = match row {
            Some(row) => {
                let shown: Vec<String> = row
                    .args
                    .iter()
                    .zip(call.args)
                    .map(|(kind, arg)| self.show_argument(tid, *kind, arg))
                    .collect();
                format!("{}({}) = {result}", row.name, shown.join(", "))
            }
            None => format!("syscall_{}({:#x}, …) = {result}", call.number, call.args[0]),
        };
        self.trace_line(tid, &line);
    }

    fn show_argument(&self, tid: Tid, kind: ArgKind, value: u64) -> String {
        match kind {
            ArgKind::Fd if value as i32 == -100 => "AT_FDCWD".to_owned(),
            ArgKind::Fd | ArgKind::Int => (value as i32).to_string(),
            ArgKind::Len => (value as i64).to_string(),
            ArgKind::Octal => format!("{:#o}", value as u32),
            ArgKind::Signal => match lg_abi::Signal::new(value) {
                Some(signal) => signal.to_string(),
                None => value.to_string(),
            },
            ArgKind::Pointer if value == 0 => "NULL".to_owned(),
            ArgKind::Pointer | ArgKind::Flags => format!("{value:#x}"),
            ArgKind::Path => {
                let Some(task) = self.tasks.get(&tid) else { return format!("{value:#x}") };
                match crate::mm::UserMemory::new(&task.mm).read_string(value, 4096) {
                    Ok(mut path) => {
                        let cut = path.len() > MAX_STRING;
                        path.truncate(MAX_STRING);
                        format!("\"{}\"{}", path.escape_ascii(), if cut { "…" } else { "" })
                    }
                    Err(_) => format!("{value:#x}"),
                }
            }
        }
    }
}
