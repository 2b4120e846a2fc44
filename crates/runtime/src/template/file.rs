//! Templates as TOML files: [`TemplateSpec::from_file`], [`TemplateSpec::parse`], [`TemplateSpec::to_toml`].
//!
//! A key that is not known is an error, and each error about a value names its key. Every rule of
//! [`SandboxSpec`] is checked right after the key that could break it.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lg_control::{Access, Image, Mount, Runs, SandboxSpec, SpecError};
use toml::{Table, Value};

use super::{Ready, TemplateSpec, WarmUp};
use crate::units::{UnitError, format_duration, format_size, parse_duration, parse_size, parse_user};

/// The keys of each table, in the order in which they are written.
const KEYS: [&str; 15] = [
    "name",
    "image",
    "memory",
    "max-processes",
    "max-open-files",
    "file-bytes",
    "output-bytes",
    "timeout",
    "cpu-time",
    "hostname",
    "workdir",
    "user",
    "mount",
    "env",
    "warm-up",
];
const MOUNT_KEYS: [&str; 3] = ["source", "target", "access"];
const WARM_UP_KEYS: [&str; 4] = ["python", "command", "ready", "limit"];
const READY_KEYS: [&str; 2] = ["line", "file"];

const MAX_NAME_BYTES: usize = 64;

/// Why a text is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("line {line} is not TOML: {message}")]
    Syntax {
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A key that means nothing.
    #[error("unknown key `{key}`: did you mean `{nearest}`?")]
    UnknownKey {
        /// The key with the tables that it is in.
        key: String,
        /// The key that is most like it.
        nearest: String,
    },
    /// A key is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// The key, or the keys one of which must be there.
        key: String,
    },
    /// A value of another type.
    #[error("`{key}` is of type {found}: write {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What it must be.
        wanted: &'static str,
        /// The type of TOML that it has.
        found: &'static str,
    },
    /// A value that means nothing.
    #[error("`{key}` cannot be `{value}`: write {wanted}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A value that is not a size, a duration or a user.
    #[error("cannot use `{key}`")]
    Unit {
        /// The key.
        key: String,
        /// What is wrong with its value.
        #[source]
        source: UnitError,
    },
    /// A value that breaks a rule of sandboxes.
    #[error("cannot use `{key}`")]
    Rule {
        /// The key.
        key: String,
        /// The rule.
        #[source]
        source: SpecError,
    },
    /// Two keys that exclude each other.
    #[error("`{key}` does not go with `{other}`: leave one out")]
    Conflict {
        /// The one.
        key: String,
        /// The other.
        other: String,
    },
}

use TemplateFileError as Error;

