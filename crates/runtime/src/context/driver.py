# The driver of a code context: an interpreter that stays warm and evaluates cells, with names kept between them.
# For Python 3.10 and later; 3.8 and 3.9 do too, but for builtins that a cell takes away.
#
# It is started as `python3 -c SOURCE`. Descriptors: 0 is empty, 1 and 2 are what cells print, 3 brings requests,
# 4 takes answers. A message is one JSON object on one line.
#
#   host -> driver  {"id": N, "cell": SOURCE}          evaluate
#                   {"fork": true}                     this VM has just been forked: draw fresh randomness
#   driver -> host  {"ready": true, "python": "3.11.2"}   once
#                   {"id": N, "display": {MIME: DATA}}    for each display(), each figure
#                   {"id": N, "result": {MIME: DATA} | null}                             the end of a cell,
#                   {"id": N, "error": {"name": S, "value": S, "traceback": S}}          one of the two
#                   {"error": {...}}                   without an id: a request line that says nothing known
#
# DATA is text; base64 for images; a JSON value under JSON types. A line is never longer than MAX_LINE.
# A cell's output is flushed to 1 and 2 before its last answer is written.
#
# When the cell calls exit(), when the requests end, or when 3 or 4 are gone, the interpreter runs what atexit has,
# flushes and ends; it does not wait for threads. Nothing more is answered then. A cell's process made by os.fork()
# has no descriptors 3 and 4: it ends with the cell, and what it displays is printed.
#
# SIGINT raises KeyboardInterrupt in a cell that runs (or whose value is being shown) and is ignored at any other time.
# SIGCONT says the same as {"fork": true}, and may come in the middle of a cell.
#
# What a cell could do to confuse the host: write to descriptor 4 itself, read from 3, fork by ctypes. The host
# must treat every answer as untrusted anyway. A thread that outlives its cell displays under the latest cell's id.
#
# Speed is bought where it is dear: a cell that prints nothing costs one read and one write and no other system call,
# and what forks of this VM share is touched before they are made.
import sys

# What a cell does to the builtins does not reach the functions below.
__builtins__ = dict(vars(__import__("builtins")))

# Cells mostly use these. One that is missing is left out.
PRELOADED = """json re math random os sys io time datetime collections itertools functools string pathlib tempfile uuid
secrets hashlib base64 subprocess threading traceback ast linecache typing dataclasses""".split()
for name in PRELOADED:
    try:
        __import__(name)
    except Exception:
        pass

import __future__
import _random
import ast
import atexit
import binascii
import collections
import functools
import gc
import io
import json
import linecache
import operator
import os
import signal
import threading
import traceback
import types

REQUESTS, ANSWERS = 3, 4

seed_generator = _random.Random.seed
# In bytes, with the newline.
MAX_LINE = 8 << 20
# In characters: so much is left of a text that does not fit. JSON makes at most 6 bytes of one character.
MAX_TEXT = 1 << 20
MAX_MIMES = 32
MAX_MIME_LENGTH = 128
# Flags of code objects: a coroutine, from Include/cpython/code.h, and all that `from __future__ import` may set.
CO_COROUTINE = 0x80
CO_FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
# Values of exactly these types have no other representation than their repr.
PLAIN = frozenset((bool, int, float, complex, str, bytes, bytearray, list, dict, tuple, set, frozenset, range, type))
METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_latex_", "text/latex"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_json_", "application/json"),
)

# Bound here, so that a cell that replaces os.write or json.dumps for its own tests does not replace the driver's.
write = os.write
readinto = io.FileIO(REQUESTS, "r", closefd=False).readinto
scan = json.JSONDecoder().scan_once


def refuse_to_encode(value):
    raise TypeError(f"a {name_of(type(value))} is no JSON")


def make_encoder():
    """The core of json's encoder, which is written in C and needs no builtins; or all of it, where that is not so."""
    encoder = json.encoder
    try:
        text = encoder.c_encode_basestring
        to_parts = encoder.c_make_encoder(None, refuse_to_encode, text, None, ":", ",", False, False, False)
        "".join(to_parts({"a": [1]}, 0))
        return lambda value: "".join(to_parts(value, 0))
    except (AttributeError, TypeError):
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


encode = make_encoder()

