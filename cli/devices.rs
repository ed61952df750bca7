//! `pard devices`: the adapters there are, and the one that would be used.

use std::process::ExitCode;

use clap::Args;
use pard::low_level::gpu::{AdapterReport, adapters};
use serde_json::{Value, json};

use crate::args::DeviceArguments;
use crate::output;

#[derive(Args)]
pub struct DevicesArguments {
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(arguments: &DevicesArguments) -> anyhow::Result<ExitCode> {
    let adapters = adapters(&arguments.device.query())?;
    if arguments.json {
        let list: Vec<Value> = adapters.iter().map(as_json).collect();
        output::print(&Value::from(list).to_string())?;
    } else {
        output::print(&adapters.iter().map(as_text).collect::<Vec<_>>().join("\n\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_text(adapter: &AdapterReport) -> String {
    let yes_no = |there: bool| if there { "yes" } else { "no" };
    let subgroups = match adapter.subgroups {
        None => "no".to_owned(),
        Some((narrowest, widest)) if narrowest == widest => format!("{widest} wide"),
        Some((narrowest, widest)) => format!("{narrowest} to {widest} wide"),
    };
    let matrices = match adapter.cooperative_matrices.is_empty() {
        true => "no".to_owned(),
        false => adapter.cooperative_matrices.join("; "),
    };
    let mut lines = vec![
        format!("{}: {}", adapter.index, adapter.name),
        format!("   backend               {}", adapter.backend),
        format!("   type                  {}", adapter.kind),
        format!("   driver                {}", adapter.driver),
        format!("   largest binding       {}", output::bytes(adapter.largest_binding)),
        format!("   largest buffer        {}", output::bytes(adapter.largest_buffer)),
        format!("   workgroup             {} invocations, {} bytes", adapter.workgroup_size, adapter.workgroup_memory),
        format!("   f16                   {}", yes_no(adapter.f16)),
        format!("   subgroups             {subgroups}"),
        format!("   cooperative matrices  {matrices}"),
        format!("   timestamps            {}", adapter.timestamps),
    ];
    if let Some(compiler) = &adapter.shader_compiler {
        lines.push(format!("   shader compiler       {compiler}"));
    }
    if adapter.chosen {
        lines.push(format!("   would be used: {}", adapter.reason));
    }
    lines.join("\n")
}

pub fn as_json(adapter: &AdapterReport) -> Value {
    json!({
        "index": adapter.index,
        "name": adapter.name,
        "backend": adapter.backend,
        "type": adapter.kind,
        "driver": adapter.driver,
        "largest_binding": adapter.largest_binding,
        "largest_buffer": adapter.largest_buffer,
        "workgroup_size": adapter.workgroup_size,
        "workgroup_memory": adapter.workgroup_memory,
        "f16": adapter.f16,
        "subgroups": adapter.subgroups,
        "cooperative_matrices": adapter.cooperative_matrices,
        "timestamps": adapter.timestamps,
        "shader_compiler": adapter.shader_compiler,
        "chosen": adapter.chosen,
        "reason": adapter.reason,
    })
}
