//! A tree search over the state of a running program:
//!
//! ```text
//! cargo run --release --example tree_search
//! ```
//!
//! Peg solitaire on a triangle of 15 holes: a peg jumps over another one, which is gone for good. The last peg standing wins.
//! The board lives in a Python interpreter in a sandbox, and nowhere else. The search knows what can be asked of it: which
//! moves there are, and how it looks after one. It cannot take a move back, and it cannot copy the board.
//!
//! Any search would have to: from every position it tries several moves. Without forks each program that is searched
//! needs an undo or a way to save and load all that it is: variables, files, processes. Or every attempt is played again from
//! the start. With forks a node of the search tree is a running sandbox, its children are `fork(n)` of it, and a
//! branch that leads nowhere is dropped. The search is a heap and a loop, and would be the same for any program.

#![forbid(unsafe_code)]

use std::collections::{BinaryHeap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lg_runtime::{Launcher, Sandbox, Template, TemplateSpec, WarmUp};
use serde::Deserialize;

/// The world: what a template has evaluated before it is forked. Only `look` and `jump` are for the search.
const WORLD: &str = r#"
import json
rows = [(row, column) for row in range(5) for column in range(row + 1)]
pegs = set(rows) - {(0, 0)}
steps = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)]

def moves():
    for row, column in sorted(pegs):
        for down, right in steps:
            over, to = (row + down, column + right), (row + 2 * down, column + 2 * right)
            if over in pegs and to in rows and to not in pegs:
                yield (row, column), over, to

def look():
    print(json.dumps({"pegs": len(pegs), "moves": len(list(moves())), "picture": picture()}), end="")

def jump(number):
    start, over, to = list(moves())[number]
    pegs.difference_update([start, over])
    pegs.add(to)
    with open("/tmp/history", "a") as history:
        print(*start, *to, file=history)

def picture():
    return "\n".join(" " * (4 - row) + " ".join("o" if (row, c) in pegs else "." for c in range(row + 1)) for row in range(5))
"#;

/// What the search sees of a position.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Seen {
    pegs: usize,
    moves: usize,
    picture: String,
}

/// A position: a sandbox in which it was played.
struct Node {
    sandbox: Sandbox,
    seen: Seen,
    path: Vec<usize>,
}

impl Node {
    /// The better, the more: few pegs first, then many moves.
    fn score(&self) -> (isize, usize) {
        (-self.seen.pegs.cast_signed(), self.seen.moves)
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score().cmp(&other.score())
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.score() == other.score()
    }
}

impl Eq for Node {}

/// Lets the program in a sandbox do something, and looks at it.
async fn play(sandbox: &mut Sandbox, code: &str) -> Result<Seen> {
    let cell = sandbox.context().context("no interpreter")?.evaluate(&format!("{code}\nlook()")).await?;
    cell.outcome?;
    Ok(serde_json::from_slice(&cell.stdout)?)
}

/// Best-first search. Answers the moves, and how long each fork took.
async fn search(template: &Template) -> Result<(Vec<usize>, Vec<Duration>)> {
    let mut sandbox = template.spawn().await?;
    let seen = play(&mut sandbox, "").await?;
    let mut frontier = BinaryHeap::from([Node { sandbox, seen, path: Vec::new() }]);
    let (mut known, mut latencies) = (HashSet::new(), Vec::new());
    while let Some(node) = frontier.pop() {
        if node.seen.pegs == 1 {
            return Ok((node.path, latencies));
        }
        let forks = node.sandbox.fork(node.seen.moves).await?;
        for (number, mut sandbox) in forks.into_iter().enumerate() {
            latencies.push(sandbox.spawn_latency());
            let seen = play(&mut sandbox, &format!("jump({number})")).await?;
            let is_dead_end = seen.moves == 0 && seen.pegs > 1;
            if !is_dead_end && known.insert(seen.picture.clone()) {
                let path = [&node.path[..], &[number]].concat();
                frontier.push(Node { sandbox, seen, path });
            } // Else the sandbox is dropped, and with it the branch.
        }
    }
    anyhow::bail!("there is no solution")
}

async fn run() -> Result<()> {
    // This very program is the vmm of its sandboxes, see `main`.
    let spec = TemplateSpec::new("solitaire", WarmUp::Python { cell: Some(WORLD.to_owned()) });
    let template = Template::build(&spec, &Launcher::current_exe()).await?;
    let started = Instant::now();
    let (path, mut latencies) = search(&template).await?;
    let took = started.elapsed();
    latencies.sort_unstable();
    println!("{} forks in {took:.2?}, {:.2?} each (median)", latencies.len(), latencies[latencies.len() / 2]);

    // Played again from the start, in a fork that has seen nothing of the search.
    let mut sandbox = template.spawn().await?;
    let mut seen = play(&mut sandbox, "").await?;
    for number in &path {
        seen = play(&mut sandbox, &format!("jump({number})")).await?;
    }
    ensure!(seen.pegs == 1, "the solution leaves {} pegs", seen.pegs);
    let history = String::from_utf8(sandbox.files().read("/tmp/history").await?)?;
    println!("the solution, row and column from and to:\n{history}{}", seen.picture);
    sandbox.kill().await?;
    Ok(template.end().await?)
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("vmm") {
        return Ok(lg_vmm::serve_stdin()?);
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}
