//! The driver of code contexts, under this machine's own python3 and over pipes: everything but the micro-VM.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use lg_runtime::PYTHON_DRIVER;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_LINE_BYTES: usize = 8 << 20;

/// A driver at work.
struct Driver {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    stdout: File,
    stderr: File,
    next_id: u64,
    _dir: tempfile::TempDir,
}

/// What a cell answered.
#[derive(Debug)]
struct Answers {
    displays: Vec<Value>,
    /// `{"result": ...}` or `{"error": ...}`.
    last: Value,
}

impl Answers {
    fn text(&self) -> &str {
        self.last["result"]["text/plain"].as_str().unwrap_or_else(|| panic!("no text: {self:?}"))
    }

    fn error(&self) -> (&str, &str, &str) {
        let of = |key: &str| self.last["error"][key].as_str().unwrap_or_else(|| panic!("no error: {self:?}"));
        (of("name"), of("value"), of("traceback"))
    }

    fn is_interrupted(&self) -> bool {
        self.last["error"]["name"] == "KeyboardInterrupt"
    }
}

fn python() -> Option<&'static str> {
    let found = ["/usr/bin/python3", "python3"].into_iter().find(|python| runs(python));
    if found.is_none() {
        eprintln!("SKIPPED: there is no python3 on this machine");
    }
    found
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Driver {
    /// Starts a driver and waits until it is ready; none without a python3.
    fn start() -> Option<Self> {
        Self::start_under(&[])
    }

    fn start_under(tracer: &[&str]) -> Option<Self> {
        let mut driver = Self::start_raw(tracer, python()?);
        let ready: Value = serde_json::from_str(&driver.line().expect("the driver says ready")).unwrap();
        assert_eq!(ready["ready"], true, "{ready}");
        assert!(ready["python"].as_str().is_some_and(|version| version.starts_with("3.")), "{ready}");
        Some(driver)
    }

    fn start_raw(tracer: &[&str], python: &str) -> Self {
        // The shell gives descriptors their numbers: its input becomes 3, its output 4, two files 1 and 2.
        const PLUMBING: &str =
            r#"out=$1 err=$2; shift 2; exec 3<&0 4>&1 0</dev/null 1>"$out" 2>"$err"; exec "$@""#;
        let dir = tempfile::tempdir().unwrap();
        let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
        let (stdout, stderr) = (touch(&out), touch(&err));
        let mut child = Command::new("sh")
            .args(["-c", PLUMBING, "sh"])
            .args([&out, &err])
            .args(tracer)
            .args([python, "-c", PYTHON_DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, requests, answers, stdout, stderr, next_id: 1, _dir: dir }
    }

    fn send(&mut self, line: impl std::fmt::Display) {
        // At once: what a test counts depends on it.
        self.requests.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line of an answer; none at the end.
    fn line(&mut self) -> Option<String> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no answer; stderr: {}", self.printed_errors()),
        }
    }

    fn begin(&mut self, source: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({"id": id, "cell": source}));
        id
    }

    fn finish(&mut self, id: u64) -> Answers {
        let mut displays = Vec::new();
        loop {
            let Some(line) = self.line() else { panic!("the driver ended: {}", self.printed_errors()) };
            assert!(line.len() < MAX_LINE_BYTES, "{} bytes", line.len());
            let mut answer: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let members = answer.as_object_mut().unwrap();
            assert_eq!(members.remove("id"), Some(json!(id)), "{line}");
            assert_eq!(members.len(), 1, "{line}");
            match members.remove("display") {
                Some(data) => displays.push(data),
                None => return Answers { displays, last: answer },
            }
        }
    }

    fn cell(&mut self, source: &str) -> Answers {
        let id = self.begin(source);
        self.finish(id)
    }

    /// What was printed since the last time.
    fn printed(&mut self) -> String {
        rest_of(&mut self.stdout)
    }

    fn printed_errors(&mut self) -> String {
        rest_of(&mut self.stderr)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until a cell has printed a word, which says that it runs.
    fn await_printed(&mut self, word: &str) {
        let mut text = String::new();
        for _ in 0..PATIENCE.as_millis() {
            text += &self.printed();
            if text.contains(word) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{word} was not printed: {text}");
    }

    /// Asserts that nothing more is answered, and gives the status.
    fn ends(&mut self) -> ExitStatus {
        assert_eq!(self.line(), None);
        self.child.wait().unwrap()
    }

    fn works(&mut self, after: &str) {
        assert_eq!(self.cell("6*7").last, json!({"result": {"text/plain": "42"}}), "after {after}");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn touch(path: &Path) -> File {
    File::create(path).unwrap();
    File::open(path).unwrap()
}

fn rest_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn the_value_of_the_last_expression_is_the_result() {
    let Some(mut driver) = Driver::start() else { return };
    for (source, expected) in [
        ("6*7", Some("42")),
        ("x = 6\nx * 7", Some("42")),
        ("_ + 1", Some("43")),
        ("x = 7", None),
        ("None", None),
        ("_", Some("43")),
        ("", None),
        ("# only a comment", None),
        ("x; 8", Some("8")),
        ("if True: 9", None),
        ("'text'", Some("'text'")),
        ("'\u{1f40d}\\ud800'", Some("'\u{1f40d}\\ud800'")),
        ("'a string'\nx = 1", None),
        ("def f():\n    return x\nf()", Some("1")),
        ("x += 1\nf()", Some("2")),
        ("[y for y in range(3)]", Some("[0, 1, 2]")),
        ("__name__, f.__module__", Some("('__main__', '__main__')")),
        ("import sys; vars(sys.modules['__main__']) is globals()", Some("True")),
        ("type(1)", Some("<class 'int'>")),
        ("from __future__ import annotations", None),
        ("def g(a: Unknown): pass\ng.__annotations__", Some("{'a': 'Unknown'}")),
        ("import inspect\ninspect.getsource(g)", Some("'def g(a: Unknown): pass\\n'")),
        ("class C: pass\nimport pickle\ntype(pickle.loads(pickle.dumps(C()))) is C", Some("True")),
        ("import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int\nD(3)", Some("D(a=3)")),
        ("sys.argv", Some("['']")),
    ] {
        let answers = driver.cell(source);
        let expected = expected.map_or(Value::Null, |text| json!({"text/plain": text}));
        assert_eq!(answers.last, json!({"result": expected}), "{source}");
        assert!(answers.displays.is_empty(), "{answers:?}");
    }
    // Warming up has left nothing.
    let names = driver.cell("sorted(name for name in dir() if not name.startswith('_'))");
    assert!(names.text().contains("'display'") && !names.text().contains("warm"), "{names:?}");
    assert_eq!((driver.printed(), driver.printed_errors()), (String::new(), String::new()));
}

#[test]
fn an_exception_is_an_error_with_its_lines_and_without_the_driver() {
    let Some(mut driver) = Driver::start() else { return };
    for (source, name, value, traceback) in [
        (
            "1/0",
            "ZeroDivisionError",
            "division by zero",
            &["Traceback (most recent call last):\n  File \"<cell 1>\", line 1, in <module>\n    1/0\n"][..],
        ),
        ("def f():\n    raise KeyError('k')\n", "", "", &[]),
        ("f()", "KeyError", "'k'", &["<cell 2>\", line 2, in f\n    raise KeyError('k')\n"]),
        (
            "try:\n    f()\nexcept KeyError as e:\n    raise ValueError('v') from e",
            "ValueError",
            "v",
            &["KeyError: 'k'\n\nThe above exception was the direct cause", "line 4", "ValueError: v\n"],
        ),
        (
            "try:\n    f()\nexcept KeyError:\n    1/0",
            "ZeroDivisionError",
            "division by zero",
            &["During handling"],
        ),
        (
            "1 +",
            "SyntaxError",
            "invalid syntax (<cell 6>, line 1)",
            &["  File \"<cell 6>\", line 1\n    1 +\n       ^\nSyntaxError: invalid syntax\n"],
        ),
        (
            "x = 5\nreturn x",
            "SyntaxError",
            "'return' outside function (<cell 7>, line 2)",
            &["    return x\n    ^"],
        ),
        ("if 1:\nx", "IndentationError", "expected an indented block", &["^"]),
        ("x = '\0'", "", "source code", &[]),
        (
            "async def g():\n    f()\nawait g()",
            "KeyError",
            "'k'",
            &["line 3, in <module>\n", "line 2, in g\n"],
        ),
        ("import json; json.loads('x')", "JSONDecodeError", "Expecting value", &["json/__init__.py"]),
        ("def r(): return r()\nr()", "RecursionError", "maximum recursion", &["Previous line repeated"]),
        ("raise GeneratorExit", "GeneratorExit", "", &["GeneratorExit\n"]),
        (
            "class E(Exception):\n  def __str__(s): 1/0\nraise E",
            "E",
            "<str failed: ZeroDivisionError",
            &["E: <"],
        ),
        ("class F(BaseException): pass\nraise F(1, 2)", "F", "(1, 2)", &[]),
        ("exec('1/0')", "ZeroDivisionError", "division by zero", &["File \"<string>\", line 1"]),
        ("e = ValueError(1); e.__cause__ = e; raise e", "ValueError", "1", &[]),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "", &[]),
        ("open('/nowhere/to/be/found')", "FileNotFoundError", "[Errno 2] No such file", &[]),
    ] {
        let answers = driver.cell(source);
        if source.starts_with("def f") {
            assert_eq!(answers.last, json!({"result": null}));
            continue;
        }
        let (found_name, found_value, found_traceback) = answers.error();
        assert!(found_name == name || name.is_empty(), "{source}: {answers:?}");
        assert!(found_value.starts_with(value), "{source}: {answers:?}");
        for part in traceback {
            assert!(found_traceback.contains(part), "{source}: no {part} in {found_traceback}");
        }
        for own in ["evaluate", "in zone", "run_coroutine", "succeed", "asyncio/base_events"] {
            assert!(!found_traceback.contains(own), "{source}: {own} in {found_traceback}");
        }
    }
    driver.works("errors");
}

#[test]
fn a_cell_with_a_syntax_error_runs_no_part() {
    let Some(mut driver) = Driver::start() else { return };
    assert_eq!(driver.cell("x = 1\nbreak").error().0, "SyntaxError");
    assert_eq!(driver.cell("x").error().0, "NameError");
}

#[test]
fn top_level_await_runs_in_one_loop() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import sys\nbefore = 'asyncio' in sys.modules");
    for (source, expected) in [
        ("before", "False"),
        ("import asyncio\nawait asyncio.sleep(0, 'slept')", "'slept'"),
        ("await asyncio.sleep(0)\nloop = asyncio.get_running_loop()\n1", "1"),
        ("await asyncio.sleep(0)\nasyncio.get_running_loop() is loop", "True"),
        ("asyncio.get_event_loop_policy().get_event_loop() is loop", "True"),
        ("async def f(): return 5\n[await f() for _ in range(2)]", "[5, 5]"),
        ("task = loop.create_task(f())\ntask.done()", "False"),
        ("await asyncio.sleep(0.01)\ntask.result()", "5"),
        ("async with asyncio.Lock() as l: n = 3\nn", "3"),
        ("asyncio.run(f())", "5"),
        ("await asyncio.sleep(0)\nx = 1", ""),
        ("loop.close()", ""),
        ("await f()", "5"),
    ] {
        let answers = driver.cell(source);
        let expected = if expected.is_empty() { Value::Null } else { json!({"text/plain": expected}) };
        assert_eq!(answers.last, json!({"result": expected}), "{source}");
    }
}

#[test]
fn exit_ends_the_interpreter_with_its_status() {
    for (source, status, out, err) in [
        ("exit()", 0, "", ""),
        ("print('part', end='')\nexit(3)", 3, "part", ""),
        ("import sys; sys.exit('a message')", 1, "", "a message\n"),
        ("raise SystemExit(263)", 7, "", ""),
        ("raise SystemExit(True)", 1, "", ""),
        ("quit(-1)", 255, "", ""),
        ("async def f(): raise SystemExit(4)\nawait f()", 4, "", ""),
        ("import atexit; atexit.register(print, 'bye'); exit(0)", 0, "bye\n", ""),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); exit(5)",
            5,
            "",
            "",
        ),
        ("import os; os._exit(6)", 6, "", ""),
    ] {
        let Some(mut driver) = Driver::start() else { return };
        driver.begin(source);
        assert_eq!(driver.ends().code(), Some(status), "{source}");
        assert_eq!((driver.printed().as_str(), driver.printed_errors().as_str()), (out, err), "{source}");
    }
}