impl TemplateSpec {
    /// Reads a template from a TOML file. Relative paths of the host in it are beneath the file's directory.
    ///
    /// # Errors
    /// See [`TemplateFileError`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TemplateFileError> {
        let path = path.as_ref();
        let read = || {
            let absolute = std::path::absolute(path)?;
            Ok((std::fs::read_to_string(&absolute)?, absolute))
        };
        let (text, absolute) = read().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        parse_beneath(&text, absolute.parent())
    }

    /// Reads a template from TOML.
    ///
    /// ```
    /// use lg_runtime::{TemplateSpec, WarmUp};
    ///
    /// let spec = TemplateSpec::parse(
    ///     r#"
    ///     name = "numbers"
    ///     memory = "256M"
    ///     timeout = "30s"
    ///
    ///     [env]
    ///     PYTHONHASHSEED = "0"
    ///
    ///     [warm-up]
    ///     python = "import statistics, fractions"
    ///     "#,
    /// )?;
    /// assert_eq!(spec.sandbox.memory_bytes, 256 << 20);
    /// assert!(matches!(spec.warm_up, WarmUp::Python { .. }));
    /// # Ok::<(), lg_runtime::TemplateFileError>(())
    /// ```
    ///
    /// | key | value | without it |
    /// |---|---|---|
    /// | `name` | 1 to 64 letters, digits, `-`, `_` or `.` | an error |
    /// | `image` | `"host"`, or `"dir:PATH"` | `"host"` |
    /// | `memory` | a size, as in `"512M"` | 512 MiB |
    /// | `max-processes`, `max-open-files` | a number | 512, 65536 |
    /// | `file-bytes`, `output-bytes` | a size | no limit |
    /// | `timeout`, `cpu-time` | a duration, as in `"30s"`; each fork has it for itself | no limit |
    /// | `hostname` | a name | `"luminaguard"` |
    /// | `workdir` | a directory of the guest, for every program | `"/"` |
    /// | `user` | `"UID"` or `"UID:GID"`, for every program | `"0:0"` |
    /// | `[[mount]]` | `source` on the host, `target` in the guest, `access` (`"ro"`, which may be left out, or `"rw"`) | none |
    /// | `[env]` | variables for every program, beside PATH, HOME, LANG and TERM | none more |
    /// | `[warm-up]` | see below | nothing runs |
    ///
    /// `[warm-up]` has either `python`, the source of a cell for a Python interpreter that the forks then have (it may be
    /// empty), or `command`, a list of a program and its arguments, with `ready`: `"exits"` (the default),
    /// `{ line = "part of a line of its output" }` or `{ file = "/path" }`. `limit` is how long it may take, 60 s without it.
    ///
    /// Sizes may also be numbers of bytes, and durations numbers of seconds.
    ///
    /// # Errors
    /// See [`TemplateFileError`].
    pub fn parse(text: &str) -> Result<Self, TemplateFileError> {
        parse_beneath(text, None)
    }

    /// Writes it as TOML that [`parse`](Self::parse) reads. Text that is not UTF-8 cannot be written so, and is changed.
    pub fn to_toml(&self) -> String {
        let sandbox = &self.sandbox;
        let mut out = String::new();
        let mut line = |key: &str, value: Value| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{key} = {value}");
        };
        line("name", self.name.as_str().into());
        line(
            "image",
            match &sandbox.image {
                Image::Host => "host".into(),
                Image::Dir(path) => format!("dir:{}", path.display()).into(),
            },
        );
        line("memory", format_size(sandbox.memory_bytes).into());
        line("max-processes", i64::from(sandbox.max_processes).into());
        line("max-open-files", i64::from(sandbox.max_open_files).into());
        for (key, bytes) in [("file-bytes", sandbox.file_bytes), ("output-bytes", sandbox.output_bytes)] {
            if let Some(bytes) = bytes {
                line(key, format_size(bytes).into());
            }
        }
        for (key, time) in [("timeout", sandbox.timeout), ("cpu-time", sandbox.cpu_time)] {
            if let Some(time) = time {
                line(key, format_duration(time).into());
            }
        }
        line("hostname", sandbox.hostname.as_str().into());
        line("workdir", lossy(sandbox.workdir.as_os_str()));
        line("user", format!("{}:{}", sandbox.user.uid, sandbox.user.gid).into());
        for mount in &sandbox.mounts {
            line("\n[[mount]]\nsource", lossy(mount.source.as_os_str()));
            line("target", lossy(mount.target.as_os_str()));
            line("access", if mount.access == Access::ReadOnly { "ro" } else { "rw" }.into());
        }
        out.push_str("\n[env]\n");
        for (name, value) in &sandbox.env {
            // As a table of one, for the sake of names that need quotes.
            let entry: Table = [(name.to_string_lossy().into_owned(), lossy(value))].into_iter().collect();
            out.push_str(&entry.to_string());
        }
        self.write_warm_up(&mut out);
        out
    }

    fn write_warm_up(&self, out: &mut String) {
        let mut warm_up = Table::new();
        match &self.warm_up {
            WarmUp::Nothing => return,
            WarmUp::Python { cell } => {
                warm_up.insert("python".to_owned(), cell.clone().unwrap_or_default().into());
            }
            WarmUp::Program { command, ready } => {
                warm_up.insert("command".to_owned(), command.clone().into());
                let one =
                    |key: &str, value: Value| Value::Table([(key.to_owned(), value)].into_iter().collect());
                let ready = match ready {
                    Ready::Exits => "exits".into(),
                    Ready::Line(text) => one("line", text.as_str().into()),
                    Ready::File(path) => one("file", lossy(path.as_os_str())),
                };
                warm_up.insert("ready".to_owned(), ready);
            }
        }
        warm_up.insert("limit".to_owned(), format_duration(self.warm_up_limit).into());
        out.push_str("\n[warm-up]\n");
        for key in WARM_UP_KEYS {
            if let Some(value) = warm_up.get(key) {
                let _ = writeln!(out, "{key} = {value}");
            }
        }
    }
}