chunk = bytearray(1 << 16)
unread = bytearray()
outbox = collections.deque()
sending = threading.Lock()
fork_hooks = []
future_flags = 0
loop = None
current = 0
interrupted = False
is_child = False


# Requests and answers


def next_line():
    """The next request without its newline; None when there will be no more."""
    searched = 0
    while True:
        end = unread.find(b"\n", searched)
        if end >= 0:
            line = unread[:end]
            del unread[: end + 1]
            return line
        searched = len(unread)
        count = readinto(chunk)
        if not count:
            return None
        if not searched and chunk.find(b"\n", 0, count) == count - 1:
            return chunk[: count - 1]
        unread.extend(chunk[:count])


def send(line):
    """Writes an answer. Whoever cannot (another thread is at it, or this very one, beneath a signal handler)
    leaves it to the one who is."""
    outbox.append(line)
    while outbox and sending.acquire(False):
        try:
            while outbox:
                write_all(outbox.popleft())
        finally:
            sending.release()


def write_all(line):
    try:
        count = write(ANSWERS, line)
        while count < len(line):
            line = line[count:]
            count = write(ANSWERS, line)
    except OSError:
        os._exit(1)


def answer(number, key, data):
    """An answer as bytes. What a line cannot hold is left out, the largest first, and a note says so."""
    line = as_line({"id": number, key: data})
    if len(line) <= MAX_LINE:
        return line
    text, notes = cut(data.pop("text/plain", ""), MAX_TEXT), []
    sizes = {mime: len(as_line(value)) for mime, value in data.items()}
    room = MAX_LINE - len(as_line(text)) - (16 << 10)  # For the notes and the rest of the line.
    for mime in sorted(sizes, key=sizes.get, reverse=True):
        if sum(sizes[kept] for kept in data) <= room:
            break
        del data[mime]
        notes.append(f"[{mime} left out: {sizes[mime]} bytes are too many]")
    data["text/plain"] = with_notes(text, notes)
    return as_line({"id": number, key: data})


def decode(text):
    """The value of a JSON text. A ValueError if it is none."""
    text = text.strip(" \t\r\n")
    try:
        value, end = scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"no value at character {stop.value}") from None
    if end != len(text):
        raise ValueError(f"something follows the value at character {end}")
    return value


def as_line(message):
    return (encode(message) + "\n").encode("utf-8", "replace")