#[test]
fn the_end_of_the_requests_ends_the_interpreter() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import threading, time, atexit; atexit.register(print, 'bye')");
    driver.cell("threading.Thread(target=time.sleep, args=(1000,)).start()");
    driver.requests = None;
    assert_eq!(driver.ends().code(), Some(0));
    assert_eq!(driver.printed(), "bye\n");
}

#[test]
fn an_interrupt_ends_the_cell_that_runs() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import time, asyncio, threading");
    for (source, remainder) in [
        ("print('run')\nwhile True: pass", ""),
        ("print('run')\ntime.sleep(1000)", ""),
        ("print('run')\nthreading.Event().wait()", ""),
        ("print('run')\nawait asyncio.sleep(1000)", ""),
        ("print('run')\nimport subprocess; subprocess.run(['sleep', '1000'])", ""),
        ("class R:\n  def __repr__(self):\n    print('run')\n    time.sleep(1000)\nR()", ""),
        ("class H:\n  def _repr_html_(self):\n    print('run')\n    time.sleep(1000)\ndisplay(H())", ""),
        ("class S(Exception):\n  def __str__(self):\n    print('run')\n    time.sleep(1000)\nraise S", "S"),
        (
            "async def t():\n  try:\n    print('run')\n    await asyncio.sleep(1000)\n  finally:\n    print('over')\nawait t()",
            "",
        ),
    ] {
        let id = driver.begin(source);
        driver.await_printed("run");
        // The word comes out just before the cell waits.
        std::thread::sleep(Duration::from_millis(20));
        driver.signal(Signal::INT);
        let answers = driver.finish(id);
        if remainder.is_empty() {
            assert!(answers.is_interrupted(), "{source}: {answers:?}");
            assert!(!answers.error().2.contains("on_interrupt"), "{source}: {answers:?}");
        } else {
            assert_eq!(answers.error().0, remainder, "{source}");
        }
        driver.works(source);
    }
    assert!(driver.printed().contains("over"));
}