fn lossy(text: &OsStr) -> Value {
    text.to_string_lossy().into_owned().into()
}

fn parse_beneath(text: &str, base: Option<&Path>) -> Result<TemplateSpec, Error> {
    let table = text.parse::<Table>().map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::Syntax { line, message: error.message().replace('\n', " ") }
    })?;
    let top = Section::new(String::new(), &table, &KEYS)?;
    let mut spec = TemplateSpec::new(name(&top)?, WarmUp::Nothing);
    let host_path = |path: &str| base.map_or_else(|| PathBuf::from(path), |base| base.join(path));
    read_sandbox(&top, &mut spec.sandbox, &host_path)?;
    read_mounts(&top, &mut spec.sandbox, &host_path)?;
    read_env(&top, &mut spec.sandbox)?;
    if let Some(section) = top.section("warm-up", &WARM_UP_KEYS)? {
        spec.warm_up = warm_up(&section)?;
        if let Some(limit) = section.duration("limit")? {
            if limit.is_zero() {
                return Err(section.rule("limit", SpecError::ZeroTimeout));
            }
            spec.warm_up_limit = limit;
        }
    }
    Ok(spec)
}

fn name(top: &Section<'_>) -> Result<String, Error> {
    let name = top.text("name")?.ok_or_else(|| Error::Missing { key: "name".to_owned() })?;
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if !fits || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(top.value("name", name, "1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    Ok(name.to_owned())
}

/// Reads everything but the tables.
fn read_sandbox(
    top: &Section<'_>,
    sandbox: &mut SandboxSpec,
    host_path: &dyn Fn(&str) -> PathBuf,
) -> Result<(), Error> {
    for key in KEYS {
        match key {
            "image" => match top.text(key)? {
                None | Some("host") => {}
                Some(text) => match text.strip_prefix("dir:").filter(|path| !path.is_empty()) {
                    Some(path) => sandbox.image = Image::Dir(host_path(path)),
                    None => return Err(top.value(key, text, "`host`, or `dir:PATH`")),
                },
            },
            "memory" => set(&mut sandbox.memory_bytes, top.size(key)?),
            "max-processes" => set(&mut sandbox.max_processes, top.count(key)?),
            "max-open-files" => set(&mut sandbox.max_open_files, top.count(key)?),
            "file-bytes" => sandbox.file_bytes = top.size(key)?,
            "output-bytes" => sandbox.output_bytes = top.size(key)?,
            "timeout" => sandbox.timeout = top.duration(key)?,
            "cpu-time" => sandbox.cpu_time = top.duration(key)?,
            "hostname" => set(&mut sandbox.hostname, top.text(key)?.map(str::to_owned)),
            "workdir" => set(&mut sandbox.workdir, top.text(key)?.map(PathBuf::from)),
            "user" => {
                let user = top.text(key)?.map(parse_user).transpose();
                set(&mut sandbox.user, user.map_err(|source| top.unit(key, source))?);
            }
            _ => continue,
        }
        sandbox.validate_with(Runs::Nothing).map_err(|source| top.rule(key, source))?;
    }
    Ok(())
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn read_mounts(
    top: &Section<'_>,
    sandbox: &mut SandboxSpec,
    host_path: &dyn Fn(&str) -> PathBuf,
) -> Result<(), Error> {
    let Some(mounts) = top.table.get("mount") else { return Ok(()) };
    let wanted = "one or more `[[mount]]`";
    let list = mounts.as_array().ok_or_else(|| top.wrong_type("mount", wanted, mounts))?;
    for (index, mount) in list.iter().enumerate() {
        let key = format!("mount[{}]", index + 1);
        let table = mount.as_table().ok_or_else(|| top.wrong_type(&key, wanted, mount))?;
        let section = Section::new(key.clone(), table, &MOUNT_KEYS)?;
        let path = |name| section.text(name)?.ok_or_else(|| Error::Missing { key: section.key(name) });
        let access = match section.text("access")? {
            None | Some("ro") => Access::ReadOnly,
            Some("rw") => Access::ReadWrite,
            Some(other) => return Err(section.value("access", other, "`ro` or `rw`")),
        };
        let (source, target) = (host_path(path("source")?), PathBuf::from(path("target")?));
        sandbox.mounts.push(Mount { source, target, access });
        sandbox.validate_with(Runs::Nothing).map_err(|source| Error::Rule { key, source })?;
    }
    Ok(())
}

fn read_env(top: &Section<'_>, sandbox: &mut SandboxSpec) -> Result<(), Error> {
    let Some(env) = top.table.get("env") else { return Ok(()) };
    let table = env.as_table().ok_or_else(|| top.wrong_type("env", "a table `[env]`", env))?;
    let section = Section { prefix: "env".to_owned(), table };
    for name in table.keys() {
        let value = section.text(name)?.unwrap_or_default();
        let alone = SandboxSpec::new([""; 0]).env(name, value);
        alone.validate_with(Runs::Nothing).map_err(|source| section.rule(name, source))?;
        match sandbox.env.iter_mut().find(|(known, _)| known.to_str() == Some(name)) {
            Some(entry) => entry.1 = value.into(),
            None => sandbox.env.push((name.into(), value.into())),
        }
    }
    sandbox.validate_with(Runs::Nothing).map_err(|source| top.rule("env", source))
}

fn warm_up(section: &Section<'_>) -> Result<WarmUp, Error> {
    let conflict = |key, other| Error::Conflict { key: section.key(key), other: section.key(other) };
    let python = section.text("python")?;
    let Some(command) = section.table.get("command") else {
        let Some(python) = python else {
            return Err(Error::Missing { key: "warm-up.python` or `warm-up.command".to_owned() });
        };
        if section.table.contains_key("ready") {
            return Err(conflict("ready", "python"));
        }
        return Ok(WarmUp::Python { cell: (!python.is_empty()).then(|| python.to_owned()) });
    };
    if python.is_some() {
        return Err(conflict("python", "command"));
    }
    let wanted = "a list of words, as in [\"make\", \"all\"]";
    let wrong = |found| section.wrong_type("command", wanted, found);
    let words = command.as_array().ok_or_else(|| wrong(command))?;
    let words: Result<Vec<String>, Error> =
        words.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(|| wrong(word))).collect();
    let command = words?;
    if command.first().is_none_or(String::is_empty) {
        return Err(section.value("command", "", wanted));
    }
    SandboxSpec::new(&command).validate().map_err(|source| section.rule("command", source))?;
    Ok(WarmUp::Program { command, ready: ready(section)? })
}

fn ready(section: &Section<'_>) -> Result<Ready, Error> {
    const WANTED: &str = "\"exits\", { line = \"...\" } or { file = \"/path\" }";
    let table = match section.table.get("ready") {
        None => return Ok(Ready::Exits),
        Some(Value::String(text)) if text == "exits" => return Ok(Ready::Exits),
        Some(Value::String(text)) => return Err(section.value("ready", text, WANTED)),
        Some(Value::Table(table)) => table,
        Some(other) => return Err(section.wrong_type("ready", WANTED, other)),
    };
    let ready = Section::new(section.key("ready"), table, &READY_KEYS)?;
    match (ready.text("line")?, ready.text("file")?) {
        (Some(line), None) => Ok(Ready::Line(line.to_owned())),
        (None, Some(file)) if file.starts_with('/') => Ok(Ready::File(file.into())),
        (None, Some(file)) => Err(ready.value("file", file, "an absolute path of the guest")),
        (Some(_), Some(_)) => Err(Error::Conflict { key: ready.key("line"), other: ready.key("file") }),
        (None, None) => Err(section.value("ready", "{}", WANTED)),
    }
}

/// A table, and what it is called.
struct Section<'t> {
    prefix: String,
    table: &'t Table,
}

impl<'t> Section<'t> {
    fn new(prefix: String, table: &'t Table, known: &[&str]) -> Result<Self, Error> {
        let section = Self { prefix, table };
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(section),
            Some(key) => {
                let nearest =
                    known.iter().min_by_key(|name| distance(key, name)).copied().unwrap_or_default();
                Err(Error::UnknownKey { key: section.key(key), nearest: section.key(nearest) })
            }
        }
    }

    fn section(&self, name: &str, known: &[&str]) -> Result<Option<Self>, Error> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::Table(table)) => Self::new(self.key(name), table, known).map(Some),
            Some(other) => Err(self.wrong_type(name, "a table", other)),
        }
    }

    /// The name of a key for people.
    fn key(&self, name: &str) -> String {
        // A stranger's key can be as long and strange as it likes.
        let name: String = name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
        if self.prefix.is_empty() { name } else { format!("{}.{name}", self.prefix) }
    }

    fn text(&self, name: &str) -> Result<Option<&'t str>, Error> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong_type(name, "text in quotes", value))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        match self.table.get(name) {
            Some(Value::Integer(bytes)) => {
                let wanted = "a size, as in \"512M\"";
                u64::try_from(*bytes).map(Some).map_err(|_| self.value(name, &bytes.to_string(), wanted))
            }
            Some(Value::String(text)) => parse_size(text).map(Some).map_err(|source| self.unit(name, source)),
            Some(other) => Err(self.wrong_type(name, "a size, as in \"512M\"", other)),
            None => Ok(None),
        }
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, Error> {
        let text = match self.table.get(name) {
            Some(Value::Integer(seconds)) => seconds.to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => return Err(self.wrong_type(name, "a duration, as in \"30s\"", other)),
            None => return Ok(None),
        };
        parse_duration(&text).map(Some).map_err(|source| self.unit(name, source))
    }

    fn count(&self, name: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let number = value.as_integer().ok_or_else(|| self.wrong_type(name, "a number", value))?;
        let wanted = "a number from 1 on, below 4294967296";
        u32::try_from(number).map(Some).map_err(|_| self.value(name, &number.to_string(), wanted))
    }

    fn wrong_type(&self, name: &str, wanted: &'static str, found: &Value) -> Error {
        Error::WrongType { key: self.key(name), wanted, found: found.type_str() }
    }

    fn value(&self, name: &str, value: &str, wanted: &'static str) -> Error {
        let value = value.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
        Error::Value { key: self.key(name), value, wanted }
    }

    fn unit(&self, name: &str, source: UnitError) -> Error {
        Error::Unit { key: self.key(name), source }
    }

    fn rule(&self, name: &str, source: SpecError) -> Error {
        Error::Rule { key: self.key(name), source }
    }
}