def cut(text, length):
    """At most about `length` characters of a text: its beginning, its end, and a note between them."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} of {len(text)} characters left out]\n{text[-half:]}"


def with_notes(text, notes):
    return "\n".join([text, *notes] if text else notes)


def refuse(why):
    send(as_line({"error": {"name": "RequestError", "value": why, "traceback": ""}}))


# Signals and processes


def zone(function, *arguments):
    """Calls what a SIGINT may interrupt. Every call of this stands in a `try` that catches KeyboardInterrupt."""
    return function(*arguments)


def on_interrupt(_number, frame):
    """Looks where the signal arrived instead of keeping a flag, so there is no moment just between."""
    global interrupted
    while frame is not None:
        if frame.f_code is send.__code__:
            # Half a line must not be left behind; show() raises later.
            interrupted = True
            return
        if frame.f_code is zone.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back


def on_continue(_number, _frame):
    on_vm_fork()


def on_vm_fork():
    """Two VMs must not draw the same numbers. For what a cell keeps itself, it has on_fork().

    Every fork does this first, so it raises nothing in the usual case and writes only what must change: an exception
    alone touches more memory, which a fork must copy, than all the rest.
    """
    loaded = sys.modules.get
    try:
        if (module := loaded("random")) is not None:
            # What random.seed() does.
            seed_generator(module._inst)
            module._inst.gauss_next = None
        if (module := loaded("tempfile")) is not None and module._name_sequence is not None:
            module._name_sequence = None
        if (module := loaded("uuid")) is not None:
            if module._last_timestamp is not None:
                module._last_timestamp = None
            if module._node is not None:
                module._node = None
    except Exception as error:
        complain(error)  # A module is not as it was.
    try:
        if (module := loaded("numpy.random")) is not None:
            module.seed()
        if (module := loaded("ssl")) is not None:
            module.RAND_add(os.urandom(32), 32.0)
    except Exception as error:
        complain(error)
    for hook in tuple(fork_hooks):
        try:
            hook()
        except Exception as error:
            complain(error)


def on_process_fork():
    global is_child
    if is_child:
        return
    is_child = True
    for descriptor in (REQUESTS, ANSWERS):
        try:
            os.close(descriptor)
        except OSError:
            pass


def complain(error):
    try:
        trim(error)
        sys.stderr.write("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        sys.stderr.flush()
    except Exception:
        pass


def end(status):
    """Ends the interpreter. In the child of a cell's fork, what atexit has is the parent's."""
    try:
        if not is_child:
            zone(atexit._run_exitfuncs)
    except BaseException:
        pass
    try:
        zone(flush)
    except BaseException:
        pass
    os._exit(status)


def status_of(stop):
    """The exit status that a SystemExit asks for, as the interpreter reckons it."""
    code = stop.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    try:
        print(code, file=sys.stderr)
    except Exception:
        pass
    return 1


# Cells


def open_stream(name, descriptor):
    """The text stream of a descriptor, line by line in UTF-8; None when the descriptor is closed."""
    try:
        raw = io.FileIO(descriptor, "w", closefd=False)
    except OSError:
        return None
    raw.name = f"<{name}>"
    errors = "backslashreplace" if descriptor == 2 else "surrogateescape"
    stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors, line_buffering=True)
    stream.mode = "w"
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)
    return stream


def flush():
    """Writes what was printed and not yet written. No system call if there is nothing."""
    global output, complaints
    for stream in (sys.__dict__.get("stdout"), sys.__dict__.get("stderr"), output, complaints):
        try:
            stream.flush()
        except KeyboardInterrupt:
            raise
        except BaseException:
            pass  # Closed, or its reader is gone, or not a stream at all: the cell's own doing.
    if output is not None and output.closed:
        output = open_stream("stdout", 1)
    if complaints is not None and complaints.closed:
        complaints = open_stream("stderr", 2)


def compile_cell(source, name):
    """Code for all but a last expression, and code for that; either may be None."""
    global future_flags
    tree = compile(source, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | future_flags, True)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | future_flags
    body = last = None
    expression = None
    if tree.body and type(tree.body[-1]) is ast.Expr:
        expression = ast.Expression(tree.body.pop().value)
    if tree.body:
        body = compile(tree, name, "exec", flags, True)
        flags |= body.co_flags & CO_FUTURE
    if expression is not None:
        last = compile(expression, name, "eval", flags, True)
    future_flags = flags & CO_FUTURE
    return body, last


def evaluate(number, source):
    """Runs a cell and gives the value of its last expression. A cell with an await is in the event loop as a whole."""
    name = f"<cell {number}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    body, last = compile_cell(source, name)
    if is_coroutine(body) or is_coroutine(last):
        return run_coroutine(evaluate_in_loop(body, last))
    if body is not None:
        eval(body, names)
    return None if last is None else eval(last, names)


async def evaluate_in_loop(body, last):
    value = None
    for code in body, last:
        value = None if code is None else eval(code, names)
        if is_coroutine(code):
            value = await value
    return value


def is_coroutine(code):
    return code is not None and code.co_flags & CO_COROUTINE


def run_coroutine(coroutine):
    """Runs it in the one event loop for all cells, so tasks that one cell leaves go on in the next that awaits."""
    global loop
    import asyncio

    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            try:
                loop.run_until_complete(task)
            except BaseException:
                pass
        raise


def run_cell(number, source):
    global current, interrupted
    current = number
    interrupted = False
    try:
        line = zone(succeed, number, source)
    except SystemExit as stop:
        end(status_of(stop))
    except BaseException as error:
        line = fail(number, error)
    if is_child:
        end(0)
    send(line)


def succeed(number, source):
    value = evaluate(number, source)
    show_figures()
    data = None
    if value is not None:
        names["_"] = value
        data = represent(value)
    flush()
    return answer(number, "result", data)


def fail(number, error):
    if is_child:
        complain(error)
        end(1)
    for finish in (show_figures, flush):
        try:
            zone(finish)
        except BaseException:
            pass
    try:
        return zone(describe, number, error)
    except BaseException:
        # Interrupted again, out of memory, or the cell left no room to recurse.
        sys.setrecursionlimit(1000)
        data = {"name": name_of(type(error)), "value": "", "traceback": "[could not be made]"}
        return as_line({"id": number, "error": data})


def describe(number, error):
    if isinstance(error, SyntaxError) and error.text is None and error.filename == f"<cell {number}>":
        # The compiler's later stages look for the line in a file.
        error.text = linecache.getline(error.filename, error.lineno or 0) or None
    trim(error)
    try:
        value = exact(str(error))
    except Exception as failure:
        value = f"<str failed: {brief(failure)}>"
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    data = {"name": name_of(type(error)), "value": cut(value, MAX_TEXT // 16), "traceback": cut(text, MAX_TEXT)}
    return as_line({"id": number, "error": data})


def trim(error):
    """Takes the driver's frames out of the tracebacks of an exception and those chained to it."""
    group = __builtins__.get("BaseExceptionGroup", ())
    seen = set()
    todo = [error]
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        todo += error.__cause__, error.__context__
        if isinstance(error, group):
            todo += error.exceptions
        steps = []
        step = error.__traceback__
        while step is not None:
            steps.append(step)
            step = step.tb_next
        if steps and is_own(steps[0]):
            # With top-level await, the event loop's frames come before the cell's.
            first = next((i for i, step in enumerate(steps) if is_of_cell(step)), 0)
            del steps[:first]
        rest = None
        for step in reversed(steps):
            if not is_own(step):
                rest = types.TracebackType(rest, step.tb_frame, step.tb_lasti, step.tb_lineno)
        error.__traceback__ = rest