#[test]
fn an_interrupt_between_cells_is_ignored() {
    let Some(mut driver) = Driver::start() else { return };
    for _ in 0..20 {
        driver.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(2));
        driver.works("an interrupt in between");
    }
}

#[test]
fn a_storm_of_interrupts_loses_no_answer() {
    let Some(mut driver) = Driver::start() else { return };
    let pid = Pid::from_child(&driver.child);
    let (stop, stopped) = channel::<()>();
    let storm = std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_micros(150)) {
            kill_process(pid, Signal::INT).unwrap();
        }
    });
    let mut interrupted = 0;
    for i in 0..400 {
        let answers = match i % 4 {
            0 => driver.cell("6*7"),
            1 => driver.cell("sum(range(2000))"),
            // More than a pipe holds, so the line is written in parts.
            2 => driver.cell("display('x' * 200_000)"),
            _ => driver.cell("1/0"),
        };
        interrupted += usize::from(answers.is_interrupted());
    }
    drop(stop);
    storm.join().unwrap();
    assert!(interrupted > 0, "no cell was hit");
    driver.works("the storm");
}

#[test]
fn objects_are_shown_in_all_their_forms() {
    let Some(mut driver) = Driver::start() else { return };
    for (body, expected) in [
        ("def _repr_html_(self): return '<b>'", json!({"text/html": "<b>"})),
        ("def _repr_svg_(self): return '<svg/>'", json!({"image/svg+xml": "<svg/>"})),
        ("def _repr_svg_(self): return b'<svg/>'", json!({"image/svg+xml": "<svg/>"})),
        ("def _repr_png_(self): return b'\\x89PNG'", json!({"image/png": "iVBORw=="})),
        ("def _repr_png_(self): return 'iVBORw=='", json!({"image/png": "iVBORw=="})),
        ("def _repr_jpeg_(self): return b'\\xff\\xd8', {'width': 3}", json!({"image/jpeg": "/9g="})),
        ("def _repr_markdown_(self): return '*m*'", json!({"text/markdown": "*m*"})),
        ("def _repr_latex_(self): return '$l$'", json!({"text/latex": "$l$"})),
        ("def _repr_json_(self): return {'a': [1, None]}", json!({"application/json": {"a": [1, null]}})),
        ("def _repr_json_(self): return 'text'", json!({"application/json": "text"})),
        ("def _repr_html_(self): return None", json!({})),
        ("def _repr_html_(self): raise NotImplementedError", json!({})),
        ("_repr_html_ = lambda self: '<i>'", json!({"text/html": "<i>"})),
        (
            "def _repr_mimebundle_(self, include=None, exclude=None): return {'text/html': 'h', 'text/plain': 'own'}",
            json!({"text/html": "h", "text/plain": "own"}),
        ),
        (
            "def _repr_mimebundle_(self, **_): return {'a/b': b'c', 'x/y+json': 1.5}, {}\n  def _repr_html_(self): return 'h'",
            json!({"a/b": "Yw==", "x/y+json": 1.5, "text/html": "h"}),
        ),
        (
            "class S(str):\n    def __len__(self): 1/0\n    __str__ = __len__\n  def _repr_html_(self): return self.S('<s>')",
            json!({"text/html": "<s>"}),
        ),
    ] {
        let mut expected = expected;
        if expected.get("text/plain").is_none() {
            expected["text/plain"] = json!("plain");
        }
        let source = format!("class C:\n  def __repr__(self): return 'plain'\n  {body}\nc = C()\nc");
        assert_eq!(driver.cell(&source).last, json!({"result": expected}), "{source}");
        let answers = driver.cell("display(c, 1)\ndisplay(2)");
        assert_eq!(answers.displays, [expected, json!({"text/plain": "1"}), json!({"text/plain": "2"})]);
        assert_eq!(answers.last, json!({"result": null}));
    }
    let answers = driver.cell("import unittest.mock\nunittest.mock.MagicMock()");
    assert_eq!(answers.last["result"].as_object().map(|data| data.len()), Some(1), "{answers:?}");
    assert_eq!(driver.cell("import luminaguard\nluminaguard.display is display").text(), "True");
    assert_eq!(driver.cell("C").text(), "<class '__main__.C'>");
}

