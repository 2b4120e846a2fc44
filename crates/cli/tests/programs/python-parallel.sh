# Python: threads, processes, asyncio, futures, sockets, shared memory, mmap, ctypes, signals.
# needs: /usr/bin/python3

cat >parallel.py <<'PY'
import asyncio, concurrent.futures, ctypes, ctypes.util, mmap, multiprocessing, os, queue, select, signal
import socket, subprocess, sys, tempfile, threading, time
from multiprocessing import shared_memory


def square(n):
    return n * n


def fill(name, at):
    memory = shared_memory.SharedMemory(name)
    memory.buf[at] = at + 1
    memory.close()


def threads():
    work, done = queue.Queue(), []
    lock = threading.Lock()

    def worker():
        while (n := work.get()) is not None:
            with lock:
                done.append(square(n))

    crew = [threading.Thread(target=worker) for _ in range(8)]
    [thread.start() for thread in crew]
    [work.put(n) for n in range(100)]
    [work.put(None) for _ in crew]
    [thread.join() for thread in crew]
    print("threads", sum(done))


def processes():
    for method in ["fork", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            print(method, sum(pool.map(square, range(50))))
    memory = shared_memory.SharedMemory(create=True, size=16)
    crew = [multiprocessing.Process(target=fill, args=(memory.name, at)) for at in range(4)]
    [process.start() for process in crew]
    [process.join() for process in crew]
    print("shared", bytes(memory.buf[:4]), [process.exitcode for process in crew])
    memory.close()
    memory.unlink()
    with concurrent.futures.ProcessPoolExecutor(2) as pool, concurrent.futures.ThreadPoolExecutor(4) as more:
        print("futures", list(pool.map(square, range(5))), list(more.map(square, range(5))))
    process = multiprocessing.Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    print("terminated", process.exitcode)


async def together():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)

    async def ask(n):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello %d\n" % n)
        return await reader.read()

    print("asyncio", b"".join(await asyncio.gather(*map(ask, range(5)))))
    shell = await asyncio.create_subprocess_shell("cat; exit 3", stdin=-1, stdout=-1)
    print("subprocess", await shell.communicate(b"through cat"), shell.returncode)
    try:
        await asyncio.wait_for(asyncio.sleep(30), 0.01)
    except asyncio.TimeoutError:
        print("timeout")
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, arrived.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await arrived.wait()
    server.close()


def rest():
    print("run", subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 4"], capture_output=True, text=True))
    try:
        subprocess.run(["sleep", "30"], timeout=0.05)
    except subprocess.TimeoutExpired:
        print("timed out")
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 0) as view:
            view[4096:4101] = b"paged"
            view.flush()
        file.seek(4096)
        print("mmap", file.read(5))
    libc = ctypes.CDLL(None, use_errno=True)
    order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    values = (ctypes.c_int * 4)(3, 1, 2, 0)
    libc.qsort(values, 4, ctypes.sizeof(ctypes.c_int), order(lambda a, b: a[0] - b[0]))
    print("ctypes", list(values), libc.close(-1), ctypes.get_errno())
    a, b = socket.socketpair()
    reader, writer = os.pipe()
    socket.send_fds(a, [b"x"], [writer])
    _, [received], _, _ = socket.recv_fds(b, 1, 1)
    os.write(received, b"passed on")
    print(select.select([reader], [], [], 5)[0] == [reader], os.read(reader, 20))
    signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    signal.pause()


if __name__ == "__main__":
    threads()
    processes()
    asyncio.run(together())
    rest()
PY
/usr/bin/python3 -u parallel.py