def is_own(step):
    return step.tb_frame.f_globals is globals()


def is_of_cell(step):
    return step.tb_frame.f_code.co_filename.startswith("<cell ")


# Representations


def represent(value):
    """What a value looks like, by MIME type. A representation that fails becomes a note in the plain text."""
    kind = type(value)
    data, notes = {}, []
    if kind not in PLAIN:
        attempt(value, "_repr_mimebundle_", lambda bundle: add_all(data, notes, bundle), notes, True)
        for name, mime in METHODS:
            if mime not in data:
                attempt(value, name, lambda found: add(data, notes, mime, found), notes, False)
    if "text/plain" not in data:
        try:
            data["text/plain"] = exact(repr(value))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            data["text/plain"] = f"<{name_of(kind)} whose repr failed: {brief(error)}>"
    if notes:
        data["text/plain"] = with_notes(data["text/plain"], notes)
    return data


def attempt(value, name, take, notes, is_bundle):
    """Calls one method of a value. The class must have it: mocks and proxies answer to any name."""
    try:
        if not hasattr(type(value), name):
            return
        method = getattr(value, name)
        found = method(include=None, exclude=None) if is_bundle else method()
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict):
            found = found[0]  # The rest are hints for notebooks.
        if found is not None:
            take(found)
    except KeyboardInterrupt:
        raise
    except NotImplementedError:
        pass
    except BaseException as error:
        notes.append(f"[{name} failed: {brief(error)}]")


def add_all(data, notes, bundle):
    for mime, found in dict(bundle).items():
        if isinstance(mime, str) and len(mime) <= MAX_MIME_LENGTH and len(data) < MAX_MIMES:
            if found is not None:
                add(data, notes, exact(mime), found)
        else:
            notes.append("[a representation left out: its type is no text, too long, or one too many]")


def add(data, notes, mime, found):
    if mime == "application/json" or mime.endswith("+json"):
        try:
            data[mime] = decode(encode(found))
        except (TypeError, ValueError, RecursionError) as error:
            notes.append(f"[{mime} left out: {brief(error)}]")
    elif isinstance(found, str):
        data[mime] = exact(found)
    elif isinstance(found, (bytes, bytearray, memoryview)):
        if mime.startswith("text/") or mime.endswith("+xml"):
            data[mime] = str(found, "utf-8", "replace")
        else:
            data[mime] = base64_of(found)
    else:
        notes.append(f"[{mime} left out: a {name_of(type(found))} is neither text nor bytes]")


def base64_of(content):
    return str(binascii.b2a_base64(content, newline=False), "ascii")


def exact(text):
    """The same text as a plain str, whatever its class makes of it."""
    return text if type(text) is str else "".join((text, ""))


def name_of(kind):
    return type.__dict__["__name__"].__get__(kind)