#[test]
fn a_representation_that_fails_becomes_text() {
    let Some(mut driver) = Driver::start() else { return };
    for (body, expected) in [
        ("def __repr__(self): 1/0", "<C whose repr failed: ZeroDivisionError: division by zero>"),
        ("def __repr__(self): raise SystemExit(1)", "<C whose repr failed: SystemExit: 1>"),
        ("def __repr__(self): return 5", "<C whose repr failed: TypeError: "),
        ("def __repr__(self): return repr(self)", "<C whose repr failed: RecursionError: "),
        ("def _repr_html_(self): 1/0", "plain\n[_repr_html_ failed: ZeroDivisionError: division by zero]"),
        ("def _repr_html_(self): exit()", "plain\n[_repr_html_ failed: SystemExit"),
        ("_repr_html_ = 5", "plain\n[_repr_html_ failed: TypeError"),
        ("def _repr_html_(self): return object()", "plain\n[text/html left out: a object is neither"),
        ("def _repr_json_(self): return float('nan')", "plain\n[application/json left out: ValueError"),
        ("def _repr_json_(self): return object()", "plain\n[application/json left out: TypeError"),
        (
            "def _repr_json_(self):\n    a = []; a.append(a); return a",
            "plain\n[application/json left out: RecursionError",
        ),
        ("def _repr_mimebundle_(self): return {}", "plain\n[_repr_mimebundle_ failed: TypeError"),
        ("def _repr_mimebundle_(self, **_): return 5", "plain\n[_repr_mimebundle_ failed: TypeError"),
        ("def _repr_mimebundle_(self, **_): return {5: ''}", "plain\n[a representation left out"),
    ] {
        let source = format!("class B:\n  def __repr__(self): return 'plain'\nclass C(B):\n  {body}\nC()");
        let answers = driver.cell(&source);
        assert!(answers.text().starts_with(expected), "{source}: {answers:?}");
        assert_eq!(answers.last["result"].as_object().map(|data| data.len()), Some(1), "{answers:?}");
    }
    let many = "class M:\n  def _repr_mimebundle_(self, **_): return {f'a/{i}': '' for i in range(100)}\nM()";
    assert!(driver.cell(many).last["result"].as_object().is_some_and(|data| data.len() <= 64));
    driver.works("failing representations");
}

