//! The controller's program.

use clap::{Parser, Subcommand};
use controller_lite::inventory::command::{self, InventoryArgs};
use std::error::Error as _;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "controller-lite", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the VMs of a vCenter or an ESXi host
    Inventory(InventoryArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Inventory(args) = Cli::parse().command;
    match command::run(&args).await {
        // Whoever does not want to read the rest is no failure.
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let cause = error.source().map(|e| format!(": {e}")).unwrap_or_default();
            eprintln!("error: {error}{cause}");
            if let Some(advice) = error.advice() {
                eprintln!("try: {advice}");
            }
            ExitCode::FAILURE
        }
    }
}