def brief(error):
    try:
        text = exact(str(error))
    except Exception:
        text = ""
    return f"{name_of(type(error))}: {cut(text, 1000)}" if text else name_of(type(error))


def show(data):
    global interrupted
    if is_child:
        print(data["text/plain"])
        return
    flush()
    send(answer(current, "display", data))
    if interrupted:
        interrupted = False
        raise KeyboardInterrupt


def show_figures():
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        for number in pyplot.get_fignums():
            show(draw(pyplot.figure(number)))
        pyplot.close("all")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        show({"text/plain": f"[figures left out: {brief(error)}]"})


def draw(figure):
    try:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight")
        return {"image/png": base64_of(picture.getbuffer()), "text/plain": exact(repr(figure))}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {"text/plain": f"[a figure left out: {brief(error)}]"}


# What cells can use


def display(*objects):
    """Shows each object now, as the value of a cell would be shown at its end.

    An object may have richer forms than its repr. They come from methods of its class:
    _repr_html_, _repr_svg_, _repr_png_, _repr_jpeg_, _repr_json_, _repr_markdown_, _repr_latex_,
    or several at once from _repr_mimebundle_.
    """
    for item in objects:
        show(represent(item))


def on_fork(hook):
    """Has a callable called in each copy of this sandbox, before anything else runs there.

    Use it for what two copies must not share: random generators of your own, connections, names of files.
    The modules random, numpy.random, uuid, tempfile and ssl are seen to. Can be used as a decorator.
    """
    if not callable(hook):
        raise TypeError("on_fork takes a callable")
    fork_hooks.append(hook)
    return hook


def offer_module():
    module = types.ModuleType("luminaguard", "What LuminaGuard offers to code that runs in a context.")
    module.__all__ = ["display", "on_fork"]
    for function in (display, on_fork):
        function.__module__ = "luminaguard"
        setattr(module, function.__name__, function)
    sys.modules["luminaguard"] = module


# The loop


def handle(line):
    try:
        request = decode(str(line, "utf-8"))
    except Exception as error:
        return refuse(f"not a line of JSON: {brief(error)}")
    if type(request) is not dict:
        return refuse("not a JSON object")
    if request.get("fork") is True:
        return on_vm_fork()
    number, source = request.get("id"), request.get("cell")
    if type(number) is not int or not 0 <= number < 1 << 64 or type(source) is not str:
        return refuse("neither a cell with its id nor a fork")
    run_cell(number, source)


def serve():
    while True:
        try:
            line = next_line()
        except OSError:
            end(1)
        if line is None:
            end(0)
        handle(line)


def warm():
    """Runs cells through everything above, and writes nothing: pages and caches are then as later cells need them."""
    global write, readinto, future_flags
    really = write, readinto
    write = lambda descriptor, line: len(line)
    for source in (*["6*7"] * 20, "x = 1\nx", "print(end='')", "1 +", "return", "1/0", "display(object())"):
        line = encode({"id": 0, "cell": source}).encode() + b"\n"

        def readinto(into):
            into[: len(line)] = line
            return len(line)

        handle(next_line())
    write, readinto = really
    # Since 3.13 the source of `-c` is there too, and would be shown as the lines of a cell's exec().
    for name in "<cell 0>", "<string>":
        linecache.cache.pop(name, None)
    for name in "x", "_":
        names.pop(name, None)


output = open_stream("stdout", 1)
complaints = open_stream("stderr", 2)
if sys.stdin is None:
    sys.stdin = io.StringIO()
for descriptor in REQUESTS, ANSWERS:
    os.set_inheritable(descriptor, False)
os.environ.setdefault("MPLBACKEND", "Agg")
signal.signal(signal.SIGINT, on_interrupt)
signal.signal(signal.SIGCONT, on_continue)
os.register_at_fork(after_in_child=on_process_fork)
offer_module()
sys.argv[:] = [""]
driver = sys.modules["__main__"]
main = sys.modules["__main__"] = types.ModuleType("__main__")
names = vars(main)
names["__builtins__"] = sys.modules["builtins"]
names["display"] = display
warm()
gc.collect()
gc.freeze()
send(as_line({"ready": True, "python": "%d.%d.%d" % sys.version_info[:3]}))
serve()