#[test]
fn open_figures_are_shown_at_the_end_of_the_cell() {
    let Some(mut driver) = Driver::start() else { return };
    // A stand-in with what the driver uses of matplotlib.
    let stand_in = r#"
import sys, types, os
class Figure:
    def __init__(self, number): self.number = number
    def __repr__(self): return f'<figure {self.number}>'
    def savefig(self, file, format, bbox_inches):
        if self.number == 2: raise ValueError('too thin')
        file.write(b'\x89PNG')
pyplot = types.ModuleType('matplotlib.pyplot')
pyplot.open = {}
pyplot.get_fignums = lambda: sorted(pyplot.open)
pyplot.figure = lambda number: pyplot.open.setdefault(number, Figure(number))
pyplot.close = lambda what: pyplot.open.clear()
sys.modules['matplotlib.pyplot'] = pyplot
os.environ['MPLBACKEND']
"#;
    assert_eq!(driver.cell(stand_in).text(), "'Agg'");
    let shown = [
        json!({"image/png": "iVBORw==", "text/plain": "<figure 1>"}),
        json!({"text/plain": "[a figure left out: ValueError: too thin]"}),
    ];
    assert_eq!(driver.cell("f = pyplot.figure(1); pyplot.figure(2); 0").displays, shown);
    assert!(driver.cell("0").displays.is_empty());
    let failed = driver.cell("f = pyplot.figure(1); 1/0");
    assert_eq!((&failed.displays[..], failed.error().0), (&shown[..1], "ZeroDivisionError"));
    let broken = driver.cell("pyplot.get_fignums = None\n1");
    assert!(broken.displays[0]["text/plain"].as_str().unwrap().starts_with("[figures left out: TypeError"));
    driver.works("figures");
}

