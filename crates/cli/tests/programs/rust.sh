# Cargo and rustc, with their tool chain mounted read only: build and test a small crate.
# needs: gcc
# mount: TOOLCHAIN rustc --print sysroot

export PATH=$TOOLCHAIN/bin:$PATH CARGO_HOME=$HOME/cargo RUSTUP_HOME=$HOME/rustup CARGO_TERM_COLOR=never CARGO_NET_OFFLINE=true
mkdir -p small/src && cd small
cat >Cargo.toml <<'TOML'
[package]
name = "small"
version = "0.1.0"
edition = "2021"
TOML
cat >src/lib.rs <<'RUST'
//! Adds.

/// ```
/// assert_eq!(small::add(20, 22), 42);
/// ```
pub fn add(a: u32, b: u32) -> u32 {
    a + b
}

#[test]
fn threads_add() {
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || add(n, 1))).collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>(), 10);
}
RUST
echo 'fn main() { println!("{}", small::add(40, 2)); }' >src/main.rs
cargo build --quiet
./target/debug/small
cargo test --quiet 2>&1 | grep '^test result' | cut -d';' -f1,2
cargo build 2>&1 | grep -c Finished
rustc --version | cut -d' ' -f1
