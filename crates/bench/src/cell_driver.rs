//! An agent whose interpreter is the code context of a sandbox that was forked from a warm template.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lg_runtime::{CellEvent, Context, ForkOptions, Limits, Report, Representation, Sandbox, Template};
use serde_json::{Value, json};

use crate::backend::{Answer, Tail, cell_source, shell_output};
use crate::scenario::call_tool;

/// What the template has evaluated: `tool` and `Answer`.
pub(crate) const PRELUDE: &str = include_str!("agent.py");

/// The type of a display that asks for a tool.
const TOOL_REQUEST: &str = "application/vnd.luminaguard.tool+json";

pub(crate) struct CellDriver {
    sandbox: Sandbox,
    context: Context,
    stderr: Tail,
    tool_calls: usize,
}

impl CellDriver {
    pub(crate) async fn start(template: &Template, deadline: Duration) -> Result<Self> {
        let limits = Limits { timeout: Some(deadline), ..Limits::default() };
        let mut sandbox = template.spawn_with(ForkOptions { limits, ..ForkOptions::default() }).await?;
        let context = sandbox.take_context().context("the template has no interpreter")?;
        Ok(Self { sandbox, context, stderr: Tail::default(), tool_calls: 0 })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.sandbox.vmm_pid()
    }

    pub(crate) fn fork_time(&self) -> Duration {
        self.sandbox.vmm_latency()
    }

    pub(crate) async fn shell(&mut self, script: &str) -> Result<Vec<u8>> {
        let output = self.sandbox.program(["sh", "-c", script]).output().await?;
        shell_output(output.status.is_success(), output.status, output.stdout, &output.stderr)
    }

    pub(crate) async fn operate(&mut self, cell: &str, measures: bool) -> Result<Answer> {
        let source = format!("result = None\n{}\nAnswer(result)", cell_source(cell, measures));
        let files = self.sandbox.files();
        let mut evaluation = self.context.start(&source).await?;
        while let Some(event) = evaluation.next().await {
            match event? {
                CellEvent::Stderr(bytes) => self.stderr.push(&bytes),
                CellEvent::Display(display) => {
                    let Some(request) = display.get(TOOL_REQUEST) else { continue };
                    let answer = answer_tool(request)?;
                    self.tool_calls += 1;
                    let path = format!("/tmp/.tool-{}", self.tool_calls);
                    // It is there as a whole or not at all: it is written between two turns of guest code.
                    files.write(path, answer.to_string().as_bytes()).await.context("answer of a tool")?;
                }
                CellEvent::Ended(outcome) => {
                    let value = outcome?.as_ref().and_then(Representation::json);
                    return Answer::of_cell(value.context("an answer without a value")?, measures);
                }
                _ => {}
            }
        }
        bail!("the cell did not end")
    }

    pub(crate) async fn end(mut self) -> Result<(Report, String)> {
        Ok((self.sandbox.kill().await?, self.stderr.text()))
    }
}

/// Calls the tool that a cell asks for.
fn answer_tool(request: &str) -> Result<Value> {
    let request: Value = serde_json::from_str(request).context("a request for a tool")?;
    let name = request.get("tool").and_then(Value::as_str).unwrap_or_default();
    let value = call_tool(name, request.get("argument").unwrap_or(&Value::Null));
    Ok(json!({ "value": value.with_context(|| format!("no such tool: {name:?}"))? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_a_tool_is_answered() {
        let argument = json!({ "item": 1 });
        let answer = answer_tool(&json!({ "tool": "price", "argument": argument }).to_string()).unwrap();
        assert_eq!(Some(&answer["value"]), call_tool("price", &argument).as_ref());
        assert!(answer_tool("{}").unwrap_err().to_string().contains("no such tool"));
        assert!(answer_tool("{").is_err());
    }
}