#[test]
fn what_is_too_large_for_a_line_is_left_out_with_a_note() {
    let Some(mut driver) = Driver::start() else { return };
    // `finish` checks the length of every line.
    driver.cell(
        "class L:\n  def __init__(self, plain, **data): self.plain, self.data = plain, data\n  \
         def __repr__(self): return self.plain\n  \
         def _repr_mimebundle_(self, **_): return {f'image/{k}': v for k, v in self.data.items()}",
    );
    let answers = driver.cell("'x' * 20_000_000");
    let text = answers.text();
    assert!(
        text.starts_with("'xxx") && text.ends_with("xxx'") && text.contains("20000002 characters left out")
    );
    let (name, value, traceback) = ("ValueError", "\0\0", "\0\nValueError");
    let answers = driver.cell("raise ValueError('\\0' * 20_000_000)");
    let error = answers.error();
    assert!(error.0 == name && error.1.starts_with(value) && error.1.contains("left out"));
    assert!(!error.2.contains(traceback) && error.2.contains("characters left out"));

    for (source, text, kept) in [
        ("L('plain', png=b'x' * 5_000_000)", "plain", &["image/png"][..]),
        ("L('plain', png=b'x' * 7_000_000)", "plain\n[image/png left out: 9333339 bytes are too many]", &[]),
        (
            "L('plain', a='y' * 6_000_000, b='y' * 5_000_000, c='z')",
            "plain\n[image/a left out: 6000003 bytes are too many]",
            &["image/b", "image/c"],
        ),
        ("L('p' * 8_000_000, a='y' * 5_000_000)", "ppp", &["image/a"]),
        ("L('\\0' * 8_000_000, a='y' * 5_000_000)", "\0", &[]),
    ] {
        for answer in [
            driver.cell(source).last["result"].clone(),
            driver.cell(&format!("display({source})")).displays[0].clone(),
        ] {
            let mut data = answer.as_object().unwrap().clone();
            let shown = data.remove("text/plain").unwrap();
            assert!(shown.as_str().unwrap().starts_with(text), "{source}: {shown:.100}");
            assert_eq!(data.keys().collect::<Vec<_>>(), kept, "{source}");
        }
    }
}

#[test]
fn output_is_flushed_before_the_answer() {
    let Some(mut driver) = Driver::start() else { return };
    for (source, out, err) in [
        ("print('line')", "line\n", ""),
        ("print('part', end='')", "part", ""),
        ("import sys; n = sys.stderr.write('part')", "", "part"),
        ("print('before'); 1/0", "before\n", ""),
        ("n = sys.stdout.buffer.write(b'\\xff\\n')", "\u{fffd}\n", ""),
        ("print('\u{1f40d}', '\\udcff')", "\u{1f40d} \u{fffd}\n", ""),
        ("print('\\ud800', file=sys.stderr)", "", "\\ud800\n"),
        ("import os; n = os.system('echo from a child')", "from a child\n", ""),
        ("import warnings; warnings.warn('careful')", "", "<cell 9>:1: UserWarning: careful"),
    ] {
        let answers = driver.cell(source);
        assert_eq!(driver.printed(), out, "{source}: {answers:?}");
        let found = driver.printed_errors();
        assert!(found.starts_with(err) && found.is_empty() == err.is_empty(), "{source}: {found}");
    }
    // A line is written when it is whole, and everything before something is shown.
    let id = driver.begin(
        "print('now'); print('not yet', end=''); display(1); print('later'); import time; time.sleep(1000)",
    );
    driver.await_printed("later");
    driver.signal(Signal::INT);
    assert!(driver.finish(id).is_interrupted());
}

#[test]
fn there_is_no_input() {
    let Some(mut driver) = Driver::start() else { return };
    assert_eq!(driver.cell("input('name? ')").error().0, "EOFError");
    assert_eq!(driver.printed(), "name? ");
    assert_eq!(driver.cell("import sys; sys.stdin.read()").text(), "''");
}

#[test]
fn cells_do_not_confuse_the_driver() {
    for source in [
        "import os; os.close(1); os.close(2)",
        "import os; os.closerange(0, 3); print('lost')",
        "import os, sys; print('part', end=''); os.close(1); sys.stdout.flush()",
        "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 1); print(1)",
        "import os; os.dup2(1, 2); os.dup2(2, 0)",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; del sys.stdout, sys.stderr",
        "import sys, io; sys.stdout = io.StringIO(); print(1)",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "class X:\n  def __getattr__(self, name): raise SystemExit\nimport sys; sys.stdout = sys.stderr = X()",
        "import builtins\nfor name in 'len str type isinstance bool dict eval compile globals print'.split(): delattr(builtins, name)",
        "import os, json; os.write = os.read = json.dumps = json.loads = None",
        "import sys; sys.modules.clear()",
        "import sys; sys.setrecursionlimit(12)",
        "import traceback, linecache; traceback.format_exception = None; linecache.cache.clear(); 1/0",
        "globals().clear()",
        "import sys; sys.excepthook = sys.displayhook = None",
        "import threading\nfor _ in range(20): threading.Thread(target=threading.Event().wait).start()",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "import gc, sys\ndisplay = None\nfor o in gc.get_objects():\n  if type(o) is dict and o.get('zone'): o",
        "class E(Exception):\n  def __setattr__(self, *_): 1/0\n  __cause__ = 5\nraise E",
        "class M(type):\n  def __getattribute__(self, name): raise SystemExit\nclass E(metaclass=M): pass\nE",
        "class M(type):\n  def __getattribute__(self, name): raise SystemExit\nclass E(metaclass=M): pass\nE()",
        "class D:\n  def __del__(self): raise SystemExit(1)\nD()",
        "import asyncio; asyncio.set_event_loop(None)",
        "sys = __import__('sys'); sys.settrace(lambda *_: None)",
        "import os; os.chdir('/'); os.environ.clear()",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))",
        "0 if 1 else (yield)",
        "'\\ud800'",
        "raise ValueError('\\ud800')",
        "x = '\u{0}'",
    ] {
        let Some(mut driver) = Driver::start() else { return };
        driver.cell(source);
        driver.works(source);
        driver.cell("1/0");
        driver.cell("await __import__('asyncio').sleep(0)");
        driver.works(source);
        driver.requests = None;
        assert_eq!(driver.ends().code(), Some(0), "{source}");
    }
}