/// How many letters must be changed, put in or taken out to make the one of the other.
fn distance(key: &str, name: &str) -> usize {
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, letter) in key.chars().take(80).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in name.chars().enumerate() {
            let change = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[name.len()]
}

#[cfg(test)]
mod tests {
    use lg_control::User;
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = r#"
        name = "web"
        image = "dir:/srv/image"
        memory = "256M"
        max-processes = 40
        max-open-files = 100
        file-bytes = 1048576
        output-bytes = "2M"
        timeout = "1.5s"
        cpu-time = 10
        hostname = "box"
        workdir = "/srv"
        user = "1000:100"

        [[mount]]
        source = "/data"
        target = "/srv/data"

        [[mount]]
        source = "/out"
        target = "/srv/out"
        access = "rw"

        [env]
        LANG = "C"
        MODE = "test"

        [warm-up]
        command = ["python3", "serve.py"]
        ready = { line = "listening" }
        limit = "2m"
    "#;

    fn full() -> TemplateSpec {
        let mut sandbox = SandboxSpec::new([""; 0])
            .image(Image::Dir("/srv/image".into()))
            .memory_bytes(256 << 20)
            .max_processes(40)
            .max_open_files(100)
            .file_bytes(1 << 20)
            .output_bytes(2 << 20)
            .timeout(Duration::from_millis(1500))
            .cpu_time(Duration::from_secs(10))
            .hostname("box")
            .workdir("/srv")
            .mount("/data", "/srv/data", Access::ReadOnly)
            .mount("/out", "/srv/out", Access::ReadWrite)
            .env("LANG", "C")
            .env("MODE", "test");
        sandbox.user = User { uid: 1000, gid: 100 };
        let warm_up = WarmUp::Program {
            command: vec!["python3".to_owned(), "serve.py".to_owned()],
            ready: Ready::Line("listening".to_owned()),
        };
        let mut spec = TemplateSpec::new("web", warm_up);
        spec.sandbox = sandbox;
        spec.warm_up_limit = Duration::from_secs(120);
        spec
    }

