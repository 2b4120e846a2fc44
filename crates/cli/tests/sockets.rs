//! Python programs that talk over sockets, natively and in a sandbox: both must print the same. Each test says loudly that it is
//! skipped where there is no /dev/kvm or no Python.

mod needs_kvm;

use std::process::{Command, Stdio};

use needs_kvm::needs_kvm;

const LUMINAGUARD: &str = env!("CARGO_BIN_EXE_luminaguard");

/// Runs a program in both worlds.
#[track_caller]
fn alike(program: &str, expected: &str) {
    let natively = Command::new("python3").args(["-c", program]).stdin(Stdio::null()).output();
    let Ok(natively) = natively else {
        eprintln!("SKIPPED: there is no python3 on this machine");
        return;
    };
    let mut command = Command::new(LUMINAGUARD);
    command.args(["run", "--timeout", "60s", "--", "python3", "-c", program]).stdin(Stdio::null());
    let sandboxed = command.output().unwrap();
    for (world, output) in [("natively", natively), ("in a sandbox", sandboxed)] {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&output.stdout), expected, "{world}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{world}");
    }
}

#[test]
fn asyncio_serves_connects_and_starts_processes() {
    needs_kvm!();
    let program = r#"
import asyncio
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async def client(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"line {n}\n".encode())
        line = await reader.readline()
        writer.close()
        return line.decode().strip()
    print(await asyncio.gather(*(client(n) for n in range(20))))
    process = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=-1, stdout=-1)
    print(await process.communicate(b"through a process"))
    server.close()
asyncio.run(main())
"#;
    let lines: Vec<String> = (0..20).map(|n| format!("'LINE {n}'")).collect();
    alike(program, &format!("[{}]\n(b'THROUGH A PROCESS', None)\n", lines.join(", ")));
}

#[test]
fn a_web_server_is_asked_by_threads() {
    needs_kvm!();
    let program = r#"
import concurrent.futures, http.server, threading, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode() * 1000)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
def ask(n):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{n}") as answer:
        return answer.read() == f"/{n}".encode() * 1000
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(all(pool.map(ask, range(40))))
server.shutdown()
"#;
    alike(program, "True\n");
}

#[test]
fn processes_work_together() {
    needs_kvm!();
    let program = r#"
import concurrent.futures, multiprocessing
def square(n):
    return n * n
if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(3) as pool:
        print(list(pool.map(square, range(8))))
    queue = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=queue.put, args=(n,)) for n in range(3)]
    for process in processes:
        process.start()
    print(sorted(queue.get() for _ in processes))
    for process in processes:
        process.join()
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        print(dict(shared))
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(4)))
"#;
    alike(program, "[0, 1, 4, 9, 16, 25, 36, 49]\n[0, 1, 2]\n{'a': 1, 'b': 2}\n[0, 1, 4, 9]\n");
}

#[test]
fn beyond_the_sandbox_there_is_nothing() {
    needs_kvm!();
    // Not natively: there may be a network there.
    let program = r#"
import errno, socket
for kind, address in [(socket.SOCK_STREAM, ("203.0.113.7", 80)), (socket.SOCK_DGRAM, ("198.51.100.1", 53)), (socket.SOCK_STREAM, ("10.0.0.1", 22))]:
    try:
        socket.socket(socket.AF_INET, kind).connect(address)
    except OSError as error:
        print(errno.errorcode[error.errno])
try:
    socket.getaddrinfo("example.com", 80)
except socket.gaierror:
    print("no such name")
"#;
    let mut command = Command::new(LUMINAGUARD);
    command.args(["run", "--timeout", "30s", "--", "python3", "-c", program]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "ENETUNREACH\nENETUNREACH\nENETUNREACH\nno such name\n", "{output:?}");
}