#[test]
fn a_closed_stream_is_opened_again() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import sys; sys.stdout.close()");
    driver.cell("print('back')");
    assert_eq!(driver.printed(), "back\n");
}

#[test]
fn threads_that_display_leave_lines_whole() {
    let Some(mut driver) = Driver::start() else { return };
    let answers = driver.cell(
        "import threading\n\
         def f(letter):\n  for n in range(20): display(letter * 100_000)\n\
         threads = [threading.Thread(target=f, args=(letter,)) for letter in 'abcd']\n\
         for t in threads: t.start()\n\
         for t in threads: t.join()\n",
    );
    assert_eq!(answers.last, json!({"result": null}));
    let mut firsts: Vec<char> = answers
        .displays
        .iter()
        .map(|data| data["text/plain"].as_str().unwrap().chars().nth(1).unwrap())
        .collect();
    firsts.sort_unstable();
    firsts.chunks(20).zip(['a', 'b', 'c', 'd']).for_each(|(found, letter)| assert_eq!(found, [letter; 20]));
    assert_eq!(firsts.len(), 80);
}

#[test]
fn a_forked_child_ends_with_the_cell() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import os, sys\ndef wait(): return os.waitstatus_to_exitcode(os.wait()[1])");
    for (source, status, out, err) in [
        ("if os.fork() == 0: x = 1\nelse: status = wait()", "0", "", ""),
        (
            "if os.fork() == 0: display('child'); print('part', end='')\nelse: status = wait()",
            "0",
            "'child'\npart",
            "",
        ),
        ("if os.fork() == 0: 1/0\nelse: status = wait()", "1", "", "ZeroDivisionError: division by zero"),
        ("if os.fork() == 0: exit(9)\nelse: status = wait()", "9", "", ""),
        ("if os.fork() == 0:\n  os.fork() and wait()\nelse: status = wait()", "0", "", ""),
        (
            "from multiprocessing import get_context\nwith get_context('fork').Pool(2) as p: status = sum(p.map(abs, [-1, 2]))",
            "3",
            "",
            "",
        ),
        ("import subprocess\nstatus = subprocess.run(['sh', '-c', 'exit 4']).returncode", "4", "", ""),
    ] {
        let answers = driver.cell(source);
        assert_eq!(answers.last, json!({"result": null}), "{source}");
        assert_eq!(driver.cell("status").text(), status, "{source}");
        assert_eq!(driver.printed(), out, "{source}");
        let found = driver.printed_errors();
        assert!(found.contains(err) && found.is_empty() == err.is_empty(), "{source}: {found}");
        assert!(!found.contains("in zone"), "{source}: {found}");
    }
    // A child that stays does not keep the answers open.
    driver.begin("if os.fork() == 0:\n  import time; time.sleep(5)\nelse: exit(2)");
    assert_eq!(driver.ends().code(), Some(2));
}

#[test]
fn processes_of_a_cell_do_not_inherit_the_pipes() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell("import subprocess, os");
    for (source, expected) in [
        (
            "subprocess.run('ls /proc/$$/fd', shell=True, close_fds=False, capture_output=True, text=True).stdout",
            false,
        ),
        ("sorted(os.listdir('/proc/self/fd'))", true),
    ] {
        let answers = driver.cell(source);
        let found = answers.text();
        assert_eq!((found.contains('3'), found.contains('4')), (expected, expected), "{source}: {found}");
    }
}

