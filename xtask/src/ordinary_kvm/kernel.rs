//! Finds a kernel with its KVM modules: one that is installed, or Debian's, downloaded but not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A kernel and where its modules are.
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// A module, ready to load.
pub struct Module {
    /// Its name, with dashes as underscores.
    pub name: String,
    /// The uncompressed file.
    pub contents: Vec<u8>,
}

/// Finds a kernel, downloading one into `work` if none is installed with readable modules.
pub fn find(work: &Path) -> anyhow::Result<Kernel> {
    if let Some(kernel) = kernel_under(Path::new("/")) {
        return Ok(kernel);
    }
    let unpacked = work.join("kernel");
    if let Some(kernel) = kernel_under(&unpacked) {
        return Ok(kernel);
    }
    download(work, &unpacked)?;
    kernel_under(&unpacked).context("the downloaded package holds no kernel with a kvm-amd module")
}

fn kernel_under(root: &Path) -> Option<Kernel> {
    let boot = std::fs::read_dir(root.join("boot")).ok()?;
    boot.filter_map(|entry| entry.ok()).find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name.strip_prefix("vmlinuz-")?;
        let modules = root.join("lib/modules").join(version).join("kernel");
        let readable = std::fs::File::open(entry.path()).is_ok();
        (readable && module_file(&modules, "kvm_amd").is_some())
            .then(|| Kernel { image: entry.path(), modules })
    })
}

fn download(work: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("linux-image-amd64 depends on no kernel: run apt-get update first")?;
    eprintln!("downloading {package}");
    let packages = work.join("packages");
    std::fs::create_dir_all(&packages)?;
    run(Command::new("apt-get").args(["download", package]).current_dir(&packages))?;
    let file = std::fs::read_dir(&packages)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    run(Command::new("dpkg-deb").arg("-x").arg(file).arg(unpacked))?;
    Ok(())
}

/// Returns a module after all that it needs, in the order to load them.
pub fn module_closure(modules: &Path, name: &str) -> anyhow::Result<Vec<Module>> {
    let mut loaded = Vec::new();
    add_module(modules, &name.replace('-', "_"), &mut loaded)?;
    Ok(loaded)
}

fn add_module(modules: &Path, name: &str, loaded: &mut Vec<Module>) -> anyhow::Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = module_file(modules, name).with_context(|| format!("the kernel has no module {name}"))?;
    let contents = read_module(&path)?;
    for needed in dependencies(&contents) {
        add_module(modules, &needed, loaded)?;
    }
    loaded.push(Module { name: name.to_owned(), contents });
    Ok(())
}

/// Finds a module's file; its name may be spelt with dashes, and it may be compressed.
fn module_file(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok()) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            } else if let Some(file) = path.file_name().and_then(|file| file.to_str())
                && file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
            {
                return Some(path);
            }
        }
    }
    None
}

fn read_module(path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return std::fs::read(path).with_context(|| format!("reading {}", path.display())),
    };
    let output =
        Command::new(program).arg("-dc").arg(path).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} can not unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// Reads the `depends=` line of a module's .modinfo section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