    fn refused(text: &str) -> String {
        let error = TemplateSpec::parse(text).expect_err(text);
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    }

    #[test]
    fn every_key_becomes_a_part_of_the_spec() {
        assert_eq!(TemplateSpec::parse(FULL).unwrap(), full());
    }

    #[test]
    fn a_name_is_enough() {
        let spec = TemplateSpec::parse("name = \"x\"").unwrap();
        assert_eq!(spec, TemplateSpec::new("x", WarmUp::Nothing));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut file = full();
        file.warm_up = WarmUp::Program { command: vec!["a b".into()], ready: Ready::File("/x \"y\"".into()) };
        let mut exits = full();
        exits.warm_up = WarmUp::Program { command: vec!["make".into()], ready: Ready::Exits };
        let mut cell =
            TemplateSpec::new("cell", WarmUp::Python { cell: Some("x = '''\n\\n\"\"\"'''\n".into()) });
        cell.sandbox = cell.sandbox.env("odd name.1", "a\nb \"c\"");
        for spec in [full(), file, exits, cell, TemplateSpec::base(), TemplateSpec::python()] {
            let text = spec.to_toml();
            assert_eq!(TemplateSpec::parse(&text).map_err(|error| error.to_string()), Ok(spec), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let cases = [
            ("memroy = \"1G\"", "`memroy`: did you mean `memory`?"),
            ("max_processes = 1", "`max_processes`: did you mean `max-processes`?"),
            ("cpu-tme = 1", "`cpu-time`?"),
            ("warmup.python = \"\"", "`warmup`: did you mean `warm-up`?"),
            ("[warm-up]\npyhton = \"\"", "`warm-up.pyhton`: did you mean `warm-up.python`?"),
            ("[warm-up]\ncommand = [\"x\"]\nready.lines = \"\"", "`warm-up.ready.line`?"),
            ("[[mount]]\nsrc = \"/a\"", "`mount[1].src`: did you mean `mount[1].source`?"),
        ];
        for (line, part) in cases {
            let message = refused(&format!("name = \"x\"\n{line}"));
            assert!(message.starts_with("unknown key") && message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn every_other_error_names_its_key_and_what_to_write() {
        let cases = [
            ("memory = \"lots\"", "`memory`", "as in 512M"),
            ("memory = -1", "`memory`", "a size"),
            ("memory = true", "`memory` is of type boolean", "a size"),
            ("memory = \"1M\"", "`memory`", "at least 8M"),
            ("timeout = \"soon\"", "`timeout`", "as in 30s"),
            ("timeout = 0", "`timeout`", "positive"),
            ("cpu-time = [1]", "`cpu-time`", "a duration"),
            ("file-bytes = \"1Q\"", "`file-bytes`", "a size"),
            ("max-processes = 0", "`max-processes`", "give 1 to"),
            ("max-processes = 5000000000", "`max-processes`", "a number"),
            ("max-open-files = \"many\"", "`max-open-files`", "a number"),
            ("image = \"alpine\"", "`image`", "`dir:PATH`"),
            ("image = \"dir:srv\"", "`image`", "start it with /"),
            ("hostname = \"a b\"", "`hostname`", "letters, digits"),
            ("workdir = \"srv\"", "`workdir`", "start it with /"),
            ("user = \"root\"", "`user`", "not a user"),
            ("mount = 1", "`mount`", "[[mount]]"),
            ("[[mount]]\nsource = \"/a\"", "`mount[1].target`", "missing"),
            ("[[mount]]\nsource = \"/a\"\ntarget = \"b\"", "`mount[1]`", "start it with /"),
            ("[[mount]]\nsource = \"/a\"\ntarget = \"/b\"\naccess = \"rx\"", "`mount[1].access`", "`rw`"),
            ("[env]\nA = 1", "`env.A`", "in quotes"),
            ("[env]\n\"A=B\" = \"\"", "`env.A=B`", "NAME=VALUE"),
            ("[warm-up]", "`warm-up.python` or `warm-up.command`", "missing"),
            ("[warm-up]\npython = \"\"\ncommand = []", "`warm-up.python`", "does not go with"),
            ("[warm-up]\npython = \"\"\nready = \"exits\"", "`warm-up.ready`", "does not go with"),
            ("[warm-up]\ncommand = \"make\"", "`warm-up.command`", "a list"),
            ("[warm-up]\ncommand = []", "`warm-up.command`", "a list"),
            ("[warm-up]\ncommand = [\"x\"]\nready = \"soon\"", "`warm-up.ready`", "exits"),
            ("[warm-up]\ncommand = [\"x\"]\nready = {}", "`warm-up.ready`", "exits"),
            ("[warm-up]\ncommand = [\"x\"]\nready.file = \"x\"", "`warm-up.ready.file`", "absolute"),
            ("[warm-up]\npython = \"\"\nlimit = \"0s\"", "`warm-up.limit`", "positive"),
        ];
        for (line, key, part) in cases {
            let message = refused(&format!("name = \"x\"\n{line}"));
            assert!(message.contains(key) && message.contains(part), "{line}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
        assert!(refused("").contains("`name` is missing"));
        assert!(refused("name = \"a/b\"").contains("`name`"));
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let message = refused("name = \"x\"\n\nmemory = 512M\n");
        assert!(message.starts_with("line 3 ") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn relative_paths_of_the_host_are_beneath_the_files_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.toml");
        let text = "name = \"x\"\nimage = \"dir:root\"\n[[mount]]\nsource = \"data\"\ntarget = \"/data\"\n";
        std::fs::write(&path, text).unwrap();
        let spec = TemplateSpec::from_file(&path).unwrap();
        assert_eq!(spec.sandbox.image, Image::Dir(directory.path().join("root")));
        assert_eq!(spec.sandbox.mounts[0].source, directory.path().join("data"));
        let missing = directory.path().join("none.toml");
        let message = TemplateSpec::from_file(&missing).unwrap_err().to_string();
        assert_eq!(message, format!("cannot read {}", missing.display()));
    }

    fn pieces() -> impl Strategy<Value = String> {
        let keys = KEYS.iter().chain(&WARM_UP_KEYS).chain(&MOUNT_KEYS).chain(&READY_KEYS);
        let key = proptest::sample::select(keys.copied().collect::<Vec<_>>());
        let value = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            "[a-z0-9/:.]{0,8}".prop_map(|text| format!("\"{text}\"")),
            ".{0,12}",
            Just("[]".to_owned()),
            Just("{ line = \"x\" }".to_owned()),
            Just("[\"a\", \"b\"]".to_owned()),
        ];
        prop_oneof![
            6 => (key, value).prop_map(|(key, value)| format!("{key} = {value}\n")),
            1 => Just("[warm-up]\n".to_owned()),
            1 => Just("[[mount]]\n".to_owned()),
            1 => Just("[env]\n".to_owned()),
            1 => ".{0,20}\n",
        ]
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            let _ = TemplateSpec::parse(&text);
        }

        #[test]
        fn no_mixture_of_keys_and_values_makes_it_panic(pieces in proptest::collection::vec(pieces(), 0..12)) {
            let text = format!("name = \"x\"\n{}", pieces.concat());
            match TemplateSpec::parse(&text) {
                Ok(spec) => prop_assert_eq!(TemplateSpec::parse(&spec.to_toml()).unwrap(), spec),
                Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
            }
        }
    }
}