#[test]
fn a_fork_of_the_vm_draws_fresh_randomness() {
    let Some(mut driver) = Driver::start() else { return };
    driver.cell(
        "import random, tempfile, uuid, luminaguard\nhooks = []\n\
         @luminaguard.on_fork\ndef hook(): hooks.append(random.random())\n\
         @luminaguard.on_fork\ndef bad(): 1/0",
    );
    for means in ["request", "signal"] {
        driver.cell("random.seed(1); names = tempfile._get_candidate_names(); uuid.getnode(); uuid.uuid1(); hooks.clear()");
        match means {
            "request" => driver.send(r#"{"fork":true}"#),
            _ => driver.signal(Signal::CONT),
        }
        let seeded = "0.13436424411240122";
        let answers = driver.cell(&format!(
            "len(hooks), hooks[0] != {seeded}, tempfile._get_candidate_names() is not names, uuid._node"
        ));
        assert_eq!(answers.text(), "(1, True, True, None)", "{means}");
        let complaint = driver.printed_errors();
        assert!(complaint.contains("in bad\n") && complaint.contains("ZeroDivisionError"), "{complaint}");
        assert!(!complaint.contains("on_vm_fork"), "{complaint}");
    }
    let id = driver.begin("print('run')\nwhile len(hooks) < 2: pass\nlen(hooks)");
    driver.await_printed("run");
    driver.signal(Signal::CONT);
    assert_eq!(driver.finish(id).text(), "2");
    assert_eq!(driver.cell("luminaguard.on_fork(5)").error().0, "TypeError");
}

#[test]
fn a_request_that_is_not_known_is_answered_without_an_id() {
    let Some(mut driver) = Driver::start() else { return };
    let deep = "[".repeat(100_000);
    for line in [
        "",
        "junk",
        "5",
        "[]",
        "{}",
        r#"{"id":1}"#,
        r#"{"cell":"1"}"#,
        r#"{"id":-1,"cell":"1"}"#,
        r#"{"id":true,"cell":"1"}"#,
        r#"{"id":18446744073709551616,"cell":"1"}"#,
        r#"{"id":1,"cell":2}"#,
        r#"{"fork":1}"#,
        "\u{feff}{}",
        &deep,
    ] {
        driver.send(line);
        let answer: Value = serde_json::from_str(&driver.line().unwrap()).unwrap();
        assert_eq!(answer["error"]["name"], "RequestError", "{line:.100}");
        assert_eq!(answer.as_object().map(|members| members.len()), Some(1), "{line:.100}: {answer}");
    }
    driver.requests.as_mut().unwrap().write_all(b"\xff\n").unwrap();
    assert!(driver.line().unwrap().contains("RequestError"));
    driver.works("bad requests");
}

#[test]
fn requests_come_in_any_pieces() {
    let Some(mut driver) = Driver::start() else { return };
    let long = format!("x = '{}'\nlen(x)", "y".repeat(3_000_000));
    assert_eq!(driver.cell(&long).text(), "3000000");
    let ids: Vec<u64> = (0..50)
        .map(|i| driver.begin(&format!("{i} + {}", "0".repeat(if i % 7 == 0 { 100_000 } else { 1 }))))
        .collect();
    for (i, id) in ids.into_iter().enumerate() {
        assert_eq!(driver.finish(id).text(), i.to_string());
    }
    let requests = driver.requests.as_mut().unwrap();
    for piece in [&b"{\"id\":9"[..], b"00,\"cell\"", b":\"1\"}\n{\"id\":901,\"cell\":\"2\"}", b"\n"] {
        requests.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((driver.finish(900).text(), driver.finish(901).text()), ("1", "2"));
}

#[test]
fn a_cell_that_writes_to_the_answers_is_for_the_host_to_notice() {
    let Some(mut driver) = Driver::start() else { return };
    let id = driver.begin("import os; n = os.write(4, b'garbage\\n')");
    assert_eq!(driver.line().as_deref(), Some("garbage"));
    driver.finish(id);
    driver.works("garbage");
    driver.begin("os.close(4)");
    assert_eq!(driver.ends().code(), Some(1));
}

#[test]
fn a_trivial_cell_costs_two_system_calls() {
    if !runs("strace") {
        eprintln!("SKIPPED: there is no strace on this machine");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let Some(python) = python() else { return };
    let mut driver = Driver::start_raw(&["strace", "-f", "-o", trace.to_str().unwrap()], python);
    if driver.line().is_none() {
        eprintln!("SKIPPED: strace may trace nothing here: {}", driver.printed_errors());
        return;
    }
    for source in ["6*7", "x = 1", "[i for i in range(10)]"] {
        for _ in 0..10 {
            driver.cell(source);
        }
    }
    driver.requests = None;
    driver.ends();
    let trace = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<&str> = trace
        .lines()
        .skip_while(|line| !line.contains("ready"))
        .skip(1)
        .take_while(|line| !line.contains("exit"))
        .filter_map(|line| line.split_whitespace().nth(1)?.split('(').next())
        .collect();
    let expected: Vec<&str> = ["read", "write"].into_iter().cycle().take(60).chain(["read"]).collect();
    assert_eq!(calls, expected, "{trace}");
}
